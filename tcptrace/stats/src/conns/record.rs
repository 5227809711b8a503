//! What is kept of one connection while it goes on, and what that comes to in the end.
//!
//! Small: a million connections hold one each. Must not keep what each event tells anew.

use std::num::NonZeroU64;

use super::{
    connection::Connection,
    times::Times,
    traffic::{Counted, Signs, Traffic},
};
use tcptrace_model::{Age, Birth, Found, Moved, TcpState, Totals, Verdict};

/// What is kept of a connection while it goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    times: Times,
    /// When it entered the state that it is in; 0 if no move of it was told.
    since_ns: u64,
    cookie: Option<NonZeroU64>,
    cgroup: Option<NonZeroU64>,
    counted: Counted,
    verdict: Verdict,
    mptcp: Option<bool>,
    /// Its birth was known.
    born: bool,
    /// When the full socket went, nothing that it had sent was not acknowledged. `None` where
    /// `counted` was not reported.
    all_acked: Option<bool>,
    /// The full socket had the peer's FIN.
    peer_fin: bool,
}

impl Record {
    /// Takes in a move.
    pub(super) fn take(&mut self, moved: &Moved) {
        if self.born && moved.birth.is_none() {
            // After a loss, the address may have become another connection's.
            let Self { counted, all_acked, .. } = *self;
            *self = Self { counted, all_acked, ..Self::default() };
        }
        self.born = moved.birth.is_some();
        if !moved.is_birth() {
            self.times.add(moved.old, moved.in_old);
        }
        self.since_ns = moved.mono_ns;
        if let Some(sock) = &moved.sock {
            self.cookie = sock.cookie.and_then(NonZeroU64::new).or(self.cookie);
            self.cgroup = sock.cgroup.and_then(NonZeroU64::new).or(self.cgroup);
            self.peer_fin |= sock.peer_fin;
            self.mptcp = sock.mptcp.or(self.mptcp);
        }
        self.verdict.settle(moved.verdict);
    }

    /// Takes in what the full socket did in its life.
    pub(super) fn retired(&mut self, totals: &Totals) {
        self.counted = totals.into();
        self.all_acked = Some(totals.unacked == 0);
    }

    /// The connection that `moved` ends, or closes.
    pub(super) fn ended(mut self, moved: &Moved) -> Connection {
        let entered_ns = (self.since_ns > 0).then_some(self.since_ns);
        self.take(moved);
        let in_time_wait = moved.old == TcpState::TimeWait;
        Connection {
            id: moved.id,
            state: moved.new,
            mono_ns: moved.mono_ns,
            closed_ns: if in_time_wait { entered_ns } else { Some(moved.mono_ns) },
            tuple: moved.tuple,
            netns: moved.netns,
            cookie: self.cookie.map(NonZeroU64::get),
            cgroup: self.cgroup.map(NonZeroU64::get),
            mptcp: self.mptcp,
            birth: moved.birth,
            owner: moved.owner,
            closer: moved.closer,
            holder: None,
            verdict: self.verdict,
            end_reason: moved.end_reason,
            times: self.times,
            traffic: self.traffic(moved.birth),
            scanned_retransmits: None,
        }
    }

    /// The connection as far as it has come at `now`, where `found` says that it is.
    pub(super) fn standing(mut self, found: &Found, now: u64) -> Connection {
        let entered_ns = match self.since_ns {
            // It is where its birth took it, if that was seen; elsewhere, what took it there is
            // not kept any more.
            0 => found.birth.filter(|_| is_first(found.state)).map(|birth| birth.mono_ns),
            ns => Some(ns),
        };
        if let Some(ns) = entered_ns {
            self.times.add(found.state, Age::AtLeast(now.saturating_sub(ns)));
        }
        Connection {
            id: found.id,
            state: found.state,
            mono_ns: now,
            closed_ns: entered_ns.filter(|_| found.state == TcpState::TimeWait),
            tuple: found.tuple,
            netns: found.netns,
            cookie: self.cookie.map(NonZeroU64::get).or(found.cookie),
            cgroup: self.cgroup.map(NonZeroU64::get).or(found.cgroup),
            mptcp: self.mptcp.or(found.mptcp),
            birth: found.birth,
            owner: found.owner,
            closer: found.closer,
            holder: found.holder,
            verdict: self.verdict,
            end_reason: None,
            times: self.times,
            traffic: self.traffic(found.birth),
            scanned_retransmits: found.retransmits,
        }
    }

    fn traffic(&self, birth: Option<Birth>) -> Option<Traffic> {
        use TcpState::{CloseWait, Closing, FinWait1, FinWait2, LastAck};
        let was_in = |states: &[TcpState]| states.iter().any(|&s| self.times.of(s).is_some());
        let signs = Signs {
            opened: birth.map(|birth| birth.opened),
            fin_acked: self.all_acked == Some(true)
                && was_in(&[FinWait1, FinWait2, Closing, LastAck]),
            fin_received: self.peer_fin || was_in(&[CloseWait, Closing, LastAck]),
        };
        self.all_acked.map(|_| Traffic::of(&self.counted, signs))
    }
}

/// Whether it is one of the states that a birth leads to.
fn is_first(state: TcpState) -> bool {
    matches!(state, TcpState::SynSent | TcpState::SynRecv | TcpState::Listen)
}
