//! Who closed connections first, how, and what TIME_WAIT that costs, by group.
//!
//! Each connection's end is counted once: on its way into TIME_WAIT, or, where there is none, at
//! →CLOSE. Must not judge: the verdict is the tracker's, and who is not known to have closed first
//! is nobody.

use super::{
    group::{self, By, Key, Subject},
    keyed::Keyed,
};
use tcptrace_model::{Age, Change, EndReason, Found, How, Initiator, Moved, TcpState};

/// Groups that are kept at a time unless told otherwise.
pub const DEFAULT_LIMIT: usize = 10_000;

/// What became of a connection that closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It went into TIME_WAIT.
    TimeWait,
    /// It would have, but there was no room (`tcp_max_tw_buckets`).
    NeverCreated,
    /// It was over at once.
    Over,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Who closed first, if that is known.
    pub initiator: Option<Initiator>,
    /// How.
    pub how: How,
    /// What became of it.
    pub fate: Fate,
}

/// What a transition says of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A connection ended.
    Closed(Ending),
    /// There never was one.
    Failed(How),
}

impl Ending {
    /// Whether this end closed first, alone or with the peer: where TIME_WAIT belongs.
    pub fn is_active(&self) -> bool {
        matches!(self.initiator, Some(Initiator::Local | Initiator::Both))
    }
}

/// What `moved` says, if it is where an end counts.
pub fn told(moved: &Moved) -> Option<Told> {
    let Moved { old, new, verdict, .. } = moved;
    if !matches!(new, TcpState::TimeWait | TcpState::Close)
        || matches!(old, TcpState::TimeWait | TcpState::Listen)
    {
        return None;
    }
    let how = verdict.how.unwrap_or(How::Unknown);
    // A connect() that failed for reasons not known is no connection either. What goes out of SYN_RECV
    // (Fast Open) was one, for as long as it had data.
    if *old == TcpState::SynSent {
        return Some(Told::Failed(how));
    }
    let fate = match (new, moved.end_reason) {
        (TcpState::TimeWait, _) => Fate::TimeWait,
        (_, Some(EndReason::NeverCreated)) => Fate::NeverCreated,
        _ => Fate::Over,
    };
    Some(Told::Closed(Ending { initiator: verdict.initiator, how, fate }))
}

/// Whether a change is one of those that count.
pub fn counts(change: &Change) -> bool {
    let in_time_wait = |state: TcpState| state == TcpState::TimeWait;
    match change {
        Change::Moved(moved) => {
            in_time_wait(moved.old) || in_time_wait(moved.new) || told(moved).is_some()
        }
        Change::Found(found) | Change::Gone(found) => in_time_wait(found.state),
        Change::Retired(_) => false,
    }
}

/// What is counted of one group.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    endings: Vec<(Ending, u64)>,
    failed: Vec<(How, u64)>,
    alive: u64,
    time_wait_ns: u128,
    /// Of those that entered TIME_WAIT and are in it still: the time from the beginning of the
    /// interval until they did, added up.
    late_ns: u128,
    /// There were TIME_WAITs whose beginning or end was not seen.
    at_least: bool,
}

impl Tally {
    /// How connections ended, and how many did: the most frequent first.
    pub fn endings(&self) -> impl Iterator<Item = (Ending, u64)> {
        most_first(&self.endings)
    }

    /// How connect() failed, and how often: the most frequent first.
    pub fn failures(&self) -> impl Iterator<Item = (How, u64)> {
        most_first(&self.failed)
    }

    /// Connections that ended, of those that `which` holds of.
    pub fn count(&self, which: impl Fn(&Ending) -> bool) -> u64 {
        self.endings.iter().filter(|(ending, _)| which(ending)).map(|(_, count)| count).sum()
    }

    /// Connections that ended.
    pub fn closed(&self) -> u64 {
        self.count(|_| true)
    }

    /// Connections that were closed first by `initiator`; by somebody not known for `None`.
    pub fn by(&self, initiator: Option<Initiator>) -> u64 {
        self.count(|ending| ending.initiator == initiator)
    }

    /// Attempts to connect that came to nothing.
    pub fn failed(&self) -> u64 {
        self.failed.iter().map(|(_, count)| count).sum()
    }

    /// TIME_WAITs at the end of the interval.
    pub fn alive(&self) -> u64 {
        self.alive
    }

    /// Nanoseconds that TIME_WAITs, alive or ended since, were there within the interval, added
    /// up: the time that was seen, which is a lower bound if [`Self::at_least`] says so.
    pub fn time_wait_ns(&self) -> u128 {
        self.time_wait_ns
    }

    /// Whether there was more TIME_WAIT than was seen.
    pub fn at_least(&self) -> bool {
        self.at_least
    }

    /// Whether there is nothing to show.
    fn is_empty(&self) -> bool {
        self.endings.is_empty()
            && self.failed.is_empty()
            && self.alive == 0
            && self.time_wait_ns == 0
    }

    /// What was alive at the end of the interval is not any more.
    pub fn bury(&mut self) {
        self.alive = 0;
    }

    /// Adds what was counted of another group.
    pub fn join(&mut self, other: &Self) {
        other.endings.iter().for_each(|(ending, count)| bump(&mut self.endings, *ending, *count));
        other.failed.iter().for_each(|(how, count)| bump(&mut self.failed, *how, *count));
        self.alive += other.alive;
        self.time_wait_ns += other.time_wait_ns;
        self.late_ns += other.late_ns;
        self.at_least |= other.at_least;
    }

