//! `tcptrace hist`: how long connections stay in a state, an interval at a time.
//!
//! Time is that of the ticks, so that a replay prints the same. A transition belongs to the
//! interval in which it was told, which may be up to a second after it happened: what became of
//! a minisock is at times known only when nothing more comes.

mod csv;
mod json;
mod subject;
mod text;

pub use subject::Subject;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use super::{View, json::Json, loss, time::WallClock};
use subject::Stretch;
use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// How the histograms are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Rows with bars, as bcc prints them.
    Table,
    /// One object an interval.
    Json,
    /// One line an interval and group, without the buckets.
    Csv,
}

/// Every `length`, `count` times or until the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// How long each is.
    pub length: Duration,
    /// How many there are.
    pub count: Option<u64>,
}

/// The view.
pub struct HistView {
    subject: Subject,
    format: Format,
    intervals: Option<Intervals>,
    header: bool,
    lines: Json,
    wall: WallClock,
    begin_ns: u64,
    from_ns: u64,
    now_ns: u64,
    printed: u64,
}

impl HistView {
    /// A view of `subject`, printed at the end, or at the end of each interval for that one.
    pub fn new(
        subject: Subject,
        format: Format,
        intervals: Option<Intervals>,
        header: bool,
    ) -> Self {
        Self {
            subject,
            format,
            intervals,
            header,
            lines: Json::new(),
            wall: WallClock::utc(),
            begin_ns: 0,
            from_ns: 0,
            now_ns: 0,
            printed: 0,
        }
    }

    /// Prints the intervals that are over by now as one, if any is: the grid stays where it is.
    fn tick(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        self.now_ns = self.now_ns.max(mono_ns);
        let Some(Intervals { length, .. }) = self.intervals else { return };
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
        let over = self.now_ns.saturating_sub(self.from_ns) / length_ns;
        if over > 0 && !self.is_done() {
            let to_ns = self.from_ns.saturating_add(over.saturating_mul(length_ns));
            self.print(to_ns, tracker, out);
        }
    }

    fn print(&mut self, to_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let stretch = Stretch { begin_ns: self.begin_ns, from_ns: self.from_ns, to_ns };
        match self.format {
            Format::Table => {
                if self.printed > 0 {
                    out.put_u8(b'\n');
                }
                text::print(&self.subject, stretch, tracker, out);
            }
            Format::Json => json::print(&self.subject, stretch, tracker, &mut self.wall, out),
            Format::Csv => csv::print(&self.subject, stretch, tracker, out),
        }
        self.printed += 1;
        self.from_ns = to_ns;
        match &mut self.subject {
            Subject::Durations(durations) => durations.clear(),
            Subject::Steps(steps) => steps.clear(),
        }
    }
}

impl View for HistView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.header {
            out.put_slice(csv::HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        match input {
            Input::Begin { mono_ns, .. } => {
                self.begin_ns = *mono_ns;
                self.from_ns = *mono_ns;
                self.now_ns = *mono_ns;
            }
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => match self.format {
                Format::Table => loss::text(input, out),
                Format::Json => loss::json(input, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns } => self.tick(*mono_ns, tracker, out),
            Input::End(accounts) => {
                if !self.is_done() {
                    self.print(accounts.mono_ns.max(self.now_ns), tracker, out);
                }
                if self.format == Format::Json {
                    self.lines.summary(accounts, out);
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
        let Change::Moved(moved) = change else { return };
        match &mut self.subject {
            Subject::Durations(durations) => durations.add(moved),
            Subject::Steps(steps) => steps.add(moved),
        }
    }

    fn is_done(&self) -> bool {
        let count = self.intervals.and_then(|intervals| intervals.count);
        count.is_some_and(|count| self.printed >= count)
    }
}

#[cfg(test)]
mod tests;
