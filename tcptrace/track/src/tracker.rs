//! One incarnation for each skaddr: how long it was in each state, and whose it is.

use super::{
    cgroups::Cgroups,
    compare::Rounds,
    conn::{Conn, Entered, at_least, closer_of, differ, has_listeners_ends, owner_of},
    known::Known,
    listeners::Listeners,
    minisock::Origin,
    namespaces::Namespaces,
    pending::PendingVerdicts,
    processes::Processes,
    sampling::Sampling,
    scans::{Last, Scan},
    strays::Strays,
    verdict::{Close, Judgement},
};
use tcptrace_model::{
    Accept, Age, Birth, Cgroup, Change, EndReason, Event, Found, Input, MinisockEvent, MinisocksBy,
    Moved, Owner, OwnerFrom, Reset, ResetDirection, Retired, TcpState, Transition, Verdict,
    change::is_birth,
};

/// Connections that are tracked at a time unless told otherwise.
pub const DEFAULT_LIMIT: usize = 1 << 20;

/// What the tracker counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transitions that do not follow from what was known, with nothing lost to explain it.
    pub anomalies: u64,
    /// Sockets whose state was corrected after a loss.
    pub resynchronised: u64,
    /// Sockets forgotten to keep the limit.
    pub evicted: u64,
    /// Sockets known now.
    pub tracked: u64,
    /// Sockets that a later snapshot had and the tracker had not, or the other way round, or in
    /// another state.
    pub corrected: u64,
    /// Minisocks of whose end nothing told: their timers were due, and snapshots had them no more.
    pub unobserved_expiries: u64,
}

/// A connection, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The connection.
    pub found: Found,
    /// How long it has been in its state.
    pub in_state: Age,
    /// Whether a process had it open when the last snapshot was taken; never of a minisock. `None`
    /// where no snapshot has told of it.
    pub held: Option<bool>,
    /// Timer and progress, as of the last snapshot; of an ESTABLISHED one only if it seemed to wait
    /// for its peer. `None` if it has changed its state since.
    pub scan: Option<&'a Scan>,
}

