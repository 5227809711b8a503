//! TIME_WAITs that never come to be, or end before their time: no room, a RST, SOCK_DESTROY, the end
//! of their namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::net::{Netns, sysctl};
use crate::netlink::{Message, Netlink};
use crate::scenario::close;
use crate::scenario::conn::{
    Closed, Ends, Family, Listener, Span, expect_end, expect_error, timed,
};
use crate::scenario::place::Place;
use crate::scenario::segment::{RST, Segment, next_sequence};
use crate::sys::now;
use crate::unsupported::supported;
use crate::wait;
use crate::witness::{Counters, Row, State, Tuple, find, wait_gone, wait_state};

/// `SOCK_DESTROY` of linux/sock_diag.h.
const SOCK_DESTROY: u16 = 21;

/// A close that found no room for a minisock.
#[derive(Clone, Copy, Debug)]
pub struct NeverCreated {
    pub ends: Ends,
    pub connect: Span,
    pub client_close: Span,
    pub server_close: Span,
}

/// The client closes first, and `tcp_max_tw_buckets` is 0.
///
/// # Errors
/// A step that did not come about.
pub fn never_created(family: Family) -> Result<NeverCreated> {
    sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
    let before = Counters::read()?;
    let connection = Listener::open(family, 0)?.connect(None)?;
    let (ends, connect) = (connection.ends, connection.connect);
    let ((), client_close) = timed(|| drop(connection.client));
    wait_state(ends.of_server(), State::CloseWait)?;
    expect_end(&connection.server)?;
    let ((), server_close) = timed(|| drop(connection.server));
    wait_gone(ends.of_client())?;
    wait_gone(ends.of_server())?;
    let overflowed = before.growth("TcpExt:TCPTimeWaitOverflow")?;
    ensure!(overflowed == 1, "TCPTimeWaitOverflow grew by {overflowed}, not 1");
    Ok(NeverCreated { ends, connect, client_close, server_close })
}

/// A TIME_WAIT that a RST came for.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    pub closed: Closed,
    pub reset: Span,
    /// What is left of it: nothing, unless `tcp_rfc1337` protects it.
    pub left: Option<Row>,
}

/// The client closes first, and a RST with the right sequence number comes for its TIME_WAIT.
///
/// # Errors
/// A step that did not come about.
pub fn reset(family: Family, rfc1337: bool) -> Result<Reset> {
    sysctl("net/ipv4/tcp_rfc1337", if rfc1337 { "1" } else { "0" })?;
    let connection = Listener::open(family, 0)?.connect(None)?;
    // The server's FIN takes one sequence number; the TIME_WAIT expects the one after it.
    let seq = next_sequence(&connection.server)?.wrapping_add(1);
    let closed = connection.close_by_client()?;
    let before = Counters::read()?;
    let segment = Segment {
        from: closed.ends.server,
        to: closed.ends.client,
        seq,
        ack: 0,
        flags: RST,
        window: 0,
    };
    let (sent, reset) = timed(|| segment.send());
    sent?;
    wait::until("the RST to arrive", || Ok((before.growth("Tcp:InSegs")? > 0).then_some(())))?;
    if !rfc1337 {
        wait_gone(closed.active)?;
    }
    Ok(Reset { closed, reset, left: find(closed.active)? })
}

/// A socket that SOCK_DESTROY was asked to end.
#[derive(Clone, Copy, Debug)]
pub struct Destroyed {
    pub ends: Ends,
    pub connect: Span,
    /// What was destroyed: the client's end.
    pub tuple: Tuple,
    pub destroy: Span,
    /// What the client's and the server's reads said, where there were sockets left to read.
    pub errnos: Option<(i32, i32)>,
}

/// The client closes first; its TIME_WAIT is ended by SOCK_DESTROY.
///
/// # Errors
/// `Unsupported` where the kernel has no SOCK_DESTROY, or not for TIME_WAIT (5.10).
pub fn destroyed(family: Family) -> Result<Destroyed> {
    let Closed { ends, connect, active, .. } = close::active(family)?;
    let (done, destroy) = timed(|| sock_destroy(active));
    done?;
    wait_gone(active)?;
    Ok(Destroyed { ends, connect, tuple: active, destroy, errnos: None })
}

/// The client's end of an established connection is ended by SOCK_DESTROY.
///
/// # Errors
/// `Unsupported` where the kernel has no SOCK_DESTROY.
pub fn destroyed_while_established(place: impl Into<Place>) -> Result<Destroyed> {
    let connection = Listener::open(place, 0)?.connect(None)?;
    let (ends, connect) = (connection.ends, connection.connect);
    let (done, destroy) = timed(|| sock_destroy(ends.of_client()));
    done?;
    let errnos = (expect_error(&connection.client)?, expect_error(&connection.server)?);
    connection.place.both_gone(ends)?;
    Ok(Destroyed { ends, connect, tuple: ends.of_client(), destroy, errnos: Some(errnos) })
}

/// Asks the kernel to end one socket of the caller's namespace.
fn sock_destroy(tuple: Tuple) -> Result<()> {
    let family = if tuple.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // struct inet_diag_req_v2: family, protocol, extensions, padding, states, then the sockid:
    // ports and addresses in network order, any interface, any cookie.
    let request = Message::new(SOCK_DESTROY, 0)
        .raw(&[family as u8, libc::IPPROTO_TCP as u8, 0, 0])
        .raw(&u32::MAX.to_ne_bytes())
        .raw(&[tuple.local.port().to_be_bytes(), tuple.remote.port().to_be_bytes()].concat())
        .raw(&address(tuple.local))
        .raw(&address(tuple.remote))
        .raw(&[0; 4])
        .raw(&[0xff; 8]);
    let asked =
        || -> io::Result<()> { Netlink::open(libc::NETLINK_SOCK_DIAG)?.request(request).map(drop) };
    let refusals = [libc::EOPNOTSUPP, libc::ENOENT, libc::EPROTONOSUPPORT];
    // ENOENT is also the answer for a socket that is not there; that would be our mistake.
    ensure!(find(tuple)?.is_some(), "{tuple:?} is not there to destroy");
    supported("SOCK_DESTROY", &refusals, asked())
}

fn address(address: SocketAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address.ip() {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

/// A namespace that was destroyed with TIME_WAITs in it.
#[derive(Debug)]
pub struct TornDown {
    /// Of the namespace.
    pub inode: u32,
    pub closed: Vec<Closed>,
    /// From before the last reference was dropped to the kernel's notice, which comes before the
    /// TIME_WAITs end.
    pub destroy: Span,
    /// A clock reading (ns) at which all the TIME_WAITs were there.
    pub seen: u64,
}

/// Makes a namespace, leaves `connections` TIME_WAITs in it, and destroys it.
///
/// # Errors
/// A step that did not come about.
pub fn torn_down(family: Family, connections: usize) -> Result<TornDown> {
    let netns = Netns::new()?;
    let inode = netns.inode();
    let closed = netns.run(|| (0..connections).map(|_| close::active(family)).collect());
    let closed: Vec<Closed> = Result::context(closed, "leave TIME_WAITs in a namespace")?;
    let left = netns.run(|| crate::witness::count(State::TimeWait))?;
    ensure!(left == connections, "{left} TIME_WAITs, not {connections}");
    let seen = now();
    let (from, to) = netns.destroy()?;
    Ok(TornDown { inode, closed, destroy: Span { from, to }, seen })
}
