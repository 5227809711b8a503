//! The dump against real sockets, in a network namespace of the test's own, with `ss` as the
//! witness: it reads the same table with another parser, and another request.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;
use socket2::{Domain, SockRef, Socket, Type};

use super::super::netstat;
use super::super::{fresh_netns, kernel};
use super::*;

const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// Long past what a loopback connection takes to settle.
const DEADLINE: Duration = Duration::from_secs(10);

fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, address) = listener.accept().unwrap();
    assert_eq!(address, client.local_addr().unwrap());
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    (client, server)
}

/// `TCP_DEFER_ACCEPT`: a handshake's last ACK leaves the request socket where it is, until data.
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 30;
    // SAFETY: the value is a live `c_int`, the length is its own, and the call keeps neither.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of_val(&seconds) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Closes the client first, then the server: the client's end goes to TIME_WAIT.
fn close_actively((client, mut server): (TcpStream, TcpStream)) {
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}

fn sockets(diag: &mut SockDiag, states: StateMask) -> Vec<DiagSocket> {
    let dump = diag.dump(&Family::BOTH, states, Vec::new, |all, socket| all.push(*socket));
    let dump = dump.unwrap();
    assert_eq!(dump.sockets, dump.value.len() as u64);
    assert!(!dump.interrupted);
    dump.value
}

/// Dumps until `settled` holds.
fn wait_for(diag: &mut SockDiag, settled: impl Fn(&[DiagSocket]) -> bool) -> Vec<DiagSocket> {
    let start = Instant::now();
    loop {
        let all = sockets(diag, StateMask::ALL);
        if settled(&all) {
            return all;
        }
        assert!(start.elapsed() < DEADLINE, "not settled: {all:#?}");
    }
}

fn count(all: &[DiagSocket], state: u8) -> usize {
    all.iter().filter(|socket| socket.state == state).count()
}

/// What both `ss` and the dump say of a socket.
type Row = (String, u32, u32, u16, u16);

fn ss_name(state: u8) -> &'static str {
    let names = [
        "",
        "ESTAB",
        "SYN-SENT",
        "SYN-RECV",
        "FIN-WAIT-1",
        "FIN-WAIT-2",
        "TIME-WAIT",
        "UNCONN",
        "CLOSE-WAIT",
        "LAST-ACK",
        "LISTEN",
        "CLOSING",
    ];
    names[usize::from(state)]
}

fn rows(all: &[DiagSocket]) -> BTreeMap<Row, usize> {
    let mut rows = BTreeMap::new();
    for s in all {
        let (local, peer) = (s.local.port(), s.peer.port());
        *rows.entry((ss_name(s.state).into(), s.rqueue, s.wqueue, local, peer)).or_default() += 1;
    }
    rows
}

fn ss_rows() -> BTreeMap<Row, usize> {
    let output = Command::new("ss").arg("-Htan").output().expect("ss, of iproute2");
    assert!(output.status.success());
    let mut rows = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = |at: usize| fields[at].rsplit(':').next().unwrap().replace('*', "0");
        let queue = |at: usize| fields[at].parse().unwrap();
        let ports = (port(3).parse().unwrap(), port(4).parse().unwrap());
        let row = (fields[0].to_owned(), queue(1), queue(2), ports.0, ports.1);
        *rows.entry(row).or_default() += 1;
    }
    rows
}

