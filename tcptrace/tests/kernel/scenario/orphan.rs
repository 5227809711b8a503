//! FIN_WAIT2 without an owner: the client has closed, the peer has acknowledged and says no more.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use socket2::Socket;

use crate::net::sysctl;
use crate::scenario::conn::{Ends, Listener, Span, timed};
use crate::scenario::place::{Place, Side};
use crate::sys::now;
use crate::witness::{Row, State};

/// How the client let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// close() in ESTABLISHED, as most programs do. The FIN_WAIT2 becomes a minisock at the peer's
    /// ACK; it stays a full socket if that ACK finds the socket locked (`tcp_rcv_state_process`,
    /// "Bad case"), which is rare and not ours to choose.
    Close,
    /// shutdown(), then close() in FIN_WAIT2: always a minisock, made by close() itself.
    ShutdownThenClose,
}

/// A FIN_WAIT2 orphan whose peer is in CLOSE_WAIT. Dropping it closes the peer.
pub struct Orphan {
    place: Place,
    pub ends: Ends,
    pub connect: Span,
    /// With [`Way::ShutdownThenClose`].
    pub shutdown: Option<Span>,
    pub close: Span,
    /// The orphan as it was found in FIN_WAIT2.
    pub row: Row,
    /// A clock reading (ns) right after.
    pub seen: u64,
    /// The server's end, still open.
    pub peer: Socket,
}

/// Makes one, which would expire after `fin_timeout` (whole seconds, at least one).
///
/// # Errors
/// A step that did not come about.
pub fn leave(place: impl Into<Place>, fin_timeout: Duration, way: Way) -> Result<Orphan> {
    sysctl("net/ipv4/tcp_fin_timeout", &fin_timeout.as_secs().to_string())?;
    let connection = Listener::open(place, 0)?.connect(None)?;
    let place = connection.place;
    let (ends, connect, client) = (connection.ends, connection.connect, connection.client);
    let mut shutdown = None;
    if way == Way::ShutdownThenClose {
        let (done, span) = timed(|| client.shutdown(Shutdown::Write));
        done?;
        shutdown = Some(span);
        place.wait(Side::Client, ends, State::FinWait2)?;
    }
    let ((), close) = timed(|| drop(client));
    place.wait(Side::Server, ends, State::CloseWait)?;
    let row = place.wait(Side::Client, ends, State::FinWait2)?;
    ensure!(row.inode == 0, "an orphan with an owner: {row:?}");
    ensure!(
        way == Way::Close || row.is_minisock(),
        "close() in FIN_WAIT2 made no minisock: {row:?}"
    );
    Ok(Orphan { place, ends, connect, shutdown, close, row, seen: now(), peer: connection.server })
}

/// An orphan that the peer did something to.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub ends: Ends,
    /// What the peer did.
    pub answer: Span,
    /// What the peer's write or close met with.
    pub errno: Option<i32>,
    /// A clock reading (ns) at which what should follow had followed.
    pub seen: u64,
}

impl Orphan {
    /// The peer closes, and its FIN takes the orphan to TIME_WAIT.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn gets_fin(self) -> Result<Answered> {
        let ((), answer) = timed(|| drop(self.peer));
        self.place.gone(Side::Server, self.ends)?;
        let row = self.place.wait(Side::Client, self.ends, State::TimeWait)?;
        ensure!(row.is_minisock(), "a TIME_WAIT that is no minisock: {row:?}");
        Ok(Answered { ends: self.ends, answer, errno: None, seen: now() })
    }

    /// The peer closes with SO_LINGER 0, and its RST ends the orphan.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn gets_reset(self) -> Result<Answered> {
        self.peer.set_linger(Some(Duration::ZERO))?;
        let ((), answer) = timed(|| drop(self.peer));
        self.place.gone(Side::Server, self.ends)?;
        self.place.gone(Side::Client, self.ends)?;
        Ok(Answered { ends: self.ends, answer, errno: None, seen: now() })
    }

    /// The peer writes; the orphan answers with a RST and ends, and so does the peer.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn gets_data(self) -> Result<Answered> {
        let (written, answer) = timed(|| (&self.peer).write_all(b"too late"));
        written.context("the first write")?;
        self.place.gone(Side::Client, self.ends)?;
        self.place.gone(Side::Server, self.ends)?;
        let Some(error) = self.peer.take_error()? else { bail!("the peer saw no reset") };
        let errno = error.raw_os_error();
        Ok(Answered { ends: self.ends, answer, errno, seen: now() })
    }
}
