//! Connections that were there before the hooks, from a snapshot.
//!
//! The address of such a socket is not known, so it is held here by its cookie until an event of
//! it comes. A snapshot is settled after the events of its time (see `compare`), so what is here
//! has not moved since; where an event says otherwise all the same, the event is right.

use std::{collections::hash_map::Entry, num::NonZeroU64};

use super::{
    conn::{Conn, Entered},
    slab::Slab,
};
use tcptrace_model::{Owner, OwnerFrom, SnapSocket, TcpState, Tuple, hash::Map};

/// `TCP_TIMEWAIT_LEN` in nanoseconds.
const TIMEWAIT_LEN_NS: u64 = 60_000_000_000;

/// What a snapshot told of one socket. Small: there may be a million of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed {
    /// 0 until it is taken up.
    pub(super) id: u64,
    pub(super) state: TcpState,
    /// It is a minisock.
    pub(super) mini: bool,
    /// The first moment at which it is known to have been in its state.
    pub(super) since_ns: u64,
    pub(super) netns: u32,
    pub(super) tuple: Tuple,
    pub(super) owner: Option<Owner>,
    cgroup: Option<NonZeroU64>,
}

impl Seed {
    /// The seed of a row of a dump of `netns`, taken from `began_ns` to `ended_ns`, that has had
    /// no event since it began.
    pub(super) fn of(row: &SnapSocket, netns: u32, began_ns: u64, ended_ns: u64) -> Self {
        let known = time_wait_since(row, ended_ns).or_else(|| in_state_since(row, ended_ns));
        Self {
            id: 0,
            state: row.state,
            mini: row.minisock_expires_ms.is_some(),
            since_ns: known.map_or(began_ns, |since| since.min(began_ns)),
            netns,
            tuple: row.tuple,
            owner: holder_of(row),
            cgroup: row.full.as_ref().and_then(|full| full.cgroup),
        }
    }

    /// The same as a connection from before.
    pub(super) fn conn(&self, cookie: u64) -> Conn {
        let mut conn = Conn::new(self.id, self.state, self.since_ns, Entered::Before, self.tuple);
        conn.cookie = NonZeroU64::new(cookie);
        conn.netns = Some(self.netns);
        conn.owner = self.owner;
        conn.set_cgroup(self.cgroup);
        conn
    }
}

/// Whose a socket is by who holds it.
pub(super) fn holder_of(row: &SnapSocket) -> Option<Owner> {
    let holder = row.full.as_ref().and_then(|full| full.holder)?;
    Some(Owner { task: holder.task, from: OwnerFrom::Snapshot })
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

/// Seeds by cookie, and by their ends once an event without a cookie asks.
#[derive(Default)]
pub(super) struct Seeds {
    by_cookie: Slab<Seed>,
    /// Several have the same ends where listeners share a port (`SO_REUSEPORT`), or namespaces an
    /// address.
    by_ends: Option<Map<Tuple, Vec<u64>>>,
}

impl Seeds {
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }

    pub(super) fn get_mut(&mut self, cookie: u64) -> Option<&mut Seed> {
        self.by_cookie.get_mut(cookie)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Seed)> {
        self.by_cookie.iter()
    }

    pub(super) fn insert(&mut self, cookie: u64, seed: Seed) {
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.entry(seed.tuple).or_default().push(cookie);
        }
        self.by_cookie.insert(cookie, seed);
    }

    pub(super) fn remove(&mut self, cookie: u64) -> Option<Seed> {
        let seed = self.by_cookie.remove(cookie)?;
        if let Some(by_ends) = &mut self.by_ends
            && let Entry::Occupied(mut cookies) = by_ends.entry(seed.tuple)
        {
            cookies.get_mut().retain(|&other| other != cookie);
            if cookies.get().is_empty() {
                cookies.remove();
            }
        }
        Some(seed)
    }

    /// Takes out the seed of the socket, or of the minisock, that an event is about.
    pub(super) fn take(
        &mut self,
        cookie: Option<u64>,
        tuple: &Tuple,
        netns: Option<u32>,
        mini: bool,
    ) -> Option<Conn> {
        if self.by_cookie.is_empty() {
            return None;
        }
        let fits = |seed: &Seed| seed.mini == mini && netns.is_none_or(|netns| netns == seed.netns);
        let cookie = match cookie {
            Some(cookie) => cookie,
            None => self.find(tuple, fits)?,
        };
        if !fits(self.by_cookie.get(cookie)?) {
            return None;
        }
        Some(self.remove(cookie)?.conn(cookie))
    }

    fn find(&mut self, tuple: &Tuple, fits: impl Fn(&Seed) -> bool) -> Option<u64> {
        let by_cookie = &self.by_cookie;
        let by_ends = self.by_ends.get_or_insert_with(|| {
            let mut by_ends: Map<Tuple, Vec<u64>> = Map::default();
            for (cookie, seed) in by_cookie.iter() {
                by_ends.entry(seed.tuple).or_default().push(cookie);
            }
            by_ends
        });
        let cookies = by_ends.get(tuple)?;
        cookies.iter().copied().find(|&cookie| by_cookie.get(cookie).is_some_and(&fits))
    }
}
