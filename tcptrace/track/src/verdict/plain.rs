//! The verdict on a socket that goes to CLOSE without an error that is the cause.
//!
//! Then a program closed it (`__tcp_close()`, `tcp_disconnect()`), or the kernel did what was left
//! of a close: the last acknowledgement came, or an orphan cost too much.

use super::{
    evidence::{Close, Resets, Sent},
    judgement::{Judgement, open, settled, unknown},
};
use tcptrace_model::{
    AtClose, DropWhy, How, Initiator, Linger, Opened, RstReason, RstWhy, SockFacts, TcpState,
    Totals, UnknownBecause,
};

/// `SHUTDOWN_MASK`: what close() sets, and a program that shuts both ways down.
const BOTH_SHUT: u8 = 3;

pub(super) fn judge(
    resets: Resets,
    close: &Close<'_>,
    sock: &SockFacts,
    initiator: Option<Initiator>,
) -> Judgement {
    use TcpState::*;
    match (close.old, close.all_acked()) {
        (SynSent, _) => return connect(resets, close, sock, initiator),
        // Both FINs are through; from FIN_WAIT2 and CLOSING a minisock should have taken over.
        (LastAck | Closing, Some(true)) => return settled(initiator, How::Fin),
        (FinWait2, _) if sock.peer_fin => return settled(initiator, How::Fin),
        _ => {}
    }
    if sock.dead {
        return orphan(resets, close, initiator);
    }
    if sock.unaccepted && sock.mptcp != Some(true) {
        return unaccepted(close, sock, initiator);
    }
    // A program holds it, or MPTCP does.
    let by = initiator.or(Some(Initiator::Local));
    let Some(totals) = close.totals else {
        return unknown(by, UnknownBecause::FieldsMissing);
    };
    if totals.at_close.is_some_and(|at_close| at_close.repair) {
        return settled(initiator, How::Dropped(DropWhy::Repair));
    }
    if sock.shutdown == BOTH_SHUT && unread(sock, totals) > 0 {
        match totals.at_close.map(|at_close| at_close.queue_empty) {
            // __tcp_close() empties the queue and then resets, for whatever was in it.
            Some(true) => return settled(initiator, How::RstUnreadData),
            // Nothing but close() sets both before the FIN.
            None if matches!(close.old, Established | CloseWait) => {
                return settled(initiator, How::RstUnreadData);
            }
            None => return unknown(by, UnknownBecause::FieldsMissing),
            Some(false) => {}
        }
    }
    if sock.mptcp == Some(true) {
        return subflow(resets, close, initiator);
    }
    match close.old {
        LastAck | Closing => late(sock, totals, initiator),
        _ if sock.shutdown == BOTH_SHUT && sock.linger == Linger::Jiffies(0) => {
            settled(initiator, How::RstLinger0)
        }
        // close() sends a FIN here, unless it had something to reset for. Up to 6.16 it also had
        // with data that was read, but not all of its segment (commit 5f9238530970).
        Established | CloseWait if sock.shutdown == BOTH_SHUT => open(
            close,
            by,
            (Err(UnknownBecause::SeveralCauses), Err(UnknownBecause::Contradiction)),
        ),
        // connect(AF_UNSPEC). In these states tcp_disconnect() always sends a RST.
        SynRecv | Established | CloseWait | FinWait1 | FinWait2 => {
            let how = How::RstSent(RstWhy::Disconnect);
            match sock.err {
                0 => settled(initiator, how),
                _ => open(close, by, (Ok(how), Err(UnknownBecause::PendingError))),
            }
        }
        SynSent | Close | Listen | TimeWait | NewSynRecv => {
            unknown(initiator, UnknownBecause::Contradiction)
        }
    }
}

/// connect() came to nothing.
fn connect(
    resets: Resets,
    close: &Close<'_>,
    sock: &SockFacts,
    initiator: Option<Initiator>,
) -> Judgement {
    // A RST leaves an error, and an orphan is not in SYN_SENT.
    if resets.received || sock.dead {
        return unknown(initiator, UnknownBecause::Contradiction);
    }
    if close.unbound {
        return settled(initiator, How::NoLocalPort);
    }
    if sock.shutdown == BOTH_SHUT {
        return settled(initiator, How::ConnectAbandoned);
    }
    match close.totals {
        Some(totals) => match totals.at_close {
            // shutdown(), connect(AF_UNSPEC): the SYN is out, so connect() had done its part.
            Some(at_close) if is_syn_out(totals, &at_close) => {
                settled(initiator, How::ConnectAbandoned)
            }
            // The pair of ends is taken, there is no route, or a security module forbids it.
            Some(_) => {
                let nobody = initiator.or(Some(Initiator::None));
                unknown(nobody, UnknownBecause::ConnectFailed)
            }
            None => unknown(initiator, UnknownBecause::FieldsMissing),
        },
        None => unknown(initiator, UnknownBecause::FieldsMissing),
    }
}

