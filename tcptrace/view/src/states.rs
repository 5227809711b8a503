//! `tcptrace states`: how many connections are in each state, once or a line an interval.
//!
//! Time is that of the events and ticks, so that a replay prints the same. What happened before
//! the end of an interval and was told later (the end of a minisock at times) counts in the next.

mod json;
mod line;
mod text;

use bytes::{BufMut as _, BytesMut};

use super::{
    View,
    csv::put_field,
    json::Json,
    lines::{Lines, Schedule},
    loss,
    time::WallClock,
};
use line::{Line, Row};
use tcptrace_model::{Change, Input, TcpState};
use tcptrace_stats::counts::{COUNTED, Flow, StateCounts};
use tcptrace_track::Tracker;

/// How the counts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    Table,
    /// One object an interval.
    Json,
    /// One line a state and interval.
    Csv,
}

const CSV_HEADER: &str = "time,mono_ns,seconds,state,count,change,in,out\n";

/// The view.
pub struct StatesView {
    counts: StateCounts,
    format: Format,
    schedule: Schedule,
    header: bool,
    last: Vec<Option<Flow>>,
    corrected: u64,
    /// Local for people, else UTC.
    wall: WallClock,
    json: Json,
}

impl StatesView {
    /// A view that prints `lines`.
    pub fn new(format: Format, lines: Lines, header: bool) -> Self {
        Self {
            counts: StateCounts::default(),
            format,
            schedule: Schedule::new(lines),
            header,
            last: Vec::new(),
            corrected: 0,
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            json: Json::new(),
        }
    }

    /// It is `now`, and nothing of before is to come: prints what is due.
    fn reach(&mut self, now: u64, corrected: u64, out: &mut BytesMut) {
        if self.is_done() {
            return;
        }
        if self.schedule.may_begin(now) {
            self.print(now, corrected, out);
            return;
        }
        let (Some(last), Some(end)) = (self.schedule.last_ns(), self.schedule.due_ns()) else {
            return;
        };
        if now >= end {
            // Where output or ring were held up, one line for all intervals that are over.
            let every = (end - last).max(1);
            self.print(last + (now - last) / every * every, corrected, out);
        }
    }

    fn print(&mut self, mono_ns: u64, corrected: u64, out: &mut BytesMut) {
        let line = self.line(mono_ns, corrected);
        match self.format {
            Format::Table => {
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                let printed = self.schedule.printed();
                if self.schedule.is_once() {
                    text::once(&line, self.header, out);
                } else {
                    let header = self.header && printed.is_multiple_of(text::BLOCKS);
                    text::block(&line, time, header, printed == 0, out);
                }
            }
            Format::Json => json::line(&line, &mut self.wall, out),
            Format::Csv => csv(&line, &mut self.wall, out),
        }
        self.last = line.rows.iter().map(|row| row.flow).collect();
        self.schedule.printed_at(mono_ns);
        self.corrected = corrected;
    }

    fn line(&self, mono_ns: u64, corrected: u64) -> Line {
        let states = COUNTED.into_iter().chain([TcpState::Close]);
        let rows = states.enumerate().map(|(index, state)| Row {
            state,
            flow: self.counts.get(state),
            before: self.last.get(index).copied().flatten(),
        });
        Line {
            mono_ns,
            since_ns: self.schedule.since_ns(mono_ns),
            rows: rows.collect(),
            corrected: corrected - self.corrected.min(corrected),
        }
    }
}

fn csv(line: &Line, wall: &mut WallClock, out: &mut BytesMut) {
    for row in &line.rows {
        wall.put_rfc3339(out, line.mono_ns);
        put_field(out, Some(line.mono_ns));
        put_field(out, line.seconds());
        put_field(out, Some(row.state));
        put_field(out, row.flow.map(|flow| flow.now));
        put_field(out, row.change());
        put_field(out, row.entered());
        put_field(out, row.left());
        out.put_u8(b'\n');
    }
}

impl View for StatesView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.header {
            out.put_slice(CSV_HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.counts.input(input);
        self.schedule.input(input);
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => match self.format {
                Format::Table => loss::text(input, out),
                Format::Json => loss::json(input, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns } => self.reach(*mono_ns, tracker.counts().corrected, out),
            Input::End(accounts) => {
                if self.schedule.may_end() {
                    self.print(accounts.mono_ns, tracker.counts().corrected, out);
                }
                if self.format == Format::Json {
                    self.json.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        if let Change::Moved(moved) = change
            && self.schedule.is_over(moved.mono_ns)
        {
            self.reach(moved.mono_ns, self.corrected, out);
        }
        self.counts.change(change);
    }

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn is_done(&self) -> bool {
        self.schedule.is_done()
    }
}

#[cfg(test)]
mod tests;
