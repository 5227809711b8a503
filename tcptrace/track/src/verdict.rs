//! Who closed a connection first, and how it ended.
//!
//! Judged from what the socket itself says at →CLOSE (`sk_err`, `sk_shutdown`, SOCK_DEAD, SO_LINGER,
//! what it has not read, sent, or seen acknowledged), from the order of its states, and from the
//! RSTs reported of it ([`evidence`]). [`error`] judges by `sk_err`, [`plain`] where there is none,
//! [`order`] where only states and RSTs are reported. Must not guess: what these do not settle is
//! [`How::Unknown`], with the reason.
//!
//! Some closes are settled only by what follows, since `tcp_reset()` and `tcp_done()` move the
//! socket before the caller sends its RST: those are [`Judgement::Open`] until `pending` knows.

mod error;
mod evidence;
mod judgement;
mod order;
mod plain;

use judgement::verdict;
use tcptrace_model::{
    EndReason, How, Initiator, ResetDirection, RstReason, RstWhy, TcpState, UnknownBecause, Verdict,
};
pub(super) use {
    evidence::{Close, Resets},
    judgement::{Judgement, Question},
};

/// What is remembered of a connection for its verdict. Small: there may be a million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    verdict: Verdict,
    resets: Resets,
}

impl Ending {
    /// The connection goes from `old` to `new`, which is not CLOSE. Returns the initiator if that
    /// settles it.
    pub(super) fn moved(&mut self, old: TcpState, new: TcpState) -> Option<Initiator> {
        self.resets = Resets::default();
        let before = self.verdict.initiator;
        if before.is_none() {
            self.verdict.initiator = initiator_in(old);
        }
        match new {
            TcpState::Closing => self.verdict.initiator = Some(Initiator::Both),
            _ if self.verdict.initiator.is_none() => self.verdict.initiator = initiator_in(new),
            _ => {}
        }
        (self.verdict.initiator != before).then_some(self.verdict.initiator).flatten()
    }

    /// Both FINs have been seen and acknowledged: what is left is TIME_WAIT. The state before it
    /// tells who was first, where that was not seen.
    pub(super) fn entered_time_wait(&mut self, old: TcpState) -> Verdict {
        let initiator = self.verdict.initiator.or(initiator_in(old));
        self.verdict = Verdict::of(initiator, How::Fin);
        self.verdict
    }

    /// The minisock, in `state`, ended for this reason.
    pub(super) fn minisock_ended(&mut self, state: TcpState, reason: EndReason) -> Verdict {
        let initiator = self.verdict.initiator;
        if state == TcpState::FinWait2 {
            let ruling = match reason {
                EndReason::Expired => Ok(How::OrphanGaveUp),
                EndReason::Reset => Ok(How::RstReceived),
                EndReason::RstSent => Ok(How::RstSent(RstWhy::DataAfterClose)),
                EndReason::Killed => Ok(How::SockDestroy),
                EndReason::NetnsExit => Ok(How::NetnsExit),
                EndReason::ReusedByConnect
                | EndReason::ReusedBySyn
                | EndReason::Unknown
                | EndReason::NeverCreated => Err(UnknownBecause::MinisockEnd),
            };
            self.verdict = verdict(initiator.or(Some(Initiator::Local)), ruling);
        } else if self.verdict.how.is_none() {
            // What is in TIME_WAIT has closed, whatever became of the minisock.
            self.verdict = Verdict::of(initiator, How::Fin);
        }
        self.verdict
    }

    /// A RST was reported of the connection, which is not in CLOSE.
    pub(super) fn reset(&mut self, direction: ResetDirection, reason: Option<RstReason>) {
        self.resets.add(direction, reason);
    }

    /// The RSTs that were reported of the connection before it was known.
    pub(super) fn set_resets(&mut self, resets: Resets) {
        self.resets = resets;
    }

    /// The socket goes to CLOSE, and no minisock takes over.
    pub(super) fn closed(&self, close: &Close<'_>) -> Judgement {
        let initiator = self.verdict.initiator.or(initiator_in(close.old));
        match close.sock {
            None => order::judge(self.resets, close, initiator),
            Some(sock) => error::judge(self.resets, close, sock, initiator),
        }
    }
}

/// Who closed first, by the state that a socket is in.
fn initiator_in(state: TcpState) -> Option<Initiator> {
    use TcpState::*;
    match state {
        FinWait1 | FinWait2 => Some(Initiator::Local),
        CloseWait | LastAck => Some(Initiator::Remote),
        Closing => Some(Initiator::Both),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
