//! Who closed a connection first, and how it ended.
//!
//! Judged from what the socket itself says at →CLOSE (`sk_err`, `sk_shutdown`, SOCK_DEAD,
//! SO_LINGER, what it has not read and what was not acknowledged), from the order of its states,
//! and from the RSTs told of it. Must not guess: what these do not settle is
//! [`How::Unknown`].
//!
//! Some ends are settled only by what follows, since `tcp_reset()` and `tcp_done()` move the
//! socket before the caller sends its RST: those are [`Judgement::Open`] until `pending` knows.

use tcptrace_model::{
    EndReason, How, Initiator, Linger, ResetDirection, RstReason, RstWhy, SockFacts, TcpState,
    Timeout, Totals, Verdict,
};

const EPIPE: u16 = 32;
const ENOPROTOOPT: u16 = 92;
const ENETUNREACH: u16 = 101;
const ECONNABORTED: u16 = 103;
const ECONNRESET: u16 = 104;
const ECONNREFUSED: u16 = 111;
const EHOSTUNREACH: u16 = 113;
const EPROTO: u16 = 71;

/// `RCV_SHUTDOWN`
const RCV_SHUTDOWN: u8 = 1;
/// `SHUTDOWN_MASK`: what close() sets.
const BOTH_SHUT: u8 = 3;

/// What is remembered of a connection for its verdict. Small: there may be a million of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    verdict: Verdict,
    received_rst: bool,
    sent_rst: Option<Sent>,
}

/// A RST that was sent before →CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    For(RstReason),
    /// This kernel does not say why.
    ForNoReasonGiven,
}

/// What a →CLOSE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is settled.
    Settled(Verdict),
    /// A RST sent right after tells.
    Open(Question),
}

/// What the RST right after a →CLOSE, or its absence, is to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    initiator: Option<Initiator>,
    /// Where none follows.
    silent: How,
    /// Where one follows without a reason.
    sent: How,
}

impl Question {
    /// No RST followed.
    pub(super) fn unanswered(self) -> Verdict {
        self.verdict(self.silent)
    }

    /// A RST followed, for a reason that the kernel may have given.
    pub(super) fn answered(self, reason: Option<RstReason>) -> Verdict {
        self.verdict(match reason {
            Some(RstReason::AbortOnMemory) => How::OrphanLimit,
            _ => self.sent,
        })
    }

    /// What followed was not waited for.
    pub(super) fn not_asked(self) -> Verdict {
        Verdict { initiator: self.initiator, how: Some(How::Unknown) }
    }

    fn verdict(self, how: How) -> Verdict {
        Verdict { initiator: self.initiator.or(initiator_of(how)), how: Some(how) }
    }
}

/// What a socket says of itself at →CLOSE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Close<'a> {
    /// The state left.
    pub(super) old: TcpState,
    /// `None` from the classic tracepoint.
    pub(super) sock: Option<&'a SockFacts>,
    /// `None` where BTF has no such fields.
    pub(super) totals: Option<&'a Totals>,
    /// The local port is not known: connect() has not chosen one.
    pub(super) unbound: bool,
    /// Something tells of minisocks: a hand-over to one is no CLOSE.
    pub(super) minisocks_told: bool,
}

impl Close<'_> {
    /// Whether all that was sent, the FIN included, was acknowledged.
    fn all_acked(&self) -> Option<bool> {
        self.totals.map(|totals| totals.unacked == 0)
    }
}

impl Ending {
    /// The connection goes from `old` to `new`, which is not CLOSE. Returns the initiator if that
    /// settles it.
    pub(super) fn moved(&mut self, old: TcpState, new: TcpState) -> Option<Initiator> {
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
        self.verdict.initiator = self.verdict.initiator.or(initiator_in(old));
        self.verdict.how = Some(How::Fin);
        self.verdict
    }

