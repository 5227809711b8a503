//! Minisocks where no hook tells of them: looked for, about once a second.
//!
//! At the hand-over to a minisock the kernel says FIN_WAIT2 (or CLOSING) → CLOSE, and just the same
//! where there is none. So such a transition is held back until a look that began after it: the
//! minisock stands there, or it does not. `tcp_time_wait()` puts it into the table before it moves
//! the socket to CLOSE, so one that is still alive by the look is in it.
//!
//! Between two looks a minisock may come and go, and what ended one is not told. Both are said to
//! be `unknown`, never guessed; only one whose time was over by the look that misses it has
//! `expired`. The moment is known to lie between two looks: the middle is told, and how far off it
//! may be.

mod hand_overs;

use std::num::NonZeroU64;

use self::hand_overs::{HandOvers, Pending};
use super::{
    bounded::Bounded,
    conn::{Conn, Entered},
    known::Known,
    minisock::{promoted, vanished},
    pending::RST_WITHIN_NS,
    processes::Processes,
    rows::{self, Rows},
    seed::{Seed, started},
    slab::Keyed,
    verdict::Judgement,
};
use tcptrace_model::{
    Change, EndReason, How, Moved, Reset, SnapSocket, Snapshot, SockId, TcpState, UnknownBecause,
    Verdict,
    hash::{ByAnything, Map, Set},
};

/// Looks in a row in which a namespace is not found, before what was in it is not known any more.
const HIDDEN_LOOKS: u8 = 2;

/// A minisock that a look has shown. Small: there may be a million of them.
struct Mini {
    conn: Conn,
    /// When the dump began that had it last.
    seen_ns: u64,
    /// The earliest that its timer, as it was then, can run.
    due_ns: u64,
    /// Looks since in which its namespace was not found.
    hidden: u8,
    /// What the present look has of it.
    row: Option<Row>,
}

/// What a look has of a minisock that is known.
#[derive(Clone, Copy)]
struct Row {
    state: TcpState,
    left_ms: u32,
}

/// The dump of one namespace.
#[derive(Clone, Copy)]
struct Space {
    began_ns: u64,
    ended_ns: u64,
    lacks_some: bool,
}

/// A look that is being told, or waits for the tick after it.
#[derive(Default)]
struct Look {
    /// Nothing but minisocks is told in it.
    alone: bool,
    /// No namespace that can be reached is missing.
    whole: bool,
    spaces: Map<u32, Space>,
    /// The namespace whose sockets are being told.
    current: Option<u32>,
    /// Of minisocks that were not known when they were told.
    rows: Rows,
    /// There was no room for all rows.
    cut: bool,
    over_ns: Option<u64>,
}

impl Look {
    /// Whether it proves that a connection of which it has no row was gone at its end, given that
    /// the connection was what it is since `since_ns`.
    fn proves_absence(&self, netns: Option<u32>, since_ns: u64) -> bool {
        let proves = |space: &Space| !space.lacks_some && space.began_ns >= since_ns;
        !self.cut
            && match netns {
                Some(netns) => self.spaces.get(&netns).is_some_and(proves),
                // It may be in any.
                None => self.whole && self.spaces.values().all(proves),
            }
    }

    fn space(&self, netns: u32) -> Space {
        let never = Space { began_ns: 0, ended_ns: 0, lacks_some: true };
        self.spaces.get(&netns).copied().unwrap_or(never)
    }
}

/// What is known by looks alone.
pub(super) struct Sampling {
    /// Minisocks are sampled in this run.
    on: bool,
    minis: Bounded<Mini, ByAnything>,
    held: HandOvers,
    look: Option<Look>,
    /// Namespaces of which there was a look.
    seen: Set<u32>,
    /// Minisocks that the last look had, though no hand-over to them was told.
    strange: Set<SockId>,
    limit: usize,
    /// Transitions that were handed out before their time, to keep the limit.
    let_go: u64,
    /// The last time that records of RSTs were noticed to be lost.
    lost_ns: Option<u64>,
    resynchronised: u64,
    corrected: u64,
}

