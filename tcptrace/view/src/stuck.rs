//! `tcptrace stuck`: what has been too long in a state that should pass, once or at intervals.
//!
//! Time is that of the ticks, so that a replay prints the same.

mod csv;
mod json;
mod moment;
pub mod say;
pub mod text;

use bytes::{BufMut as _, BytesMut};

pub use self::text::age;

use super::{
    View,
    json::Json,
    lines::{Lines, Schedule},
    loss,
    states::Format,
    time::WallClock,
};
use moment::Moment;
use tcptrace_model::{Change, Input};
use tcptrace_stats::stuck::{Report, Survey, Wanted};
use tcptrace_track::Tracker;

/// The view.
pub struct StuckView {
    survey: Survey,
    format: Format,
    schedule: Schedule,
    header: bool,
    /// Local for people, else UTC.
    wall: WallClock,
    json: Json,
    last: Option<(u64, Report)>,
}

impl StuckView {
    /// A view that reports on `wanted`, whenever `lines` say.
    pub fn new(wanted: Wanted, format: Format, lines: Lines, header: bool) -> Self {
        Self {
            survey: Survey::new(wanted),
            format,
            schedule: Schedule::new(lines),
            header,
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            json: Json::new(),
            last: None,
        }
    }

    /// The last report, and when that was: `CLOCK_MONOTONIC`, nanoseconds.
    pub fn last(&self) -> Option<(u64, &Report)> {
        self.last.as_ref().map(|(at, report)| (*at, report))
    }

    fn print(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let report = self.survey.report(mono_ns, tracker);
        let moment = Moment {
            wanted: self.survey.wanted(),
            report: &report,
            mono_ns,
            since_ns: self.schedule.since_ns(mono_ns),
        };
        match self.format {
            Format::Table => {
                if self.schedule.printed() > 0 {
                    out.put_u8(b'\n');
                }
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                text::print(&moment, time, self.header, out);
            }
            Format::Json => json::print(&moment, &mut self.wall, out),
            Format::Csv => csv::print(&moment, &mut self.wall, out),
        }
        self.schedule.printed_at(mono_ns);
        self.last = Some((mono_ns, report));
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
        self.schedule.input(input);
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => match self.format {
                Format::Table => loss::text(input, out),
                Format::Json => loss::json(input, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns }
                if !self.is_done()
                    && (self.schedule.may_begin(*mono_ns) || self.schedule.is_over(*mono_ns)) =>
            {
                self.print(*mono_ns, tracker, out);
            }
            Input::End(accounts) => {
                if self.schedule.may_end() {
                    self.print(accounts.mono_ns, tracker, out);
                }
                if self.format == Format::Json {
                    self.json.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, _change: &Change, _out: &mut BytesMut) {}

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn is_done(&self) -> bool {
        self.schedule.is_done()
    }
}

#[cfg(test)]
mod tests;
