//! Snapshots: the first of a namespace seeds the tracker, later ones are compared with it.
//!
//! A snapshot is not one instant, and events of its time may be told before it or after it. So
//! nothing is concluded until a tick says that all that happened before its end has been told.
//! By then each socket is one of these:
//!
//! - It has had an event since the dump of its namespace began: the events are right, whatever the
//!   snapshot says. That goes for those that ended meanwhile too, so the ends are kept in mind from
//!   the opening of the round on.
//! - It has had none, and is as it was known.
//! - It is a minisock that was in FIN_WAIT2 and is in TIME_WAIT: no hook tells of that move unless
//!   the timer changes its slot. It moved, and its timer tells when.
//! - It was not known, in a namespace that is seen for the first time: it is a seed.
//! - It was known as a minisock whose timer was due, and is in neither of two rounds: it has ended,
//!   and no hook told of that. Softirqs without any of their tracepoints have been seen (docs/SERVE.md).
//! - Else there is a doubt. A dump may leave out a socket whose neighbour in the hash table goes,
//!   and a socket leaves the table before its event (`tcp_set_state()` unhashes it first). What two
//!   rounds in a row show is believed, and counted as drift.

use std::{collections::HashSet, hash::BuildHasherDefault};

use super::{
    conn::{Conn, Entered, better},
    minisock::promoted,
    rows::Rows,
    seed::{Seed, holder_of, time_wait_since},
    tracker::Tracker,
};
use tcptrace_model::{
    Change, Owner, OwnerFrom, SnapSocket, Snapshot, TcpState, Tuple,
    hash::{AddressHasher, Map, Set},
};

/// A round of snapshots.
#[derive(Default)]
pub(super) struct Round {
    spaces: Map<u32, Space>,
    rows: Rows,
    /// The namespace whose sockets are being told.
    current: Option<u32>,
    over_ns: Option<u64>,
    /// What ended since the opening: by cookie, and by the ends where there is no cookie.
    ended: HashSet<u64, BuildHasherDefault<AddressHasher>>,
    ended_ends: Set<Tuple>,
    /// There was no room for all rows.
    cut: bool,
}

/// The dump of one namespace.
struct Space {
    began_ns: u64,
    ended_ns: u64,
    lacks_some: bool,
}

impl Round {
    /// A connection ended.
    pub(super) fn ended(&mut self, cookie: Option<u64>, tuple: &Tuple) {
        match cookie {
            Some(cookie) => {
                self.ended.insert(cookie);
            }
            None => {
                self.ended_ends.insert(*tuple);
            }
        }
    }

    fn has_ended(&self, row: &SnapSocket) -> bool {
        self.ended.contains(&row.cookie) || self.ended_ends.contains(&row.tuple)
    }

    /// What the round says of a connection that was known when it began.
    fn judge(&mut self, conn: &Conn, mini: bool) -> Finding {
        let row = self.rows.take(conn);
        let netns = conn.netns.or(row.as_ref().map(|(netns, _)| *netns));
        let Some(space) = netns.and_then(|netns| self.spaces.get(&netns)) else {
            return Finding::AsKnown;
        };
        if conn.since_ns >= space.began_ns {
            return Finding::AsKnown;
        }
        let Some((netns, row)) = row else {
            // A connect() without a cookie has no local port yet by which it could be found, and
            // a child of TCP Fast Open in SYN_RECV cannot be told from the SYN queue.
            let unfindable =
                conn.cookie.is_none() && conn.tuple.lport == 0 || conn.state == TcpState::SynRecv;
            return if space.lacks_some || self.cut || unfindable {
                Finding::AsKnown
            } else {
                Finding::Otherwise(None)
            };
        };
        if row.state == conn.state {
            return if conn.netns.is_none() { Finding::In(netns) } else { Finding::AsKnown };
        }
        match (conn.state, time_wait_since(&row, space.ended_ns)) {
            (TcpState::FinWait2, Some(at_ns)) if mini => Finding::Promoted {
                at_ns: at_ns.clamp(conn.since_ns, space.ended_ns),
                within_ns: space.ended_ns.saturating_sub(space.began_ns),
            },
            _ => Finding::Otherwise(Some(row)),
        }
    }
}

/// What a round says of a connection.
enum Finding {
    AsKnown,
    /// The same, and this is its namespace, which was not known (the classic hook does not tell).
    In(u32),
    Promoted {
        at_ns: u64,
        within_ns: u64,
    },
    /// In another state, or not there.
    Otherwise(Option<SnapSocket>),
}

/// Where a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// By the address of the full socket.
    Full(u64),
    /// By the address of the minisock.
    Mini(u64),
    /// By the cookie, from a snapshot.
    Seed(u64),
    /// Nowhere; a snapshot has one with this cookie.
    Nowhere(u64),
}

/// Something that a snapshot has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Doubt {
    netns: u32,
    place: Place,
    /// When what is known last changed.
    since_ns: u64,
}