impl Keyed for Mini {
    type Key = SockId;

    fn key(&self) -> SockId {
        mini_id(&self.conn)
    }
}

/// What tells the minisock of a connection apart.
fn mini_id(conn: &Conn) -> SockId {
    SockId::Mini(conn.cookie().unwrap_or(0), conn.tuple)
}

impl From<&SnapSocket> for Row {
    fn from(socket: &SnapSocket) -> Self {
        Self { state: socket.state, left_ms: socket.minisock_expires_ms.unwrap_or(0) }
    }
}

impl Mini {
    /// A minisock that the dump of `space` had.
    fn new(conn: Conn, space: Space, row: Row, jiffy_ns: u64) -> Self {
        let left_ns = u64::from(row.left_ms) * 1_000_000;
        let due_ns = (space.began_ns + left_ns).saturating_sub(jiffy_ns);
        Self { conn, seen_ns: space.began_ns, due_ns, hidden: 0, row: None }
    }
}

impl Sampling {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            on: false,
            minis: Bounded::new(limit),
            held: HandOvers::default(),
            look: None,
            seen: Set::default(),
            strange: Set::default(),
            limit,
            let_go: 0,
            lost_ns: None,
            resynchronised: 0,
            corrected: 0,
        }
    }

    /// Whether minisocks are sampled in this run.
    pub(super) fn set(&mut self, on: bool) {
        self.on = on;
    }

    pub(super) fn len(&self) -> usize {
        self.minis.len() + self.held.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.minis.evicted() + self.let_go
    }

    /// Full sockets that looks had as minisocks, though no hand-over was told.
    pub(super) fn resynchronised(&self) -> u64 {
        self.resynchronised
    }

    /// Minisocks that two looks had and nothing else.
    pub(super) fn corrected(&self) -> u64 {
        self.corrected
    }

    /// All connections in here. One that is held back is still where it was.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Conn> {
        let minis = self.minis.iter().map(|mini| &mini.conn);
        minis.chain(self.held.iter().map(|held| &held.conn))
    }

    /// Whether a look now would settle something.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes a transition of a full socket to CLOSE, if it may be a hand-over. Says whether it
    /// is now kept here.
    pub(super) fn hold(
        &mut self,
        mut conn: Conn,
        moved: &Moved,
        judgement: Judgement,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) -> bool {
        if !self.on || is_an_end(moved) {
            return false;
        }
        conn.set_sock(moved.sock.as_ref());
        if conn.cookie.is_some() && self.minis.get(&mini_id(&conn)).is_some() {
            // The look was told before its hand-over.
            out(conn.gone(moved.mono_ns, who));
            return true;
        }
        if self.held.len() >= self.limit
            && let Some(held) = self.held.pop_oldest()
        {
            // A hand-over or an end: no look has told.
            self.let_go += 1;
            out(held.conn.gone(moved.mono_ns, who));
        }
        self.held.push(Pending { conn, moved: *moved, judgement, before_look: false });
        true
    }

    /// Records of RSTs were lost, which was noticed at `mono_ns`.
    pub(super) fn lost(&mut self, mono_ns: u64) {
        self.lost_ns = self.lost_ns.max(Some(mono_ns));
    }

    /// Takes in a piece of a snapshot. Says whether that is for nobody else.
    pub(super) fn piece(&mut self, snapshot: &Snapshot) -> bool {
        if !self.on {
            return false;
        }
        let opened = matches!(snapshot, Snapshot::Open | Snapshot::OpenMinisocks);
        if opened {
            let alone = *snapshot == Snapshot::OpenMinisocks;
            if self.look.is_some() {
                self.minis.iter_mut().for_each(|mini| mini.row = None);
            }
            self.look = Some(Look { alone, ..Look::default() });
            self.held.iter_mut().for_each(|held| held.before_look = true);
        }
        let Some(look) = &mut self.look else { return false };
        match snapshot {
            Snapshot::Open
            | Snapshot::OpenMinisocks
            | Snapshot::SynQueue(_)
            | Snapshot::Bound(_) => {}
            Snapshot::Begin { mono_ns, netns } => {
                let space = Space { began_ns: *mono_ns, ended_ns: *mono_ns, lacks_some: true };
                look.spaces.insert(*netns, space);
                look.current = Some(*netns);
            }
            Snapshot::Socket(row) if row.is_mini() => {
                match (look.current, self.minis.get_mut(&row.id())) {
                    (Some(_), Some(mini)) => mini.row = Some(Row::from(row)),
                    (Some(netns), None) if look.rows.len() < self.limit => {
                        look.rows.insert(netns, row.clone());
                    }
                    _ => look.cut = true,
                }
                return true;
            }
            Snapshot::Socket(_) | Snapshot::Info(_) => {}
            Snapshot::End(end) => {
                if let Some(netns) = look.current.take()
                    && let Some(space) = look.spaces.get_mut(&netns)
                {
                    space.ended_ns = end.mono_ns;
                    space.lacks_some = end.lacks_some;
                }
            }
            Snapshot::Over { mono_ns, all } => {
                look.over_ns = Some(*mono_ns);
                look.whole = *all || look.alone;
            }
        }
        // Whoever compares rounds is to know that another one was opened.
        look.alone && !opened
    }

    /// A RST was sent. Right after a transition that is held back, from the same full socket, it
    /// says that this was an end.
    pub(super) fn reset(&mut self, event: &Reset, out: &mut impl FnMut(Change)) {
        let held = self.held.last_of(event.skaddr);
        let held =
            held.filter(|held| event.mono_ns.saturating_sub(held.moved.mono_ns) <= RST_WITHIN_NS);
        if let Some(Pending { moved, judgement: Judgement::Open(question), .. }) = held {
            let verdict = question.answered(event.reason);
            out(Change::Moved(Moved { verdict, end_reason: None, ..*moved }));
            self.held.remove_last_of(event.skaddr);
        }
    }

    /// The source is at its end: what is held back will not be known.
    pub(super) fn end(&mut self, now: u64, who: &Processes, out: &mut impl FnMut(Change)) {
        self.held.take().for_each(|held| out(held.conn.gone(now, who)));
    }

    /// What a look says of the minisocks that are known.
    fn settle_minis(
        &mut self,
        look: &Look,
        now: u64,
        jiffy_ns: u64,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) {
        let mut over = Vec::new();
        for known in self.minis.iter_mut() {
            let netns = known.conn.netns.unwrap_or(0);
            match known.row.take() {
                Some(row) => {
                    let space = look.space(netns);
                    turn(&mut known.conn, row, space, (known.seen_ns, jiffy_ns), who, out);
                    *known = Mini::new(known.conn, space, row, jiffy_ns);
                }
                None if look.spaces.contains_key(&netns) => {
                    known.hidden = 0;
                    if look.proves_absence(Some(netns), known.seen_ns) {
                        gone_by(known, look.space(netns).ended_ns, who, out);
                        over.push(mini_id(&known.conn));
                    }
                }
                None if look.whole => {
                    known.hidden += 1;
                    if known.hidden >= HIDDEN_LOOKS {
                        out(known.conn.gone(now, who));
                        over.push(mini_id(&known.conn));
                    }
                }
                None => {}
            }
        }
        for id in over {
            self.minis.remove(&id);
        }
    }

    /// What a look says of the transitions that are held back.
    fn settle_held(
        &mut self,
        look: &mut Look,
        jiffy_ns: u64,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) {
        let over_ns = look.over_ns.unwrap_or(0);
        // The last first: of several with the same ends and no cookie it is the last one's.
        let mut rows: Vec<_> = self
            .held
            .iter()
            .rev()
            .map(|held| {
                let may_be = held.conn.cookie.is_some() || held.moved.mono_ns <= over_ns;
                may_be.then(|| look.rows.take(&held.conn, true)).flatten()
            })
            .collect();
        for held in self.held.take() {
            let netns = held.conn.netns;
            let at_ns = held.moved.mono_ns;
            let hidden = netns.is_some_and(|netns| !look.spaces.contains_key(&netns));
            if let Some(row) = rows.pop().flatten() {
                self.hand_over(held, &row, look.space(row.netns), jiffy_ns, who, out);
            } else if look.proves_absence(netns, at_ns)
                || (hidden && look.whole && held.before_look)
            {
                ended(held, self.lost_ns, out);
            } else {
                self.held.push(held);
            }
        }
    }

    /// The minisock stands there: the connection goes on in it.
    fn hand_over(
        &mut self,
        held: Pending,
        row: &rows::Row,
        space: Space,
        jiffy_ns: u64,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) {
        let Pending { mut conn, moved, .. } = held;
        let at_ns = moved.mono_ns;
        conn.netns = Some(row.netns);
        conn.cookie = NonZeroU64::new(row.socket.cookie);
        let row = Row::from(&row.socket);
        // A socket to which the peer's FIN has come is handed over by that (tcp_fin()), as is each
        // that a process holds, and one in CLOSING when its own FIN is acknowledged: the minisock is
        // born in TIME_WAIT.
        let fin_came = moved.sock.is_some_and(|sock| sock.peer_fin || !sock.dead);
        if row.state == TcpState::TimeWait && (moved.old == TcpState::Closing || fin_came) {
            out(Change::Moved(Moved {
                new: TcpState::TimeWait,
                netns: conn.netns,
                end_reason: None,
                verdict: conn.ending.entered_time_wait(moved.old),
                ..moved
            }));
            conn.enter(TcpState::TimeWait, at_ns, Entered::Seen);
        } else {
            turn(&mut conn, row, space, (at_ns, jiffy_ns), who, out);
        }
        self.insert(Mini::new(conn, space, row, jiffy_ns), who, out);
    }

    /// Concludes from a look, once all events up to its end have been told.
    pub(super) fn settle(&mut self, now: u64, known: &mut Known, out: &mut impl FnMut(Change)) {
        let told = |look: &mut Look| look.over_ns.is_some_and(|over_ns| over_ns <= now);
        let Some(mut look) = self.look.take_if(told) else { return };
        let jiffy_ns = known.minisocks.jiffy_ns();
        self.settle_minis(&look, now, jiffy_ns, &known.processes, out);
        self.settle_held(&mut look, jiffy_ns, &known.processes, out);
        // What is left was there before the hooks, or its hand-over was not told. That two looks
        // must show: a record in the ring may wait behind one that another CPU has not finished.
        let rows = std::mem::take(&mut look.rows);
        let mut strange = Set::default();
        let mut handed_over: Option<Map<SockId, u64>> = None;
        for rows::Row { netns, socket: row } in rows.into_iter() {
            let id = row.id();
            let space = look.space(netns);
            let seed =
                Seed::of(&row, netns, (space.began_ns, space.ended_ns), &mut known.processes);
            let mut conn = seed.conn();
            if self.seen.contains(&netns) {
                if !self.strange.contains(&id) {
                    strange.insert(id);
                    continue;
                }
                let full = handed_over.get_or_insert_with(|| known.full_by_minisock().collect());
                if let Some(full) = full.get(&id).and_then(|&addr| known.conns.remove(addr)) {
                    out(full.gone(now, &known.processes));
                    (conn.id, conn.people) = (full.id, full.people);
                    conn.begins_as(&full);
                    conn.ending = full.ending;
                    self.resynchronised += 1;
                } else {
                    self.corrected += 1;
                }
            }
            if conn.id == 0 {
                conn.id = known.ids.next();
            }
            out(Change::Found(conn.found(now, &known.processes)));
            let mini = Mini::new(conn, space, Row::from(&row), jiffy_ns);
            self.insert(mini, &known.processes, out);
        }
        self.strange = strange;
        self.seen.extend(look.spaces.keys());
    }

    fn insert(&mut self, mini: Mini, who: &Processes, out: &mut impl FnMut(Change)) {
        let now = mini.seen_ns;
        let replaced = self.minis.remove(&mini.key());
        let evicted = self.minis.insert(mini);
        replaced.into_iter().chain(evicted).for_each(|other| out(other.conn.gone(now, who)));
    }
}

