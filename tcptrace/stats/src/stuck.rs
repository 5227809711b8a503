//! Connections that have been too long in a state that should pass, and whose they are.
//!
//! Counted anew from what is known at each report. What is not known to have been there for long
//! is not stuck: a lower bound counts as what it is.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    conns::least_ns,
    group::{By, Key},
};
use tcptrace_model::{
    Age, Cgroup, Found, Input, Queues, Snapshot, StateSet, SynQueue, TcpState, hash::Map,
};
use tcptrace_track::{Standing, Tracker};

/// States that should pass, those that do not pass by themselves first.
pub const STATES: [TcpState; 7] = [
    TcpState::CloseWait,
    TcpState::FinWait2,
    TcpState::FinWait1,
    TcpState::Closing,
    TcpState::LastAck,
    TcpState::SynSent,
    TcpState::SynRecv,
];

/// Groups that are counted apart in each state; the others are one.
const LIMIT: usize = 10_000;

/// Whose bug it is when a connection stays in `state`, in at most 60 characters; empty for a state
/// that need not pass.
pub const fn diagnosis(state: TcpState) -> &'static str {
    match state {
        TcpState::CloseWait => "the peer has closed, the program here has not: fix it here",
        TcpState::FinWait2 => "closed here, and the peer's program does not: fix it there",
        TcpState::FinWait1 => "the peer's host acknowledges no data or FIN, or has no room",
        TcpState::Closing => "both ends closed; the peer's host acknowledges no FIN",
        TcpState::LastAck => "both ends closed; the peer's host acknowledges no FIN",
        TcpState::SynSent => "nobody answers the SYN: no such host, a firewall, a full queue",
        TcpState::SynRecv => "no last ACK from the client, or a full accept queue here",
        _ => "",
    }
}

/// How long a connection may be in `state` before it is stuck, unless told otherwise.
///
/// For a handshake, until two SYNs were not answered (1 s and 2 s). For states that an
/// acknowledgement ends, many round trips. For those that a program ends, as long as the kernel
/// itself waits for a peer (`tcp_fin_timeout`): a half-closed connection is no bug as such.
pub const fn patience(state: TcpState) -> Duration {
    Duration::from_secs(match state {
        TcpState::SynSent | TcpState::SynRecv => 3,
        TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck => 10,
        _ => 60,
    })
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// In these of [`STATES`].
    pub states: StateSet,
    /// For so long; `None`: [`patience`].
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
    pub fn older(&self, state: TcpState) -> Duration {
        self.older.unwrap_or_else(|| patience(state))
    }

    fn older_ns(&self, state: TcpState) -> u64 {
        u64::try_from(self.older(state).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// Those of one key.
    Known(Key),
    /// Those that no process holds any more (`--by owner`: and whose owner is not known).
    Orphan,
    /// Those that no process has accepted yet.
    NotAccepted,
}

impl Whose {
    /// That of a connection.
    pub fn of(by: By, standing: &Standing) -> Self {
        let key = by.key(&standing.found);
        match (key, standing.held) {
            (Key::Owner(None) | Key::Holder(None), Some(false)) => match standing.found.state {
                TcpState::CloseWait | TcpState::SynRecv => Self::NotAccepted,
                TcpState::SynSent => Self::Known(key),
                _ => Self::Orphan,
            },
            _ => Self::Known(key),
        }
    }

    /// The kind of what was left out of a report.
    pub const REST: &'static str = "other";

    /// What it is called; `None` where that is not known.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::Known(key) => key.label(),
            Self::Orphan => Some("(orphan)".to_owned()),
            Self::NotAccepted => Some("(not accepted)".to_owned()),
        }
    }

    /// What kind of a group it is, for programs: a process may call itself anything.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Known(Key::Other) => Self::REST,
            Self::Known(_) => "known",
            Self::Orphan => "orphan",
            Self::NotAccepted => "not-accepted",
        }
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

/// One state of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct OfState {
    /// The state.
    pub state: TcpState,
    /// Groups of which some are stuck, those with most of them first.
    pub groups: Vec<(Whose, Count)>,
    /// How many more such groups there are, and their counts.
    pub rest: (usize, Count),
    /// How many are in this state, for whatever time.
    pub all: u64,
    /// How many of them for too long.
    pub stuck: u64,
}

/// A connection that is stuck.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    /// It.
    pub found: Found,
    /// How long it has been in its state.
    pub in_state: Age,
    /// Whether a process had it open when it was last looked at.
    pub held: Option<bool>,
    /// What hung in its queues then.
    pub bytes: Option<Bytes>,
    /// What its cgroup is called. Untrusted text.
    pub unit: Option<Box<str>>,
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
        self.accept.map(|accept| accept.unread > accept.unsent)
    }
}

/// What there is at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The states, in the order of [`STATES`].
    pub states: Vec<OfState>,
    /// The connections that have been stuck for longest, the oldest first.
    pub oldest: Vec<Stuck>,
    /// The SYN queues, which have no ages, the longest first.
    pub syn_queues: Vec<SynRow>,
}

/// Makes reports.
#[derive(Debug)]
pub struct Survey {
    wanted: Wanted,
    /// How many were in each state at the report before.
    before: Option<Map<(TcpState, Whose), u64>>,
    syn_queues: BTreeMap<u32, Vec<SynQueue>>,
    /// The namespace whose sockets are being told, unless they are minisocks alone.
    netns: Option<u32>,
    minisocks_alone: bool,
}