/// Turns inputs into changes.
pub struct Tracker {
    known: Known,
    /// Where no hook tells of minisocks.
    sampling: Sampling,
    rounds: Rounds,
    pending: PendingVerdicts,
    strays: Strays,
    /// Something tells of minisocks.
    minisocks_told: bool,
    /// RSTs are reported.
    resets_told: bool,
    cgroups: Cgroups,
    namespaces: Namespaces,
    /// Since when no event can have been missed: an unknown socket has been in its state at
    /// least since then. `None` before the hooks are in force.
    complete_since: Option<u64>,
    /// The last time that events were noticed to be lost.
    last_loss: Option<u64>,
    /// The same of RSTs.
    last_reset_loss: Option<u64>,
    anomalies: u64,
    resynchronised: u64,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Tracker {
    /// A tracker of at most `limit` sockets and as many minisocks.
    pub fn new(limit: usize) -> Self {
        Self {
            known: Known::new(limit),
            sampling: Sampling::new(limit),
            rounds: Rounds::new(limit),
            pending: PendingVerdicts::default(),
            strays: Strays::default(),
            minisocks_told: true,
            resets_told: true,
            cgroups: Cgroups::default(),
            namespaces: Namespaces::default(),
            complete_since: None,
            last_loss: None,
            last_reset_loss: None,
            anomalies: 0,
            resynchronised: 0,
        }
    }

    /// What it counts of itself.
    pub fn counts(&self) -> Counts {
        Counts {
            anomalies: self.anomalies,
            resynchronised: self.resynchronised + self.sampling.resynchronised(),
            evicted: self.known.evicted()
                + self.sampling.evicted()
                + self.strays.evicted()
                + self.pending.evicted()
                + self.rounds.left_out(),
            tracked: (self.known.len() + self.sampling.len()) as u64,
            corrected: self.rounds.corrected() + self.sampling.corrected(),
            unobserved_expiries: self.rounds.unobserved_expiries(),
        }
    }

    /// Addresses of minisocks in FIN_WAIT2 that the source should look at, at `now`: whether
    /// they have moved on shows in no event.
    pub fn due_peeks(&mut self, now: u64) -> Vec<u64> {
        self.known.minisocks.due_peeks(now)
    }

    /// Whether there are any that will be due.
    pub fn awaits_peeks(&self) -> bool {
        self.known.minisocks.awaits_peeks()
    }

    /// Whether the last snapshots had something otherwise than it was known. Another one soon will
    /// settle that.
    pub fn in_doubt(&self) -> bool {
        self.rounds.in_doubt()
    }

    /// Whether a look at the minisocks would settle what is held back.
    pub fn awaits_look(&self) -> bool {
        self.sampling.holds_any()
    }

    /// All connections that are known, with the state each is in; their time is since when it
    /// is, at the latest.
    pub fn census(&self) -> impl Iterator<Item = Found> {
        self.standing(0).map(|standing| standing.found)
    }

    /// The same, with how long each has been in its state, at `now`.
    pub fn standing(&self, now: u64) -> impl Iterator<Item = Standing<'_>> {
        let who = &self.known.processes;
        let of = move |conn: &Conn, mini: bool| {
            // When FIN_WAIT1 was left, what was shut down was told from what was closed. A close()
            // since then makes it a minisock.
            let sock = conn.sock().filter(|_| conn.state == TcpState::FinWait2);
            let held = if mini { Some(false) } else { sock.map(|sock| !sock.dead) };
            (conn.found(conn.since_ns, who), conn.age(now, self.last_loss), held, mini)
        };
        let full = self.known.conns.iter().map(move |(_, conn)| of(conn, false));
        let pending = self.pending.iter();
        let pending =
            pending.map(|moved| (PendingVerdicts::found(moved), moved.in_old, None, false));
        let minis = self.known.minisocks.iter().map(move |(_, conn)| of(conn, true));
        let seeds = self.known.seeds.iter().map(move |seed| of(&seed.conn(), seed.mini));
        let sampled = self.sampling.iter().map(move |conn| of(conn, true));
        let all = full.chain(pending).chain(minis).chain(sampled).chain(seeds);
        all.map(|(found, in_state, held, mini)| {
            // A minisock has no queues, and its cookie may be that of a full socket too.
            let last = found
                .cookie
                .filter(|_| !mini)
                .and_then(|cookie| self.known.scans.get(cookie, &found.tuple));
            Standing {
                in_state,
                held: held.or(last.and_then(Last::held)),
                scan: last.and_then(|last| last.scan(found.state)),
                found: Found {
                    queues: last.and_then(|last| last.queues(found.state)),
                    retransmits: last.and_then(Last::retransmits),
                    ..found
                },
            }
        })
    }

    /// What is known of the cgroup with this id.
    pub fn cgroup(&self, id: u64) -> Option<&Cgroup> {
        self.cgroups.get(id)
    }

    /// What network namespaces are called.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// Takes in one input and hands out what follows from it.
    ///
    /// `out` is dynamic so that the analysis is compiled once, in this crate, and not for each view.
    pub fn apply(&mut self, input: &Input, out: &mut dyn FnMut(Change)) {
        self.take(input, &mut |change| out(change));
    }

    fn take(&mut self, input: &Input, out: &mut impl FnMut(Change)) {
        match input {
            Input::Begin { mono_ns, hz, minisocks, resets } => {
                self.complete_since = Some(*mono_ns);
                self.known.minisocks.set_hz(*hz);
                self.sampling.set(*minisocks == MinisocksBy::Looks);
                self.minisocks_told = *minisocks != MinisocksBy::Nothing;
                self.resets_told = *resets;
            }
            Input::Event(Event::Transition(event)) => self.transition(event, out),
            Input::Event(Event::Minisock(event)) => {
                if matches!(event.event, MinisockEvent::Expired | MinisockEvent::Stopped { .. }) {
                    self.rounds.ended(event.cookie, true, &event.tuple);
                }
                let Known { seeds, minisocks, ids, processes, .. } = &mut self.known;
                let netns = Some(event.netns);
                let origin =
                    || match seeds.take(event.cookie, &event.tuple, event.substate, netns, true) {
                        Some(seed) => Origin::Seed(seed),
                        None => Origin::Unknown,
                    };
                minisocks.event(event, ids, processes, origin, out);
            }
            Input::Lost(lost) => self.lost(lost.mono_ns, lost.is_of_resets()),
            // Programs of RSTs among them.
            Input::Missed { mono_ns, .. } => self.lost(*mono_ns, true),
            Input::Gap(gap) => self.lost(gap.mono_ns, true),
            Input::Snapshot(snapshot) => {
                if !self.sampling.piece(snapshot) {
                    self.rounds.piece(snapshot);
                }
            }
            Input::Cgroup { id, path } => self.cgroups.name(*id, path),
            Input::Tick { mono_ns } => {
                self.pending.tick(*mono_ns, out);
                let Known { minisocks, ids, processes, .. } = &mut self.known;
                minisocks.tick(*mono_ns, ids, processes, out);
                self.sampling.settle(*mono_ns, &mut self.known, out);
                self.rounds.settle(*mono_ns, &mut self.known, out);
                self.known.forget_processes(self.sampling.iter());
            }
            Input::Event(Event::Reset(event)) => self.reset(event, out),
            Input::Event(Event::Accept(event)) => self.accept(event),
            Input::End(accounts) => {
                self.pending.end(out);
                self.sampling.end(accounts.mono_ns, &self.known.processes, out);
            }
            Input::Exited(exited) => self.known.processes.ended(exited.tgid, exited.started),
            Input::NetnsName(_) => self.namespaces.input(input),
            Input::Clock(_) | Input::Sysctls(_) | Input::Counters(_) => {}
        }
    }

