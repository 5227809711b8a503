//! The ways to close that the full socket alone shows: in order from either side, with a reset, with
//! data unread, by halves.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::net::sysctl;
use crate::scenario::conn::{
    Closed, Connection, Ends, Family, Listener, Span, expect_end, expect_error, timed,
};
use crate::scenario::place::Place;
use crate::sys::now;
use crate::witness::{State, wait_gone, wait_state};

/// The client closes first.
///
/// # Errors
/// A step that did not come about.
pub fn active(place: impl Into<Place>) -> Result<Closed> {
    active_on(place, 0)
}

/// As [`active`], with the server on `port`.
///
/// # Errors
/// A step that did not come about.
pub fn active_on(place: impl Into<Place>, port: u16) -> Result<Closed> {
    Listener::open(place, port)?.connect(None)?.close_by_client()
}

/// The server closes first.
///
/// # Errors
/// A step that did not come about.
pub fn passive(place: impl Into<Place>) -> Result<Closed> {
    Listener::open(place, 0)?.connect(None)?.close_by_server()
}

/// A connection that ended with a RST from the client.
#[derive(Clone, Copy, Debug)]
pub struct Aborted {
    pub ends: Ends,
    pub connect: Span,
    pub close: Span,
    /// What the server's read said.
    pub peer_errno: i32,
    pub peer_close: Span,
}

/// The client closes with SO_LINGER 0.
///
/// # Errors
/// A step that did not come about.
pub fn with_linger_zero(place: impl Into<Place>) -> Result<Aborted> {
    let listener = Listener::open(place, 0)?;
    let connection = listener.connect(None)?;
    connection.client.set_linger(Some(Duration::ZERO))?;
    abort(connection)
}

/// The client closes with data unread.
///
/// # Errors
/// A step that did not come about.
pub fn with_unread_data(place: impl Into<Place>) -> Result<Aborted> {
    let listener = Listener::open(place, 0)?;
    let connection = listener.connect(None)?;
    (&connection.server).write_all(b"unread")?;
    let mut peeked = [std::mem::MaybeUninit::uninit(); 1];
    ensure!(connection.client.peek(&mut peeked)? == 1, "nothing there to leave unread");
    abort(connection)
}

fn abort(connection: Connection) -> Result<Aborted> {
    let ends = connection.ends;
    let ((), close) = timed(|| drop(connection.client));
    let peer_errno = expect_error(&connection.server)?;
    let ((), peer_close) = timed(|| drop(connection.server));
    connection.place.both_gone(ends)?;
    Ok(Aborted { ends, connect: connection.connect, close, peer_errno, peer_close })
}

/// A connection of which the client shut its sending half long before the server did.
#[derive(Clone, Copy, Debug)]
pub struct HalfClosed {
    pub ends: Ends,
    pub connect: Span,
    pub shutdown: Span,
    /// A clock reading (ns) at which the client's socket was still in FIN_WAIT2 and still its owner's.
    pub still_held: u64,
    pub server_close: Span,
    pub client_close: Span,
}

/// `tcp_fin_timeout` while a half-closed connection is held: the least that there is.
pub const FIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The client shuts its sending half and holds the rest for `hold`; the server sends on, then closes.
///
/// `tcp_fin_timeout` is [`FIN_TIMEOUT`] meanwhile, and does not end it however long `hold` is: that
/// timeout is for orphans.
///
/// # Errors
/// A step that did not come about.
pub fn by_halves(family: Family, hold: Duration) -> Result<HalfClosed> {
    sysctl("net/ipv4/tcp_fin_timeout", &FIN_TIMEOUT.as_secs().to_string())?;
    let listener = Listener::open(family, 0)?;
    let connection = listener.connect(None)?;
    let ends = connection.ends;
    let (done, shutdown) = timed(|| connection.client.shutdown(std::net::Shutdown::Write));
    done?;
    wait_state(ends.of_client(), State::FinWait2)?;
    wait_state(ends.of_server(), State::CloseWait)?;
    expect_end(&connection.server)?;

    let until = Duration::from_nanos(shutdown.to) + hold;
    // A stretch of time is the scenario itself here, not a guess at how long something takes.
    thread::sleep(until.saturating_sub(Duration::from_nanos(now())));
    let row = wait_state(ends.of_client(), State::FinWait2)?;
    ensure!(row.inode != 0, "a held socket was taken from its owner: {row:?}");
    let still_held = now();

    let sent = [7; 1000];
    (&connection.server).write_all(&sent)?;
    let mut received = [0; 1000];
    (&connection.client).read_exact(&mut received)?;
    ensure!(received == sent, "the open half garbled the data");
    let ((), server_close) = timed(|| drop(connection.server));
    expect_end(&connection.client)?;
    wait_gone(ends.of_server())?;
    let row = wait_state(ends.of_client(), State::TimeWait)?;
    ensure!(row.is_minisock(), "a TIME_WAIT that is no minisock: {row:?}");
    let ((), client_close) = timed(|| drop(connection.client));
    let connect = connection.connect;
    Ok(HalfClosed { ends, connect, shutdown, still_held, server_close, client_close })
}