/// Whether a socket in SYN_SENT has sent its SYN: `tcp_connect()` moves `snd_nxt` past it.
fn is_syn_out(totals: &Totals, at_close: &AtClose) -> bool {
    at_close.has_sent && totals.unacked > at_close.unsent
}

/// No process has ever held it: `inet_csk_listen_stop()` disconnects what waits to be accepted.
fn unaccepted(close: &Close<'_>, sock: &SockFacts, initiator: Option<Initiator>) -> Judgement {
    use TcpState::*;
    match (close.old, close.opened, sock.mptcp) {
        (_, Some(Opened::Connect | Opened::Listen), _) => {
            unknown(initiator, UnknownBecause::Contradiction)
        }
        // A subflow that was accepted looks like this too.
        (.., None) => unknown(initiator, UnknownBecause::FieldsMissing),
        (SynRecv | Established | CloseWait, ..) => {
            settled(initiator, How::RstSent(RstWhy::ListenerClosed))
        }
        _ => unknown(initiator, UnknownBecause::Contradiction),
    }
}

/// MPTCP ends a subflow without a FIN: it sends the RST itself before, or `tcp_disconnect()` does
/// after. Its SO_LINGER is MPTCP's own means, and nobody's setting.
fn subflow(resets: Resets, close: &Close<'_>, initiator: Option<Initiator>) -> Judgement {
    let how = How::RstSent(RstWhy::Mptcp);
    match resets.sent {
        Some(_) => settled(initiator, how),
        None => open(close, initiator, (Ok(how), Err(UnknownBecause::SeveralCauses))),
    }
}

/// The program gave up while its FIN, behind the peer's, was not acknowledged: `tcp_disconnect()`
/// sends a RST only if there was something left to send.
fn late(sock: &SockFacts, totals: &Totals, initiator: Option<Initiator>) -> Judgement {
    let how = match totals.at_close {
        None => return unknown(initiator, UnknownBecause::FieldsMissing),
        Some(at_close) if at_close.unsent == 0 => How::Dropped(DropWhy::Disconnect),
        Some(_) if sock.shutdown == BOTH_SHUT && sock.linger == Linger::Jiffies(0) => {
            How::RstLinger0
        }
        Some(_) => How::RstSent(RstWhy::Disconnect),
    };
    settled(initiator, how)
}

/// An orphan goes to CLOSE without an error.
fn orphan(resets: Resets, close: &Close<'_>, initiator: Option<Initiator>) -> Judgement {
    use TcpState::*;
    match (close.old, resets.sent) {
        (FinWait1 | FinWait2 | LastAck | Closing, Some(Sent::For(RstReason::AbortOnMemory))) => {
            settled(initiator, How::OrphanLimit)
        }
        // tcp_keepalive_timer(), where it waits for longer than a minisock may.
        (FinWait2, Some(Sent::For(RstReason::TcpState) | Sent::ForNoReasonGiven)) => {
            settled(initiator, How::OrphanGaveUp)
        }
        // tcp_out_of_resources()
        (FinWait1 | LastAck | Closing, Some(Sent::ForNoReasonGiven)) => {
            settled(initiator, How::OrphanLimit)
        }
        (FinWait1 | FinWait2 | LastAck | Closing, Some(Sent::For(_))) => {
            unknown(initiator, UnknownBecause::SeveralCauses)
        }
        (LastAck | Closing, None) if close.totals.is_none() => {
            unknown(initiator, UnknownBecause::FieldsMissing)
        }
        // tcp_close() sends its RST after. None comes where there is no memory for one, nor from
        // a socket of the kernel's own in a namespace that goes (tcp_out_of_resources()).
        (FinWait1 | LastAck | Closing, None) => {
            open(close, initiator, (Ok(How::OrphanLimit), Err(UnknownBecause::NoRst)))
        }
        // Nearly always a hand-over, of which nobody will tell more.
        (FinWait2, None) if !close.minisocks_told => {
            unknown(initiator, UnknownBecause::NoMinisockHook)
        }
        // tcp_rcv_state_process() ends what is not to wait, or got data with the ACK of its FIN,
        // for one reason. In silence it goes where no minisock could be made for it.
        (FinWait2, None) => {
            let sent = match close.totals {
                Some(totals) if totals.linger2 < 0 => Ok(How::RstSent(RstWhy::Linger2)),
                Some(_) => Ok(How::RstSent(RstWhy::DataAfterClose)),
                None => Err(UnknownBecause::FieldsMissing),
            };
            open(close, initiator, (sent, Err(UnknownBecause::SeveralCauses)))
        }
        // A child that the kernel could not hand to its listener.
        (SynRecv, _) => unknown(initiator, UnknownBecause::SeveralCauses),
        _ => unknown(initiator, UnknownBecause::Contradiction),
    }
}

/// Bytes of payload that nobody read. The peer's FIN, where it has come, counts as one of what is
/// unread, and nothing is behind it.
fn unread(sock: &SockFacts, totals: &Totals) -> u32 {
    totals.unread.saturating_sub(u32::from(sock.peer_fin))
}
