//! Connections that were there before the hooks, from a snapshot.
//!
//! The address of such a socket is not known, so it is kept here by what a snapshot tells it apart
//! by ([`SockId`]) until an event of it comes. A snapshot is settled after the events of its time (see `compare`), so what is here
//! has not moved since; where an event says otherwise all the same, the event is right.

use std::num::NonZeroU64;

use super::{
    conn::{Conn, Entered},
    ends::{ByEnds, Ends},
    processes::{People, Processes},
    slab::{Keyed, Slab},
};
use tcptrace_model::{
    Holder, Owner, OwnerFrom, SnapSocket, SockId, TcpState, Tuple, hash::ByAnything,
};

/// `TCP_TIMEWAIT_LEN` in nanoseconds.
const TIMEWAIT_LEN_NS: u64 = 60_000_000_000;

/// What a snapshot told of one socket. Small: there may be a million of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    /// 0 until it is taken up.
    pub(super) id: u64,
    pub(super) cookie: u64,
    pub(super) state: TcpState,
    /// It is a minisock.
    pub(super) mini: bool,
    /// The first moment at which it is known to have been in its state.
    pub(super) since_ns: u64,
    pub(super) netns: u32,
    pub(super) tuple: Tuple,
    pub(super) people: People,
    cgroup: Option<NonZeroU64>,
}

impl Seed {
    /// The seed of a row of a dump of `netns`, taken from `began_ns` to `ended_ns`, that has had
    /// no event since it began. `who` keeps the processes.
    pub(super) fn of(
        row: &SnapSocket,
        netns: u32,
        (began_ns, ended_ns): (u64, u64),
        who: &mut Processes,
    ) -> Self {
        let holder = holder_of(row);
        let known = time_wait_since(row, ended_ns).or_else(|| in_state_since(row, ended_ns));
        Self {
            id: 0,
            cookie: row.cookie,
            state: row.state,
            mini: row.is_mini(),
            since_ns: known.map_or(began_ns, |since| since.min(began_ns)),
            netns,
            tuple: row.tuple,
            people: People {
                owner: who.better(None, holder.map(owner_by)),
                closer: None,
                holder: holder.and_then(|holder| who.keep_holder(holder)),
            },
            cgroup: row.full.as_ref().and_then(|full| full.cgroup),
        }
    }

    /// What tells its socket apart.
    pub(super) fn sock_id(&self) -> SockId {
        SockId::new(self.cookie, self.mini, self.tuple)
    }

    fn ends(&self) -> Ends {
        Ends { tuple: self.tuple, mini: self.mini, state: self.state, netns: self.netns }
    }

    /// The same as a connection from before.
    pub(super) fn conn(&self) -> Conn {
        let mut conn = Conn::new(self.id, self.state, self.since_ns, Entered::Before, self.tuple);
        conn.cookie = NonZeroU64::new(self.cookie);
        conn.netns = Some(self.netns);
        conn.people = self.people;
        conn.set_cgroup(self.cgroup);
        conn
    }
}

impl Keyed for Seed {
    type Key = SockId;

    fn key(&self) -> SockId {
        self.sock_id()
    }
}

/// Who has the socket of a row open.
pub(super) fn holder_of(row: &SnapSocket) -> Option<Holder> {
    row.full.as_ref().and_then(|full| full.holder)
}

/// Whose a socket is by who holds it: of several, the one that was there first may have opened it.
pub(super) fn owner_by(holder: Holder) -> Owner {
    Owner { task: holder.first, from: OwnerFrom::Snapshot }
}

/// Since when the timer of a minisock in TIME_WAIT has been running, by what is left of it at
/// the end of the dump, at the latest: since its birth, or since it was last started anew. Either
/// way it has been in TIME_WAIT so long.
pub(super) fn time_wait_since(row: &SnapSocket, ended_ns: u64) -> Option<u64> {
    let left_ms = row.minisock_expires_ms?;
    (row.state == TcpState::TimeWait).then(|| started(left_ms, ended_ns))
}

/// Since when a full socket has been in its state, at the latest, by what the kernel told of that
/// at some moment before the end of the dump.
fn in_state_since(row: &SnapSocket, ended_ns: u64) -> Option<u64> {
    let ms = row.full.as_ref()?.in_state_ms?;
    Some(ended_ns.saturating_sub(ms.get().saturating_mul(1_000_000)))
}

/// When the timer of a TIME_WAIT was last started that had so much left at `now`.
pub(super) fn started(left_ms: u32, now: u64) -> u64 {
    let left_ns = u64::from(left_ms) * 1_000_000;
    now.saturating_sub(TIMEWAIT_LEN_NS.saturating_sub(left_ns))
}

/// Seeds by what tells sockets apart, and by their ends once an event without a cookie asks.
#[derive(Default)]
pub(super) struct Seeds {
    seeds: Slab<Seed, ByAnything>,
    by_ends: Option<ByEnds>,
}

impl Seeds {
    pub(super) fn len(&self) -> usize {
        self.seeds.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Seed> {
        self.seeds.iter()
    }

    /// Those whose holders may be set: by nothing of them are they found again that changes.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Seed> {
        self.seeds.iter_mut()
    }

    /// Adds one of a socket that has none.
    pub(super) fn insert(&mut self, seed: Seed) {
        let ends = seed.ends();
        let at = self.seeds.insert(seed);
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.insert(ends, at);
        }
    }

    pub(super) fn remove(&mut self, id: &SockId) -> Option<Seed> {
        self.remove_at(self.seeds.find(id)?)
    }

    fn remove_at(&mut self, at: u32) -> Option<Seed> {
        let seed = self.seeds.remove_at(at)?;
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.remove(seed.ends(), at);
        }
        Some(seed)
    }

    /// Takes out the seed of the socket, or of the minisock, in this state, that an event is about.
    pub(super) fn take(
        &mut self,
        cookie: Option<u64>,
        tuple: &Tuple,
        state: TcpState,
        netns: Option<u32>,
        mini: bool,
    ) -> Option<Conn> {
        if self.seeds.is_empty() {
            return None;
        }
        let at = match cookie {
            Some(cookie) => self.seeds.find(&SockId::new(cookie, mini, *tuple))?,
            None => self.find(tuple, state, netns, mini)?,
        };
        if netns.is_some_and(|netns| self.seeds.at(at).is_some_and(|seed| seed.netns != netns)) {
            return None;
        }
        Some(self.remove_at(at)?.conn())
    }

    fn find(
        &mut self,
        tuple: &Tuple,
        state: TcpState,
        netns: Option<u32>,
        mini: bool,
    ) -> Option<u32> {
        let seeds = &self.seeds;
        let by_ends = self.by_ends.get_or_insert_with(|| {
            let mut by_ends = ByEnds::default();
            seeds.indexed().for_each(|(at, seed)| by_ends.insert(seed.ends(), at));
            by_ends
        });
        by_ends.find(tuple, mini, state, netns)
    }
}
