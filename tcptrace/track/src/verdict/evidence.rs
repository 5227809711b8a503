//! What the verdict on a close is judged by: the socket at →CLOSE, what is known of its connection
//! and of the run, and the RSTs reported of it.
//!
//! Must not judge: what it has not is said, and what follows from that is for the rules.

use tcptrace_model::{
    Age, Opened, ResetDirection, RstReason, SockFacts, TcpState, Totals, UnknownBecause,
};

/// The RSTs reported of a socket since it entered its state: one that it outlived (the answer to a
/// stray segment, in SYN_SENT or SYN_RECV) says nothing of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resets {
    pub(super) received: bool,
    pub(super) sent: Option<Sent>,
}

/// A RST that was sent before →CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    For(RstReason),
    /// This kernel does not say why.
    ForNoReasonGiven,
}

impl Resets {
    /// A RST was reported of the socket, which is not in CLOSE.
    pub(crate) fn add(&mut self, direction: ResetDirection, reason: Option<RstReason>) {
        match direction {
            ResetDirection::Received => self.received = true,
            ResetDirection::Sent => {
                self.sent = Some(reason.map_or(Sent::ForNoReasonGiven, Sent::For));
            }
        }
    }
}

/// What a socket says of itself at →CLOSE, and what is known of its connection and of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Close<'a> {
    /// The state left.
    pub(crate) old: TcpState,
    /// How long it was in that.
    pub(crate) in_old: Age,
    /// How the connection began, if that was seen.
    pub(crate) opened: Option<Opened>,
    /// `None` from the classic tracepoint.
    pub(crate) sock: Option<&'a SockFacts>,
    /// `None` where BTF has no such fields.
    pub(crate) totals: Option<&'a Totals>,
    /// The local port is not known: connect() has not chosen one.
    pub(crate) unbound: bool,
    /// Something tells of minisocks: a hand-over to one is no CLOSE.
    pub(crate) minisocks_told: bool,
    /// RSTs are reported in this run.
    pub(crate) resets_told: bool,
    /// Records of RSTs may have been lost since the state was entered.
    pub(crate) resets_lost: bool,
}

impl Close<'_> {
    /// Whether all that was sent, the FIN included, was acknowledged.
    pub(super) fn all_acked(&self) -> Option<bool> {
        self.totals.map(|totals| totals.unacked == 0)
    }

    /// Why the absence of a RST says nothing, if that is so.
    pub(super) fn deaf_to_resets(&self) -> Option<UnknownBecause> {
        match (self.resets_told, self.resets_lost) {
            (false, _) => Some(UnknownBecause::NoResetHook),
            (true, true) => Some(UnknownBecause::EventsLost),
            (true, false) => None,
        }
    }
}
