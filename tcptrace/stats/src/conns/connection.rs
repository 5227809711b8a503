//! A connection that has ended, or as much of it as there has been.

use super::{
    times::{Times, least_ns, sum},
    traffic::Traffic,
};
use tcptrace_model::{
    Age, Birth, Closer, EndReason, Holder, Opened, Owner, TcpState, Tuple, Verdict,
};

/// A connection that has ended, or as much of it as there has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Tells connections apart, within one run of the tracker.
    pub id: u64,
    /// CLOSE if it has ended, else the state that it is in.
    pub state: TcpState,
    /// When that was so, `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// When it was closed: when it went to CLOSE or into TIME_WAIT. `None` if it was not or that
    /// was not seen.
    pub closed_ns: Option<u64>,
    /// The two ends.
    pub tuple: Tuple,
    /// Inode of the network namespace, if that is known.
    pub netns: Option<u32>,
    /// The kernel's number for it, if that is known.
    pub cookie: Option<u64>,
    /// Id of its cgroup (v2), if that is known.
    pub cgroup: Option<u64>,
    /// Whether it is a subflow of an MPTCP socket, if that is known.
    pub mptcp: Option<bool>,
    /// How and when it began, if that was seen.
    pub birth: Option<Birth>,
    /// Whose it is, if that is known.
    pub owner: Option<Owner>,
    /// Who closed it from here, if somebody has and that is known.
    pub closer: Option<Closer>,
    /// Who had it open when a snapshot was last taken; `None` where it is over, or not known.
    pub holder: Option<Holder>,
    /// Who closed first, and how it ended.
    pub verdict: Verdict,
    /// How its minisock ended, or why there was none.
    pub end_reason: Option<EndReason>,
    /// The time in each state.
    pub times: Times,
    /// What it carried, if that was told.
    pub traffic: Option<Traffic>,
    /// Segments that it had sent again when a snapshot last told, of one that is not over.
    pub scanned_retransmits: Option<u32>,
}

/// How many segments were sent again, SYNs and FINs among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmits {
    /// So many.
    pub count: u32,
    /// Or more: a snapshot told, and the connection has gone on since.
    pub at_least: bool,
}

/// When a SYN that nobody has answered is sent again, in seconds after the first (`TCP_TIMEOUT_INIT`,
/// doubled; since 6.5 the first ones are alike, `tcp_syn_linear_timeouts`).
const SYN_RESENT_S: [u64; 13] = [1, 2, 3, 4, 5, 7, 11, 15, 19, 31, 35, 63, 67];
/// The first of them, and a quarter more, in nanoseconds: the timer wheel adds an eighth at the most.
const FIRST_RESEND_NS: u64 = 1_250_000_000;
/// What a host may be late by, in nanoseconds.
const LATE_NS: u64 = 100_000_000;

/// How many times a SYN that was sent so long ago has been sent again, at the least: each timeout is at
/// most twice the one before, and the first `n` together at most 2^n - 1 times the first.
const fn syn_resends(ns: u64) -> u32 {
    (ns / FIRST_RESEND_NS + 1).ilog2()
}

/// Whether a handshake that took `ns`, on a path with this round-trip time, is one in which a SYN was
/// sent again: it ended not long after one of those moments.
fn fits_a_resent_syn(ns: u64, srtt_ns: u64) -> bool {
    SYN_RESENT_S.into_iter().any(|after_s| {
        let sent_ns = after_s * 1_000_000_000;
        let slack_ns = sent_ns / 8 + LATE_NS.max(srtt_ns.saturating_mul(4));
        (sent_ns..=sent_ns.saturating_add(slack_ns)).contains(&ns)
    })
}

impl Connection {
    /// How long connect() took to come to a connection, nanoseconds. `None` for what was accepted
    /// (its handshake was the SYN queue's, unseen), never came to be, or is not known exactly.
    ///
    /// With a deferred Fast Open (`TCP_FASTOPEN_CONNECT`) the SYN is sent by the first write, and no
    /// transition tells when. So where a SYN that had been sent by connect() would have been sent again
    /// by its timer, that counts only if a segment is known to have been, and the end of the handshake
    /// fits one of these timeouts: data in a SYN that the peer does not take is sent again too.
    pub fn handshake_ns(&self) -> Option<u64> {
        use TcpState::{SynRecv, SynSent};
        let is_shaking = |state| matches!(state, SynSent | SynRecv);
        let connected = self.birth.is_some_and(|birth| birth.opened == Opened::Connect)
            && (self.times.iter().any(|(state, _)| !is_shaking(state))
                || !is_shaking(self.state) && self.state != TcpState::Close);
        let shaking = self.times.iter().filter(|(state, _)| connected && is_shaking(*state));
        match shaking.map(|(_, age)| age).reduce(sum) {
            Some(Age::Exactly(ns)) => {
                let resent = || {
                    let traffic = self.traffic.as_ref()?;
                    let enough = traffic.retransmits >= syn_resends(ns);
                    Some(enough && fits_a_resent_syn(ns, traffic.srtt_ns.unwrap_or(0)))
                };
                (ns < FIRST_RESEND_NS || resent() == Some(true)).then_some(ns)
            }
            _ => None,
        }
    }

    /// How many segments were sent again; `None` where neither its end nor a snapshot told.
    pub fn retransmits(&self) -> Option<Retransmits> {
        let at_end =
            self.traffic.map(|traffic| Retransmits { count: traffic.retransmits, at_least: false });
        at_end.or(self.scanned_retransmits.map(|count| Retransmits { count, at_least: true }))
    }

    /// Whether it is an attempt to connect that came to nothing, which is no connection.
    pub fn failed(&self) -> bool {
        let accepted = self.birth.is_some_and(|birth| birth.opened == Opened::Accept);
        let never = self.verdict.how.is_some_and(|how| !how.is_of_a_connection()) && !accepted;
        let left = self.times.iter().last().map(|(state, _)| state);
        never || self.state == TcpState::Close && left == Some(TcpState::SynSent)
    }

    /// Whether the times before its TIME_WAIT are not kept any more, though it was seen from its
    /// beginning.
    pub fn lacks_times(&self) -> bool {
        let first = self.times.iter().next().map(|(state, _)| state);
        let waits = first.unwrap_or(self.state) == TcpState::TimeWait;
        waits && self.birth.is_some()
    }

    /// How long it lived: from connect(), or from the end of the handshake if it was accepted,
    /// until it was closed. TIME_WAIT is not life.
    pub fn life(&self) -> Age {
        let alive =
            || self.times.iter().filter(|(state, _)| *state != TcpState::TimeWait).map(|it| it.1);
        let Some(birth) = self.birth else {
            // Of the time before its first event it is not known how long it was.
            return match alive().map(least_ns).fold(0, u64::saturating_add) {
                0 => Age::Unknown,
                ns => Age::AtLeast(ns),
            };
        };
        let since = |ns: u64| ns.saturating_sub(birth.mono_ns);
        let within = alive().find_map(|age| match age {
            Age::About { within_ns, .. } => Some(within_ns),
            _ => None,
        });
        match (self.closed_ns, within) {
            (Some(closed_ns), Some(within_ns)) => Age::About { ns: since(closed_ns), within_ns },
            (Some(closed_ns), None) => Age::Exactly(since(closed_ns)),
            (None, _) if !matches!(self.state, TcpState::Close | TcpState::TimeWait) => {
                Age::AtLeast(since(self.mono_ns))
            }
            (None, _) => Age::Unknown,
        }
    }
}
