//! CLOSING: reached when both sides' FINs cross, and by a socket connected to itself.

use anyhow::{Context, Result};
use socket2::SockFilter;

use crate::scenario::conn::{Ends, Family, Listener, Span, local_address, timed};
use crate::scenario::place::{Place, Side};
use crate::scenario::segment::{ACK, FIN, Segment, WINDOW_OFFSET, next_sequence};
use crate::sys::now;
use crate::witness::{State, Tuple, wait_state};

/// A connection that both ends closed at once; both are in TIME_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct Crossed {
    pub ends: Ends,
    pub connect: Span,
    pub client_close: Span,
    pub server_close: Span,
    /// A clock reading (ns) at which both were in CLOSING.
    pub closing_seen: u64,
    /// A clock reading (ns) at which both were in TIME_WAIT.
    pub time_wait_seen: u64,
}

/// The window that marks the segments that may pass.
const MARK: u16 = 0x4d4b;

/// Both sides close before either hears of it.
///
/// Loopback and veth deliver a FIN before the other side can act, so each socket gets a filter that drops
/// what is not marked. Both close; both FINs are lost; then each side gets the FIN that the other
/// had sent, and after it the ACK, with the mark.
///
/// # Errors
/// A step that did not come about.
pub fn crossing(place: impl Into<Place>) -> Result<Crossed> {
    let connection = Listener::open(place, 0)?.connect(None)?;
    let place = connection.place;
    let (ends, connect) = (connection.ends, connection.connect);
    let from_client = next_sequence(&connection.client)?;
    let from_server = next_sequence(&connection.server)?;
    for socket in [&connection.client, &connection.server] {
        socket.attach_filter(&only_marked()).context("SO_ATTACH_FILTER")?;
    }
    let ((), client_close) = timed(|| drop(connection.client));
    let ((), server_close) = timed(|| drop(connection.server));
    let wait_both = |state| -> Result<()> {
        place.wait(Side::Client, ends, state)?;
        place.wait(Side::Server, ends, state).map(drop)
    };
    wait_both(State::FinWait1)?;

    let client_sends = Segment {
        from: ends.client,
        to: ends.server,
        seq: from_client,
        ack: from_server,
        flags: FIN | ACK,
        window: MARK,
    };
    let server_sends = Segment {
        from: ends.server,
        to: ends.client,
        seq: from_server,
        ack: from_client,
        ..client_sends
    };
    let sent = [(Side::Client, client_sends), (Side::Server, server_sends)];
    for (side, segment) in &sent {
        place.at(*side, || segment.send())?;
    }
    wait_both(State::Closing)?;
    let closing_seen = now();

    // A FIN takes one sequence number.
    for (side, sent) in sent {
        let (seq, ack) = (sent.seq.wrapping_add(1), sent.ack.wrapping_add(1));
        place.at(side, || Segment { seq, ack, flags: ACK, ..sent }.send())?;
    }
    wait_both(State::TimeWait)?;
    let time_wait_seen = now();
    Ok(Crossed { ends, connect, client_close, server_close, closing_seen, time_wait_seen })
}

/// Classic BPF over the TCP header: all of a segment whose window is [`MARK`], nothing of others.
fn only_marked() -> [SockFilter; 4] {
    let [load_half, jump_equal, give] = [
        libc::BPF_LD | libc::BPF_H | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ]
    .map(|code| code as u16);
    [
        SockFilter::new(load_half, 0, 0, WINDOW_OFFSET),
        SockFilter::new(jump_equal, 0, 1, MARK.into()),
        SockFilter::new(give, 0, 0, u32::MAX),
        SockFilter::new(give, 0, 0, 0),
    ]
}

/// A socket that was connected to itself; its one end is in TIME_WAIT.
#[derive(Clone, Copy, Debug)]
pub struct SelfConnected {
    pub tuple: Tuple,
    pub connect: Span,
    pub close: Span,
    /// A clock reading (ns) at which it was in TIME_WAIT.
    pub time_wait_seen: u64,
}

/// A socket binds a port, connects to it, and closes.
///
/// # Errors
/// A step that did not come about.
pub fn self_connect(family: Family) -> Result<SelfConnected> {
    let socket = family.socket()?;
    socket.bind(&family.address(0).into())?;
    let address = local_address(&socket)?;
    let (connected, connect) = timed(|| socket.connect(&address.into()));
    connected.context("connect to itself")?;
    let tuple = Tuple { local: address, remote: address };
    wait_state(tuple, State::Established)?;
    let ((), close) = timed(|| drop(socket));
    wait_state(tuple, State::TimeWait)?;
    Ok(SelfConnected { tuple, connect, close, time_wait_seen: now() })
}
