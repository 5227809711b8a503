//! What was counted in an interval, in the order in which it is shown.

use std::{cmp::Reverse, str::FromStr};

use thiserror::Error;

use tcptrace_model::Initiator;
use tcptrace_stats::{closers::Tally, group::Key, named::Group};

/// What puts a group first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Connections that ended.
    #[default]
    Closed,
    /// Those that were closed by this end first.
    Local,
    /// Those that were closed by the peer first.
    Remote,
    /// The others: both at once, neither, or not known.
    Else,
    /// Attempts to connect that came to nothing.
    Failed,
    /// TIME_WAITs alive.
    TwNow,
    /// Seconds that TIME_WAITs were there.
    TwSeconds,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Closed,
        Self::Local,
        Self::Remote,
        Self::Else,
        Self::Failed,
        Self::TwNow,
        Self::TwSeconds,
    ];

    /// The word for the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Else => "else",
            Self::Failed => "failed",
            Self::TwNow => "tw-now",
            Self::TwSeconds => "tw-sec",
        }
    }

    /// The figure of `tally` that is sorted by.
    pub fn of(self, tally: &Tally) -> u128 {
        match self {
            Self::Closed => tally.closed().into(),
            Self::Local => tally.by(Some(Initiator::Local)).into(),
            Self::Remote => tally.by(Some(Initiator::Remote)).into(),
            Self::Else => neither_end(tally).into(),
            Self::Failed => tally.failed().into(),
            Self::TwNow => tally.alive().into(),
            Self::TwSeconds => tally.time_wait_ns(),
        }
    }
}

/// A word that is no column to sort by.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown column '{0}': closed, local, remote, else, failed, tw-now, tw-sec")]
pub struct UnknownSort(String);

impl FromStr for Sort {
    type Err = UnknownSort;

    fn from_str(word: &str) -> Result<Self, UnknownSort> {
        Self::ALL
            .into_iter()
            .find(|sort| sort.name() == word)
            .ok_or_else(|| UnknownSort(word.escape_default().to_string()))
    }
}

/// Connections that neither this end alone nor the peer alone is known to have closed first.
pub fn neither_end(tally: &Tally) -> u64 {
    let one_end = [Some(Initiator::Local), Some(Initiator::Remote)];
    tally.count(|ending| !one_end.contains(&ending.initiator))
}

/// Which groups are shown, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// What puts a group first.
    pub sort: Sort,
    /// So many; the others as one. `None`: as many as suit the format.
    pub top: Option<usize>,
}

/// What was counted in an interval.
pub(super) struct Ranking {
    /// When the hooks came into force; `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) begin_ns: u64,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// All together.
    pub(super) all: Tally,
    /// Those that are shown, in their order.
    pub(super) groups: Vec<(Group, Tally)>,
    /// How many others there are, and what was counted of these.
    pub(super) others: Option<(usize, Tally)>,
}

impl Ranking {
    pub(super) fn new(
        begin_ns: u64,
        from_ns: u64,
        to_ns: u64,
        mut groups: Vec<(Group, Tally)>,
        order: Order,
    ) -> Self {
        let joined = |groups: &[(Group, Tally)]| {
            groups.iter().fold(Tally::default(), |mut sum, (_, tally)| {
                sum.join(tally);
                sum
            })
        };
        let all = joined(&groups);
        groups.sort_by_cached_key(|(group, tally)| {
            let by = |sort: Sort| Reverse(sort.of(tally));
            (
                group.key() == Key::Other,
                by(order.sort),
                by(Sort::Closed),
                by(Sort::TwNow),
                group.clone(),
            )
        });
        let rest = groups.split_off(order.top.unwrap_or(usize::MAX).min(groups.len()));
        let others = (!rest.is_empty()).then(|| (rest.len(), joined(&rest)));
        Self { begin_ns, from_ns, to_ns, all, groups, others }
    }

    /// Where it begins and ends, seconds since the hooks came into force.
    pub(super) fn stretch(&self) -> (f64, f64) {
        let since = |ns: u64| ns.saturating_sub(self.begin_ns) as f64 / 1e9;
        (since(self.from_ns), since(self.to_ns))
    }

    pub(super) fn seconds(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        ratio(count as f64, self.seconds())
    }

    /// Which part of all that closed did in this group: 0 to 1.
    pub(super) fn share(&self, tally: &Tally) -> f64 {
        ratio(tally.closed() as f64, self.all.closed() as f64)
    }
}

/// `part` of `whole`; 0 of nothing.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

pub(super) fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}
