//! Connections that are stuck, whose they are, and when the kernel will give them up.
//!
//! Counted anew from what is known at each report. What is not known to have been stuck for long is
//! not: a lower bound counts as what it is. Why a connection stays where it is, [`cause`] decides.

pub mod cause;
pub mod give_up;
mod whose;

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use self::give_up::give_up;
pub use self::{
    cause::{Cause, diagnosis, threshold, threshold_of},
    give_up::{GiveUp, Limit, Limits},
    whose::{Door, Doors, Whose},
};
use super::{
    conns::least_ns,
    group::{By, Key},
};
use tcptrace_model::{
    Age, Found, Input, Queues, Snapshot, StateSet, SynQueue, TcpState,
    hash::{Map, Set},
};
use tcptrace_track::{Scan, Standing, Tracker};

/// States that a connection can be stuck in, those that do not pass by themselves first.
/// ESTABLISHED is one only where it waits for its peer.
pub const STATES: [TcpState; 8] = [
    TcpState::CloseWait,
    TcpState::Established,
    TcpState::FinWait2,
    TcpState::FinWait1,
    TcpState::Closing,
    TcpState::LastAck,
    TcpState::SynSent,
    TcpState::SynRecv,
];

/// Groups that are counted apart in each state; the others are one.
const LIMIT: usize = 10_000;
/// Namespaces whose sysctls, and whose SYN queues, are kept.
const SPACES: usize = 1 << 16;

/// From so many connections of one group in one state on, for one cause, they are a leak in the making,
/// whatever their age: as many as `doctor` takes for one.
pub const LEAK: u64 = 10;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// In these of [`STATES`].
    pub states: StateSet,
    /// For so long; `None`: [`threshold`].
    pub older: Option<Duration>,
    /// What tells groups apart.
    pub by: By,
    /// How many groups of a state, and how many connections, are told of.
    pub top: usize,
}

impl Wanted {
    /// The states, in the order of [`STATES`].
    pub fn states(&self) -> impl Iterator<Item = TcpState> {
        STATES.into_iter().filter(|&state| self.states.contains(state))
    }

    /// How long is too long.
    pub fn older(&self, state: TcpState, cause: Cause) -> Duration {
        self.older.unwrap_or_else(|| threshold(state, cause))
    }

    fn is_over(&self, state: TcpState, cause: Cause, age: Age) -> bool {
        // Two keepalive probes in a row were not answered: since when, only the program's settings say.
        let enough = age == Age::Unknown && cause == Cause::NoProbeAnswer && self.older.is_none();
        let older_ns = u64::try_from(self.older(state, cause).as_nanos()).unwrap_or(u64::MAX);
        enough || least_ns(age) >= older_ns
    }
}

/// What hangs in the queues of a connection, less the SYN or FIN that the kernel counts as a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Received, and not read.
    pub unread: u64,
    /// Written, and not acknowledged.
    pub unsent: u64,
    /// In CLOSE_WAIT: whether the program has read the end of the stream.
    pub eof_read: Option<bool>,
}

impl Bytes {
    /// Of a connection that was in `state` when the queues were looked at.
    pub fn of(state: TcpState, queues: Queues) -> Self {
        let fin_came = matches!(state, TcpState::CloseWait | TcpState::Closing | TcpState::LastAck);
        let one_is_ours = matches!(
            state,
            TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck | TcpState::SynSent
        );
        let less = |bytes: u32, one: bool| u64::from(bytes.saturating_sub(u32::from(one)));
        Self {
            unread: less(queues.unread, fin_came),
            unsent: less(queues.unsent, one_is_ours),
            // tcp_recvmsg() takes the FIN as a byte when it returns 0.
            eof_read: (state == TcpState::CloseWait).then_some(queues.unread == 0),
        }
    }
}

