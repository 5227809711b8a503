//! `tcptrace stuck`: what has been too long in a state that should pass, once or at intervals.
//!
//! Time is that of the ticks, so that a replay prints the same.

mod csv;
mod json;
mod text;

use bytes::{BufMut as _, BytesMut};

use super::{
    View,
    json::Json,
    states::{Format, Lines},
    time::WallClock,
};
use crate::{
    model::{Change, Input, Snapshot},
    stats::stuck::{Report, Survey, Wanted},
    track::Tracker,
};

/// A report and when it is.
struct Moment<'a> {
    wanted: &'a Wanted,
    report: &'a Report,
    mono_ns: u64,
    /// Since the report before, if there was one.
    since_ns: Option<u64>,
}

impl Moment<'_> {
    fn seconds(&self) -> Option<f64> {
        self.since_ns.map(|ns| ns as f64 / 1e9)
    }

    fn per_second(&self, change: Option<i64>) -> Option<f64> {
        Some(change? as f64 / self.seconds().filter(|seconds| *seconds > 0.0)?)
    }
}

/// The view.
pub struct StuckView {
    survey: Survey,
    format: Format,
    lines: Lines,
    header: bool,
    /// The first round of snapshots is over by then.
    whole_ns: Option<u64>,
    last_ns: Option<u64>,
    printed: u64,
    /// Local for people, else UTC.
    wall: WallClock,
    json: Json,
}

impl StuckView {
    /// A view that reports on `wanted`, whenever `lines` say.
    pub fn new(wanted: Wanted, format: Format, lines: Lines, header: bool) -> Self {
        Self {
            survey: Survey::new(wanted),
            format,
            lines,
            header,
            whole_ns: None,
            last_ns: None,
            printed: 0,
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            json: Json::new(),
        }
    }

    fn is_due(&self, now: u64) -> bool {
        match (self.last_ns, self.due_ns()) {
            (None, _) => self.whole_ns.is_some_and(|whole| whole <= now),
            (Some(_), due) => due.is_some_and(|due| due <= now),
        }
    }

    fn print(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let report = self.survey.report(mono_ns, tracker);
        let moment = Moment {
            wanted: self.survey.wanted(),
            report: &report,
            mono_ns,
            since_ns: self.last_ns.map(|last| mono_ns.saturating_sub(last)),
        };
        match self.format {
            Format::Table => {
                if self.printed > 0 {
                    out.put_u8(b'\n');
                }
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                text::print(&moment, time, self.header, out);
            }
            Format::Json => json::print(&moment, &mut self.wall, out),
            Format::Csv => csv::print(&moment, &mut self.wall, out),
        }
        self.last_ns = Some(mono_ns);
        self.printed += 1;
    }
}

impl View for StuckView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.header {
            out.put_slice(csv::HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.survey.input(input);
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Snapshot(Snapshot::Over { mono_ns, all: true }) => {
                self.whole_ns.get_or_insert(*mono_ns);
            }
            Input::Lost(lost) => match self.format {
                Format::Table => text::lost(lost.count, out),
                Format::Json => self.json.lost(lost, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns } if !self.is_done() && self.is_due(*mono_ns) => {
                self.print(*mono_ns, tracker, out);
            }
            Input::End(accounts) if self.format == Format::Json => {
                self.json.summary(accounts, out);
            }
            _ => {}
        }
    }

    fn change(&mut self, _change: &Change, _out: &mut BytesMut) {}

    fn due_ns(&self) -> Option<u64> {
        let every_ns = u64::try_from(self.lines.every?.as_nanos()).unwrap_or(u64::MAX);
        Some(self.last_ns?.saturating_add(every_ns))
    }

    fn is_done(&self) -> bool {
        let count = if self.lines.every.is_some() { self.lines.count } else { Some(1) };
        count.is_some_and(|count| self.printed >= count)
    }
}

#[cfg(test)]
mod tests;