impl Survey {
    /// One that looks for `wanted`.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            before: None,
            syn_queues: BTreeMap::new(),
            netns: None,
            minisocks_alone: false,
        }
    }

    /// What is looked for.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes in what only snapshots tell.
    pub fn input(&mut self, input: &Input) {
        let Input::Snapshot(snapshot) = input else { return };
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
                if let Some(netns) = self.netns {
                    self.syn_queues.entry(netns).or_default().push(*queue);
                }
            }
            Snapshot::End(_) => self.netns = None,
            Snapshot::Socket(_) | Snapshot::Over { .. } => {}
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
        let mut counts: Map<(TcpState, Whose), Count> = Map::default();
        let mut groups: Map<TcpState, usize> = Map::default();
        let mut oldest = Oldest::new(wanted.top);
        let mut accept_queues: Map<(u32, u16), Queues> = Map::default();
        for standing in tracker.standing(now) {
            let found = &standing.found;
            let state = found.state;
            if state == TcpState::Listen {
                if let (Some(netns), Some(queues)) = (found.netns, found.queues) {
                    let fullest = accept_queues.entry((netns, found.tuple.lport)).or_insert(queues);
                    *fullest = fuller(*fullest, queues);
                }
                continue;
            }
            if !wanted.states.contains(state) || !STATES.contains(&state) || !keep(found) {
                continue;
            }
            let mut whose = Whose::of(wanted.by, &standing);
            if !counts.contains_key(&(state, whose)) {
                let known = groups.entry(state).or_default();
                if *known >= LIMIT {
                    whose = Whose::Known(Key::Other);
                } else {
                    *known += 1;
                }
            }
            let count = counts.entry((state, whose)).or_default();
            count.all += 1;
            if least_ns(standing.in_state) < wanted.older_ns(state) {
                continue;
            }
            count.stuck += 1;
            count.oldest = longer(count.oldest, Some(standing.in_state));
            if let Some(queues) = found.queues {
                let bytes = Bytes::of(state, queues);
                count.looked_at += 1;
                count.unread += bytes.unread;
                count.unsent += bytes.unsent;
                count.eof_unread += u64::from(bytes.eof_read == Some(false));
            }
            oldest.add(standing);
        }
        let before = self.before.take();
        self.before = Some(counts.iter().map(|(group, count)| (*group, count.all)).collect());
        if let Some(before) = before {
            for (group, count) in &mut counts {
                count.before = Some(before.get(group).copied().unwrap_or(0));
            }
        }
        Report {
            states: wanted.states().map(|state| of_state(state, &counts, wanted.top)).collect(),
            oldest: oldest.finish(|id| tracker.cgroup(id)),
            syn_queues: self.syn_rows(&accept_queues),
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
        rows.sort_by_key(|row| Reverse((row.queue.resent, row.queue.waiting)));
        rows.truncate(self.wanted.top);
        rows
    }
}

/// The accept queue with less room left.
fn fuller(one: Queues, other: Queues) -> Queues {
    let room = |queues: Queues| i64::from(queues.unsent) - i64::from(queues.unread);
    if room(other) < room(one) { other } else { one }
}

fn of_state(state: TcpState, counts: &Map<(TcpState, Whose), Count>, top: usize) -> OfState {
    let here = || counts.iter().filter(|((of, _), _)| *of == state);
    let all = here().map(|(_, count)| count.all).sum();
    let mut groups: Vec<(Whose, Count)> = here()
        .filter(|(_, count)| count.stuck > 0)
        .map(|((_, whose), count)| (*whose, *count))
        .collect();
    groups.sort_by_key(|(whose, count)| (Reverse(count.stuck), *whose));
    let stuck = groups.iter().map(|(_, count)| count.stuck).sum();
    let cut = groups.split_off(top.min(groups.len()));
    let mut rest = cut.first().map(|(_, count)| *count).unwrap_or_default();
    cut.iter().skip(1).for_each(|(_, count)| rest.add(count));
    OfState { state, groups, rest: (cut.len(), rest), all, stuck }
}

/// The oldest few of many.
struct Oldest {
    top: usize,
    kept: Vec<Standing>,
}

impl Oldest {
    fn new(top: usize) -> Self {
        Self { top, kept: Vec::new() }
    }

    fn add(&mut self, standing: Standing) {
        self.kept.push(standing);
        if self.kept.len() >= self.top.saturating_mul(2).max(1024) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let age = |standing: &Standing| least_ns(standing.in_state);
        self.kept.sort_by_key(|standing| (Reverse(age(standing)), standing.found.id));
        self.kept.truncate(self.top);
    }

    fn finish<'a>(mut self, cgroup: impl Fn(u64) -> Option<&'a Cgroup>) -> Vec<Stuck> {
        self.cut();
        let stuck = self.kept.into_iter().map(|Standing { found, in_state, held }| Stuck {
            bytes: found.queues.map(|queues| Bytes::of(found.state, queues)),
            unit: found.cgroup.and_then(&cgroup).map(|cgroup| cgroup.name().into()),
            found,
            in_state,
            held,
        });
        stuck.collect()
    }
}

#[cfg(test)]
pub mod tests;
