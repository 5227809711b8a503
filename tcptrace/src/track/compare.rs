//! Snapshots: the first of a namespace seeds the tracker, later ones are compared with it.
//!
//! A snapshot is not one instant, and events of its time are told after it. So nothing is
//! concluded until a tick says that all that happened before has been told, and only about
//! connections that did nothing since the snapshot began.

use std::collections::{HashMap, HashSet};

use super::{
    conn::{Conn, Entered},
    tracker::Tracker,
};
use crate::model::{Change, SnapSocket, Snapshot, TcpState};

/// `TCP_TIMEWAIT_LEN` in nanoseconds.
const TIMEWAIT_LEN_NS: u64 = 60_000_000_000;

/// A snapshot that is being taken, or that waits for the tick after it.
pub(super) struct Comparison {
    netns: u32,
    began_ns: u64,
    ended_ns: Option<u64>,
    rows: HashMap<u64, SnapSocket>,
}

/// Where a connection is kept.
#[derive(Clone, Copy)]
enum Place {
    Full(u64),
    Mini(u64),
}

impl Tracker {
    /// Takes in a piece of a snapshot.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot, out: &mut impl FnMut(Change)) {
        match snapshot {
            Snapshot::Begin { mono_ns, netns } => {
                // One at a time; what was left of the last is settled as far as it goes.
                self.settle_comparison(*mono_ns, out);
                self.comparison = Some(Comparison {
                    netns: *netns,
                    began_ns: *mono_ns,
                    ended_ns: None,
                    rows: HashMap::new(),
                });
            }
            Snapshot::Socket(socket) => {
                let Some(comparison) = &mut self.comparison else { return };
                if self.seeded.contains(&comparison.netns) {
                    comparison.rows.insert(socket.cookie, *socket);
                } else {
                    let conn = seed(socket, comparison.netns, comparison.began_ns);
                    if self.seeds.len() < self.limit {
                        out(Change::Found(conn.found(comparison.began_ns)));
                        self.seeds.insert(socket.cookie, conn);
                    }
                }
            }
            Snapshot::End { mono_ns, .. } => {
                let Some(comparison) = &mut self.comparison else { return };
                if self.seeded.insert(comparison.netns) {
                    self.comparison = None;
                } else {
                    comparison.ended_ns = Some(*mono_ns);
                }
            }
        }
    }

    /// Concludes from a snapshot, once all events up to its end have been told.
    pub(super) fn settle_comparison(&mut self, now: u64, out: &mut impl FnMut(Change)) {
        let ended = self.comparison.as_ref().and_then(|comparison| comparison.ended_ns);
        if ended.is_none_or(|ended| ended > now) {
            return;
        }
        let Some(Comparison { netns, began_ns, mut rows, .. }) = self.comparison.take() else {
            return;
        };
        let inside = |conn: &Conn| conn.netns == Some(netns);
        // What is known, in the namespace.
        let mut known: HashMap<u64, (Place, Conn)> = HashMap::new();
        let mut without_cookie = false;
        let full = self.conns.iter().map(|(addr, conn)| (Place::Full(addr), *conn));
        let minis = self.minisocks.iter().map(|(addr, conn)| (Place::Mini(addr), *conn));
        for (place, conn) in full.chain(minis).filter(|(_, conn)| inside(conn)) {
            match conn.cookie {
                Some(cookie) => drop(known.insert(cookie, (place, conn))),
                None => without_cookie = true,
            }
        }
        if without_cookie {
            // Events without cookies cannot be matched with the snapshot one to one.
            return;
        }
        for (cookie, (place, conn)) in known {
            let row = rows.remove(&cookie);
            if conn.since_ns >= began_ns || row.is_some_and(|row| row.state == conn.state) {
                continue;
            }
            // Not there, or elsewhere, and it has told nothing: its events were missed.
            self.drifted += 1;
            out(conn.gone(now));
            match place {
                Place::Full(addr) => drop(self.conns.remove(addr)),
                Place::Mini(addr) => drop(self.minisocks.remove(addr)),
            }
            if let Some(row) = row {
                rows.insert(cookie, row);
            }
        }
        let mut drifted = 0;
        let gone = self.seeds.retain(|cookie, seed| {
            if seed.netns != Some(netns) {
                return true;
            }
            rows.get(&cookie).is_some_and(|row| row.state == seed.state)
        });
        for seed in gone {
            drifted += 1;
            out(seed.gone(now));
        }
        let seeds: HashSet<u64> = self.seeds.iter().map(|(cookie, _)| cookie).collect();
        for (cookie, row) in rows {
            if seeds.contains(&cookie) || self.seeds.len() >= self.limit {
                continue;
            }
            drifted += 1;
            let conn = seed(&row, netns, began_ns);
            out(Change::Found(conn.found(now)));
            self.seeds.insert(cookie, conn);
        }
        self.drifted += drifted;
    }
}

/// A socket of a snapshot as a connection from before.
fn seed(socket: &SnapSocket, netns: u32, now: u64) -> Conn {
    // A minisock's timer tells since when it has been running, which is since its birth or since
    // it was last started anew: either way it has been there at least so long.
    let since_ns = match (socket.state, socket.minisock_expires_ms) {
        (TcpState::TimeWait, Some(ms)) => {
            let left_ns = u64::from(ms) * 1_000_000;
            now.saturating_sub(TIMEWAIT_LEN_NS.saturating_sub(left_ns))
        }
        _ => now,
    };
    Conn {
        state: socket.state,
        since_ns,
        entered: Entered::Before,
        cookie: Some(socket.cookie),
        netns: Some(netns),
        birth: None,
        tuple: socket.tuple,
        owner: None,
        sock: None,
    }
}
