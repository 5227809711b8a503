//! The two ends without a second process between them.

use std::{
    collections::{BTreeSet, HashSet},
    io::{self, Read, Write},
    net::Ipv6Addr,
    num::NonZeroU64,
    os::unix::net::UnixStream,
    thread,
};

use super::{
    super::dump::{Of, Order, Round, Space},
    link::exchange,
    serve::hand_over,
    wire::{Frames, MAX_FRAME, Piece, SOCKETS, Used, WireError},
};
use tcptrace_model::{
    BoundPort, Comm, Holder, NetStat, NetnsCounters, NetnsSysctls, Queues, SnapFull, SnapInfo,
    SnapSocket, SnapshotEnd, SynQueue, Task, TcpInfo, TcpState, Timer, Tuple, Unseen,
    sysctls::{PortRange, Sysctl, Sysctls},
};

/// Room for all.
const ROOM: usize = usize::MAX / 2;

/// What an answer is read from; questions go nowhere.
struct Said<'a>(&'a [u8]);

impl Read for Said<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Said<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn order() -> Order {
    let of = Of::Among(BTreeSet::from([1, u32::MAX]));
    Order { of, minisocks_told: true, told: HashSet::from([7]) }
}

fn socket(cookie: u64) -> SnapSocket {
    let comm = Comm::new(*b"0123456789abcde\xff");
    let task = Task { started: u32::MAX, execs: u16::MAX, ..Task::thread(u32::MAX, 1, 0, comm) };
    let full = SnapFull {
        inode: 5,
        uid: u32::MAX,
        queues: Queues { unread: 1, unsent: u32::MAX },
        cgroup: NonZeroU64::new(u64::MAX),
        holder: Some(Holder { first: Task { tgid: 1, ..task }, task, holders: 3 }),
        in_state_ms: NonZeroU64::new(1),
    };
    let mini = cookie.is_multiple_of(2);
    SnapSocket {
        state: TcpState::TimeWait,
        tuple: Tuple {
            laddr: Ipv6Addr::LOCALHOST,
            raddr: "::ffff:10.0.0.1".parse().unwrap(),
            lport: 1,
            rport: u16::MAX,
            v6_socket: true,
        },
        cookie,
        minisock_expires_ms: mini.then_some(60_000),
        full: (!mini).then(|| Box::new(full)),
    }
}

fn info(cookie: u64) -> SnapInfo {
    let tcp = TcpInfo {
        rto_us: u32::MAX,
        last_data_sent_ms: Some(u32::MAX),
        bytes_acked: u64::MAX,
        snd_wnd: Some(u32::MAX),
        retransmitting_ms: Some(u32::MAX),
        ..TcpInfo::default()
    };
    SnapInfo {
        cookie,
        state: TcpState::CloseWait,
        timer: Timer::Other(9),
        expires_ms: u32::MAX,
        unacked: u32::MAX,
        mptcp: true,
        tcp,
    }
}

/// Of three namespaces: one with all that there can be, two without.
fn round(sockets: usize) -> Round {
    let ports = (1..u16::MAX).step_by(2).map(|port| PortRange { low: port, high: port });
    let sysctls = Sysctls {
        tcp_fin_timeout: Sysctl::Is(-1),
        tcp_timestamps: Sysctl::Unreadable("why".into()),
        ip_local_reserved_ports: Sysctl::Is(ports.collect()),
        ..Sysctls::default()
    };
    let mut stat = NetStat::default();
    stat.tcp_ext.insert("TWKilled".to_owned(), i64::MIN);
    stat.sockets.inuse6 = Some(1);
    let syn_queue = |lport| (lport, SynQueue { lport, waiting: 2, resent: 1 });
    let bound = |lport| {
        let task = Task::process(7, 8, 9, Comm::from("binds"));
        let holder = (lport % 2 == 0).then_some(Holder::one(task));
        (lport, BoundPort { lport, sockets: u32::MAX, holder }.into())
    };
    let full = Space {
        name: Some("blue".into()),
        path: Some("/run/netns/blue".into()),
        netns: u32::MAX,
        began_ns: u64::MAX,
        sockets: (0..sockets as u64).map(socket).collect(),
        infos: (0..sockets as u64).map(info).collect(),
        syn_queues: (0..=u16::MAX).map(syn_queue).collect(),
        bound: (0..1000).map(bound).collect(),
        end: SnapshotEnd {
            mono_ns: 3,
            lacks_some: false,
            unseen: Unseen { syn_queue: 1, fin_wait2: 2, time_wait: 3 },
            lists_bound: true,
        },
        sysctls: Some(Box::new(NetnsSysctls { mono_ns: 2, netns: 9, sysctls })),
        counters: Some(Box::new(NetnsCounters { mono_ns: 2, netns: 9, counters: Ok(stat) })),
    };
    let unread = NetnsCounters { mono_ns: 2, netns: 8, counters: Err("no".into()) };
    let other = Space { counters: Some(Box::new(unread)), ..Space::gone(8, 5) };
    Round {
        there: Some([7, 8].into()),
        names: Vec::new(),
        all: true,
        minisocks_alone: false,
        spaces: vec![full, other, Space::gone(7, 5)],
        cpu_ns: 4,
        remarks: vec!["one".to_owned(), "\x1b[2J".to_owned()],
        over_ns: 6,
    }
}