    /// Events were lost, which was noticed at `mono_ns`.
    fn lost(&mut self, mono_ns: u64, resets: bool) {
        self.complete_since = Some(mono_ns);
        self.last_loss = Some(mono_ns);
        if resets {
            self.last_reset_loss = Some(mono_ns);
            self.pending.lost(mono_ns);
            self.sampling.lost(mono_ns);
        }
    }

    fn reset(&mut self, event: &Reset, out: &mut impl FnMut(Change)) {
        if let Some(conn) = self.known.conns.get_mut(event.skaddr) {
            conn.ending.reset(event.direction, event.reason);
        } else if event.state != Some(TcpState::Close) {
            self.strays.add(event);
        } else if event.direction == ResetDirection::Sent {
            self.pending.reset(event.skaddr, event.reason, out);
            self.sampling.reset(event, out);
        }
    }

    fn accept(&mut self, event: &Accept) {
        let Known { conns, processes, .. } = &mut self.known;
        if let Some(conn) = conns.get_mut(event.skaddr) {
            let owner = Owner { task: event.task, from: OwnerFrom::Accept };
            conn.people.owner = processes.better(conn.people.owner, Some(owner));
        }
    }

    fn transition(&mut self, event: &Transition, out: &mut impl FnMut(Change)) {
        if event.old == event.new {
            return; // inet_sk_state_store() is also called to stay: no transition
        }
        if !event.old.may_become(event.new) {
            self.anomalies += 1;
        }
        self.pending.moves_on(event.skaddr, out);
        if self.step(event, out) {
            return;
        }
        let born = is_birth(event.old, event.new);
        let strays = self.strays.take(event.skaddr);
        let known = self.identify(event, born, out);
        let is_known = known.is_some();
        let (mut conn, in_old) = known.unwrap_or_else(|| {
            let id = self.known.ids.next();
            (Conn::new(id, event.old, event.mono_ns, Entered::Before, event.tuple), Age::Unknown)
        });
        if let Some(resets) = strays
            && !born
        {
            conn.ending.set_resets(resets);
        }
        let Known { listeners, processes, .. } = &mut self.known;
        let mut moved = told(&mut conn, in_old, event, listeners, processes);
        if event.new == TcpState::Close {
            self.closed(event, conn, is_known, moved, out);
            return;
        }
        moved.verdict.initiator = conn.ending.moved(event.old, event.new);
        out(Change::Moved(moved));
        // A connection in SYN_RECV was in the SYN queue before, unseen, as a request_sock.
        let entered = if is_child(event) { Entered::Before } else { Entered::Seen };
        conn.enter(event.new, event.mono_ns, entered);
        conn.set_sock(event.sock.as_ref());
        if event.new == TcpState::Listen
            && let Some(owner) = self.known.processes.owner(conn.people.owner)
        {
            self.known.listeners.insert(event.skaddr, conn.netns, &conn.tuple, owner);
        }
        if is_known && let Some(slot) = self.known.conns.get_mut(event.skaddr) {
            *slot = conn;
        } else if let Some((_, evicted)) = self.known.conns.insert(event.skaddr, conn) {
            // An unknown socket may now be the evicted one, which was in its state before; it
            // may also have moved before it was evicted, up to now.
            self.complete_since = Some(event.mono_ns);
            out(evicted.gone(event.mono_ns, &self.known.processes));
        }
    }

