//! Who closed a connection first, and how it ended.
//!
//! Judged from what the socket itself says at →CLOSE (`sk_err`, `sk_shutdown`, SOCK_DEAD, SO_LINGER,
//! what it has not read, sent, or seen acknowledged), from the order of its states, and from the
//! RSTs reported of it. [`error`] judges by `sk_err`, [`plain`] where there is none, [`order`] where
//! only states and RSTs are reported. Must not guess: what these do not settle is [`How::Unknown`],
//! with the reason.
//!
//! Some closes are settled only by what follows, since `tcp_reset()` and `tcp_done()` move the
//! socket before the caller sends its RST: those are [`Judgement::Open`] until `pending` knows.

mod error;
mod order;
mod plain;

use tcptrace_model::{
    Age, DropWhy, EndReason, How, Initiator, Opened, ResetDirection, RstReason, RstWhy, SockFacts,
    TcpState, Timeout, Totals, UnknownBecause, Verdict,
};

/// What is remembered of a connection for its verdict. Small: there may be a million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    verdict: Verdict,
    resets: Resets,
}

/// The RSTs reported of a socket since it entered its state: one that it outlived (the answer to a
/// stray segment, in SYN_SENT or SYN_RECV) says nothing of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resets {
    received: bool,
    sent: Option<Sent>,
}

/// A RST that was sent before →CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    For(RstReason),
    /// This kernel does not say why.
    ForNoReasonGiven,
}

impl Resets {
    /// A RST was reported of the socket, which is not in CLOSE.
    pub(super) fn add(&mut self, direction: ResetDirection, reason: Option<RstReason>) {
        match direction {
            ResetDirection::Received => self.received = true,
            ResetDirection::Sent => {
                self.sent = Some(reason.map_or(Sent::ForNoReasonGiven, Sent::For));
            }
        }
    }
}

/// What a →CLOSE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is settled.
    Settled(Verdict),
    /// A RST sent right after tells.
    Open(Question),
}

/// How a connection ended, or why that is not known.
type Ruling = Result<How, UnknownBecause>;

/// What the RST right after a →CLOSE, or its absence, is to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    initiator: Option<Initiator>,
    /// Where none follows.
    silent: Ruling,
    /// Where one follows without a reason that says more.
    sent: Ruling,
}

impl Question {
    /// No RST followed. If records of RSTs were `lost` meanwhile, that says nothing.
    pub(super) fn unanswered(self, lost: bool) -> Verdict {
        match lost {
            true => Verdict::unknown(self.initiator, UnknownBecause::EventsLost),
            false => verdict(self.initiator, self.silent),
        }
    }

    /// A RST followed, for a reason that the kernel may have given.
    pub(super) fn answered(self, reason: Option<RstReason>) -> Verdict {
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
    pub(super) fn not_asked(self) -> Verdict {
        Verdict::unknown(self.initiator, UnknownBecause::Overload)
    }
}

/// What a socket says of itself at →CLOSE, and what is known of its connection and of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Close<'a> {
    /// The state left.
    pub(super) old: TcpState,
    /// How long it was in that.
    pub(super) in_old: Age,
    /// How the connection began, if that was seen.
    pub(super) opened: Option<Opened>,
    /// `None` from the classic tracepoint.
    pub(super) sock: Option<&'a SockFacts>,
    /// `None` where BTF has no such fields.
    pub(super) totals: Option<&'a Totals>,
    /// The local port is not known: connect() has not chosen one.
    pub(super) unbound: bool,
    /// Something tells of minisocks: a hand-over to one is no CLOSE.
    pub(super) minisocks_told: bool,
    /// RSTs are reported in this run.
    pub(super) resets_told: bool,
    /// Records of RSTs may have been lost since the state was entered.
    pub(super) resets_lost: bool,
}

impl Close<'_> {
    /// Whether all that was sent, the FIN included, was acknowledged.
    fn all_acked(&self) -> Option<bool> {
        self.totals.map(|totals| totals.unacked == 0)
    }

    /// Why the absence of a RST says nothing, if that is so.
    fn deaf_to_resets(&self) -> Option<UnknownBecause> {
        match (self.resets_told, self.resets_lost) {
            (false, _) => Some(UnknownBecause::NoResetHook),
            (true, true) => Some(UnknownBecause::EventsLost),
            (true, false) => None,
        }
    }
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

fn settled(initiator: Option<Initiator>, how: How) -> Judgement {
    Judgement::Settled(verdict(initiator, Ok(how)))
}

fn unknown(initiator: Option<Initiator>, because: UnknownBecause) -> Judgement {
    Judgement::Settled(Verdict::unknown(initiator, because))
}

/// A RST right after decides. Where RSTs are not reported, nothing does.
fn open(
    close: &Close<'_>,
    initiator: Option<Initiator>,
    (sent, silent): (Ruling, Ruling),
) -> Judgement {
    match close.resets_told {
        true => Judgement::Open(Question { initiator, silent, sent }),
        false => unknown(initiator, UnknownBecause::NoResetHook),
    }
}

fn verdict(initiator: Option<Initiator>, ruling: Ruling) -> Verdict {
    match ruling {
        Ok(how) => Verdict::of(initiator.or(initiator_of(how)), how),
        Err(because) => Verdict::unknown(initiator, because),
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

#[cfg(test)]
mod tests;
