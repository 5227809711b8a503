//! `tcptrace ports`: how near each path is to running out of local ports, an interval at a time.
//!
//! Must not decide what counts: that is `stats::ports`. Time is that of the ticks, so that a
//! replay prints the same.

mod json;
mod text;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use super::{View, csv::put_field, json::Json, time::WallClock};
use crate::{
    model::{Change, Input, Snapshot, filter::Filter},
    stats::ports::{Interval, Ports},
    track::Tracker,
};

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
}

const CSV_HEADER: &str = "time,mono_ns,seconds,netns,family,laddr,raddr,rport,live,time_wait,\
    reusable,usable,free,opened,returned,failed,failed_total,opened_per_s,returned_per_s,\
    outlook,runs_out_s\n";

/// The view.
pub struct PortsView {
    ports: Ports,
    format: Format,
    shown: Shown,
    /// The first round of snapshots is over by then.
    whole_ns: Option<u64>,
    /// The end of the last interval, or the beginning of the first.
    last_ns: Option<u64>,
    printed: u64,
    wall: WallClock,
    json: Json,
}

impl PortsView {
    /// A view that prints what is `shown`.
    pub fn new(format: Format, shown: Shown) -> Self {
        Self {
            ports: Ports::default(),
            format,
            shown,
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

    fn tick(&mut self, now: u64, tracker: &Tracker, out: &mut BytesMut) {
        if self.last_ns.is_none() && self.whole_ns.is_some_and(|whole| whole <= now) {
            self.ports.start(now);
            self.last_ns = Some(now);
        }
        if self.due_ns().is_some_and(|due| due <= now) && !self.is_done() {
            self.print(now, tracker, out);
        }
    }

    fn print(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let mut interval = self.ports.interval(mono_ns, || tracker.census());
        let filter = &self.shown.filter;
        interval.rows.retain(|row| filter.keeps(&row.path.tuple(), row.path.netns.unwrap_or(0)));
        let more = interval.rows.len().saturating_sub(self.shown.top);
        interval.rows.truncate(self.shown.top);
        interval
            .spaces
            .retain(|space| interval.rows.iter().any(|row| row.path.netns == space.netns));
        match self.format {
            Format::Table => {
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                text::block(&interval, more, time, self.shown.header, out);
            }
            Format::Json => json::line(&interval, more, mono_ns, &mut self.wall, out),
            Format::Csv => csv(&interval, mono_ns, &mut self.wall, out),
        }
        self.last_ns = Some(mono_ns);
        self.printed += 1;
    }
}

fn csv(interval: &Interval, mono_ns: u64, wall: &mut WallClock, out: &mut BytesMut) {
    let rate = |rate: f64| Some(format!("{rate:.3}"));
    for row in &interval.rows {
        wall.put_rfc3339(out, mono_ns);
        put_field(out, Some(mono_ns));
        put_field(out, Some(interval.seconds));
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
        out.put_u8(b'\n');
    }
}

impl View for PortsView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.shown.header {
            out.put_slice(CSV_HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.ports.input(input);
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
            Input::Tick { mono_ns } => self.tick(*mono_ns, tracker, out),
            Input::End(accounts) if self.format == Format::Json => {
                self.json.summary(accounts, out);
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.ports.change(change);
    }

    fn due_ns(&self) -> Option<u64> {
        let every_ns = u64::try_from(self.shown.every.as_nanos()).unwrap_or(u64::MAX);
        Some(self.last_ns?.saturating_add(every_ns))
    }

    fn is_done(&self) -> bool {
        self.shown.count.is_some_and(|count| self.printed >= count)
    }
}

#[cfg(test)]
mod tests;
