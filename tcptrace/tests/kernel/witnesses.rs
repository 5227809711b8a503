//! What tcptrace says of minisocks against what the kernel counts and tells by itself: each one
//! born, how it ended, and until when its timer was to run.

use std::{
    collections::HashMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    host::{
        clock, kernel,
        sock_diag::{Family as DiagFamily, SockDiag, StateMask},
    },
    model::{
        EndReason, Moved,
        TcpState::{self, Close, FinWait2, TimeWait},
        filter::Filter,
    },
    probe::{Backend, Options, TimeWaitBackend, TimeWaitChoice},
};

use crate::{
    checks::settle,
    net::{Netns, sysctl},
    scenario::{
        churn,
        conn::{Family, Listener},
    },
    trace::{Trace, by},
    unsupported::Unsupported,
    wait::until,
    witness::{self, Counters},
};

/// A tracer of what happens in `netns` alone.
fn trace(netns: &Netns) -> Result<Trace> {
    Trace::start(&Options {
        filter: Filter { netns: Some(netns.inode()), ..Filter::default() },
        time_wait: TimeWaitChoice::Only(TimeWaitBackend::Timers),
        ..by(Backend::TpBtf)
    })
}

/// What became of the connections by their transitions.
#[derive(Debug, Default, PartialEq)]
struct Minisocks {
    born: i64,
    ended: HashMap<EndReason, i64>,
    never_created: i64,
}

impl Minisocks {
    /// A minisock is seen to be born when the connection goes to TIME_WAIT; if it ends in
    /// FIN_WAIT2, at its end. So they are exact once no orphan is left in FIN_WAIT2.
    fn of(moved: &[Moved]) -> Self {
        let mut of = Self::default();
        for moved in moved {
            match (moved.old, moved.new, moved.end_reason) {
                (_, TimeWait, _) => of.born += 1,
                (_, Close, Some(EndReason::NeverCreated)) => of.never_created += 1,
                (old, Close, Some(reason)) => {
                    of.born += i64::from(old == FinWait2);
                    *of.ended.entry(reason).or_default() += 1;
                }
                _ => {}
            }
        }
        of
    }

    fn ended_by(&self, reason: EndReason) -> i64 {
        self.ended.get(&reason).copied().unwrap_or(0)
    }

    fn alive(&self) -> i64 {
        self.born - self.ended.values().sum::<i64>()
    }
}

/// What the kernel of the calling thread's namespace says of the same.
#[derive(Debug, PartialEq)]
struct Counted {
    born: i64,
    recycled: i64,
    overflowed: i64,
    /// The gauge of /proc/net/sockstat.
    alive: i64,
}

impl Counted {
    fn since(before: &Counters) -> Result<Self> {
        Ok(Self {
            // TWKilled is not what its name says: timers of at most 4 s.
            born: before.growth("TcpExt:TW")? + before.growth("TcpExt:TWKilled")?,
            recycled: before.growth("TcpExt:TWRecycled")?,
            overflowed: before.growth("TcpExt:TCPTimeWaitOverflow")?,
            alive: i64::try_from(witness::minisocks()?)?,
        })
    }
}

impl From<&Minisocks> for Counted {
    fn from(told: &Minisocks) -> Self {
        Self {
            born: told.born,
            recycled: told.ended_by(EndReason::ReusedByConnect),
            overflowed: told.never_created,
            alive: told.alive(),
        }
    }
}

/// `TW` and `TWKilled` count minisocks as their timers are started (`__inet_twsk_schedule`); 5.10
/// counts them as the timers run, so that a reused one is in neither.
fn counts_births() -> Result<()> {
    let release = kernel::release()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("a kernel of version {release:?}");
    };
    ensure!(
        (major, minor) >= (6, 1),
        Unsupported(format!("TcpExt of {release} counts TIME_WAITs that expire, not all of them"))
    );
    Ok(())
}

fn every_birth_and_reuse(family: Family) -> Result<()> {
    counts_births()?;
    let netns = Netns::new()?;
    let mut trace = trace(&netns)?;
    let before = netns.run(Counters::read)?;
    thread::scope(|scope| -> Result<()> {
        let churning = scope.spawn(|| {
            netns.run(|| {
                churn::closes(family)?;
                churn::reuse(family)?;
                churn::overflow(family)
            })
        });
        while !churning.is_finished() {
            trace.drain()?;
            thread::sleep(Duration::from_millis(1));
        }
        churning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let mut last = None;
    until("the kernel's counters to be met", || {
        trace.drain()?;
        let told = Minisocks::of(&trace.moved);
        let counted = netns.run(|| Counted::since(&before))?;
        let met = Counted::from(&told) == counted;
        last = Some((told, counted));
        Ok(met.then_some(()))
    })
    .with_context(|| format!("tcptrace and the kernel: {last:?}"))?;
    let (told, counted) = last.context("there was a last look")?;

    // It was what it was meant to be.
    let by = |reason| told.ended_by(reason) as usize;
    ensure!(by(EndReason::ReusedByConnect) > churn::REUSED, "too few by bind: {told:?}");
    ensure!(by(EndReason::ReusedBySyn) > 0 && by(EndReason::Expired) > 0, "{told:?}");
    ensure!(by(EndReason::Unknown) == 0, "{told:?}");
    ensure!(counted.overflowed as usize == churn::OVERFLOWED, "{counted:?}");
    ensure!(counted.born as usize > churn::CLOSES, "{counted:?}");
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.lost == 0 && account.malformed == 0, "{account:?}");
    // Each anomaly is one that the kernel says it made, by skipping a run.
    ensure!(
        trace.counts().anomalies <= account.missed.unwrap_or(0),
        "{:?} {account:?}",
        trace.counts()
    );
    Ok(())
}

#[test]
fn every_birth_and_reuse_is_one_that_the_kernel_counted() {
    for family in [Family::V4, Family::V6] {
        settle(&format!("{family:?}"), every_birth_and_reuse(family));
    }
}

/// Local and remote end.
type Ends = (SocketAddr, SocketAddr);

/// Until when a timer runs, as a dump said: between two times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Due {
    from: u64,
    to: u64,
}

