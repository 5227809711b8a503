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

use super::{
    conn::Conn,
    known::{Known, Place},
    rows::{Row, Rows},
    seed::{Seed, time_wait_since},
};
use tcptrace_model::{
    Change, SnapInfo, SnapSocket, Snapshot, SockId, TcpState, Tuple,
    hash::{Map, Set},
};

/// Namespaces in a round, and of which it is known that there was a snapshot.
const SPACES: usize = 1 << 16;

/// A round of snapshots.
#[derive(Default)]
struct Round {
    spaces: Map<u32, Space>,
    rows: Rows,
    /// The namespace whose sockets are being told.
    current: Option<u32>,
    over_ns: Option<u64>,
    /// What ended since the opening: by what tells it apart, and by the ends where that is not known.
    ended: Set<SockId>,
    ended_ends: Set<Tuple>,
    /// There was no room for all rows.
    cut: bool,
    /// So many were not taken up.
    left_out: u64,
    /// There was no room for all that ended.
    ends_cut: bool,
    /// No namespace that can be reached is missing.
    whole: bool,
    /// By cookie, timer and progress of some of the sockets.
    infos: Map<u64, SnapInfo>,
}

/// The dump of one namespace.
struct Space {
    began_ns: u64,
    ended_ns: u64,
    lacks_some: bool,
}

impl Round {
    /// A connection ended.
    fn ended(&mut self, cookie: Option<u64>, mini: bool, tuple: &Tuple, limit: usize) {
        if self.ended.len() + self.ended_ends.len() >= limit {
            self.ends_cut = true;
            return;
        }
        match cookie {
            Some(cookie) => {
                self.ended.insert(SockId::new(cookie, mini, *tuple));
            }
            None => {
                self.ended_ends.insert(*tuple);
            }
        }
    }

    fn has_ended(&self, row: &SnapSocket) -> bool {
        self.ended.contains(&row.id()) || self.ended_ends.contains(&row.tuple)
    }