    /// The minisock, in `state`, ended for this reason.
    pub(super) fn minisock_ended(&mut self, state: TcpState, reason: EndReason) -> Verdict {
        if state == TcpState::FinWait2 {
            self.verdict.initiator = self.verdict.initiator.or(Some(Initiator::Local));
            self.verdict.how = Some(match reason {
                EndReason::Expired => How::OrphanGaveUp,
                EndReason::Reset => How::RstReceived,
                EndReason::RstSent => How::RstSent(RstWhy::DataAfterClose),
                EndReason::Killed => How::SockDestroy,
                EndReason::NetnsExit => How::NetnsExit,
                EndReason::ReusedByConnect
                | EndReason::ReusedBySyn
                | EndReason::Unknown
                | EndReason::NeverCreated => How::Unknown,
            });
        }
        // What is in TIME_WAIT has closed, whatever became of the minisock.
        self.verdict.how = self.verdict.how.or(Some(How::Fin));
        self.verdict
    }

    /// A RST was told of the connection, which is not in CLOSE.
    pub(super) fn reset(&mut self, direction: ResetDirection, reason: Option<RstReason>) {
        match direction {
            ResetDirection::Received => self.received_rst = true,
            ResetDirection::Sent => {
                self.sent_rst = Some(reason.map_or(Sent::ForNoReasonGiven, Sent::For));
            }
        }
    }

    /// The socket goes to CLOSE, and no minisock takes over.
    pub(super) fn closed(&self, close: &Close<'_>) -> Judgement {
        let initiator = self.verdict.initiator.or(initiator_in(close.old));
        let Some(sock) = close.sock else {
            // The classic record has no more than the order of states and the RSTs.
            return self.by_order(close, initiator);
        };
        match sock.err {
            0 => self.without_error(close, sock, initiator),
            ECONNABORTED => settled(initiator, How::SockDestroy),
            ECONNREFUSED if close.old == TcpState::SynSent => settled(initiator, How::Refused),
            EHOSTUNREACH | ENETUNREACH | ENOPROTOOPT | EPROTO if close.old == TcpState::SynSent => {
                settled(initiator, How::Unreachable)
            }
            // tcp_rcv_state_process(): data after close() calls tcp_reset(), which tells of a RST
            // that never came, and sends one right after.
            ECONNRESET if behaves_as_reset(close.old, sock) => Judgement::Open(Question {
                initiator,
                silent: How::RstReceived,
                sent: How::RstSent(RstWhy::DataAfterClose),
            }),
            ECONNRESET | EPIPE => settled(initiator, How::RstReceived),
            ECONNREFUSED if self.received_rst => settled(initiator, How::RstReceived),
            // tcp_write_err(): ETIMEDOUT, or the last ICMP error that was not taken as final.
            _ => settled(initiator, self.timed_out(close, sock)),
        }
    }

    fn timed_out(&self, close: &Close<'_>, sock: &SockFacts) -> How {
        if close.old == TcpState::SynSent {
            return How::Timeout(Timeout::Syn);
        }
        if sock.dead {
            return How::OrphanGaveUp;
        }
        // tcp_keepalive_timer() sends its RST first.
        if self.sent_rst.is_some() {
            return How::Timeout(Timeout::Keepalive);
        }
        match close.totals {
            Some(totals) if totals.user_timeout_ms != 0 => How::Timeout(Timeout::User),
            _ => How::Timeout(Timeout::Retransmit),
        }
    }

    fn without_error(
        &self,
        close: &Close<'_>,
        sock: &SockFacts,
        initiator: Option<Initiator>,
    ) -> Judgement {
        use TcpState::*;
        let how = match close.old {
            SynSent if close.unbound => How::NoLocalPort,
            SynSent if sock.shutdown == BOTH_SHUT => How::ConnectAbandoned,
            // connect(AF_UNSPEC), or a connect() that failed with a port that was bound before.
            SynSent => How::Unknown,
            _ if sock.unaccepted => How::RstSent(RstWhy::ListenerClosed),
            _ if sock.dead => return self.orphan(close, initiator),
            // Both FINs are through; from FIN_WAIT2 and CLOSING a minisock should have taken over.
            LastAck | Closing if close.all_acked() != Some(false) => How::Fin,
            FinWait2 if sock.peer_fin => How::Fin,
            _ if sock.shutdown != BOTH_SHUT => How::RstSent(RstWhy::Disconnect),
            _ => match (close.totals, sock.linger) {
                // tcp_close() looks at what is unread first.
                (Some(totals), _) if unread(sock, totals) > 0 => How::RstUnreadData,
                (Some(_), Linger::Jiffies(0)) => How::RstLinger0,
                (Some(_), _) => How::RstSent(RstWhy::Disconnect),
                // close() reset it, for one reason or the other.
                (None, _) => return settled(initiator.or(Some(Initiator::Local)), How::Unknown),
            },
        };
        settled(initiator, how)
    }