/// What a helper says of a round.
fn said(round: Round, room: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    hand_over(&mut Frames::new(&mut bytes), round, room).unwrap();
    bytes
}

fn heard(bytes: &[u8]) -> Result<(Round, Used), WireError> {
    exchange(&mut Frames::new(Said(bytes)), &order(), ROOM)
}

/// One frame around `bytes`, whatever they are.
fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

#[test]
fn a_round_comes_over_as_it_is() {
    let (here, there) = UnixStream::pair().unwrap();
    let (asked, answered) = thread::scope(|scope| {
        let helper = scope.spawn(move || {
            let mut frames = Frames::new(there);
            let (asked, _): (Order, _) = frames.receive().unwrap();
            hand_over(&mut frames, round(3 * SOCKETS + 1), ROOM).unwrap();
            asked
        });
        let answered = exchange(&mut Frames::new(here), &order(), ROOM).unwrap();
        (helper.join().unwrap(), answered)
    });
    let Of::Among(among) = asked.of else { panic!("{asked:?}") };
    assert_eq!((among, asked.told), (BTreeSet::from([1, u32::MAX]), HashSet::from([7])));
    assert!(asked.minisocks_told);
    let (answered, used) = answered;
    assert!(answered == round(3 * SOCKETS + 1), "it is too long to be printed");
    assert!(used.resident_bytes > 0);
}

#[test]
fn half_an_answer_is_none() {
    let bytes = said(round(2), ROOM);
    assert!(heard(&bytes).is_ok());
    let step = bytes.len() / 64;
    for end in (0..bytes.len()).filter(|end| end % step == 0 || bytes.len() - end < 100) {
        let heard = heard(&bytes[..end]);
        assert!(matches!(heard, Err(WireError::Closed)), "{end}: {heard:?}");
    }
}

#[test]
fn no_length_is_believed() {
    for length in [MAX_FRAME as u32 + 1, u32::MAX] {
        let heard = heard(&length.to_le_bytes());
        assert!(matches!(heard, Err(WireError::TooLong(_))), "{heard:?}");
    }
    // Four thousand million sockets, and bytes for none of them.
    let sockets = postcard::to_allocvec(&Piece::Sockets(Vec::new())).unwrap();
    let claims = [&sockets[..1], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    let heard = heard(&framed(&claims));
    assert!(matches!(heard, Err(WireError::Malformed(_))), "{heard:?}");
}

#[test]
fn a_frame_has_one_piece_and_that_in_its_place() {
    let piece = |piece: &Piece| framed(&postcard::to_allocvec(piece).unwrap());
    let space = piece(&Piece::Space {
        netns: 1,
        began_ns: 2,
        name: None,
        path: None,
        sysctls: None,
        counters: None,
    });
    let sockets = piece(&Piece::Sockets(vec![socket(1)]));
    let end = piece(&Piece::End(SnapshotEnd::default()));
    let over = Piece::Over { all: true, over_ns: 1, cpu_ns: 1, there: None, used: Used::default() };
    let over = piece(&over);
    let whole = [&space[..], &sockets, &end, &over].concat();
    assert_eq!(heard(&whole).unwrap().0.spaces[0].sockets, [socket(1)]);
    for (why, frames) in [
        ("no namespace yet", [&sockets[..], &over].concat()),
        ("not open", [&end[..], &over].concat()),
        ("no end", [&space[..], &over].concat()),
        ("open", [&space[..], &space].concat()),
        ("no namespace any more", [&space[..], &end, &sockets].concat()),
    ] {
        let heard = heard(&frames);
        assert!(matches!(heard, Err(WireError::Misplaced)), "{why}: {heard:?}");
    }
    let two = framed(&[&end[4..], &end[4..]].concat());
    let heard = heard(&[space, two].concat());
    assert!(matches!(heard, Err(WireError::TooLong(_))), "{heard:?}");
}

#[test]
fn garbage_is_an_error_and_no_more() {
    let good = said(round(5), ROOM);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    for _ in 0..2000 {
        let mut bytes = good.clone();
        for _ in 0..=random() % 4 {
            let at = random() as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        refused += u32::from(heard(&bytes).is_err());
        let noise: Vec<u8> = (0..64).map(|_| random() as u8).collect();
        assert!(heard(&framed(&noise)).is_err());
    }
    assert!(refused > 0);
}

#[test]
fn more_than_there_is_room_for_is_cut_and_said() {
    let (cut, _) = heard(&said(round(3 * SOCKETS), 300_000)).unwrap();
    assert!(!cut.all);
    let [space] = &cut.spaces[..] else { panic!("{}", cut.spaces.len()) };
    assert!(space.end.lacks_some && space.sockets.len() < 3 * SOCKETS);
    assert!(!space.sockets.is_empty() && space.end.unseen.time_wait == 3);
    assert!(cut.remarks.iter().any(|remark| remark.contains("more sockets than")), "{cut:?}");
    // What fits is whole.
    let (whole, _) = heard(&said(round(3), 2_000_000)).unwrap();
    assert!(whole.all && whole == round(3));
}

#[test]
fn an_answer_that_does_not_end_is_given_up() {
    let bytes = said(round(3 * SOCKETS), ROOM);
    let heard = |longest| exchange(&mut Frames::new(Said(&bytes)), &order(), longest);
    assert!(heard(bytes.len()).is_ok());
    assert!(matches!(heard(bytes.len() - 1), Err(WireError::TooMuch)));
}
