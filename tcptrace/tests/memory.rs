//! What a million connections in TIME_WAIT cost, in a process of its own: its resident memory is
//! what is measured. No kernel is asked: the events are made here.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has to panic")]
#![expect(clippy::print_stdout, reason = "what a test measures is worth a line")]

use std::{fs, net::Ipv4Addr, time::Instant};

use tcptrace::{
    model::{
        Change, Comm, EndReason, Event, Input, Linger, Minisock, MinisockEvent, MinisocksBy,
        SnapSocket, Snapshot, SnapshotEnd, SockFacts, Task, TcpState, Transition, Tuple,
    },
    stats::{
        conns::{Conns, Until},
        counts::StateCounts,
        durations::{DEFAULT_LIMIT, Durations, Span, Spans},
    },
    track::{self, Counts, Tracker},
};

const CONNECTIONS: u64 = 1_000_000;

/// Resident memory that they may take.
const MOST_MIB: u64 = 250;

/// The same with what `conns` keeps of each as a whole.
const MOST_WITH_CONNS_MIB: u64 = 500;

const NETNS: u32 = 4_026_531_840;
const HZ: u64 = 1000;

/// One connection begins every so often.
const EVERY_NS: u64 = 10_000;

/// Connections that are open at a time.
const OPEN: u64 = 64;

/// Transitions of the full socket, and the birth of the minisock.
const EVENTS: usize = 6;

/// The tracker and what `hist`, `states` and, if it is to, `conns` make of its changes.
struct Host {
    tracker: Tracker,
    durations: Durations,
    counts: StateCounts,
    conns: Option<Conns>,
    /// Connections that `conns` told with what was before their close.
    told: u64,
}

impl Host {
    fn new(limit: usize) -> Self {
        let mut host = Self {
            tracker: Tracker::new(limit),
            durations: Durations::new(Spans::lingering(), None, DEFAULT_LIMIT),
            counts: StateCounts::default(),
            conns: None,
            told: 0,
        };
        host.feed(&Input::Begin {
            mono_ns: 0,
            hz: HZ as u32,
            minisocks: MinisocksBy::Hooks,
            resets: true,
        });
        host
    }

    fn feed(&mut self, input: &Input) {
        let Self { tracker, durations, counts, conns, told } = self;
        tracker.apply(input, &mut |change| {
            counts.change(&change);
            let ended = conns.as_mut().and_then(|conns| conns.change(&change));
            *told +=
                u64::from(ended.is_some_and(|one| one.times.of(TcpState::Established).is_some()));
            if let Change::Moved(moved) = &change {
                durations.add(moved);
            }
        });
        counts.input(input);
    }

    /// Opens and closes all connections from here, with a tick now and then, as the reader does.
    fn close_all(&mut self) {
        for number in 0..CONNECTIONS {
            for event in closed(number) {
                self.feed(&Input::Event(event));
            }
            if number % 1000 == 999 {
                self.feed(&Input::Tick { mono_ns: number * EVERY_NS });
            }
        }
    }

    /// Lets all timers run.
    fn expire_all(&mut self) {
        for number in 0..CONNECTIONS {
            let event = minisock(number, MinisockEvent::Expired, 60 * 1_000_000_000);
            self.feed(&Input::Event(event));
        }
    }

    fn in_time_wait(&self) -> u64 {
        self.counts.get(TcpState::TimeWait).unwrap().now
    }
}

fn begins_ns(number: u64) -> u64 {
    1 + number * EVERY_NS
}

fn cookie(number: u64) -> u64 {
    1 + number
}

fn tuple(number: u64) -> Tuple {
    let local = Ipv4Addr::from(0x0a00_0000 + (number / 50_000) as u32);
    Tuple {
        laddr: local.to_ipv6_mapped(),
        raddr: Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(),
        lport: 10_000 + (number % 50_000) as u16,
        rport: 443,
        v6_socket: false,
    }
}

fn minisock(number: u64, event: MinisockEvent, after_ns: u64) -> Event {
    let mono_ns = begins_ns(number) + 4_500 + after_ns;
    Event::Minisock(Minisock {
        mono_ns,
        addr: 0xffff_8880_0000_0000 + number * 256,
        event,
        substate: TcpState::TimeWait,
        tuple: tuple(number),
        netns: NETNS,
        cookie: Some(cookie(number)),
        expires: (mono_ns - after_ns) * HZ / 1_000_000_000 + 60 * HZ,
        jiffies: mono_ns * HZ / 1_000_000_000,
        timestamps: Some(true),
    })
}