/// Connections of one group in one state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// For too long.
    pub stuck: u64,
    /// For whatever time.
    pub all: u64,
    /// `all` of the report before; `None` in the first.
    pub before: Option<u64>,
    /// How long the oldest that is stuck has been there.
    pub oldest: Option<Age>,
    /// Of those that are stuck, how many were in a snapshot by now: what follows is theirs.
    pub looked_at: u64,
    /// Bytes that were not read.
    pub unread: u64,
    /// Bytes that were not acknowledged.
    pub unsent: u64,
    /// In CLOSE_WAIT: whose program has not read the end of the stream.
    pub eof_unread: u64,
}

impl Count {
    /// By how many there are more in the state than at the report before.
    pub fn change(&self) -> Option<i64> {
        Some(self.all as i64 - self.before? as i64)
    }

    fn add(&mut self, other: &Self) {
        self.stuck += other.stuck;
        self.all += other.all;
        self.before = self.before.zip(other.before).map(|(one, other)| one + other);
        self.looked_at += other.looked_at;
        self.unread += other.unread;
        self.unsent += other.unsent;
        self.eof_unread += other.eof_unread;
        self.oldest = longer(self.oldest, other.oldest);
    }
}

/// The longer of two times.
fn longer(one: Option<Age>, other: Option<Age>) -> Option<Age> {
    let (Some(a), Some(b)) = (one, other) else { return one.or(other) };
    Some(if least_ns(b) > least_ns(a) { b } else { a })
}

/// The connections in one state that stay there for one cause.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The state.
    pub state: TcpState,
    /// The cause.
    pub cause: Cause,
    /// How long is too long.
    pub older: Duration,
    /// Groups, those with most that are stuck first, then those with most.
    pub groups: Vec<(Whose, Count)>,
    /// How many more groups there are, and their counts.
    pub rest: (usize, Count),
    /// How many connections there are, for whatever time.
    pub all: u64,
    /// How many of them for too long.
    pub stuck: u64,
}

impl Section {
    /// Whether there is something to say of it: some are stuck, or so many are about to be.
    pub fn is_problem(&self) -> bool {
        let by_program =
            matches!(self.cause, Cause::NotClosed | Cause::NotAccepted | Cause::HalfClosed);
        self.stuck > 0 || self.is_leak() && (by_program || self.cause.is_wait())
    }

    /// Of such a section the groups to name: of those that are not stuck only where none is, for then
    /// they may be a leak.
    pub fn problem_groups(&self) -> impl Iterator<Item = &(Whose, Count)> {
        self.groups.iter().filter(|(_, count)| count.stuck > 0 || self.stuck == 0)
    }

    /// Groups of which some are stuck.
    pub fn stuck_groups(&self) -> impl Iterator<Item = &(Whose, Count)> {
        self.groups.iter().filter(|(_, count)| count.stuck > 0)
    }

    /// How many are not stuck yet.
    pub fn below(&self) -> u64 {
        self.all - self.stuck
    }

    /// By how many there are more than at the report before; `None` in the first.
    pub fn change(&self) -> Option<i64> {
        let groups = self.groups.iter().map(|(_, count)| count);
        let rest = (self.rest.0 > 0).then_some(&self.rest.1);
        groups.chain(rest).map(Count::change).sum()
    }

    /// Whether none is stuck, and yet so many of one group are here that they are likely to be.
    pub fn is_leak(&self) -> bool {
        self.stuck == 0 && self.groups.iter().any(|(_, count)| count.all >= LEAK)
    }
}

/// A connection that is stuck.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// It.
    pub found: Found,
    /// Why.
    pub cause: Cause,
    /// How long it has been stuck.
    pub age: Age,
    /// How long it has been in its state.
    pub in_state: Age,
    /// Whether a process had it open when it was last looked at.
    pub held: Option<bool>,
    /// What hung in its queues then.
    pub bytes: Option<Bytes>,
    /// Its timer and progress, as of the last scan.
    pub scan: Option<Scan>,
    /// When the kernel gives it up, as of that scan, if that can be told.
    pub give_up: Option<GiveUp>,
    /// What its cgroup is called. Untrusted text.
    pub unit: Option<Box<str>>,
}

