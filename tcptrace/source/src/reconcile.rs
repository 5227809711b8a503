//! When to take snapshots, and of what.
//!
//! Once at the start, then at intervals; sooner where the last one raised a doubt, and for a
//! namespace that an event names and no snapshot has told of yet. Takes none itself.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    dump::{Of, Round, Space},
    names::Told,
    snapshot::{Job, Reader},
};
use tcptrace_host::clock;
use tcptrace_model::{Exited, Input, Sysctls};

/// The least between two rounds.
const SOON_NS: u64 = 1_000_000_000;

/// Namespaces that may wait to be dumped; the next full round tells of the others.
const MAX_WANTED: usize = 1024;

/// How long a namespace may be out of sight before it is believed to be gone. A socket or an
/// orphan that still sends keeps one alive that no process or mount leads to; what is in it then
/// lasts for `tcp_orphan_retries` (about 100 s) and a TIME_WAIT.
const GONE_AFTER_NS: u64 = 300_000_000_000;

/// Messages of one kind that are kept from being said again.
const MAX_SAID: usize = 1024;

/// Between two looks at minisocks where no hook tells of them: what lives shorter is not seen, and
/// an end is dated to no better than this.
const LOOK_EVERY_NS: u64 = SOON_NS;

/// Looks may take so much CPU time of the time between them: one part of so many. Where that is not enough
/// the time between them is doubled, until it is, or until [`LOOK_SELDOM_NS`].
const LOOK_SHARE: u64 = 10;

/// A full round may take so much CPU time of the time between two: one part of so many. Where they are
/// wanted more often they become more seldom, up to [`SELDOM_NS`].
const FULL_SHARE: u64 = 20;

/// However long rounds take, they are no more seldom for that.
const SELDOM_NS: u64 = 10_000_000_000;

/// The longest between two looks: a TIME_WAIT lives for a minute.
const LOOK_SELDOM_NS: u64 = 16 * LOOK_EVERY_NS;

/// When minisocks are looked at.
struct Looks {
    last_ns: u64,
    every_ns: u64,
}

impl Looks {
    fn new() -> Self {
        Self { last_ns: 0, every_ns: LOOK_EVERY_NS }
    }

    /// A look took so much CPU time. Says what is to be said of it.
    fn took(&mut self, ns: u64) -> Option<String> {
        let mut every_ns = LOOK_EVERY_NS;
        while every_ns < ns.saturating_mul(LOOK_SHARE) && every_ns < LOOK_SELDOM_NS {
            every_ns *= 2;
        }
        let before_ns = std::mem::replace(&mut self.every_ns, every_ns);
        (every_ns > before_ns).then(|| {
            format!(
                "a look at all TIME_WAITs takes more than a tenth of a CPU: now \
                 one every {} s, and what is dated by them is as rough",
                every_ns / 1_000_000_000
            )
        })
    }
}

/// The schedule.
pub(super) struct Reconciler {
    reader: Arc<Reader>,
    /// Minisocks have events, or are looked at.
    minisocks_told: bool,
    every_ns: u64,
    /// CPU time that the last full round took.
    took_ns: u64,
    /// Where minisocks are sampled.
    looks: Option<Looks>,
    /// When the last full round, and the last of any kind, was begun.
    last_full_ns: Option<u64>,
    last_ns: u64,
    /// Namespaces that a dump has told of, and since when they are out of sight.
    seen: HashMap<u32, Option<u64>>,
    /// Namespaces that events named and no dump has told of.
    wanted: BTreeSet<u32>,
    /// Of those, the ones that could not be found; they wait for the next full round.
    not_found: HashSet<u32>,
    /// The namespace of the last event.
    last_seen: u32,
    /// The sysctls of each namespace, as they were last told.
    sysctls: HashMap<u32, Sysctls>,
    names: Told,
    said: HashSet<String>,
    remarks: Vec<String>,
}

impl Reconciler {
    /// `told`: minisocks have events, or, with `sampled`, have no hook and are to be looked at.
    pub(super) fn new(reader: Arc<Reader>, every_ns: u64, told: bool, sampled: bool) -> Self {
        Self {
            reader,
            minisocks_told: told,
            every_ns: every_ns.max(SOON_NS),
            took_ns: 0,
            looks: sampled.then(Looks::new),
            last_full_ns: None,
            last_ns: 0,
            seen: HashMap::new(),
            wanted: BTreeSet::new(),
            not_found: HashSet::new(),
            last_seen: 0,
            sysctls: HashMap::new(),
            names: Told::default(),
            said: HashSet::new(),
            remarks: Vec::new(),
        }
    }

    /// Processes that the last rounds have named as holders and that have ended since.
    pub(super) fn ended(&self, now: u64) -> Vec<Exited> {
        self.reader.ended(now)
    }

