//! What a close comes to: a verdict, or a question that the RST right after it answers.
//!
//! Must not look at the evidence, but for whether an answer can be had at all.

use super::evidence::Close;
use tcptrace_model::{
    DropWhy, How, Initiator, RstReason, RstWhy, Timeout, UnknownBecause, Verdict,
};

/// What a →CLOSE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is settled.
    Settled(Verdict),
    /// A RST sent right after tells.
    Open(Question),
}

/// How a connection ended, or why that is not known.
pub(super) type Ruling = Result<How, UnknownBecause>;

/// What the RST right after a →CLOSE, or its absence, is to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    initiator: Option<Initiator>,
    /// Where none follows.
    silent: Ruling,
    /// Where one follows without a reason that says more.
    sent: Ruling,
}

impl Question {
    /// No RST followed. If records of RSTs were `lost` meanwhile, that says nothing.
    pub(crate) fn unanswered(self, lost: bool) -> Verdict {
        match lost {
            true => Verdict::unknown(self.initiator, UnknownBecause::EventsLost),
            false => verdict(self.initiator, self.silent),
        }
    }

    /// A RST followed, for a reason that the kernel may have given.
    pub(crate) fn answered(self, reason: Option<RstReason>) -> Verdict {
        let ruling = match reason {
            Some(RstReason::AbortOnMemory) => Ok(How::OrphanLimit),
            Some(RstReason::AbortOnLinger) => Ok(How::RstSent(RstWhy::Linger2)),
            // Of all that move the socket first, only __tcp_close() says this.
            Some(RstReason::AbortOnClose) => Ok(How::RstUnreadData),
            _ => self.sent,
        };
        verdict(self.initiator, ruling)
    }

    /// What followed was not waited for.
    pub(crate) fn not_asked(self) -> Verdict {
        Verdict::unknown(self.initiator, UnknownBecause::Overload)
    }
}

pub(super) fn settled(initiator: Option<Initiator>, how: How) -> Judgement {
    Judgement::Settled(verdict(initiator, Ok(how)))
}

pub(super) fn unknown(initiator: Option<Initiator>, because: UnknownBecause) -> Judgement {
    Judgement::Settled(Verdict::unknown(initiator, because))
}

/// A RST right after decides. Where RSTs are not reported, nothing does.
pub(super) fn open(
    close: &Close<'_>,
    initiator: Option<Initiator>,
    (sent, silent): (Ruling, Ruling),
) -> Judgement {
    match close.resets_told {
        true => Judgement::Open(Question { initiator, silent, sent }),
        false => unknown(initiator, UnknownBecause::NoResetHook),
    }
}

pub(super) fn verdict(initiator: Option<Initiator>, ruling: Ruling) -> Verdict {
    match ruling {
        Ok(how) => Verdict::of(initiator.or(initiator_of(how)), how),
        Err(because) => Verdict::unknown(initiator, because),
    }
}

/// Who closed first, where no FIN was seen.
fn initiator_of(how: How) -> Option<Initiator> {
    match how {
        How::RstLinger0
        | How::RstUnreadData
        | How::RstSent(_)
        | How::SockDestroy
        | How::Dropped(DropWhy::Repair | DropWhy::Disconnect)
        | How::ConnectAbandoned => Some(Initiator::Local),
        How::RstReceived | How::Refused => Some(Initiator::Remote),
        How::Unreachable
        | How::Timeout(
            Timeout::Syn
            | Timeout::SynAck
            | Timeout::Retransmit
            | Timeout::Keepalive
            | Timeout::User,
        )
        | How::OrphanGaveUp
        | How::OrphanLimit
        | How::NetnsExit
        | How::NoLocalPort => Some(Initiator::None),
        How::Fin | How::Unknown => None,
    }
}
