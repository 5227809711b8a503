//! Minisocks: the part of a connection's life that no tracepoint of sockets tells.
//!
//! `tcp_time_wait()` makes a minisock, starts its timer, and only then moves the full socket to
//! CLOSE. So a birth is told first, and the socket's →CLOSE that follows is not an end but the
//! hand-over. From then on the timer tells: it runs (the natural end), is started anew, or is
//! stopped for good. Where the functions are listened to, the end itself is told too.

use std::num::NonZeroU64;

use super::{
    births::Births,
    conn::{Conn, Entered, Ids, at_least, differ},
    deadlines::{Deadline, Deadlines},
    peek::Peeks,
    processes::Processes,
    table::Table,
};
use tcptrace_model::{Age, Change, EndReason, Minisock, MinisockEvent, Moved, Stopper, TcpState};

/// `TCP_TIMEWAIT_LEN` in seconds: a constant of the kernel.
const TIMEWAIT_LEN_S: u64 = 60;

/// How long a stop whose purpose is not known may be followed by a start.
const RESTART_NS: u64 = 50_000_000;

/// How long a timer whose time has come may take from being stopped to running: a virtual CPU
/// may lose the CPU between the two.
const RUN_NS: u64 = 1_000_000_000;

/// A birth whose full socket does not follow was none: the timer of a minisock from before.
const HAND_OVER_NS: u64 = 50_000_000;

/// A live minisock. Small: there may be a million of them.
struct Mini {
    conn: Conn,
    /// The full socket has not been told to CLOSE yet.
    awaited: bool,
    /// Its timer was stopped, and it is not known yet what for.
    stopped: Option<Box<Minisock>>,
    /// When its timer is to run, to a jiffy and never too early; `None`: it is not known.
    due_ns: Option<NonZeroU64>,
}

/// What becomes of what is known of a minisock after an event of it.
enum Then {
    Stays,
    /// Time will settle what the event meant.
    Waits,
    Goes,
}

impl Mini {
    /// Whether an event at its address is of the same connection.
    fn is_of(&self, event: &Minisock) -> bool {
        self.conn.tuple == event.tuple
            && self.conn.netns == Some(event.netns)
            && !differ(self.conn.cookie(), event.cookie)
    }

    /// When it is settled what its last event meant, if that is open.
    fn settles_ns(&self) -> Option<u64> {
        if self.awaited {
            return Some(self.conn.since_ns.saturating_add(HAND_OVER_NS));
        }
        let stop = self.stopped.as_deref()?;
        let may_run = matches!(stop.event, MinisockEvent::Stopped { may_run: true, .. });
        Some(stop.mono_ns.saturating_add(if may_run { RUN_NS } else { RESTART_NS }))
    }

    /// Takes in an event of it.
    fn told(
        &mut self,
        event: &Minisock,
        jiffy_ns: u64,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) -> Then {
        self.conn.timestamps = event.timestamps.or(self.conn.timestamps);
        if self.awaited {
            if event.event.gives_a_time() {
                self.due_ns = timer_due(event, jiffy_ns);
            }
            // It is not ours to tell of until the full socket hands over, and then not any more.
            return match event.event {
                MinisockEvent::Expired | MinisockEvent::Ended { .. } => Then::Goes,
                _ => Then::Stays,
            };
        }
        // A stop says this only once it is clear that no start follows, which sets a new time.
        if event.event.gives_a_time() || event.event == MinisockEvent::Peeked {
            promote(event, &mut self.conn, jiffy_ns, who, out);
            self.due_ns = timer_due(event, jiffy_ns);
        }
        match event.event {
            MinisockEvent::Started | MinisockEvent::Restarted => {
                self.stopped = None;
                Then::Stays
            }
            MinisockEvent::Peeked => Then::Stays,
            MinisockEvent::Stopped { may_run: false, by: Some(_) } => {
                end(&mut self.conn, event, reason(event), jiffy_ns, who, out);
                Then::Goes
            }
            MinisockEvent::Stopped { .. } => {
                self.stopped = Some(Box::new(*event));
                Then::Waits
            }
            MinisockEvent::Expired => {
                end(&mut self.conn, event, EndReason::Expired, jiffy_ns, who, out);
                Then::Goes
            }
            MinisockEvent::Ended { .. } => {
                // It was stopped, and the timer did not run first.
                let cause = self.stopped.as_deref().unwrap_or(event);
                end(&mut self.conn, cause, reason(cause), jiffy_ns, who, out);
                Then::Goes
            }
        }
    }
}

