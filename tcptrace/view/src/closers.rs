//! `tcptrace closers`: who closes connections first, how, and what TIME_WAIT that costs: a ranking
//! an interval, or one of the whole run at its end.
//!
//! Time is that of the ticks, so that a replay prints the same. An interval lasts from one line to
//! the next, and what was told in it counts in it.

mod csv;
mod json;
pub mod text;

use std::{cmp::Reverse, str::FromStr};

use bytes::BytesMut;
use thiserror::Error;

use super::{View, json::Json, lines::Lines, states::Format, time::WallClock};
use tcptrace_model::{Change, Initiator, Input};
use tcptrace_stats::{
    closers::{Closers, Tally},
    group::Key,
    named::{Group, named},
};
use tcptrace_track::Tracker;

/// Groups that a table has unless told otherwise.
const SHOWN: usize = 20;

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
struct Ranking {
    /// When the hooks came into force; `CLOCK_MONOTONIC`, nanoseconds.
    begin_ns: u64,
    from_ns: u64,
    to_ns: u64,
    /// All together.
    all: Tally,
    /// Those that are shown, in their order.
    groups: Vec<(Group, Tally)>,
    /// How many others there are, and what was counted of these.
    others: Option<(usize, Tally)>,
}

impl Ranking {
    fn new(
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
    fn stretch(&self) -> (f64, f64) {
        let since = |ns: u64| ns.saturating_sub(self.begin_ns) as f64 / 1e9;
        (since(self.from_ns), since(self.to_ns))
    }

    fn seconds(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    fn per_second(&self, count: u64) -> f64 {
        ratio(count as f64, self.seconds())
    }

    /// Which part of all that closed did in this group: 0 to 1.
    fn share(&self, tally: &Tally) -> f64 {
        ratio(tally.closed() as f64, self.all.closed() as f64)
    }
}

/// `part` of `whole`; 0 of nothing.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}

/// The view.
pub struct ClosersView {
    closers: Closers,
    order: Order,
    format: Format,
    lines: Lines,
    header: bool,
    json: Json,
    /// Local for people, else UTC.
    wall: WallClock,
    begin_ns: u64,
    from_ns: u64,
    now_ns: u64,
    due_ns: Option<u64>,
    printed: u64,
}

impl ClosersView {
    /// A view of `closers` that prints `lines`, or one at the end.
    pub fn new(closers: Closers, order: Order, format: Format, lines: Lines, header: bool) -> Self {
        let top = order.top.or((format == Format::Table).then_some(SHOWN));
        Self {
            closers,
            order: Order { top, ..order },
            format,
            lines,
            header,
            json: Json::new(),
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            begin_ns: 0,
            from_ns: 0,
            now_ns: 0,
            due_ns: None,
            printed: 0,
        }
    }

    /// Nanoseconds of an interval.
    fn every_ns(&self) -> Option<u64> {
        let every = self.lines.every?;
        Some(u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1))
    }

    fn start(&mut self, mono_ns: u64) {
        self.closers.begin(mono_ns);
        (self.begin_ns, self.from_ns, self.now_ns) = (mono_ns, mono_ns, mono_ns);
        self.due_ns = self.every_ns().map(|every| mono_ns.saturating_add(every));
    }

    /// Prints the intervals that are over by now as one, if any is.
    fn tick(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        self.now_ns = self.now_ns.max(mono_ns);
        let (Some(due), Some(every)) = (self.due_ns, self.every_ns()) else { return };
        if due > self.now_ns || self.is_done() {
            return;
        }
        self.print(tracker, out);
        // The grid stays where it is.
        let over = (self.now_ns - due) / every + 1;
        self.due_ns = Some(due.saturating_add(over.saturating_mul(every)));
    }

    fn print(&mut self, tracker: &Tracker, out: &mut BytesMut) {
        let groups = self.closers.take(self.now_ns, tracker.census());
        let groups = named(groups, |id| tracker.cgroup(id), |sum, more| sum.join(&more));
        let ranking = Ranking::new(self.begin_ns, self.from_ns, self.now_ns, groups, self.order);
        match self.format {
            Format::Table => {
                let time = self.wall.at(self.now_ns).map_or("-", |(text, _)| text);
                text::print(&ranking, self.closers.split(), time, self.header, out);
            }
            Format::Json => json::print(&ranking, self.closers.split(), &mut self.wall, out),
            Format::Csv => csv::print(&ranking, out),
        }
        self.from_ns = self.now_ns;
        self.printed += 1;
    }
}

impl View for ClosersView {
    fn begin(&mut self, out: &mut BytesMut) {
        match self.format {
            Format::Table if self.header => text::begin(out),
            Format::Csv if self.header => csv::header(out),
            Format::Table | Format::Json | Format::Csv => {}
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        match input {
            Input::Begin { mono_ns, .. } => self.start(*mono_ns),
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(lost) => {
                self.closers.lost();
                match self.format {
                    Format::Table => text::lost(lost.count, out),
                    Format::Json => self.json.lost(lost, out),
                    Format::Csv => {} // a row of another kind would break the reader
                }
            }
            Input::Missed { .. } => self.closers.lost(),
            Input::Tick { mono_ns } => self.tick(*mono_ns, tracker, out),
            Input::End(accounts) => {
                self.now_ns = self.now_ns.max(accounts.mono_ns);
                if !self.is_done() {
                    self.print(tracker, out);
                }
                if self.format == Format::Json {
                    self.json.summary(accounts, out);
                }
            }
            Input::Event(_)
            | Input::Snapshot(_)
            | Input::Cgroup { .. }
            | Input::Knobs(_)
            | Input::Counters(_) => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.closers.add(change);
    }

    fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn is_done(&self) -> bool {
        self.lines.every.is_some() && self.lines.count.is_some_and(|count| self.printed >= count)
    }
}

#[cfg(test)]
mod tests;
