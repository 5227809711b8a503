//! SO_LINGER on the client's close, off, 0 or some seconds, with a peer that answers and with one
//! that hears nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockFilter;

use crate::scenario::conn::{Ends, Family, Listener, Span, expect_end, timed};
use crate::sys::now;
use crate::witness::{State, find, wait_gone, wait_state};

/// Whether the peer's host acknowledges the FIN at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Answers,
    /// Not before the client's close has returned: a filter on its socket drops all that comes.
    Deaf,
}

/// A close under an SO_LINGER setting.
#[derive(Clone, Copy, Debug)]
pub struct Lingered {
    pub ends: Ends,
    pub connect: Span,
    pub setting: Option<Duration>,
    pub close: Span,
    /// Where the client's end was right after close() had returned.
    pub at_return: Option<State>,
    pub server_close: Span,
    /// A clock reading (ns) at which the client's end was in TIME_WAIT; `None` when it ended by RST.
    pub time_wait_seen: Option<u64>,
}

/// The client closes under `setting` (`None`: off; whole seconds), then the server does.
///
/// # Errors
/// A step that did not come about.
pub fn close(family: Family, setting: Option<Duration>, peer: Peer) -> Result<Lingered> {
    let connection = Listener::open(family, 0)?.connect(None)?;
    let (ends, connect, server) = (connection.ends, connection.connect, connection.server);
    connection.client.set_linger(setting)?;
    if peer == Peer::Deaf {
        let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
        server.attach_filter(&[drop_all]).context("SO_ATTACH_FILTER")?;
    }
    let ((), close) = timed(|| drop(connection.client));
    let at_return = find(ends.of_client())?.map(|row| row.state);
    if peer == Peer::Deaf {
        server.detach_filter().context("SO_DETACH_FILTER")?;
    }

    if setting == Some(Duration::ZERO) {
        wait_gone(ends.of_client())?;
        // A RST that the peer did not hear is not sent again: its own FIN gets another one.
        let ((), server_close) = timed(|| drop(server));
        wait_gone(ends.of_server())?;
        let time_wait_seen = None;
        return Ok(Lingered {
            ends,
            connect,
            setting,
            close,
            at_return,
            server_close,
            time_wait_seen,
        });
    }
    wait_state(ends.of_server(), State::CloseWait)?;
    expect_end(&server)?;
    wait_state(ends.of_client(), State::FinWait2)?;
    let ((), server_close) = timed(|| drop(server));
    wait_gone(ends.of_server())?;
    let row = wait_state(ends.of_client(), State::TimeWait)?;
    ensure!(row.is_minisock(), "a TIME_WAIT that is no minisock: {row:?}");
    let time_wait_seen = Some(now());
    Ok(Lingered { ends, connect, setting, close, at_return, server_close, time_wait_seen })
}