/// The minisocks that are known by their address.
pub(super) struct Minisocks {
    minis: Table<Mini>,
    /// Births that await their full socket.
    births: Births,
    /// Those with a stop or a birth that time will settle.
    unsettled: Deadlines,
    peeks: Peeks,
    /// Length of a jiffy in nanoseconds.
    jiffy_ns: u64,
}

/// What a new connection takes over from elsewhere.
pub(super) enum Origin {
    /// It was there before the hooks.
    Seed(Conn),
    /// Nothing is known of it.
    Unknown,
}

impl Minisocks {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            minis: Table::new(limit),
            births: Births::default(),
            unsettled: Deadlines::default(),
            peeks: Peeks::default(),
            jiffy_ns: 4_000_000,
        }
    }

    pub(super) fn set_hz(&mut self, hz: u32) {
        self.jiffy_ns = 1_000_000_000 / u64::from(hz.max(1));
    }

    pub(super) fn jiffy_ns(&self) -> u64 {
        self.jiffy_ns
    }

    pub(super) fn len(&self) -> usize {
        self.minis.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.minis.evicted()
    }

    /// Those whose full socket has handed over.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Conn)> {
        self.minis.iter().filter(|(_, mini)| !mini.awaited).map(|(addr, mini)| (addr, &mini.conn))
    }

    /// One of them.
    pub(super) fn get_mut(&mut self, addr: u64) -> Option<&mut Conn> {
        self.minis.get_mut(addr).map(|mini| &mut mini.conn)
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, addr: u64) -> Option<Conn> {
        self.minis.remove(addr).map(|mini| mini.conn)
    }

    /// Takes in what a timer told. `origin` says what was known of a minisock that is new here.
    pub(super) fn event(
        &mut self,
        event: &Minisock,
        ids: &mut Ids,
        who: &Processes,
        origin: impl FnOnce() -> Origin,
        out: &mut impl FnMut(Change),
    ) {
        let told = match self.minis.get_mut(event.addr) {
            Some(mini) if mini.is_of(event) => Ok(mini.told(event, self.jiffy_ns, who, out)),
            other => Err(other.is_some()),
        };
        let then = told.unwrap_or_else(|another| {
            if another {
                self.replaced(event, who, out);
            }
            if !self.adopt(event, ids, who, origin(), out) {
                return Then::Stays;
            }
            let mini = self.minis.get_mut(event.addr);
            mini.map_or(Then::Stays, |mini| mini.told(event, self.jiffy_ns, who, out))
        });
        match then {
            Then::Stays => {}
            Then::Waits => self.await_time(event.addr),
            Then::Goes => {
                if let Some(mini) = self.minis.remove(event.addr) {
                    self.not_born(event.addr, &mini);
                }
            }
        }
    }

    /// Time will settle what the last event of the minisock at `addr` meant.
    fn await_time(&mut self, addr: u64) {
        let minis = &self.minis;
        let Some(due_ns) = minis.get(addr).and_then(Mini::settles_ns) else { return };
        self.unsettled.add(Deadline { due_ns, addr }, minis.len(), |one| waits(minis, one));
    }

    /// The address now belongs to another connection than the one known there: its end was not
    /// told, but lost.
    fn replaced(&mut self, event: &Minisock, who: &Processes, out: &mut impl FnMut(Change)) {
        let Some(mut mini) = self.minis.remove(event.addr) else { return };
        self.not_born(event.addr, &mini);
        if mini.awaited {
            return;
        }
        match mini.stopped.take() {
            Some(stop) => end(&mut mini.conn, &stop, reason(&stop), self.jiffy_ns, who, out),
            None => out(mini.conn.gone(event.mono_ns, who)),
        }
    }

    /// A minisock goes: if it awaited its full socket, it does so no more.
    fn not_born(&mut self, addr: u64, mini: &Mini) {
        if let Some(netns) = mini.conn.netns
            && mini.awaited
        {
            self.births.forget(netns, &mini.conn.tuple, addr);
        }
    }

    /// Takes up a minisock that is new here; false if there is nothing to take up.
    fn adopt(
        &mut self,
        event: &Minisock,
        ids: &mut Ids,
        who: &Processes,
        origin: Origin,
        out: &mut impl FnMut(Change),
    ) -> bool {
        let mut conn = Conn::new(0, event.substate, event.mono_ns, Entered::Before, event.tuple);
        conn.netns = Some(event.netns);
        let awaited = match (event.event, origin) {
            // An address that was asked about and has become another's.
            (MinisockEvent::Peeked, _) => return false,
            // Its end was told by what ended it.
            (MinisockEvent::Ended { by: None }, Origin::Unknown) => return false,
            (_, Origin::Seed(seed)) => {
                conn = seed;
                false
            }
            (MinisockEvent::Started, Origin::Unknown) => {
                self.births.insert(event.netns, event.tuple, event.addr);
                true
            }
            (_, Origin::Unknown) => {
                // From before, and not in the snapshot. Its timer tells at least how long.
                if event.substate == TcpState::TimeWait {
                    conn.since_ns = timer_started(event, self.jiffy_ns);
                }
                conn.id = ids.next();
                out(Change::Found(conn.found(event.mono_ns, who)));
                false
            }
        };
        conn.cookie = event.cookie.and_then(NonZeroU64::new);
        let mini = Mini { conn, awaited, stopped: None, due_ns: None };
        if let Some((addr, evicted)) = self.minis.insert(event.addr, mini) {
            self.not_born(addr, &evicted);
            if !evicted.awaited {
                out(evicted.conn.gone(event.mono_ns, who));
            }
        }
        if awaited {
            self.await_time(event.addr);
        }
        true
    }

    /// The full socket of `conn` goes to CLOSE: if a minisock was born for it, hands over to that
    /// and says so.
    pub(super) fn hand_over(
        &mut self,
        mut conn: Conn,
        moved: &Moved,
        last_loss: Option<u64>,
        out: &mut impl FnMut(Change),
    ) -> bool {
        let netns = moved.sock.map(|sock| sock.netns);
        let Some(addr) = self.births.take(netns, &moved.tuple) else { return false };
        let Some(mini) = self.minis.get_mut(addr) else { return false };
        let born_ns = mini.conn.since_ns;
        let substate = mini.conn.state;
        mini.awaited = false;
        conn.set_sock(moved.sock.as_ref());
        conn.netns = conn.netns.or(mini.conn.netns);
        conn.cookie = conn.cookie.or(mini.conn.cookie);
        conn.timestamps = mini.conn.timestamps;
        if conn.state == substate {
            mini.conn = conn;
            self.peeks.add(addr, conn.id, born_ns);
            return true;
        }
        // From FIN_WAIT1 or CLOSING the kernel makes a minisock in TIME_WAIT only.
        let verdict = conn.ending.entered_time_wait(moved.old);
        out(Change::Moved(Moved {
            mono_ns: born_ns,
            new: substate,
            netns: conn.netns,
            in_old: conn.age(born_ns, last_loss),
            verdict,
            ..*moved
        }));
        conn.enter(substate, born_ns, Entered::Seen);
        mini.conn = conn;
        true
    }

    /// Whether any minisock waits to be looked at.
    pub(super) fn awaits_peeks(&self) -> bool {
        !self.peeks.is_empty()
    }

    /// Two rounds had no such minisock, the last one from `now` on. If its timer was due by then, it
    /// has ended, though nothing told of that; false if there is another reason.
    pub(super) fn end_untold(
        &mut self,
        addr: u64,
        now: u64,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) -> bool {
        let over = |mini: &Mini| {
            let due_ns = mini.due_ns.map(u64::from).filter(|&due| due <= now);
            due_ns.filter(|_| !mini.awaited && mini.stopped.is_none())
        };
        let Some(due_ns) = self.minis.get(addr).and_then(over) else { return false };
        let Some(mini) = self.minis.remove(addr) else { return false };
        vanished(mini.conn, addr, EndReason::Expired, (due_ns, now), who, out);
        true
    }

    /// Addresses of minisocks to be looked at, at `now`.
    pub(super) fn due_peeks(&mut self, now: u64) -> Vec<u64> {
        let minis = &self.minis;
        self.peeks.due(now, |addr, id| {
            let waits = |mini: &Mini| mini.conn.id == id && mini.conn.state == TcpState::FinWait2;
            minis.get(addr).is_some_and(waits)
        })
    }

    /// All that happened before `now` has been told: settles what was waiting for more.
    pub(super) fn tick(
        &mut self,
        now: u64,
        ids: &mut Ids,
        who: &Processes,
        out: &mut impl FnMut(Change),
    ) {
        while let Some(deadline) = self.unsettled.due(now) {
            let addr = deadline.addr;
            if !waits(&self.minis, deadline) {
                continue;
            }
            let Some(mini) = self.minis.get_mut(addr) else { continue };
            if let Some(stop) = mini.stopped.take() {
                end(&mut mini.conn, &stop, reason(&stop), self.jiffy_ns, who, out);
                self.minis.remove(addr);
                continue;
            }
            // No full socket: not a birth but a new start of one from before.
            mini.awaited = false;
            self.births.forget(mini.conn.netns.unwrap_or(0), &mini.conn.tuple, addr);
            mini.conn.id = ids.next();
            out(Change::Found(mini.conn.found(now, who)));
            if mini.conn.state == TcpState::FinWait2 {
                self.peeks.add(addr, mini.conn.id, now);
            }
        }
    }
}

