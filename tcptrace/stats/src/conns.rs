//! Connections as wholes: what is to be said of each when it has ended.
//!
//! Keeps one small record a connection, of what its changes tell one by one; all else comes with
//! the last of them. Must not claim more than it was told: what a record lacks is unknown.

mod connection;
mod lives;
mod record;
mod records;
mod times;
mod traffic;

pub use connection::{Connection, Retransmits};
pub use lives::Lives;
pub use times::{Times, least_ns, sum};
pub use traffic::Traffic;

use record::Record;
use records::Records;

use tcptrace_model::{Change, Found, Moved, TcpState};

/// When a connection is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When nothing is left of it: one that enters TIME_WAIT, at the end of that.
    End,
    /// When it is closed: one that enters TIME_WAIT, as it does.
    Close,
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