impl Stuck {
    /// In how many milliseconds from `now` on the kernel gives it up, about; `None` for never, and
    /// where that is not known.
    pub fn gives_up_in_ms(&self, now: u64) -> Option<u64> {
        let since_scan_ns = now.saturating_sub(self.scan?.mono_ns);
        Some(self.give_up?.in_ms?.saturating_sub(since_scan_ns / 1_000_000))
    }
}

/// The SYN queues at a port, as of the last snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SynRow {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Them.
    pub queue: SynQueue,
    /// Of the fullest listener there: connections that wait for accept(), and for how many there is
    /// room.
    pub accept: Option<Queues>,
}

impl SynRow {
    /// Whether the accept queue takes no more (`sk_acceptq_is_full()`): last ACKs are dropped.
    pub fn accept_full(&self) -> Option<bool> {
        self.accept.map(is_full)
    }
}

/// What there is at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What there is of each state and cause, in the order of [`STATES`] and [`Cause`].
    pub sections: Vec<Section>,
    /// The connections that have been stuck for longest, the oldest first.
    pub oldest: Vec<Stuck>,
    /// The SYN queues, which have no ages, and full accept queues, the longest first.
    pub syn_queues: Vec<SynRow>,
    /// There are more network namespaces than are remembered: of the others neither the SYN queues are
    /// known, nor when connections are given up.
    pub crowded: bool,
}

impl Report {
    /// Connections in `state`, for whatever time: of ESTABLISHED those that wait for their peer.
    pub fn all_in(&self, state: TcpState) -> u64 {
        self.sections.iter().filter(|of| of.state == state).map(|of| of.all).sum()
    }

    /// How many are stuck.
    pub fn stuck(&self) -> u64 {
        self.sections.iter().map(|of| of.stuck).sum()
    }

    /// How many are in these states, but not for too long.
    pub fn below(&self) -> u64 {
        self.sections.iter().map(Section::below).sum()
    }
}

/// Makes reports.
#[derive(Debug)]
pub struct Survey {
    wanted: Wanted,
    /// How many were in each state at the report before.
    before: Option<Map<(TcpState, Cause, Whose), u64>>,
    /// Timer ticks a second.
    hz: u32,
    /// By namespace, what decides when connections are given up.
    limits: BTreeMap<u32, Limits>,
    syn_queues: BTreeMap<u32, Vec<SynQueue>>,
    /// The namespace whose sockets are being told, unless they are minisocks alone.
    netns: Option<u32>,
    minisocks_alone: bool,
    crowded: bool,
}