/// Whether a deadline is that of a minisock that waits.
fn waits(minis: &Table<Mini>, deadline: Deadline) -> bool {
    minis.get(deadline.addr).and_then(Mini::settles_ns) == Some(deadline.due_ns)
}

/// When a TIME_WAIT's timer was last started, to a jiffy: it runs for TCP_TIMEWAIT_LEN.
fn timer_started(event: &Minisock, jiffy_ns: u64) -> u64 {
    let hz = 1_000_000_000 / jiffy_ns;
    let started = event.expires.saturating_sub(TIMEWAIT_LEN_S * hz);
    let ago_ns = event.jiffies.saturating_sub(started).saturating_mul(jiffy_ns);
    event.mono_ns.saturating_sub(ago_ns)
}

/// When a timer that was given a time by `event` is to run, to a jiffy.
fn timer_due(event: &Minisock, jiffy_ns: u64) -> Option<NonZeroU64> {
    let in_ns = event.expires.saturating_sub(event.jiffies).saturating_mul(jiffy_ns);
    NonZeroU64::new(event.mono_ns.saturating_add(in_ns))
}

/// Says that a minisock ended between two moments, which is all that is known of when.
pub(super) fn vanished(
    mut conn: Conn,
    addr: u64,
    reason: EndReason,
    (from_ns, until_ns): (u64, u64),
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    let half_ns = until_ns.saturating_sub(from_ns) / 2;
    let mono_ns = from_ns + half_ns;
    let in_old = match conn.age(mono_ns, None) {
        Age::Exactly(ns) => Age::About { ns, within_ns: half_ns },
        Age::About { ns, within_ns } => Age::About { ns, within_ns: within_ns + half_ns },
        Age::AtLeast(_) => at_least(conn.since_ns, from_ns),
        Age::Unknown => Age::Unknown,
    };
    ended(&mut conn, addr, mono_ns, in_old, reason, who, out);
}

