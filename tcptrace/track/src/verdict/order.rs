//! The verdict by the order of states and the RSTs alone: what the classic tracepoint reports.
//!
//! Where a RST carries its reason (6.10), that is evidence here as well. Must not take the absence
//! of one for evidence where RSTs are not reported.

use super::{
    evidence::{Close, Resets, Sent},
    judgement::{Judgement, open, settled, unknown},
};
use tcptrace_model::{Age, How, Initiator, RstReason, RstWhy, TcpState, Timeout, UnknownBecause};

/// `TCP_RTO_MIN`, nanoseconds: a FIN that is not acknowledged is sent again after so long at the
/// earliest, so that an orphan which leaves LAST_ACK before has had its acknowledgement.
const RTO_MIN_NS: u64 = 200_000_000;

pub(super) fn judge(resets: Resets, close: &Close<'_>, initiator: Option<Initiator>) -> Judgement {
    use TcpState::*;
    match (close.old, resets) {
        (SynSent, Resets { received: true, .. }) => settled(initiator, How::Refused),
        (SynSent, _) if close.unbound => settled(initiator, How::NoLocalPort),
        (SynSent | SynRecv, Resets { received: false, .. }) => {
            unknown(initiator, UnknownBecause::ClassicHook)
        }
        // Data after close() is reported as a RST that came.
        (FinWait1 | FinWait2, Resets { received: true, .. }) => {
            let sent = Ok(How::RstSent(RstWhy::DataAfterClose));
            open(close, initiator, (sent, Ok(How::RstReceived)))
        }
        (_, Resets { received: true, .. }) => settled(initiator, How::RstReceived),
        (_, Resets { sent: Some(Sent::For(RstReason::KeepaliveTimeout)), .. }) => {
            settled(initiator, How::Timeout(Timeout::Keepalive))
        }
        (
            FinWait1 | Closing | LastAck,
            Resets { sent: Some(Sent::For(RstReason::AbortOnMemory)), .. },
        ) => settled(initiator, How::OrphanLimit),
        (LastAck | Closing, Resets { sent: None, .. }) => match close.deaf_to_resets() {
            Some(because) => unknown(initiator, because),
            None if is_shorter_than(close.in_old, RTO_MIN_NS) => settled(initiator, How::Fin),
            // Or nobody acknowledged the FIN, and the kernel gave up.
            None => unknown(initiator, UnknownBecause::ClassicHook),
        },
        (FinWait2, _) if !close.minisocks_told => {
            unknown(initiator, UnknownBecause::NoMinisockHook)
        }
        _ => unknown(initiator, UnknownBecause::ClassicHook),
    }
}

fn is_shorter_than(age: Age, ns: u64) -> bool {
    match age {
        Age::Exactly(age) => age < ns,
        Age::About { ns: age, within_ns } => age.saturating_add(within_ns) < ns,
        Age::AtLeast(_) | Age::Unknown => false,
    }
}