    /// A TIME_WAIT began, or is known from now on.
    fn entered(&mut self, mono_ns: u64, from_ns: u64) {
        self.late_ns += u128::from(mono_ns.saturating_sub(from_ns));
    }

    /// A TIME_WAIT ended.
    fn left(&mut self, mono_ns: u64, in_old: Age, from_ns: u64) {
        let within = mono_ns.saturating_sub(from_ns);
        let ns = match in_old {
            Age::Exactly(ns) | Age::About { ns, .. } | Age::AtLeast(ns) => ns.min(within),
            Age::Unknown => 0,
        };
        self.time_wait_ns += u128::from(ns);
        self.late_ns = self.late_ns.saturating_sub(u128::from(within - ns));
    }

    /// The interval of that length is over.
    fn over(&mut self, length_ns: u64) {
        // As if all that live had been there all the time, less the time before they came.
        let alive = u128::from(self.alive) * u128::from(length_ns);
        self.time_wait_ns += alive.saturating_sub(self.late_ns);
        self.late_ns = 0;
    }
}

/// Counts `what` up by `count`. There are few of each, so a list is the quickest.
fn bump<T: PartialEq>(counts: &mut Vec<(T, u64)>, what: T, count: u64) {
    match counts.iter_mut().find(|(known, _)| *known == what) {
        Some((_, sum)) => *sum += count,
        None => counts.push((what, count)),
    }
}

fn most_first<T: Copy>(counts: &[(T, u64)]) -> impl Iterator<Item = (T, u64)> + use<T> {
    let mut sorted = counts.to_vec();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted.into_iter()
}

/// Counts ends by group, an interval at a time.
pub struct Closers {
    by: Option<By>,
    limit: usize,
    from_ns: u64,
    groups: Keyed<Key, Tally>,
    /// Events were lost in this interval.
    lossy: bool,
}

impl Closers {
    /// Counts by `by`, or by owner and service together. From the `limit`th group on, new ones are
    /// counted under [`Key::Other`].
    pub fn new(by: Option<By>, limit: usize) -> Self {
        Self { by, limit, from_ns: 0, groups: Keyed::default(), lossy: false }
    }

    /// What tells the groups apart, if it is one of the words of `--by`.
    pub fn split(&self) -> Option<By> {
        self.by
    }

    /// Begins an interval.
    pub fn begin(&mut self, from_ns: u64) {
        self.from_ns = from_ns;
        self.groups.clear();
    }

    /// Events were lost: there may have been more of everything.
    pub fn lost(&mut self) {
        self.lossy = true;
    }

    /// Takes in a change.
    pub fn add(&mut self, change: &Change) {
        match change {
            Change::Moved(moved) => self.moved(moved),
            // Known from now on: what it was before is not counted.
            Change::Found(found) if found.state == TcpState::TimeWait => {
                let from_ns = self.from_ns;
                let tally = self.tally(found);
                tally.entered(found.mono_ns, from_ns);
                tally.at_least = true;
            }
            Change::Gone(found) if found.state == TcpState::TimeWait => {
                self.tally(found).at_least = true;
            }
            Change::Found(_) | Change::Gone(_) | Change::Retired(_) => {}
        }
    }

    fn moved(&mut self, moved: &Moved) {
        let told = told(moved);
        let in_time_wait = moved.old == TcpState::TimeWait || moved.new == TcpState::TimeWait;
        if told.is_none() && !in_time_wait {
            return;
        }
        let from_ns = self.from_ns;
        let tally = self.tally(moved);
        match told {
            Some(Told::Closed(ending)) => bump(&mut tally.endings, ending, 1),
            Some(Told::Failed(how)) => bump(&mut tally.failed, how, 1),
            None => {}
        }
        if moved.new == TcpState::TimeWait {
            tally.entered(moved.mono_ns, from_ns);
        }
        if moved.old == TcpState::TimeWait {
            tally.left(moved.mono_ns, moved.in_old, from_ns);
        }
    }

    /// What was counted so far in this interval, but for what lives; in no order.
    pub fn so_far(&self) -> impl Iterator<Item = (Key, &Tally)> {
        self.groups.iter().map(|(key, tally)| (*key, tally))
    }

    /// Ends the interval at `to_ns`, when the connections of `census` are alive, and begins the
    /// next. The groups come in no order.
    pub fn take(&mut self, to_ns: u64, census: impl Iterator<Item = Found>) -> Vec<(Key, Tally)> {
        for found in census.filter(|found| found.state == TcpState::TimeWait) {
            self.tally(&found).alive += 1;
        }
        let length_ns = to_ns.saturating_sub(self.from_ns);
        self.from_ns = to_ns;
        let mut groups = self.groups.take();
        let lossy = std::mem::take(&mut self.lossy);
        for (_, tally) in &mut groups {
            tally.over(length_ns);
            tally.at_least |= lossy;
        }
        groups.retain(|(_, tally)| !tally.is_empty());
        groups
    }

    fn tally<'a>(&mut self, subject: impl Into<Subject<'a>>) -> &mut Tally {
        let key = match self.by {
            Some(by) => by.key(subject),
            None => group::service(subject),
        };
        if self.groups.len() >= self.limit && self.groups.get_mut(&key).is_none() {
            return self.groups.of(&Key::Other, Tally::default);
        }
        self.groups.of(&key, Tally::default)
    }
}

#[cfg(test)]
mod tests;