/// Whether a transition to CLOSE is certainly no hand-over: the kernel gave the connection up.
/// These errors come with the end; others may have been left by an ICMP message.
fn is_an_end(moved: &Moved) -> bool {
    let fatal = [libc::ECONNRESET, libc::EPIPE, libc::ECONNABORTED, libc::ETIMEDOUT];
    moved.sock.is_some_and(|sock| fatal.contains(&i32::from(sock.err)))
}

/// There is no minisock: there was none, or it is gone already.
fn ended(held: Pending, lost_ns: Option<u64>, out: &mut impl FnMut(Change)) {
    let mut moved = held.moved;
    let lost = lost_ns.is_some_and(|lost_ns| lost_ns >= moved.mono_ns);
    moved.verdict = match held.judgement {
        Judgement::Settled(verdict) => verdict,
        Judgement::Open(question) => match question.unanswered(lost) {
            // Or there was a minisock, between two looks.
            Verdict { initiator, how: Some(How::Unknown), .. } => {
                Verdict::unknown(initiator, UnknownBecause::MinisockEnd)
            }
            verdict => verdict,
        },
    };
    moved.end_reason.get_or_insert(EndReason::Unknown);
    out(Change::Moved(moved));
}

/// If the minisock has gone from FIN_WAIT2 to TIME_WAIT since `earliest_ns`, says so.
fn turn(
    conn: &mut Conn,
    row: Row,
    space: Space,
    (earliest_ns, jiffy_ns): (u64, u64),
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    if (conn.state, row.state) != (TcpState::FinWait2, TcpState::TimeWait) {
        return;
    }
    let started_ns = started(row.left_ms, space.ended_ns);
    // When its timer was last started, told in jiffies, as of some moment of the dump. A segment
    // that comes later starts it anew: then it was before that.
    let tick_ns = 2 * jiffy_ns;
    let blur_ns = space.ended_ns.saturating_sub(space.began_ns) + tick_ns;
    let last_ns = space.ended_ns.max(earliest_ns);
    let since_ns = started_ns.clamp(earliest_ns, last_ns);
    let latest_ns = started_ns.saturating_add(tick_ns).clamp(earliest_ns, last_ns);
    let (at_ns, within_ns) = match since_ns - earliest_ns {
        // Most often it was right after; then it is told so, and no later than the timer allows.
        after if after <= blur_ns => (earliest_ns, latest_ns - earliest_ns),
        after => (since_ns, after),
    };
    promoted(conn, 0, at_ns, Entered::Within(within_ns), who, out);
}

/// A minisock that was there is not there at `now`.
fn gone_by(mini: &Mini, now: u64, who: &Processes, out: &mut impl FnMut(Change)) {
    // A timer may run late, by the slots of the timer wheel, but never early.
    let (reason, from_ns) = match mini.due_ns <= now {
        true => (EndReason::Expired, mini.due_ns.max(mini.seen_ns)),
        false => (EndReason::Unknown, mini.seen_ns),
    };
    // Its address was never told.
    vanished(mini.conn, 0, reason, (from_ns, now), who, out);
}

#[cfg(test)]
mod tests;