impl Survey {
    /// One that looks for `wanted`.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            before: None,
            hz: 0,
            limits: BTreeMap::new(),
            syn_queues: BTreeMap::new(),
            netns: None,
            minisocks_alone: false,
            crowded: false,
        }
    }

    /// What is looked for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes in what is no event.
    pub fn input(&mut self, input: &Input) {
        let snapshot = match input {
            Input::Begin { hz, .. } => {
                self.hz = *hz;
                return;
            }
            Input::Sysctls(sysctls) => {
                if self.limits.len() < SPACES || self.limits.contains_key(&sysctls.netns) {
                    self.limits.insert(sysctls.netns, Limits::new(&sysctls.sysctls, self.hz));
                } else {
                    self.crowded = true;
                }
                return;
            }
            Input::Snapshot(snapshot) => snapshot,
            _ => return,
        };
        match snapshot {
            Snapshot::Open => self.minisocks_alone = false,
            Snapshot::OpenMinisocks => self.minisocks_alone = true,
            Snapshot::Begin { netns, .. } => {
                self.netns = (!self.minisocks_alone).then_some(*netns);
                if let Some(netns) = self.netns {
                    self.syn_queues.remove(&netns);
                }
            }
            Snapshot::SynQueue(queue) => {
                if let Some(netns) = self.netns
                    && (self.syn_queues.len() < SPACES || self.syn_queues.contains_key(&netns))
                {
                    let queues = self.syn_queues.entry(netns).or_default();
                    // There is at most one for each port, whatever a recording says.
                    if queues.len() < usize::from(u16::MAX) {
                        queues.push(*queue);
                    }
                } else {
                    self.crowded |= self.netns.is_some();
                }
            }
            Snapshot::End(_) => self.netns = None,
            Snapshot::Socket(_)
            | Snapshot::Info(_)
            | Snapshot::Bound(_)
            | Snapshot::Over { .. } => {}
        }
    }

    /// What there is at `now`.
    pub fn report(&mut self, now: u64, tracker: &Tracker) -> Report {
        self.report_of(now, tracker, |_| true)
    }

    /// What there is at `now` of the connections that `keep` holds of.
    pub fn report_of(
        &mut self,
        now: u64,
        tracker: &Tracker,
        keep: impl Fn(&Found) -> bool,
    ) -> Report {
        let wanted = self.wanted;
        let mut counts: Map<Group, Count> = Map::default();
        let mut groups: Map<(TcpState, Cause), usize> = Map::default();
        let mut oldest = Oldest::new(wanted.top);
        let mut accept_queues: Map<(u32, u16), Queues> = Map::default();
        let mut doors = Doors::default();
        for standing in tracker.standing(now) {
            let found = &standing.found;
            let state = found.state;
            if state == TcpState::Listen {
                doors.add(found);
                if let (Some(netns), Some(queues)) = (found.netns, found.queues) {
                    let fullest = accept_queues.entry((netns, found.tuple.lport)).or_insert(queues);
                    *fullest = fuller(*fullest, queues);
                }
                continue;
            }
            if !wanted.states.contains(state) || !STATES.contains(&state) {
                continue;
            }
            let Some(cause) = Cause::of(&standing).filter(|_| keep(found)) else { continue };
            let mut whose = Whose::of(wanted.by, Some(cause), &standing);
            if !counts.contains_key(&(state, cause, whose)) {
                let known = groups.entry((state, cause)).or_default();
                if *known >= LIMIT {
                    whose = Whose::Known(Key::Other);
                } else {
                    *known += 1;
                }
            }
            let count = counts.entry((state, cause, whose)).or_default();
            count.all += 1;
            let age = cause::stuck_for(&standing, cause, now);
            if !wanted.is_over(state, cause, age) {
                continue;
            }
            count.stuck += 1;
            count.oldest = longer(count.oldest, Some(age));
            if let Some(queues) = found.queues {
                let bytes = Bytes::of(state, queues);
                count.looked_at += 1;
                count.unread += bytes.unread;
                count.unsent += bytes.unsent;
                count.eof_unread += u64::from(bytes.eof_read == Some(false));
            }
            oldest.add(Candidate { standing, cause, age });
        }
        let mut counts = resolved(counts, &doors);
        let before = self.before.take();
        self.before = Some(counts.iter().map(|(group, count)| (*group, count.all)).collect());
        if let Some(before) = before {
            for (group, count) in &mut counts {
                count.before = Some(before.get(group).copied().unwrap_or(0));
            }
        }
        let stuck = oldest.finish();
        Report {
            sections: sections(&wanted, &counts),
            oldest: stuck.into_iter().map(|one| self.stuck(one, tracker)).collect(),
            syn_queues: self.syn_rows(&accept_queues),
            crowded: self.crowded,
        }
    }

    fn stuck(&self, Candidate { standing, cause, age }: Candidate<'_>, tracker: &Tracker) -> Stuck {
        let Standing { found, in_state, held, scan } = standing;
        let limits = found.netns.and_then(|netns| self.limits.get(&netns));
        let given_up = |scan: &Scan| give_up(&scan.info, held?, limits?);
        Stuck {
            cause,
            age,
            in_state,
            held,
            bytes: found.queues.map(|queues| Bytes::of(found.state, queues)),
            scan: scan.copied(),
            give_up: scan.and_then(given_up),
            unit: found.cgroup.and_then(|id| tracker.cgroup(id)).map(|cgroup| cgroup.name().into()),
            found,
        }
    }

    fn syn_rows(&self, accept_queues: &Map<(u32, u16), Queues>) -> Vec<SynRow> {
        if !self.wanted.states.contains(TcpState::SynRecv) {
            return Vec::new();
        }
        let rows = self.syn_queues.iter().flat_map(|(&netns, queues)| {
            queues.iter().map(move |&queue| SynRow {
                netns,
                queue,
                accept: accept_queues.get(&(netns, queue.lport)).copied(),
            })
        });
        let mut rows: Vec<_> = rows.collect();
        let listed: Set<_> = rows.iter().map(|row| (row.netns, row.queue.lport)).collect();
        // A full accept queue is one whether or not somebody knocks just now.
        let full = accept_queues.iter().filter(|(_, queues)| is_full(**queues));
        for (&(netns, lport), &queues) in full {
            if !listed.contains(&(netns, lport)) {
                let queue = SynQueue { lport, waiting: 0, resent: 0 };
                rows.push(SynRow { netns, queue, accept: Some(queues) });
            }
        }
        rows.sort_by_key(|row| {
            let full = row.accept_full() == Some(true);
            (Reverse((row.queue.resent, row.queue.waiting, full)), row.netns, row.queue.lport)
        });
        rows.truncate(self.wanted.top);
        rows
    }
}