#[test]
fn every_kind_of_socket_is_dumped_as_ss_has_it() {
    fresh_netns::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener6 = TcpListener::bind("[::]:0").unwrap();
        let deferring = TcpListener::bind("127.0.0.1:0").unwrap();
        defer_accept(&deferring);

        let open = pair(&listener);
        let open6 = pair(&listener6);
        let half_closed = pair(&listener);
        half_closed.0.shutdown(Shutdown::Write).unwrap();
        // The peer never closes, so this one stays an orphaned FIN_WAIT2 for tcp_fin_timeout.
        let (orphan, orphans_peer) = pair(&listener);
        let orphan_port = orphan.local_addr().unwrap().port();
        drop(orphan);
        for _ in 0..31 {
            close_actively(pair(&listener));
            close_actively(pair(&listener6));
        }
        // Last, since it is left for `accept()`, in which another would find it.
        let port6 = listener6.local_addr().unwrap().port();
        let mapped = TcpStream::connect(("127.0.0.1", port6)).unwrap();
        let waiting = TcpStream::connect(deferring.local_addr().unwrap()).unwrap();

        let mut diag = SockDiag::open().unwrap();
        let all = wait_for(&mut diag, |all| {
            count(all, TIME_WAIT) == 62 && count(all, FIN_WAIT2) == 2 && count(all, CLOSE_WAIT) == 2
        });

        assert_eq!(rows(&all), ss_rows());
        assert_eq!(count(&all, LISTEN), 3);
        assert_eq!(count(&all, SYN_RECV), 1);
        // Both ends of `open` and `open6`, of `mapped` (its server end waits to be accepted), and
        // the client that thinks its connection made.
        assert_eq!(count(&all, ESTABLISHED), 2 + 2 + 2 + 1);

        let minisocks: Vec<_> = all.iter().filter(|socket| socket.is_minisock()).collect();
        assert_eq!(minisocks.len(), 63);
        let counted = netstat::read_in(Path::new(netstat::OWN)).unwrap().sockets.tw;
        assert_eq!(counted, 63, "sockstat");
        for socket in minisocks {
            assert!((50_000..=60_000).contains(&socket.expires_ms), "{socket:?}");
            assert_eq!((socket.inode, socket.uid), (0, 0), "{socket:?}");
            let orphaned = socket.local.port() == orphan_port;
            assert_eq!(socket.state, if orphaned { FIN_WAIT2 } else { TIME_WAIT }, "{socket:?}");
        }

        let of = |stream: &TcpStream| {
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let found: Vec<_> =
                all.iter().filter(|socket| (socket.local, socket.peer) == (local, peer)).collect();
            assert_eq!(found.len(), 1, "{stream:?}: {found:?}");
            assert_eq!(found[0].cookie, SockRef::from(stream).cookie().unwrap());
            assert_eq!(u64::from(found[0].inode), fstat(stream.as_fd()).unwrap().st_ino);
            *found[0]
        };
        assert_eq!(of(&open.0).family, Family::V4);
        assert_eq!(of(&open6.1).family, Family::V6);
        assert_eq!(of(&half_closed.0).state, FIN_WAIT2);
        assert!(!of(&half_closed.0).is_minisock());
        assert_eq!(of(&orphans_peer).state, CLOSE_WAIT);
        let mapped_end =
            all.iter().find(|socket| socket.peer.port() == mapped.local_addr().unwrap().port());
        let mapped_end = mapped_end.unwrap();
        assert_eq!(mapped_end.family, Family::V6);
        assert_eq!(mapped_end.peer.ip().to_string(), "::ffff:127.0.0.1");

        let some = StateMask::of(FIN_WAIT2).union(StateMask::of(LISTEN));
        assert_eq!(sockets(&mut diag, some).len(), 5);
        assert_eq!(sockets(&mut diag, StateMask::of(TIME_WAIT)).len(), 62);
        assert_eq!(sockets(&mut diag, StateMask::NONE), []);
        let v4 = diag.dump(&[Family::V4], StateMask::ALL, || (), |(), _| ()).unwrap();
        let v6 = diag.dump(&[Family::V6], StateMask::ALL, || (), |(), _| ()).unwrap();
        assert_eq!(v4.sockets + v6.sockets, all.len() as u64);
        assert!(v6.sockets > 31, "{v6:?}");
        drop(waiting);
    });
}

#[test]
fn a_buffer_that_is_too_small_grows_and_nothing_is_missed_or_told_twice() {
    fresh_netns::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..101 {
            close_actively(pair(&listener));
        }
        let mut diag = SockDiag::open().unwrap();
        let all = wait_for(&mut diag, |all| count(all, TIME_WAIT) == 101);
        let mut small = SockDiag::with_buffer(200).unwrap();
        for first in [true, false] {
            let dump = small
                .dump(&Family::BOTH, StateMask::ALL, Vec::new, |all, socket| all.push(*socket))
                .unwrap();
            assert_eq!(dump.passes > 1, first, "{} passes", dump.passes);
            let mut cookies: Vec<_> = dump.value.iter().map(|socket| socket.cookie).collect();
            let mut expected: Vec<_> = all.iter().map(|socket| socket.cookie).collect();
            cookies.sort_unstable();
            expected.sort_unstable();
            assert_eq!(cookies, expected);
        }
    });
}

#[test]
fn a_dump_works_after_one_that_was_given_up() {
    fresh_netns::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..101 {
            close_actively(pair(&listener));
        }
        let mut diag = SockDiag::open().unwrap();
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            diag.dump(&Family::BOTH, StateMask::ALL, || (), |(), _| panic!("the caller gives up"))
        }));
        assert!(told.is_err());
        wait_for(&mut diag, |all| count(all, TIME_WAIT) == 101);
    });
}

#[test]
fn merely_bound_sockets_come_where_the_kernel_knows_them() {
    fresh_netns::run(|| {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&"127.0.0.1:4321".parse::<SocketAddr>().unwrap().into()).unwrap();
        let release = kernel::release().unwrap();
        let numbers: Vec<u32> = release.split(['.', '-']).take(2).flat_map(str::parse).collect();
        let known = numbers >= vec![6, 8];
        let all = sockets(&mut SockDiag::open().unwrap(), StateMask::BOUND);
        assert_eq!(all.len(), usize::from(known), "{release}: {all:?}");
        assert_eq!(lists_bound(), known, "{release}");
        if let [socket] = all[..] {
            assert_eq!((socket.state, socket.local.port()), (CLOSE, 4321));
        }
        assert_eq!(sockets(&mut SockDiag::open().unwrap(), StateMask::ALL), []);
        // Also where bind() to port 0 finds none.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "5000 5000").unwrap();
        let any = "0.0.0.0:0".parse::<SocketAddr>().unwrap().into();
        let pair = [(); 2].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
        pair[0].bind(&any).unwrap();
        assert_eq!(pair[1].bind(&any).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
        assert_eq!(lists_bound(), known, "{release}");
    });
}
