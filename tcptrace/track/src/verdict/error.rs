//! The verdict by `sk_err`, of a socket that goes to CLOSE.
//!
//! `tcp_connect_init()` clears it, so what it has is of this connection. `tcp_reset()`,
//! `tcp_abort()` and `tcp_write_err()` set it as they end one; an ICMP error does so only before the
//! connection is established, and otherwise leaves it for the program (`IP_RECVERR`), as kTLS and
//! sockmap leave theirs. So an errno that does not come with an end must not be taken for its cause.

use super::{
    evidence::{Close, Resets, Sent},
    judgement::{Judgement, open, settled, unknown},
    plain,
};
use tcptrace_model::{
    How, Initiator, RstReason, RstWhy, SockFacts, TcpState, Timeout, UnknownBecause,
};

const EACCES: u16 = 13;
const EPIPE: u16 = 32;
const ENONET: u16 = 64;
const EPROTO: u16 = 71;
const ENOPROTOOPT: u16 = 92;
const EOPNOTSUPP: u16 = 95;
const ENETUNREACH: u16 = 101;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ETIMEDOUT: u16 = 110;
const ECONNREFUSED: u16 = 111;
const EHOSTDOWN: u16 = 112;
const EHOSTUNREACH: u16 = 113;

/// `RCV_SHUTDOWN`
const RCV_SHUTDOWN: u8 = 1;

pub(super) fn judge(
    resets: Resets,
    close: &Close<'_>,
    sock: &SockFacts,
    initiator: Option<Initiator>,
) -> Judgement {
    use TcpState::*;
    let soft = close.totals.and_then(|totals| totals.at_close).map(|at_close| at_close.err_soft);
    match (sock.err, close.old) {
        (0, _) => plain::judge(resets, close, sock, initiator),
        (ECONNABORTED, _) => settled(initiator, How::SockDestroy),
        (ETIMEDOUT, _) => timed_out(resets, close, sock, initiator),
        // tcp_reset() has another errno for each of these two.
        (ECONNRESET, SynSent | CloseWait) => unknown(initiator, UnknownBecause::Contradiction),
        // tcp_rcv_state_process(): data after close() calls tcp_reset(), which reports a RST that
        // never came, and sends one right after.
        (ECONNRESET, FinWait1 | FinWait2) if sock.shutdown & RCV_SHUTDOWN != 0 => {
            let sent = Ok(How::RstSent(RstWhy::DataAfterClose));
            open(close, initiator, (sent, Ok(How::RstReceived)))
        }
        (ECONNRESET, _) => settled(initiator, How::RstReceived),
        // sockmap sets this one too, and closes nothing.
        (EPIPE, CloseWait) if resets.received => settled(initiator, How::RstReceived),
        (EPIPE, CloseWait) => match close.deaf_to_resets() {
            Some(because) => unknown(initiator, because),
            None => left_behind(resets, close, sock, initiator, soft),
        },
        (ECONNREFUSED, SynSent) => settled(initiator, How::Refused),
        (err, SynSent) if is_icmp(err) || soft == Some(err) => settled(initiator, How::Unreachable),
        // tcp_v4_err(): an ICMP error ends a child by Fast Open that nobody has accepted; of one
        // that was accepted, only its timer does.
        (err, SynRecv) if is_icmp(err) || err == ECONNREFUSED => match soft {
            Some(soft) if soft == err => timed_out(resets, close, sock, initiator),
            Some(_) => settled(initiator.or(Some(Initiator::Remote)), How::Unreachable),
            None => unknown(initiator, UnknownBecause::FieldsMissing),
        },
        _ => left_behind(resets, close, sock, initiator, soft),
    }
}

/// An errno that is no cause by itself: `tcp_write_err()` copied it from `sk_err_soft`, or it was
/// there when the connection ended otherwise.
fn left_behind(
    resets: Resets,
    close: &Close<'_>,
    sock: &SockFacts,
    initiator: Option<Initiator>,
    soft: Option<u16>,
) -> Judgement {
    match soft {
        Some(soft) if soft == sock.err => timed_out(resets, close, sock, initiator),
        Some(_) => plain::judge(resets, close, sock, initiator),
        None => unknown(initiator, UnknownBecause::FieldsMissing),
    }
}

/// `tcp_write_err()`: nobody answered any more.
fn timed_out(
    resets: Resets,
    close: &Close<'_>,
    sock: &SockFacts,
    initiator: Option<Initiator>,
) -> Judgement {
    use TcpState::*;
    let how = match (close.old, sock.dead) {
        (SynSent, _) => How::Timeout(Timeout::Syn),
        (SynRecv, _) => How::Timeout(Timeout::SynAck),
        (FinWait1 | Closing | LastAck, true) => How::OrphanGaveUp,
        // tcp_keepalive_timer() ends an orphan in FIN_WAIT2 without an error.
        (_, true) => return unknown(initiator, UnknownBecause::Contradiction),
        (_, false) => match (resets.sent, close.totals) {
            (Some(Sent::For(RstReason::KeepaliveTimeout)), _) => How::Timeout(Timeout::Keepalive),
            // Nobody closed it; which timer ran out is not known.
            (_, None) => {
                let nobody = initiator.or(Some(Initiator::None));
                return unknown(nobody, UnknownBecause::FieldsMissing);
            }
            // Only tcp_keepalive_timer() gives up on a connection of which nothing is under way:
            // the other timers run for what is not acknowledged or not sent.
            (_, Some(totals)) if totals.unacked == 0 => How::Timeout(Timeout::Keepalive),
            // With TCP_USER_TIMEOUT, retransmits_timed_out() does not look at tcp_retries2. But where
            // nothing is under way a closed window was probed, and tcp_probe_timer() gives up by
            // either, whichever comes first.
            (_, Some(totals)) if totals.user_timeout_ms != 0 => {
                let nobody = initiator.or(Some(Initiator::None));
                match totals.at_close {
                    Some(at) if at.unsent < totals.unacked => How::Timeout(Timeout::User),
                    Some(_) => return unknown(nobody, UnknownBecause::SeveralCauses),
                    None => return unknown(nobody, UnknownBecause::FieldsMissing),
                }
            }
            (_, Some(_)) => How::Timeout(Timeout::Retransmit),
        },
    };
    settled(initiator, how)
}

/// Whether an ICMP or ICMPv6 error has this errno (`icmp_err_convert`, `icmpv6_err_convert()`);
/// ECONNREFUSED, a port unreachable, is apart.
fn is_icmp(err: u16) -> bool {
    matches!(
        err,
        EACCES
            | ENONET
            | EPROTO
            | ENOPROTOOPT
            | EOPNOTSUPP
            | ENETUNREACH
            | EHOSTDOWN
            | EHOSTUNREACH
    )
}