/// Whether an accept queue takes no more.
fn is_full(accept: Queues) -> bool {
    accept.unread > accept.unsent
}

/// The accept queue with less room left.
fn fuller(one: Queues, other: Queues) -> Queues {
    let room = |queues: Queues| i64::from(queues.unsent) - i64::from(queues.unread);
    if room(other) < room(one) { other } else { one }
}

/// Connections that are counted together.
type Group = (TcpState, Cause, Whose);

/// With the listeners by name: those of one listener are one group, whatever address they came to.
fn resolved(counts: Map<Group, Count>, doors: &Doors) -> Map<Group, Count> {
    let mut merged: Map<Group, Count> = Map::default();
    for ((state, cause, whose), count) in counts {
        merged.entry((state, cause, doors.resolve(whose))).or_default().add(&count);
    }
    merged
}

fn sections(wanted: &Wanted, counts: &Map<Group, Count>) -> Vec<Section> {
    let mut of: BTreeMap<(usize, Cause), Vec<(Whose, Count)>> = BTreeMap::new();
    for ((state, cause, whose), count) in counts {
        if let Some(rank) = STATES.iter().position(|one| one == state) {
            of.entry((rank, *cause)).or_default().push((*whose, *count));
        }
    }
    let section = |((rank, cause), groups): ((usize, Cause), _)| {
        let state = STATES[rank];
        section(state, cause, wanted.older(state, cause), groups, wanted.top)
    };
    of.into_iter().map(section).collect()
}

fn section(
    state: TcpState,
    cause: Cause,
    older: Duration,
    mut groups: Vec<(Whose, Count)>,
    top: usize,
) -> Section {
    let all = groups.iter().map(|(_, count)| count.all).sum();
    let stuck = groups.iter().map(|(_, count)| count.stuck).sum();
    groups.sort_by_key(|(whose, count)| (Reverse((count.stuck, count.all)), *whose));
    let cut = groups.split_off(top.min(groups.len()));
    let mut rest = cut.first().map(|(_, count)| *count).unwrap_or_default();
    cut.iter().skip(1).for_each(|(_, count)| rest.add(count));
    Section { state, cause, older, groups, rest: (cut.len(), rest), all, stuck }
}

/// One that may be among the oldest.
struct Candidate<'a> {
    standing: Standing<'a>,
    cause: Cause,
    age: Age,
}

/// The oldest few of many.
struct Oldest<'a> {
    top: usize,
    kept: Vec<Candidate<'a>>,
}

impl<'a> Oldest<'a> {
    fn new(top: usize) -> Self {
        Self { top, kept: Vec::new() }
    }

    fn add(&mut self, candidate: Candidate<'a>) {
        self.kept.push(candidate);
        if self.kept.len() >= self.top.saturating_mul(2).max(1024) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept.sort_by_key(|one| (Reverse(least_ns(one.age)), one.standing.found.id));
        self.kept.truncate(self.top);
    }

    fn finish(mut self) -> Vec<Candidate<'a>> {
        self.cut();
        self.kept
    }
}

#[cfg(test)]
pub mod tests;