    /// What most transitions are: a known connection goes on to another state, and nothing was
    /// lost since it came into this one. Changed where it is; false where it is not so simple.
    fn step(&mut self, event: &Transition, out: &mut impl FnMut(Change)) -> bool {
        use TcpState::{Close, Listen};
        if matches!(event.old, Close | Listen) || matches!(event.new, Close | Listen) {
            return false;
        }
        let Known { conns, listeners, processes, .. } = &mut self.known;
        let Some(conn) = conns.get_mut(event.skaddr) else { return false };
        let cookie = event.sock.as_ref().and_then(|sock| sock.cookie);
        if conn.state != event.old
            || self.last_loss.is_some_and(|loss| loss >= conn.since_ns)
            || differ(conn.cookie(), cookie)
        {
            return false;
        }
        let in_old = conn.age(event.mono_ns, self.last_loss);
        let mut moved = told(conn, in_old, event, listeners, processes);
        moved.verdict.initiator = conn.ending.moved(event.old, event.new);
        conn.enter(event.new, event.mono_ns, Entered::Seen);
        conn.set_sock(event.sock.as_ref());
        out(Change::Moved(moved));
        true
    }

    /// The socket of `conn` goes to CLOSE: to a minisock, or to its end.
    fn closed(
        &mut self,
        event: &Transition,
        conn: Conn,
        is_known: bool,
        mut moved: Moved,
        out: &mut impl FnMut(Change),
    ) {
        self.known.conns.remove(event.skaddr);
        let cookie = event.sock.and_then(|sock| sock.cookie).or(conn.cookie());
        self.rounds.ended(cookie, false, &moved.tuple);
        if event.old == TcpState::Listen {
            self.known.listeners.remove(event.skaddr, conn.netns, &conn.tuple);
            if let Some(cookie) = cookie {
                self.known.listeners.remove(cookie, conn.netns, &conn.tuple);
            }
            out(Change::Moved(moved));
            return;
        }
        if let Some(totals) = event.totals {
            out(Change::Retired(Retired { id: conn.id, mono_ns: event.mono_ns, totals }));
        }
        if is_known && matches!(event.old, TcpState::FinWait2 | TcpState::Closing) {
            if self.known.minisocks.hand_over(conn, &moved, self.last_loss, out) {
                return;
            }
            if event.buckets_full {
                moved.end_reason = Some(EndReason::NeverCreated);
            }
        }
        let since_ns = event.mono_ns.saturating_sub(least_ns(moved.in_old));
        let close = Close {
            old: event.old,
            in_old: moved.in_old,
            opened: moved.birth.map(|birth| birth.opened),
            sock: event.sock.as_ref(),
            totals: event.totals.as_ref(),
            unbound: moved.tuple.lport == 0,
            minisocks_told: self.minisocks_told,
            resets_told: self.resets_told,
            resets_lost: self.last_reset_loss.is_some_and(|loss| loss >= since_ns),
        };
        let judgement = conn.ending.closed(&close);
        if is_known
            && matches!(event.old, TcpState::FinWait2 | TcpState::Closing)
            && self.sampling.hold(conn, &moved, judgement, &self.known.processes, out)
        {
            return;
        }
        match judgement {
            Judgement::Settled(verdict) => {
                moved.verdict = verdict;
                out(Change::Moved(moved));
            }
            Judgement::Open(question) => self.pending.add(moved, question, out),
        }
    }

