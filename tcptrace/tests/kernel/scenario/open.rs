//! How connections begin, or fail to.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl;

use crate::net::{Netns, sysctl};
use crate::scenario::conn::{Closed, Ends, Family, Listener, Span, timed};
use crate::scenario::place::{Place, Side};
use crate::witness::{State, Tuple, wait_gone, wait_state};

/// A connect that failed.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    pub server: SocketAddr,
    pub errno: i32,
    pub connect: Span,
}

fn fail_to_connect(place: &Place, server: SocketAddr) -> Result<Failed> {
    let client = place.socket(Side::Client)?;
    let (connected, connect) = timed(|| client.connect(&server.into()));
    let Err(error) = connected else { bail!("connected to {server}") };
    Ok(Failed { server, errno: error.raw_os_error().context("no errno")?, connect })
}

/// Connects to a port (9) that nobody listens on.
///
/// # Errors
/// A step that did not come about.
pub fn refused(place: impl Into<Place>) -> Result<Failed> {
    let place = place.into();
    fail_to_connect(&place, place.address(Side::Server, 9))
}

/// Lack of local ports.
#[derive(Clone, Copy, Debug)]
pub struct NoPorts {
    /// The connections that hold the only two local ports.
    pub held: [Ends; 2],
    pub failed: Failed,
}

/// The two local ports that [`no_ports`] leaves the namespace.
pub const ONLY_PORTS: [u16; 2] = [40_000, 40_001];

/// Takes [`ONLY_PORTS`], all that there are, for one destination, and connects once more to it. The
/// holders end by reset, before the return.
///
/// # Errors
/// A step that did not come about.
pub fn no_ports(place: impl Into<Place>) -> Result<NoPorts> {
    only_two_ports()?;
    let listener = Listener::open(place, 50_000)?;
    let (one, other) = (listener.connect(None)?, listener.connect(None)?);
    let failed = fail_to_connect(&listener.place, listener.address)?;
    let held = [one.ends, other.ends];
    one.abort()?;
    other.abort()?;
    Ok(NoPorts { held, failed })
}

/// Leaves the namespace [`ONLY_PORTS`] to connect from.
///
/// # Errors
/// That of the sysctl.
pub fn only_two_ports() -> Result<()> {
    sysctl("net/ipv4/ip_local_port_range", &format!("{} {}", ONLY_PORTS[0], ONLY_PORTS[1]))
}

/// A listener that came and went.
#[derive(Clone, Copy, Debug)]
pub struct Listened {
    pub address: SocketAddr,
    pub listen: Span,
    pub close: Span,
}

/// Listens on an address, then closes.
///
/// # Errors
/// A step that did not come about.
pub fn listener(family: Family) -> Result<Listened> {
    let (opened, listen) = timed(|| Listener::open(family, 0));
    let Listener { address, socket, .. } = opened?;
    let listening = Tuple {
        local: address,
        remote: SocketAddr::new(
            match family {
                Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 | Family::Mapped => std::net::Ipv6Addr::UNSPECIFIED.into(),
            },
            0,
        ),
    };
    wait_state(listening, State::Listen)?;
    let ((), close) = timed(|| drop(socket));
    wait_gone(listening)?;
    Ok(Listened { address, listen, close })
}

/// The client binds port 40002 before it connects; closed by the client.
///
/// # Errors
/// A step that did not come about.
pub fn bound(family: Family) -> Result<Closed> {
    let closed = Listener::open(family, 0)?.connect(Some(40_002))?.close_by_client()?;
    ensure!(closed.ends.client.port() == 40_002, "bound to 40002 and got {:?}", closed.ends);
    Ok(closed)
}

/// What [`hostile_comm`] calls its thread: 15 bytes, the most that a comm holds.
pub const HOSTILE: &std::ffi::CStr = c"\x1b[31mevil\n\x07\"',";

/// The client connects, and closes, from a thread whose comm is [`HOSTILE`].
///
/// # Errors
/// A step that did not come about.
pub fn hostile_comm(family: Family) -> Result<Closed> {
    prctl::set_name(HOSTILE).context("prctl(PR_SET_NAME)")?;
    let comm = fs::read("/proc/thread-self/comm")?;
    ensure!(comm.strip_suffix(b"\n") == Some(HOSTILE.to_bytes()), "comm is {comm:?}");
    Listener::open(family, 0)?.connect(None)?.close_by_client()
}

/// Opens the very same tuple in two namespaces at once; then closes both, the client first in the
/// first namespace and the server first in the second.
///
/// # Errors
/// A step that did not come about.
pub fn in_two_namespaces(one: &Netns, other: &Netns, family: Family) -> Result<[Closed; 2]> {
    let open = || Listener::open(family, 50_000)?.connect(Some(40_003));
    let (first, second) = (one.run(open)?, other.run(open)?);
    let first = one.run(|| first.close_by_client())?;
    let second = other.run(|| second.close_by_server())?;
    Ok([first, second])
}