/// A connection that is opened and closed here.
fn closed(number: u64) -> [Event; EVENTS] {
    use TcpState::*;
    let step = |at_ns: u64, old, new| {
        Event::Transition(Transition {
            mono_ns: begins_ns(number) + at_ns,
            skaddr: 0xffff_8881_0000_0000 + number % OPEN * 2_432,
            old,
            new,
            tuple: tuple(number),
            task: Task::process(812, 1000, 77, Comm::from("curl")),
            sock: Some(SockFacts {
                cookie: Some(cookie(number)),
                netns: NETNS,
                cgroup: Some(4711),
                err: 0,
                shutdown: 2,
                dead: false,
                unaccepted: false,
                peer_fin: false,
                own_ports: false,
                linger: Linger::Off,
                mptcp: Some(false),
            }),
            key_unknown: false,
            buckets_full: false,
            totals: None,
        })
    };
    [
        step(0, Close, SynSent),
        step(1_000, SynSent, Established),
        step(2_000, Established, FinWait1),
        step(3_000, FinWait1, FinWait2),
        minisock(number, MinisockEvent::Started, 0),
        step(5_000, FinWait2, Close),
    ]
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Memory that came to what was resident `before_kib`.
fn growth_mib(before_kib: u64) -> u64 {
    resident_kib().saturating_sub(before_kib).div_ceil(1024)
}

// One test after the other: they share the memory that is measured.
#[test]
fn a_million_time_waits_are_tracked_in_little_memory() {
    all_are_tracked();
    past_the_limit_the_oldest_go();
    so_are_those_from_before();
    whole_connections_too();
}

fn all_are_tracked() {
    let before_kib = resident_kib();
    let mut host = Host::new(track::DEFAULT_LIMIT);
    let begun = Instant::now();
    host.close_all();
    let ns = begun.elapsed().as_nanos() / (CONNECTIONS as usize * EVENTS) as u128;
    let mib = growth_mib(before_kib);
    println!("{CONNECTIONS} TIME_WAITs: {mib} MiB, {ns} ns an event");
    let expected = Counts { tracked: CONNECTIONS, ..Counts::default() };
    assert_eq!(host.tracker.counts(), expected);
    assert_eq!(host.in_time_wait(), CONNECTIONS);
    assert!(mib < MOST_MIB, "{mib} MiB");

    // All of it is still known of each.
    host.expire_all();
    assert_eq!(host.tracker.counts(), Counts::default());
    assert_eq!(host.in_time_wait(), 0);
    let time_wait = host.durations.of(Span::In(TcpState::TimeWait));
    assert_eq!(time_wait.len(), 1);
    let (_, measure) = time_wait[0];
    assert_eq!(measure.ended(EndReason::Expired), CONNECTIONS);
    assert_eq!((measure.count(), measure.mean_ns()), (CONNECTIONS, Some(60_000_000_000)));
}

fn past_the_limit_the_oldest_go() {
    const LIMIT: u64 = 100_000;
    let mut host = Host::new(LIMIT as usize);
    host.close_all();
    let expected = Counts { tracked: LIMIT, evicted: CONNECTIONS - LIMIT, ..Counts::default() };
    assert_eq!(host.tracker.counts(), expected);
    assert_eq!(host.in_time_wait(), LIMIT);
    // Those that are left are the youngest: of them alone it is known how long they took.
    for number in CONNECTIONS - LIMIT..CONNECTIONS {
        host.feed(&Input::Event(minisock(number, MinisockEvent::Expired, 60 * 1_000_000_000)));
    }
    let time_wait = host.durations.of(Span::In(TcpState::TimeWait));
    assert_eq!(time_wait[0].1.count(), LIMIT);
    assert_eq!(time_wait[0].1.max_ns(), Some(60_000_000_000));
    assert_eq!(host.tracker.counts().tracked, 0);
}

/// The snapshot and what is known of it are there at the same time, for a moment.
fn so_are_those_from_before() {
    let before_kib = resident_kib();
    let mut host = Host::new(track::DEFAULT_LIMIT);
    host.feed(&Input::Snapshot(Snapshot::Open));
    host.feed(&Input::Snapshot(Snapshot::Begin { mono_ns: 1, netns: NETNS }));
    for number in 0..CONNECTIONS {
        host.feed(&Input::Snapshot(Snapshot::Socket(SnapSocket {
            state: TcpState::TimeWait,
            tuple: tuple(number),
            cookie: cookie(number),
            minisock_expires_ms: Some(30_000),
            full: None,
        })));
    }
    host.feed(&Input::Snapshot(Snapshot::End(SnapshotEnd { mono_ns: 2, ..Default::default() })));
    host.feed(&Input::Snapshot(Snapshot::Over { mono_ns: 3, all: true }));
    let rows_mib = growth_mib(before_kib);
    host.feed(&Input::Tick { mono_ns: 4 });
    let mib = growth_mib(before_kib);
    println!("{CONNECTIONS} from before: {rows_mib} MiB to be settled, then {mib} MiB");
    assert_eq!(host.tracker.counts().tracked, CONNECTIONS);
    assert!(rows_mib + mib < MOST_MIB, "{rows_mib} MiB and {mib} MiB");
    host.expire_all();
    assert_eq!(host.in_time_wait(), 0);
}

/// Past the limit the oldest go there too: their connections are told without what came before.
fn whole_connections_too() {
    let mut host = Host::new(track::DEFAULT_LIMIT);
    host.conns = Some(Conns::new(Until::End, track::DEFAULT_LIMIT));
    let begun = Instant::now();
    host.close_all();
    let ns = begun.elapsed().as_nanos() / (CONNECTIONS as usize * EVENTS) as u128;
    // All that is resident: this may use again what was freed before.
    let mib = growth_mib(0);
    println!("{CONNECTIONS} TIME_WAITs of whole connections: {mib} MiB, {ns} ns an event");
    assert!(mib < MOST_WITH_CONNS_MIB, "{mib} MiB");
    host.expire_all();
    assert_eq!(host.told, CONNECTIONS);
    assert_eq!(host.conns.as_ref().map(Conns::evicted), Some(0));

    const LIMIT: u64 = 100_000;
    host = Host::new(track::DEFAULT_LIMIT);
    host.conns = Some(Conns::new(Until::End, LIMIT as usize));
    host.close_all();
    host.expire_all();
    assert_eq!(host.told, LIMIT, "the others are told in part");
    assert_eq!(host.conns.as_ref().map(Conns::evicted), Some(CONNECTIONS - LIMIT));
}
