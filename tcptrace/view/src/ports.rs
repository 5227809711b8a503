//! `tcptrace ports`: how near each path is to running out of local ports, an interval at a time.
//!
//! Must not decide what counts: that is `stats::ports`. Time is that of the ticks, so that a
//! replay prints the same.

mod json;
pub mod text;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use super::{
    View,
    csv::{put_field, quoted},
    json::Json,
    lines::{Lines, Schedule},
    loss,
    time::WallClock,
};
use tcptrace_model::{Change, Input, filter::Filter};
use tcptrace_stats::ports::{Interval, Ports, Space, Takers};
use tcptrace_track::{Tracker, namespaces::Namespaces};

pub use self::text::describe;
pub use super::states::Format;

/// When, and how much.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The length of an interval.
    pub every: Duration,
    /// After so many it is enough.
    pub count: Option<u64>,
    /// Rows of an interval, the worst ones.
    pub top: usize,
    /// Of paths that this keeps, whatever the local port.
    pub filter: Filter,
    /// A header line.
    pub header: bool,
    /// Which intervals.
    pub which: Which,
}

/// Which intervals are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// As they come.
    All,
    /// The last one of a recording, of which nobody needs to know when it ends: it is as long as asked
    /// for, and less than twice as long.
    Last,
}

const CSV_HEADER: &str = "time,mono_ns,seconds,netns,family,laddr,raddr,rport,live,time_wait,\
    reusable,usable,free,opened,returned,failed,failed_total,opened_per_s,returned_per_s,\
    outlook,runs_out_s,uncertain,free_at_least,bound,bound_inactive,own_range_failed_total,\
    taken_by_pid,taken_by_comm,taken_by_ports,netns_name\n";

/// The view.
pub struct PortsView {
    ports: Ports,
    /// The same, of an interval that began one later: for [`Which::Last`].
    later: Option<Ports>,
    format: Format,
    shown: Shown,
    schedule: Schedule,
    wall: WallClock,
    json: Json,
    /// An interval is over.
    passed: bool,
    worst: Option<f64>,
    last: Option<(u64, Interval)>,
}

impl PortsView {
    /// A view that prints what is `shown`.
    pub fn new(format: Format, shown: Shown) -> Self {
        Self {
            ports: Ports::default(),
            later: (shown.which == Which::Last).then(Ports::default),
            format,
            schedule: Schedule::new(Lines {
                every: Some(shown.every),
                count: shown.count,
                at_end: false,
            }),
            shown,
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            json: Json::new(),
            passed: false,
            worst: None,
            last: None,
        }
    }

    /// As [`Interval::worst_used`], of the last interval.
    pub fn worst_used(&self) -> Option<f64> {
        self.worst
    }

    /// The last interval, as it was shown; and when it ended:
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub fn last(&self) -> Option<(u64, &Interval)> {
        self.last.as_ref().map(|(at, interval)| (*at, interval))
    }

    fn tick(&mut self, now: u64, tracker: &Tracker, out: &mut BytesMut) {
        if self.schedule.may_begin(now) {
            self.ports.start(now);
            if let Some(later) = &mut self.later {
                later.start(now);
            }
            self.schedule.begin(now);
        }
        if let Some(later) = &mut self.later {
            // One of the two is always as long as was asked for, once there was so much time.
            if self.schedule.is_over(now) {
                if std::mem::replace(&mut self.passed, true) {
                    std::mem::swap(&mut self.ports, later);
                }
                later.pass(now, 0);
                self.schedule.begin(now);
            }
            return;
        }
        if self.schedule.is_over(now) && !self.is_done() {
            self.print(now, tracker, out);
        }
    }

    fn print(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let mut interval = self.ports.interval(mono_ns, || tracker.census());
        self.worst = interval.worst_used();
        let filter = &self.shown.filter;
        interval.rows.retain(|row| filter.keeps(&row.path.tuple(), row.path.netns.unwrap_or(0)));
        let more = interval.rows.len().saturating_sub(self.shown.top);
        interval.rows.truncate(self.shown.top);
        self.ports.name_takers(&mut interval.rows, || tracker.census());
        let Interval { rows, spaces, .. } = &mut interval;
        spaces.retain(|space| {
            // What is bound is taken for every peer, also for those that are asked for.
            let is_asked = filter.netns.is_none_or(|netns| space.netns == Some(netns));
            rows.iter().any(|row| row.path.netns == space.netns) || is_asked && space.bound > 0
        });
        let names = tracker.namespaces();
        match self.format {
            Format::Table => {
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                text::block(&interval, more, time, self.shown.header, out);
            }
            Format::Json => json::line(&interval, more, mono_ns, names, &mut self.wall, out),
            Format::Csv => csv(&interval, mono_ns, names, &mut self.wall, out),
        }
        self.schedule.printed_at(mono_ns);
        self.last = Some((mono_ns, interval));
    }
}