/// Says that a minisock ended at `mono_ns`.
fn ended(
    conn: &mut Conn,
    addr: u64,
    mono_ns: u64,
    in_old: Age,
    reason: EndReason,
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    out(Change::Moved(Moved {
        id: conn.id,
        mono_ns,
        skaddr: addr,
        old: conn.state,
        new: TcpState::Close,
        tuple: conn.tuple,
        netns: conn.netns,
        birth: conn.birth(),
        in_old,
        before_ns: conn.before_ns(),
        owner: who.owner(conn.people.owner),
        closer: who.closer(conn.people.closer),
        sock: conn.sock(),
        end_reason: Some(reason),
        verdict: conn.ending.minisock_ended(conn.state, reason),
    }));
}

/// If FIN_WAIT2 has become TIME_WAIT inside the minisock, says so.
fn promote(
    event: &Minisock,
    conn: &mut Conn,
    jiffy_ns: u64,
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    if event.substate != TcpState::TimeWait || conn.state != TcpState::FinWait2 {
        return;
    }
    // A start of the timer is the very moment. Otherwise the timer tells: it was started
    // for TCP_TIMEWAIT_LEN when the FIN came, and counts in jiffies.
    let (at_ns, entered) = if event.event.gives_a_time() {
        (event.mono_ns, Entered::Seen)
    } else {
        let at_ns = timer_started(event, jiffy_ns).max(conn.since_ns);
        (at_ns, Entered::Within(jiffy_ns))
    };
    promoted(conn, event.addr, at_ns, entered, who, out);
}

