//! The three ways in which a new connection takes over the tuple of a TIME_WAIT.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::net::sysctl;
use crate::scenario::conn::{Closed, Ends, Family, Listener, Span};
use crate::scenario::open::only_two_ports;
use crate::sys::now;
use crate::witness::{Counters, State, Tuple, find, wait_gone};

/// A TIME_WAIT that a new connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Reused {
    /// The connection that left the TIME_WAIT.
    pub old: Closed,
    /// The end that was in TIME_WAIT when the new connection came.
    pub time_wait: Tuple,
    /// The new connection, which was then ended by a reset from the client.
    pub ends: Ends,
    pub connect: Span,
}

const CLIENT_PORT: u16 = 40_004;

/// A client binds the port of its own TIME_WAIT (with SO_REUSEADDR) and connects again.
///
/// # Errors
/// A step that did not come about.
pub fn by_bind(family: Family) -> Result<Reused> {
    let listener = Listener::open(family, 0)?;
    let old = listener.connect(Some(CLIENT_PORT))?.close_by_client()?;
    again(&listener, old, Some(CLIENT_PORT), 1)
}

/// With two local ports, both in TIME_WAIT for more than a second, and `tcp_tw_reuse` 1, a client
/// connects to the same destination.
///
/// # Errors
/// A step that did not come about.
pub fn by_tw_reuse(family: Family) -> Result<Reused> {
    only_two_ports()?;
    // By that clock the first may be a second old when the second comes: not to be reused yet.
    sysctl("net/ipv4/tcp_tw_reuse", "0")?;
    let listener = Listener::open(family, 50_000)?;
    let one = listener.connect(None)?.close_by_client()?;
    let other = listener.connect(None)?.close_by_client()?;
    sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    // tcp_twsk_unique wants the TIME_WAIT to be older than a second by a clock that ticks in
    // seconds (and in milliseconds since 6.14): two of them are enough for either.
    let ripe = Duration::from_nanos(other.time_wait_seen) + Duration::from_secs(2);
    thread::sleep(ripe.saturating_sub(Duration::from_nanos(now())));
    let reused = again(&listener, one, None, 1)?;
    let old = if reused.ends.client == other.ends.client { other } else { one };
    Ok(Reused { old, time_wait: old.active, ..reused })
}

/// The server closes first, so that the TIME_WAIT is the server's; then the client's port connects
/// again: the SYN ends it.
///
/// # Errors
/// A step that did not come about.
pub fn by_syn(family: Family) -> Result<Reused> {
    let listener = Listener::open(family, 0)?;
    let old = listener.connect(Some(CLIENT_PORT))?.close_by_server()?;
    again(&listener, old, Some(CLIENT_PORT), 0)
}

/// Connects again over a TIME_WAIT; `recycled` is what TcpExt must say that the connect itself took.
fn again(listener: &Listener, old: Closed, port: Option<u16>, recycled: i64) -> Result<Reused> {
    let in_time_wait = |row: &crate::witness::Row| row.state == State::TimeWait;
    ensure!(find(old.active)?.as_ref().is_some_and(in_time_wait), "no TIME_WAIT to reuse");
    let before = Counters::read()?;
    let new = listener.connect(port)?;
    let (ends, connect) = (new.ends, new.connect);
    let took = before.growth("TcpExt:TWRecycled")?;
    ensure!(took == recycled, "TWRecycled grew by {took}, not {recycled}");
    new.abort()?;
    // The old TIME_WAIT has not come back from behind the connection that took its place.
    let taken = if recycled == 0 { ends.of_server() } else { ends.of_client() };
    wait_gone(taken)?;
    Ok(Reused { old, time_wait: old.active, ends, connect })
}