fn csv(
    interval: &Interval,
    mono_ns: u64,
    names: &Namespaces,
    wall: &mut WallClock,
    out: &mut BytesMut,
) {
    let name = |netns: Option<u32>| netns.and_then(|netns| names.name(netns));
    let rate = |rate: f64| Some(format!("{rate:.3}"));
    let space_of = |netns| interval.spaces.iter().find(|space| space.netns == netns);
    for row in &interval.rows {
        put_when(interval, mono_ns, wall, out);
        put_field(out, row.path.netns);
        put_field(out, Some(row.path.family().name()));
        put_field(out, Some(row.path.local_ip()));
        put_field(out, Some(row.path.remote_ip()));
        put_field(out, Some(row.path.rport));
        put_field(out, Some(row.live));
        for count in [row.time_wait, row.reusable, row.usable, row.free] {
            put_field(out, count);
        }
        put_field(out, Some(row.flow.opened));
        put_field(out, Some(row.flow.returned));
        put_field(out, row.failures().map(|(failed, _)| failed));
        put_field(out, row.failures().map(|(_, total)| total));
        put_field(out, rate(row.smoothed.opened));
        put_field(out, rate(row.smoothed.returned));
        put_field(out, Some(row.outlook.name()));
        put_field(out, row.outlook.seconds().and_then(rate));
        put_field(out, Some(row.uncertain));
        put_field(out, row.free_at_least);
        put_bound(space_of(row.path.netns), out);
        put_field(out, row.failures().map(|_| row.own_failed));
        put_taker(row.takers.as_ref(), out);
        put_field(out, name(row.path.netns).map(quoted));
        out.put_u8(b'\n');
    }
    // Where nothing was connected from here, but ports are bound: no peer, and all that is of one.
    let without_rows =
        |space: &&Space| interval.rows.iter().all(|row| row.path.netns != space.netns);
    for space in interval.spaces.iter().filter(without_rows) {
        put_when(interval, mono_ns, wall, out);
        put_field(out, space.netns);
        (0..WITHOUT_PATH).for_each(|_| put_field(out, None::<u64>));
        put_bound(Some(space), out);
        put_field(out, None::<u64>);
        put_taker(Some(&space.bound_by), out);
        put_field(out, name(space.netns).map(quoted));
        out.put_u8(b'\n');
    }
}

/// Columns from `family` to `free_at_least`.
const WITHOUT_PATH: usize = 19;

fn put_when(interval: &Interval, mono_ns: u64, wall: &mut WallClock, out: &mut BytesMut) {
    wall.put_rfc3339(out, mono_ns);
    put_field(out, Some(mono_ns));
    put_field(out, Some(interval.seconds));
}

fn put_bound(space: Option<&Space>, out: &mut BytesMut) {
    put_field(out, space.filter(|space| space.limits.is_ok()).map(|space| space.bound));
    put_field(out, space.and_then(|space| space.inactive));
}

/// Who takes most.
fn put_taker(takers: Option<&Takers>, out: &mut BytesMut) {
    let most = takers.and_then(|takers| takers.most.first());
    put_field(out, most.and_then(|taker| taker.pid));
    put_field(out, most.and_then(|taker| taker.name).map(|name| quoted(&name.to_string())));
    put_field(out, most.map(|taker| taker.ports));
}

impl View for PortsView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.shown.header {
            out.put_slice(CSV_HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.ports.input(input);
        if let Some(later) = &mut self.later {
            later.input(input);
        }
        self.schedule.input(input);
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => match self.format {
                Format::Table => loss::text(input, out),
                Format::Json => loss::json(input, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns } => self.tick(*mono_ns, tracker, out),
            Input::End(accounts) => {
                if self.shown.which != Which::All && self.schedule.last_ns().is_some() {
                    self.print(accounts.mono_ns, tracker, out);
                }
                if self.format == Format::Json {
                    self.json.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.ports.change(change);
        if let Some(later) = &mut self.later {
            later.change(change);
        }
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