/// `conn`, a minisock in FIN_WAIT2, went to TIME_WAIT at `at_ns`.
pub(super) fn promoted(
    conn: &mut Conn,
    addr: u64,
    at_ns: u64,
    entered: Entered,
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    let in_old = match (conn.age(at_ns, None), entered) {
        (Age::Exactly(ns), Entered::Within(within_ns)) => Age::About { ns, within_ns },
        (age, _) => age,
    };
    let verdict = conn.ending.entered_time_wait(TcpState::FinWait2);
    out(Change::Moved(Moved {
        id: conn.id,
        mono_ns: at_ns,
        skaddr: addr,
        old: TcpState::FinWait2,
        new: TcpState::TimeWait,
        tuple: conn.tuple,
        netns: conn.netns,
        birth: conn.birth(),
        in_old,
        before_ns: conn.before_ns(),
        owner: who.owner(conn.people.owner),
        closer: who.closer(conn.people.closer),
        sock: conn.sock(),
        end_reason: None,
        verdict,
    }));
    conn.enter(TcpState::TimeWait, at_ns, entered);
}

/// Says that a minisock ended with `event`.
fn end(
    conn: &mut Conn,
    event: &Minisock,
    reason: EndReason,
    jiffy_ns: u64,
    who: &Processes,
    out: &mut impl FnMut(Change),
) {
    promote(event, conn, jiffy_ns, who, out);
    let in_old = conn.age(event.mono_ns, None);
    ended(conn, event.addr, event.mono_ns, in_old, reason, who, out);
}

/// Why a timer was stopped for good, or a minisock freed.
fn reason(stop: &Minisock) -> EndReason {
    let (MinisockEvent::Stopped { by: Some(by), .. } | MinisockEvent::Ended { by: Some(by) }) =
        stop.event
    else {
        return EndReason::Unknown;
    };
    match by {
        Stopper::StateProcess => EndReason::Reset,
        // tcp_timewait_state_process() answers TCP_TW_SYN only in TIME_WAIT, and TCP_TW_RST only
        // in FIN_WAIT2.
        Stopper::Receive if stop.substate == TcpState::FinWait2 => EndReason::RstSent,
        Stopper::Receive => EndReason::ReusedBySyn,
        Stopper::Connect => EndReason::ReusedByConnect,
        Stopper::Abort => EndReason::Killed,
        Stopper::Purge => EndReason::NetnsExit,
    }
}

#[cfg(test)]
mod tests;