    /// The connection that an event is about, in the state that it leaves, and how long it was in
    /// that. `None` for one that begins.
    fn identify(
        &mut self,
        event: &Transition,
        born: bool,
        out: &mut impl FnMut(Change),
    ) -> Option<(Conn, Age)> {
        let cookie = event.sock.and_then(|sock| sock.cookie);
        if let Some(mut conn) = self.known.conns.get(event.skaddr).copied() {
            let lost = self.last_loss.filter(|&loss| loss >= conn.since_ns);
            if lost.is_some() && conn.cookie.is_none() {
                // The address may have become another socket's, whose birth is among the lost.
                conn.known_since(lost.unwrap_or(conn.since_ns));
            }
            let another = born || differ(conn.cookie(), cookie);
            if !another && conn.state == event.old {
                return Some((conn, conn.age(event.mono_ns, self.last_loss)));
            }
            // Something was not seen: the former socket's way to CLOSE, or a step of this one.
            match lost {
                Some(_) => self.resynchronised += 1,
                None => self.anomalies += 1,
            }
            out(conn.gone(event.mono_ns, &self.known.processes));
            if !another {
                conn.state = event.old;
                out(Change::Found(conn.found(event.mono_ns, &self.known.processes)));
                let age = lost.map_or(Age::Unknown, |loss| at_least(loss, event.mono_ns));
                return Some((conn, age));
            }
            self.known.conns.remove(event.skaddr);
        }
        let netns = event.sock.map(|sock| sock.netns);
        let seed = if has_listeners_ends(event.new, &event.tuple) {
            None
        } else {
            self.known.seeds.take(cookie, &event.tuple, event.old, netns, false)
        };
        if let Some(seed) = seed {
            if !born && seed.state == event.old {
                let age = seed.age(event.mono_ns, self.last_loss);
                return Some((seed, age));
            }
            // The event is from before the snapshot saw it, and was told late.
            out(seed.gone(event.mono_ns, &self.known.processes));
        }
        if born {
            return None;
        }
        let id = self.known.ids.next();
        let mut conn = Conn::new(id, event.old, event.mono_ns, Entered::Before, event.tuple);
        conn.people.owner = seed.and_then(|seed| seed.people.owner);
        conn.set_sock(event.sock.as_ref());
        out(Change::Found(conn.found(event.mono_ns, &self.known.processes)));
        let age = self.complete_since.map_or(Age::Unknown, |since| at_least(since, event.mono_ns));
        conn.since_ns = event.mono_ns.saturating_sub(age.least_ns());
        conn.known_since(conn.since_ns);
        Some((conn, age))
    }
}

/// For how long at the least.
fn least_ns(age: Age) -> u64 {
    match age {
        Age::Unknown => 0,
        Age::AtLeast(ns) | Age::Exactly(ns) => ns,
        Age::About { ns, within_ns } => ns.saturating_sub(within_ns),
    }
}

/// Whether a child of a listener is born.
fn is_child(event: &Transition) -> bool {
    event.old == TcpState::Listen && event.new == TcpState::SynRecv
}

/// Has `conn` take in whose it is and which, and gives what is to be said of the event, but for the
/// verdict.
#[inline]
fn told(
    conn: &mut Conn,
    in_old: Age,
    event: &Transition,
    listeners: &Listeners,
    who: &mut Processes,
) -> Moved {
    conn.tuple = event.tuple.completed_by(&conn.tuple);
    if let Some(birth) = Birth::of(event.old, event.new, event.mono_ns) {
        conn.born(birth);
    }
    conn.netns = event.sock.as_ref().map(|sock| sock.netns).or(conn.netns);
    let closer = closer_of(event, conn);
    conn.people.owner = who.better(conn.people.owner, owner_of(event, closer.as_ref()));
    if is_child(event) && conn.people.owner.is_none() {
        conn.people.owner = who.better(None, listeners.owner(conn.netns, &conn.tuple));
    }
    if conn.people.closer.is_none() {
        // 0 is the idle task, which calls nothing.
        let closer = closer.filter(|closer| closer.task.tgid != 0);
        conn.people.closer = closer.and_then(|closer| who.keep_closer(closer));
    }
    // Whoever closes it may have been the last to have it open.
    if closer.is_some() || event.sock.as_ref().is_some_and(|sock| sock.dead) {
        conn.people.holder = None;
    }
    Moved {
        id: conn.id,
        mono_ns: event.mono_ns,
        skaddr: event.skaddr,
        old: event.old,
        new: event.new,
        tuple: conn.tuple,
        netns: conn.netns,
        birth: conn.birth(),
        in_old,
        before_ns: conn.before_ns(),
        owner: who.owner(conn.people.owner),
        closer: who.closer(conn.people.closer),
        sock: event.sock,
        end_reason: None,
        verdict: Verdict::default(),
    }
}

#[cfg(test)]
mod people;
#[cfg(test)]
mod tests;