impl Tracker {
    /// Takes in a piece of a snapshot.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) {
        match snapshot {
            Snapshot::Open => self.round = Some(Round::default()),
            Snapshot::OpenMinisocks => self.round = None,
            _ => {}
        }
        let Some(round) = &mut self.round else { return };
        match snapshot {
            Snapshot::Open | Snapshot::OpenMinisocks | Snapshot::SynQueue(_) => {}
            Snapshot::Begin { mono_ns, netns } => {
                let space = Space { began_ns: *mono_ns, ended_ns: *mono_ns, lacks_some: true };
                round.spaces.insert(*netns, space);
                round.current = Some(*netns);
            }
            Snapshot::Socket(socket) => match round.current {
                Some(netns) if round.rows.len() < self.limit => {
                    round.rows.insert(netns, socket.clone());
                }
                _ => round.cut = true,
            },
            Snapshot::End(end) => {
                if let Some(netns) = round.current.take()
                    && let Some(space) = round.spaces.get_mut(&netns)
                {
                    space.ended_ns = end.mono_ns;
                    space.lacks_some = end.lacks_some;
                }
            }
            Snapshot::Over { mono_ns, .. } => round.over_ns = Some(*mono_ns),
        }
    }

    /// Concludes from a round, once all events up to its end have been told.
    pub(super) fn settle_round(&mut self, now: u64, out: &mut impl FnMut(Change)) {
        let told = |round: &mut Round| round.over_ns.is_some_and(|over_ns| over_ns <= now);
        let Some(mut round) = self.round.take_if(told) else { return };
        let told = |netns| round.spaces.contains_key(&netns);
        self.queues.replace(told, round.rows.iter());
        for conn in self.conns.iter_mut().map(|(_, conn)| conn) {
            let row = conn.cookie().and_then(|cookie| round.rows.get(cookie));
            conn.owner = better(conn.owner, row.and_then(holder_of));
        }
        let mut findings = Vec::new();
        let mut judge = |place, conn: &Conn, mini| match round.judge(conn, mini) {
            Finding::AsKnown => {}
            finding => findings.push((place, *conn, finding)),
        };
        self.conns.iter().for_each(|(addr, conn)| judge(Place::Full(addr), conn, false));
        self.minisocks.iter().for_each(|(addr, conn)| judge(Place::Mini(addr), conn, true));
        for (cookie, seed) in self.seeds.iter() {
            judge(Place::Seed(cookie), &seed.conn(cookie), seed.mini);
        }
        let mut doubts = Set::default();
        for (place, conn, finding) in findings {
            match finding {
                Finding::AsKnown => {}
                Finding::In(netns) => {
                    if let Place::Full(addr) = place
                        && let Some(conn) = self.conns.get_mut(addr)
                    {
                        conn.netns = Some(netns);
                    }
                }
                Finding::Promoted { at_ns, within_ns } => {
                    self.promote(place, conn, at_ns, within_ns, out);
                }
                Finding::Otherwise(row) => {
                    let Some(netns) = conn.netns else { continue };
                    let doubt = Doubt { netns, place, since_ns: conn.since_ns };
                    if !self.doubts.contains(&doubt) {
                        doubts.insert(doubt);
                        continue;
                    }
                    let began_ns = round.spaces.get(&netns).map_or(now, |space| space.began_ns);
                    if row.is_none()
                        && let Place::Mini(addr) = place
                        && self.minisocks.end_untold(addr, began_ns, out)
                    {
                        self.untold += 1;
                        continue;
                    }
                    self.drifted += 1;
                    out(conn.gone(now));
                    self.forget(place);
                    if let Some(row) = row {
                        self.plant(&round, netns, &row, now, out);
                    }
                }
            }
        }
        for (cookie, (netns, row)) in std::mem::take(&mut round.rows).into_iter() {
            if round.has_ended(&row) {
                continue;
            }
            if self.seeded.contains(&netns) {
                let doubt = Doubt { netns, place: Place::Nowhere(cookie), since_ns: 0 };
                if !self.doubts.contains(&doubt) {
                    doubts.insert(doubt);
                    continue;
                }
                // A connect() whose local port is chosen late waits in the gate where there is a
                // filter on it: that is no drift.
                self.drifted += u64::from(row.state != TcpState::SynSent);
            }
            self.plant(&round, netns, &row, now, out);
        }
        self.seeded.extend(round.spaces.keys());
        self.doubts.retain(|doubt| !round.spaces.contains_key(&doubt.netns));
        self.doubts.extend(doubts);
    }

    /// Takes up a socket of a snapshot.
    fn plant(
        &mut self,
        round: &Round,
        netns: u32,
        row: &SnapSocket,
        now: u64,
        out: &mut impl FnMut(Change),
    ) {
        let Some(space) = round.spaces.get(&netns) else { return };
        if self.seeds.len() >= self.limit {
            self.unseeded += 1;
            return;
        }
        let seed = Seed::of(self.ids.next(), row, netns, space.began_ns, space.ended_ns);
        if let Some(owner) = seed.owner
            && seed.state == TcpState::Listen
        {
            let owner = Owner { from: OwnerFrom::Listener, ..owner };
            self.listeners.insert(row.cookie, Some(netns), &seed.tuple, owner);
        }
        out(Change::Found(seed.conn(row.cookie).found(now)));
        self.seeds.insert(row.cookie, seed);
    }

    fn forget(&mut self, place: Place) {
        match place {
            Place::Full(addr) => drop(self.conns.remove(addr)),
            Place::Mini(addr) => drop(self.minisocks.remove(addr)),
            Place::Seed(cookie) => drop(self.seeds.remove(cookie)),
            Place::Nowhere(_) => {}
        }
    }

    fn promote(
        &mut self,
        place: Place,
        mut conn: Conn,
        at_ns: u64,
        within_ns: u64,
        out: &mut impl FnMut(Change),
    ) {
        let entered = Entered::Within(within_ns.max(self.minisocks.jiffy_ns()));
        match place {
            Place::Mini(addr) => {
                if let Some(conn) = self.minisocks.get_mut(addr) {
                    promoted(conn, addr, at_ns, entered, out);
                }
            }
            Place::Seed(cookie) => {
                // The address of its minisock is not known.
                promoted(&mut conn, 0, at_ns, entered, out);
                if let Some(seed) = self.seeds.get_mut(cookie) {
                    seed.state = conn.state;
                    seed.since_ns = at_ns;
                }
            }
            Place::Full(_) | Place::Nowhere(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
