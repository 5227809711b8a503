//! Connections as wholes: what is to be said of each when it has ended.
//!
//! Keeps one small record a connection, of what its changes tell one by one; all else comes with
//! the last of them. Must not claim more than it was told: what a record lacks is unknown.

mod records;
mod times;
mod traffic;

use std::num::NonZeroU64;

pub use times::{Times, least_ns, sum};
pub use traffic::Traffic;

use records::Records;
use traffic::{Counted, Signs};

use crate::model::{
    Age, Birth, Change, EndReason, Found, Moved, Opened, Owner, Retired, TcpState, Tuple, Verdict,
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

/// What is kept of a connection while it goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    times: Times,
    /// When it entered the state that it is in; 0 if no move of it was told.
    since_ns: u64,
    cookie: Option<NonZeroU64>,
    cgroup: Option<NonZeroU64>,
    counted: Counted,
    verdict: Verdict,
    /// `counted` was told.
    told: bool,
    /// Its birth was known.
    born: bool,
    /// When the full socket went, nothing that it had sent was not acknowledged.
    all_acked: bool,
    /// The full socket had the peer's FIN.
    peer_fin: bool,
}

impl Record {
    fn take(&mut self, moved: &Moved) {
        if self.born && moved.birth.is_none() {
            // After a loss, the address may have become another connection's.
            let Self { counted, told, all_acked, .. } = *self;
            *self = Self { counted, told, all_acked, ..Self::default() };
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
        }
        self.verdict.initiator = moved.verdict.initiator.or(self.verdict.initiator);
        self.verdict.how = moved.verdict.how.or(self.verdict.how);
    }

    fn traffic(&self, birth: Option<Birth>) -> Option<Traffic> {
        use TcpState::{CloseWait, Closing, FinWait1, FinWait2, LastAck};
        let was_in = |states: &[TcpState]| states.iter().any(|&s| self.times.of(s).is_some());
        let signs = Signs {
            opened: birth.map(|birth| birth.opened),
            fin_acked: self.all_acked && was_in(&[FinWait1, FinWait2, Closing, LastAck]),
            fin_received: self.peer_fin || was_in(&[CloseWait, Closing, LastAck]),
        };
        self.told.then(|| Traffic::of(&self.counted, signs))
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
            Change::Retired(Retired { id, totals, .. }) => {
                let record = self.records.of(*id);
                record.counted = totals.into();
                record.told = true;
                record.all_acked = totals.unacked == 0;
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
        let mut record = self.records.remove(moved.id).unwrap_or_default();
        let entered_ns = (record.since_ns > 0).then_some(record.since_ns);
        record.take(moved);
        Some(Connection {
            id: moved.id,
            state: moved.new,
            mono_ns: moved.mono_ns,
            closed_ns: if moved.old == TimeWait { entered_ns } else { Some(moved.mono_ns) },
            tuple: moved.tuple,
            netns: moved.netns,
            cookie: record.cookie.map(NonZeroU64::get),
            cgroup: record.cgroup.map(NonZeroU64::get),
            birth: moved.birth,
            owner: moved.owner,
            verdict: record.verdict,
            end_reason: moved.end_reason,
            times: record.times,
            traffic: record.traffic(moved.birth),
        })
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
    pub fn standing(&self, found: &Found, now: u64) -> Connection {
        let mut record = self.records.get(found.id).copied().unwrap_or_default();
        let entered_ns = match record.since_ns {
            // It is where its birth took it, if that was seen.
            0 => found.birth.map(|birth| birth.mono_ns),
            ns => Some(ns),
        };
        if let Some(ns) = entered_ns {
            record.times.add(found.state, Age::AtLeast(now.saturating_sub(ns)));
        }
        Connection {
            id: found.id,
            state: found.state,
            mono_ns: now,
            closed_ns: entered_ns.filter(|_| found.state == TcpState::TimeWait),
            tuple: found.tuple,
            netns: found.netns,
            cookie: record.cookie.map(NonZeroU64::get).or(found.cookie),
            cgroup: record.cgroup.map(NonZeroU64::get).or(found.cgroup),
            birth: found.birth,
            owner: found.owner,
            verdict: record.verdict,
            end_reason: None,
            times: record.times,
            traffic: record.traffic(found.birth),
        }
    }
}

#[cfg(test)]
mod tests;