    /// What the round says of a connection that was known when it began.
    fn judge(&mut self, conn: &Conn, mini: bool) -> Finding {
        let row = self.rows.take(conn, mini);
        let netns = conn.netns.or(row.as_ref().map(|row| row.netns));
        let Some(space) = netns.and_then(|netns| self.spaces.get(&netns)) else {
            return Finding::AsKnown;
        };
        if conn.since_ns >= space.began_ns {
            return Finding::AsKnown;
        }
        let Some(Row { netns, socket: row }) = row else {
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

/// What a doubt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    /// The connection that is kept there.
    Known(Place),
    /// A row that nothing that is known matches.
    Strange(SockId),
}

/// Something that a snapshot has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Doubt {
    netns: u32,
    what: What,
    /// When what is known last changed.
    since_ns: u64,
}

/// Compares rounds of snapshots with what is known.
pub(super) struct Rounds {
    /// The snapshots that are being taken, or wait for the tick after them.
    round: Option<Round>,
    /// Namespaces of which there was a snapshot.
    seeded: Set<u32>,
    /// What the last snapshots had otherwise than it was known.
    doubts: Set<Doubt>,
    /// Rows that are kept of one round.
    limit: usize,
    /// The most sockets of a round that there was no room for.
    left_out: u64,
    corrected: u64,
    unobserved_expiries: u64,
}

impl Rounds {
    /// Rounds of at most `limit` sockets each.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            round: None,
            seeded: Set::default(),
            doubts: Set::default(),
            limit,
            left_out: 0,
            corrected: 0,
            unobserved_expiries: 0,
        }
    }

    /// The most sockets of a round that there was no room for.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Sockets that were corrected, since two rounds had them otherwise.
    pub(super) fn corrected(&self) -> u64 {
        self.corrected
    }

    /// Minisocks whose end only rounds told.
    pub(super) fn unobserved_expiries(&self) -> u64 {
        self.unobserved_expiries
    }

    /// Whether the last round had something otherwise than it was known.
    pub(super) fn in_doubt(&self) -> bool {
        !self.doubts.is_empty()
    }

    /// A full socket or a minisock ended.
    pub(super) fn ended(&mut self, cookie: Option<u64>, mini: bool, tuple: &Tuple) {
        if let Some(round) = &mut self.round {
            round.ended(cookie, mini, tuple, self.limit);
        }
    }

    /// Takes in a piece of a snapshot.
    pub(super) fn piece(&mut self, snapshot: &Snapshot) {
        match snapshot {
            Snapshot::Open => self.round = Some(Round::default()),
            Snapshot::OpenMinisocks => self.round = None,
            _ => {}
        }
        let Some(round) = &mut self.round else { return };
        match snapshot {
            Snapshot::Info(info) if round.infos.len() < self.limit => {
                round.infos.insert(info.cookie, **info);
            }
            Snapshot::Open
            | Snapshot::OpenMinisocks
            | Snapshot::Info(_)
            | Snapshot::SynQueue(_)
            | Snapshot::Bound(_) => {}
            Snapshot::Begin { .. } if round.spaces.len() >= SPACES => {
                (round.current, round.cut) = (None, true);
            }
            Snapshot::Begin { mono_ns, netns } => {
                let space = Space { began_ns: *mono_ns, ended_ns: *mono_ns, lacks_some: true };
                round.spaces.insert(*netns, space);
                round.current = Some(*netns);
            }
            Snapshot::Socket(socket) => match round.current {
                Some(netns) if round.rows.len() < self.limit => {
                    round.rows.insert(netns, socket.clone());
                }
                _ => {
                    round.cut = true;
                    round.left_out += 1;
                }
            },
            Snapshot::End(end) => {
                if let Some(netns) = round.current.take()
                    && let Some(space) = round.spaces.get_mut(&netns)
                {
                    space.ended_ns = end.mono_ns;
                    space.lacks_some = end.lacks_some;
                }
            }
            Snapshot::Over { mono_ns, all } => {
                (round.over_ns, round.whole) = (Some(*mono_ns), *all);
            }
        }
    }

    /// Concludes from a round, once all events up to its end have been told.
    pub(super) fn settle(&mut self, now: u64, known: &mut Known, out: &mut impl FnMut(Change)) {
        let told = |round: &mut Round| round.over_ns.is_some_and(|over_ns| over_ns <= now);
        let Some(mut round) = self.round.take_if(told) else { return };
        let told = |netns| round.whole || round.spaces.contains_key(&netns);
        let over_ns = round.over_ns.unwrap_or(now);
        known.scans.replace(over_ns, told, round.rows.iter(), &round.infos, self.limit);
        let Round { rows, spaces, .. } = &mut round;
        known.take_rows(rows, |netns| spaces.get(&netns).map(|space| space.began_ns));
        let mut findings = Vec::new();
        known.each(|place, conn, mini| match round.judge(conn, mini) {
            Finding::AsKnown => {}
            finding => findings.push((place, *conn, finding)),
        });
        let mut doubts = Set::default();
        for (place, conn, finding) in findings {
            match finding {
                Finding::AsKnown => {}
                Finding::In(netns) => known.set_netns(place, netns),
                Finding::Promoted { at_ns, within_ns } => {
                    known.promote(place, at_ns, within_ns, out);
                }
                Finding::Otherwise(row) => {
                    let Some(netns) = conn.netns else { continue };
                    let what = What::Known(place);
                    let doubt = Doubt { netns, what, since_ns: conn.since_ns };
                    if !self.doubts.contains(&doubt) {
                        doubts.insert(doubt);
                        continue;
                    }
                    let began_ns = round.spaces.get(&netns).map_or(now, |space| space.began_ns);
                    if row.is_none() && known.end_untold(place, began_ns, out) {
                        self.unobserved_expiries += 1;
                        continue;
                    }
                    self.corrected += 1;
                    out(conn.gone(now, &known.processes));
                    known.forget(place);
                    if let Some(row) = row {
                        plant(known, &round, netns, &row, now, out);
                    }
                }
            }
        }
        for Row { netns, socket: row } in std::mem::take(&mut round.rows).into_iter() {
            // Of those that ended some may not be known: then what is strange may be one of them.
            if round.ends_cut || round.has_ended(&row) {
                continue;
            }
            if !known.has_room() {
                round.left_out += 1;
                continue;
            }
            if self.seeded.contains(&netns) {
                let doubt = Doubt { netns, what: What::Strange(row.id()), since_ns: 0 };
                if !self.doubts.contains(&doubt) {
                    doubts.insert(doubt);
                    continue;
                }
                // A connect() whose local port is chosen late waits in the gate where there is a
                // filter on it: that is no drift.
                self.corrected += u64::from(row.state != TcpState::SynSent);
            }
            plant(known, &round, netns, &row, now, out);
        }
        self.left_out = self.left_out.max(round.left_out);
        self.remember(&round, doubts);
    }

    /// Keeps of a round what the next one is compared with.
    fn remember(&mut self, round: &Round, doubts: Set<Doubt>) {
        // What a round of everything has not is not waited for any more.
        self.doubts.retain(|doubt| !round.whole && !round.spaces.contains_key(&doubt.netns));
        self.doubts.extend(doubts);
        if !round.ends_cut {
            if self.seeded.len() + round.spaces.len() > SPACES {
                self.seeded.clear();
            }
            self.seeded.extend(round.spaces.keys());
        }
    }
}

/// Takes up a socket of a round.
fn plant(
    known: &mut Known,
    round: &Round,
    netns: u32,
    row: &SnapSocket,
    now: u64,
    out: &mut impl FnMut(Change),
) {
    if let Some(space) = round.spaces.get(&netns) {
        let span = (space.began_ns, space.ended_ns);
        let seed = Seed::of(row, netns, span, &mut known.processes);
        known.plant(seed, now, out);
    }
}

#[cfg(test)]
mod tests;