    /// An orphan goes to CLOSE without an error.
    fn orphan(&self, close: &Close<'_>, initiator: Option<Initiator>) -> Judgement {
        use TcpState::*;
        match (close.old, self.sent_rst) {
            (_, Some(Sent::For(RstReason::AbortOnMemory))) => {
                return settled(initiator, How::OrphanLimit);
            }
            // tcp_keepalive_timer(), where it waits for longer than a minisock may.
            (FinWait2, Some(_)) => return settled(initiator, How::OrphanGaveUp),
            // tcp_out_of_resources()
            (FinWait1 | LastAck | Closing, Some(_)) => {
                return settled(initiator, How::OrphanLimit);
            }
            _ => {}
        }
        let acked = close.all_acked();
        match (close.old, acked) {
            (LastAck | Closing, Some(true) | None) => settled(initiator, How::Fin),
            (FinWait2, _) if close.sock.is_some_and(|sock| sock.peer_fin) => {
                settled(initiator, How::Fin)
            }
            // tcp_close() sends its RST after. None comes where there is no memory for one, nor from
            // a socket of the kernel's own in a namespace that goes (tcp_out_of_resources()).
            (FinWait1 | LastAck | Closing, _) => Judgement::Open(Question {
                initiator,
                silent: How::Unknown,
                sent: How::OrphanLimit,
            }),
            // Nearly always a hand-over, of which nobody will tell more.
            (FinWait2, _) if !close.minisocks_told => settled(initiator, How::Unknown),
            // tcp_rcv_state_process() ends what is not to wait, or got data with the ACK of its FIN,
            // for one reason.
            (FinWait2, _) => Judgement::Open(Question {
                initiator,
                silent: How::Unknown,
                sent: How::RstSent(match close.totals {
                    Some(totals) if totals.linger2 < 0 => RstWhy::Linger2,
                    Some(_) => RstWhy::DataAfterClose,
                    None => RstWhy::Other,
                }),
            }),
            _ => settled(initiator, How::Unknown),
        }
    }

    /// The order of states and the RSTs alone.
    fn by_order(&self, close: &Close<'_>, initiator: Option<Initiator>) -> Judgement {
        use TcpState::*;
        let how = match close.old {
            SynSent if self.received_rst => How::Refused,
            SynSent if close.unbound => How::NoLocalPort,
            FinWait1 | FinWait2 if self.received_rst => {
                return Judgement::Open(Question {
                    initiator,
                    silent: How::RstReceived,
                    sent: How::RstSent(RstWhy::DataAfterClose),
                });
            }
            _ if self.received_rst => How::RstReceived,
            LastAck | Closing if self.sent_rst.is_none() => How::Fin,
            _ => How::Unknown,
        };
        settled(initiator, how)
    }
}

/// Whether data after close() may be behind an ECONNRESET.
fn behaves_as_reset(old: TcpState, sock: &SockFacts) -> bool {
    matches!(old, TcpState::FinWait1 | TcpState::FinWait2) && sock.shutdown & RCV_SHUTDOWN != 0
}

/// Bytes of payload that nobody read. The peer's FIN, where it has come, counts as one of what is
/// unread, and nothing is behind it.
fn unread(sock: &SockFacts, totals: &Totals) -> u32 {
    totals.unread.saturating_sub(u32::from(sock.peer_fin))
}

fn settled(initiator: Option<Initiator>, how: How) -> Judgement {
    Judgement::Settled(Verdict { initiator: initiator.or(initiator_of(how)), how: Some(how) })
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
        | How::ConnectAbandoned => Some(Initiator::Local),
        How::RstReceived | How::Refused => Some(Initiator::Remote),
        How::Unreachable
        | How::Timeout(_)
        | How::OrphanGaveUp
        | How::OrphanLimit
        | How::NetnsExit
        | How::NoLocalPort => Some(Initiator::None),
        How::Fin | How::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