/// When the timers of the minisocks in `state` of the calling thread's namespace are to run.
fn dues(state: TcpState) -> Result<HashMap<Ends, Due>> {
    const MS: u64 = 1_000_000;
    let mut diag = SockDiag::open()?;
    let from = clock::monotonic_ns()?;
    let dump =
        diag.dump(&DiagFamily::BOTH, StateMask::of(state as u8), Vec::new, |all, socket| {
            all.push(*socket);
        })?;
    let to = clock::monotonic_ns()?;
    let minisocks = dump.value.into_iter().filter(|socket| socket.is_minisock());
    Ok(minisocks
        .map(|socket| {
            let left = u64::from(socket.expires_ms) * MS;
            ((socket.local, socket.peer), Due { from: from + left, to: to + left + MS })
        })
        .collect())
}

fn ends(moved: &Moved) -> Ends {
    let end = |ip, port| SocketAddr::new(ip, port);
    let t = moved.tuple;
    (end(t.local_ip(), t.lport), end(t.remote_ip(), t.rport))
}

/// The transitions from or to `state`, by the ends of the connection.
fn by_ends(moved: &[Moved], is_it: impl Fn(TcpState, TcpState) -> bool) -> HashMap<Ends, Moved> {
    moved.iter().filter(|m| is_it(m.old, m.new)).map(|m| (ends(m), *m)).collect()
}

/// How much later than asked for the timer wheel runs a timer of `ns`
/// (`LVL_GRAN` and `LVL_START` of kernel/time/timer.c).
fn wheel_ns(ns: u64, hz: u64) -> u64 {
    let jiffies = ns * hz / 1_000_000_000;
    let level = (1..9).take_while(|level| jiffies >= 63 << (3 * (level - 1))).count() as u32;
    8_u64.pow(level) * 1_000_000_000 / hz
}

/// How many of each kind.
const LIVES: usize = 50;

fn lifetimes() -> Result<()> {
    const S: u64 = 1_000_000_000;
    /// tcp_fin_time() makes it at least 3.5 RTOs, which on a busy host may be a second each; and on
    /// a slow one it takes as long as that until there are all.
    const ORPHANED_S: u64 = 40;
    /// What may keep a CPU from running a timer that is due.
    const LATE: u64 = S;
    let netns = Netns::new()?;
    let mut trace = trace(&netns)?;
    // The peers of the orphans are held until those have expired.
    let (held, orphans, time_waits) = netns.run(|| -> Result<_> {
        sysctl("net/ipv4/tcp_fin_timeout", &ORPHANED_S.to_string())?;
        // By default a connection over loopback may take the port of a TIME_WAIT of a second.
        sysctl("net/ipv4/tcp_tw_reuse", "0")?;
        let mut held = Vec::new();
        for family in [Family::V4, Family::V6] {
            let listener = Listener::open(family, 0)?;
            for _ in 0..LIVES {
                listener.connect(None)?.close_by_client()?;
            }
            for _ in 0..LIVES {
                held.push(listener.connect(None)?.server);
            }
        }
        let orphans = until("the orphans", || {
            let dues = dues(FinWait2)?;
            Ok((dues.len() == 2 * LIVES).then_some(dues))
        })?;
        Ok((held, orphans, dues(TimeWait)?))
    })?;
    ensure!(time_waits.len() == 2 * LIVES, "{} TIME_WAITs", time_waits.len());

    // Natural ends: the timers of TIME_WAIT run a minute and up to 5 s of the timer wheel (HZ=100).
    let over = |trace: &Trace| {
        trace.moved.iter().filter(|moved| moved.end_reason.is_some()).count() == 4 * LIVES
    };
    let deadline = Instant::now() + Duration::from_secs(75);
    while !over(&trace) {
        trace.drain()?;
        ensure!(Instant::now() < deadline, "not all ended: {:?}", Minisocks::of(&trace.moved));
        thread::sleep(Duration::from_millis(5));
    }
    drop(held);

    let hz = u64::from(clock::hz()?);
    // A timer starts up to a jiffy before the clock's time, and so does what is left of it count.
    let resolution = 2 * S / hz;
    for (dues, state, length) in
        [(orphans, FinWait2, ORPHANED_S * S), (time_waits, TimeWait, 60 * S)]
    {
        let entered = by_ends(&trace.moved, |_, new| new == state);
        let left = by_ends(&trace.moved, |old, new| old == state && new == Close);
        for (ends, due) in dues {
            let entered = entered.get(&ends).with_context(|| format!("{state} {ends:?}"))?;
            let left = left.get(&ends).with_context(|| format!("end of {state} {ends:?}"))?;
            let told = entered.mono_ns + length;
            ensure!(
                (due.from - resolution..=due.to + resolution).contains(&told),
                "{state} of {ends:?} is to last until {told}, the kernel says {due:?}"
            );
            ensure!(
                (due.from - resolution..=due.to + wheel_ns(length, hz) + LATE)
                    .contains(&left.mono_ns),
                "{due:?}, {left:?}"
            );
            ensure!(left.end_reason == Some(EndReason::Expired), "{left:?}");
        }
    }
    Ok(())
}

#[test]
fn lifetimes_are_those_of_the_timers_that_inet_diag_tells() {
    settle("lifetimes", lifetimes());
}
