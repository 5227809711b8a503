//! `tcptrace doctor`: gathers until it has watched for long enough, then says what it found.
//!
//! Time is that of the inputs, so that a recording is told the same. Must not judge: that is
//! `doctor`.

mod json;
pub mod sysctl_file;
pub mod text;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use super::{View, time::WallClock};
use tcptrace_doctor::{
    Diagnosis,
    collect::{Collector, Setup},
    finding::Severity,
};
use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// The view.
pub struct DoctorView {
    collector: Collector,
    format: Format,
    watch: Duration,
    /// It has watched for long enough: what is told up to the next tick is still taken in.
    enough: bool,
    wall: WallClock,
    severity: Option<Severity>,
    diagnosis: Option<Diagnosis>,
    now_ns: u64,
}

impl DoctorView {
    /// One that watches for so long, at least, and then shows what it found.
    pub fn new(setup: Setup, format: Format, watch: Duration) -> Self {
        Self {
            collector: Collector::new(setup),
            format,
            watch,
            enough: false,
            wall: WallClock::utc(),
            severity: None,
            diagnosis: None,
            now_ns: 0,
        }
    }

    /// That of the worst finding; `None`: nothing was shown, since no round of snapshots was over.
    pub fn severity(&self) -> Option<Severity> {
        self.severity
    }

    /// What it has shown, once.
    pub fn take(&mut self) -> Option<Diagnosis> {
        self.diagnosis.take()
    }

    fn show(&mut self, tracker: &Tracker, out: &mut BytesMut) {
        if self.severity.is_some() || self.collector.watched_ns().is_none() {
            return;
        }
        let host = self.collector.facts(self.now_ns, tracker);
        let diagnosis = Diagnosis::of(&host);
        match self.format {
            Format::Text => out.put_slice(text::report(&host, &diagnosis).as_bytes()),
            Format::Json => {
                let mut time = BytesMut::new();
                let known = self.wall.put_rfc3339(&mut time, self.now_ns);
                let time = known.then(|| String::from_utf8_lossy(&time).into_owned());
                json::report(&host, &diagnosis, time, out);
            }
        }
        self.severity = Some(diagnosis.severity());
        self.diagnosis = Some(diagnosis);
    }
}

impl View for DoctorView {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        let over = self.collector.input(input);
        if over {
            let watched = Duration::from_nanos(self.collector.watched_ns().unwrap_or(0));
            // Rounds are not to the millisecond.
            self.enough |= watched >= self.watch.mul_f64(0.9);
        }
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Tick { mono_ns } => {
                self.now_ns = *mono_ns;
                if self.enough {
                    self.show(tracker, out);
                }
            }
            Input::End(accounts) => {
                self.now_ns = self.now_ns.max(accounts.mono_ns);
                self.show(tracker, out);
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.collector.change(change);
    }

    fn is_done(&self) -> bool {
        self.severity.is_some()
    }
}

#[cfg(test)]
mod tests;
