//! `tcptrace closers`: who closes connections first, how, and what TIME_WAIT that costs: a ranking
//! an interval, or one of the whole run at its end.
//!
//! Time is that of the ticks, so that a replay prints the same. An interval lasts from one line to
//! the next, and what was told in it counts in it.

mod csv;
mod json;
mod ranking;
pub mod text;

pub use ranking::{Order, Sort, UnknownSort, neither_end, ratio};

use bytes::BytesMut;

use super::{View, json::Json, lines::Lines, loss, states::Format, time::WallClock};
use ranking::Ranking;
use tcptrace_model::{Change, Input};
use tcptrace_stats::{closers::Closers, named::named};
use tcptrace_track::Tracker;

/// Groups that a table has unless told otherwise.
const SHOWN: usize = 20;

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
        let groups = named(groups, tracker, |sum, more| sum.join(&more));
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
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => {
                self.closers.lost();
                match self.format {
                    Format::Table => loss::text(input, out),
                    Format::Json => loss::json(input, out),
                    Format::Csv => {} // a row of another kind would break the reader
                }
            }
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
            | Input::NetnsName(_)
            | Input::Exited(_)
            | Input::Sysctls(_)
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
