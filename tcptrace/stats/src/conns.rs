//! Connections as wholes: what is to be said of each when it has ended.
//!
//! Keeps one small record a connection, of what its changes tell one by one; all else comes with
//! the last of them. Must not claim more than it was told: what a record lacks is unknown.

mod lives;
mod record;
mod records;
mod times;
mod traffic;

pub use lives::Lives;
pub use times::{Times, least_ns, sum};
pub use traffic::Traffic;

use record::Record;
use records::Records;

use tcptrace_model::{
    Age, Birth, Change, EndReason, Found, Moved, Opened, Owner, TcpState, Tuple, Verdict,
};

/// When a connection is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When nothing is left of it: one that enters TIME_WAIT, at the end of that.
    End,
    /// When it is closed: one that enters TIME_WAIT, as it does.
    Close,
}

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
    /// How and when it began, if that was seen.
    pub birth: Option<Birth>,
    /// Whose it is, if that is known.
    pub owner: Option<Owner>,
    /// Who closed first, and how it ended.
    pub verdict: Verdict,
    /// How its minisock ended, or why there was none.
    pub end_reason: Option<EndReason>,
    /// The time in each state.
    pub times: Times,
    /// What it carried, if that was told.
    pub traffic: Option<Traffic>,
}

impl Connection {
    /// How long connect() took to come to a connection, nanoseconds. `None` for what was accepted
    /// (its handshake was the SYN queue's, unseen), never came to be, or is not known exactly.
    pub fn handshake_ns(&self) -> Option<u64> {
        use TcpState::{SynRecv, SynSent};
        let is_shaking = |state| matches!(state, SynSent | SynRecv);
        let connected = self.birth.is_some_and(|birth| birth.opened == Opened::Connect)
            && (self.times.iter().any(|(state, _)| !is_shaking(state))
                || !is_shaking(self.state) && self.state != TcpState::Close);
        let shaking = self.times.iter().filter(|(state, _)| connected && is_shaking(*state));
        match shaking.map(|(_, age)| age).reduce(sum) {
            Some(Age::Exactly(ns)) => Some(ns),
            _ => None,
        }
    }

    /// Whether it is an attempt to connect that came to nothing, which is no connection.
    pub fn failed(&self) -> bool {
        let never = self.verdict.how.is_some_and(|how| !how.is_of_a_connection());
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

/// The connections that go on.
pub struct Conns {
    until: Until,
    records: Records<Record>,
}

impl Conns {
    /// Keeps at most `limit` records. A connection without is handed out all the same, and its
    /// times before are unknown.
    pub fn new(until: Until, limit: usize) -> Self {
        Self { until, records: Records::new(limit) }
    }

    /// How many records had to go to keep the limit.
    pub fn evicted(&self) -> u64 {
        self.records.evicted()
    }

    /// Takes in a change. Hands out the connection that it ends, if it does.
    pub fn change(&mut self, change: &Change) -> Option<Connection> {
        match change {
            Change::Moved(moved) => self.moved(moved),
            Change::Retired(retired) => {
                self.records.of(retired.id).retired(&retired.totals);
                None
            }
            Change::Gone(found) => {
                self.records.remove(found.id);
                None
            }
            Change::Found(_) => None,
        }
    }

    fn moved(&mut self, moved: &Moved) -> Option<Connection> {
        use TcpState::{Close, Listen, TimeWait};
        let listens = moved.new == Listen || moved.old == Listen && moved.new == Close;
        let told = self.until == Until::Close && moved.old == TimeWait;
        if listens || told {
            return None;
        }
        let ends = moved.new == Close || self.until == Until::Close && moved.new == TimeWait;
        if !ends {
            // At its birth there is nothing to keep yet.
            if !moved.is_birth() {
                self.records.of(moved.id).take(moved);
            }
            return None;
        }
        let record = self.records.remove(moved.id).unwrap_or_default();
        Some(record.ended(moved))
    }

    /// Of those in `census`, the connections that were closed since this began and are in
    /// TIME_WAIT at `now`, as far as they have come; none where they were handed out already. The
    /// first to be closed first.
    pub fn waiting(&self, census: impl Iterator<Item = Found>, now: u64) -> Vec<Connection> {
        let in_time_wait = |found: &Found| {
            self.until == Until::End
                && found.state == TcpState::TimeWait
                && self.records.get(found.id).is_some()
        };
        let mut all: Vec<_> =
            census.filter(in_time_wait).map(|found| self.standing(&found, now)).collect();
        all.sort_unstable_by_key(|one| (one.closed_ns, one.id));
        all
    }

    /// Of those in `census`, the connections that are open at `now`: all but listeners and what
    /// is in TIME_WAIT. Those known for the longest first.
    pub fn open(&self, census: impl Iterator<Item = Found>, now: u64) -> Vec<Connection> {
        use TcpState::{Close, Listen, TimeWait};
        let is_open = |found: &Found| !matches!(found.state, Close | Listen | TimeWait);
        let mut all: Vec<_> =
            census.filter(is_open).map(|found| self.standing(&found, now)).collect();
        all.sort_unstable_by_key(|one| one.id);
        all
    }

    /// A connection as far as it has come.
    fn standing(&self, found: &Found, now: u64) -> Connection {
        self.records.get(found.id).copied().unwrap_or_default().standing(found, now)
    }
}

#[cfg(test)]
mod tests;