    /// An event came from this namespace.
    pub(super) fn saw(&mut self, netns: u32) {
        if netns == self.last_seen {
            return;
        }
        self.last_seen = netns;
        if !self.seen.contains_key(&netns)
            && !self.not_found.contains(&netns)
            && self.wanted.len() < MAX_WANTED
        {
            self.wanted.insert(netns);
        }
    }

    /// What is to be dumped at `now`. Not to be asked again before that was handed in.
    pub(super) fn due(&mut self, now: u64, in_doubt: bool) -> Option<Job> {
        if self.reader.is_gone() {
            return None;
        }
        let Some(last_full_ns) = self.last_full_ns else {
            return Some(self.full(now));
        };
        if now.saturating_sub(self.last_ns) >= SOON_NS {
            let least_ns = self.took_ns.saturating_mul(FULL_SHARE).min(SELDOM_NS);
            if in_doubt || now.saturating_sub(last_full_ns) >= self.every_ns.max(least_ns) {
                return Some(self.full(now));
            }
            if !self.wanted.is_empty() && !self.reader.is_of_one() {
                self.last_ns = now;
                self.not_found.extend(&self.wanted);
                let wanted = std::mem::take(&mut self.wanted);
                return Some(self.job(Of::Among(wanted)));
            }
        }
        let looks = self.looks.as_ref()?;
        (now.saturating_sub(looks.last_ns) >= looks.every_ns).then(|| self.look(now)).flatten()
    }

    /// A look at the minisocks, where they are sampled.
    pub(super) fn look(&mut self, now: u64) -> Option<Job> {
        let looks = self.looks.as_mut()?;
        looks.last_ns = now;
        // A namespace that an event named is to be looked for.
        Some(self.job(Of::Minisocks { anew: !self.wanted.is_empty() }))
    }

    fn job(&self, of: Of) -> Job {
        Job::of(Arc::clone(&self.reader), of).minisocks_told(self.minisocks_told)
    }

    fn full(&mut self, now: u64) -> Job {
        self.last_full_ns = Some(now);
        self.last_ns = now;
        if let Some(looks) = &mut self.looks {
            looks.last_ns = now;
        }
        self.wanted.clear();
        self.not_found.clear();
        self.last_seen = 0;
        self.job(Of::All).after(self.seen.keys().copied().collect())
    }

    /// Hands out what was dumped.
    pub(super) fn feed(&mut self, mut round: Round, sink: &mut dyn FnMut(Input)) {
        if let Some(looks) = &mut self.looks
            && round.minisocks_alone
        {
            round.remarks.extend(looks.took(round.cpu_ns));
        }
        for space in round.spaces.iter_mut().filter(|_| !round.minisocks_alone) {
            self.seen.insert(space.netns, None);
            self.wanted.remove(&space.netns);
            let now = space.sysctls.as_ref().map(|sysctls| &sysctls.sysctls);
            if now == self.sysctls.get(&space.netns) {
                space.sysctls = None;
            } else if let Some(now) = now {
                self.sysctls.insert(space.netns, now.clone());
            }
        }
        if round.all {
            self.took_ns = round.cpu_ns;
            let now = clock::monotonic_ns().unwrap_or(self.last_ns);
            let listed: HashSet<u32> = round.spaces.iter().map(|space| space.netns).collect();
            for (&netns, hidden_since) in &mut self.seen {
                if listed.contains(&netns) {
                    continue;
                }
                let since = *hidden_since.get_or_insert(now);
                if now.saturating_sub(since) > GONE_AFTER_NS {
                    round.spaces.push(Space::gone(netns, now));
                }
            }
            // Two rounds say it, then it is forgotten: its inode may become another's.
            let forget_ns = GONE_AFTER_NS + 2 * self.every_ns;
            self.seen.retain(|_, hidden| {
                hidden.is_none_or(|since| now.saturating_sub(since) < forget_ns)
            });
            self.sysctls.retain(|netns, _| self.seen.contains_key(netns));
        }
        self.names.compare(&mut round);
        for remark in std::mem::take(&mut round.remarks) {
            if self.said.len() < MAX_SAID && self.said.insert(remark.clone()) {
                self.remarks.push(remark);
            }
        }
        round.feed(sink);
    }

    pub(super) fn take_remarks(&mut self) -> Vec<String> {
        self.remarks.extend(self.reader.farewell());
        std::mem::take(&mut self.remarks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_take_long_are_made_more_seldom_and_that_is_said() {
        const MS: u64 = 1_000_000;
        let mut looks = Looks::new();
        assert_eq!((looks.took(100 * MS), looks.every_ns), (None, 1000 * MS));
        let said = looks.took(150 * MS).unwrap();
        assert!(said.contains("now one every 2 s"), "{said}");
        assert_eq!((looks.took(200 * MS), looks.every_ns), (None, 2000 * MS), "said once");
        assert!(looks.took(u64::MAX).unwrap().contains("every 16 s"));
        assert_eq!((looks.took(1), looks.every_ns), (None, 1000 * MS));
    }
}
