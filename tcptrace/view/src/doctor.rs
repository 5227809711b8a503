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
    collect::Setup,
    finding::Severity,
    watch::{Span, Watch},
};
use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// In colour.
        color: bool,
        /// All sysctls, and not only those that differ from the default or matter.
        sysctls: bool,
    },
    /// One JSON object.
    Json,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// For so long, at least; then it shows what it found, once.
    For(Duration),
    /// To the end, then it shows what it found, once.
    All,
    /// What does not end: it shows what it found at each scan of the sockets.
    On,
}

/// The view.
pub struct DoctorView {
    watch: Watch,
    watches: Watches,
    format: Format,
    /// It has watched for long enough: what comes up to the next tick is still taken in.
    enough: bool,
    wall: WallClock,
    severity: Option<Severity>,
    now_ns: u64,
}

impl DoctorView {
    /// One that has seen nothing yet.
    pub fn new(setup: Setup, format: Format, watches: Watches) -> Self {
        let span = match watches {
            Watches::For(length) => Span::of(length),
            Watches::All => Span::WHOLE,
            Watches::On => Span::RECENT,
        };
        Self {
            watch: Watch::new(setup, span),
            watches,
            format,
            enough: false,
            wall: WallClock::utc(),
            severity: None,
            now_ns: 0,
        }
    }

    /// That of the worst finding; `None`: nothing was shown, since no scan of the sockets was over.
    pub fn severity(&self) -> Option<Severity> {
        self.severity
    }

    /// What has been found by now; `None`: nothing was shown.
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        self.severity.map(|_| self.watch.diagnosis())
    }

    fn show(&mut self, out: &mut BytesMut) {
        let Some(host) = self.watch.host() else { return };
        let diagnosis = self.watch.diagnosis();
        let wall = &mut self.wall;
        match self.format {
            Format::Text { color, sysctls } => {
                let style = text::Style { color, sysctls };
                let begin_ns = diagnosis.window.0;
                let moment = |ns| moment(wall, ns, begin_ns);
                let text = text::report(host, &diagnosis, style, moment);
                out.put_slice(text.as_bytes());
            }
            Format::Json => {
                let time = |ns| {
                    let mut time = BytesMut::new();
                    let known = wall.put_rfc3339(&mut time, ns);
                    known.then(|| String::from_utf8_lossy(&time).into_owned())
                };
                json::report(host, &diagnosis, self.now_ns, time, out);
            }
        }
        self.severity = Some(diagnosis.severity());
    }
}

/// A moment to the second, on the wall clock, or since `begin_ns` where that is not known.
fn moment(wall: &mut WallClock, ns: u64, begin_ns: u64) -> String {
    match wall.at(ns) {
        Some((text, _)) => format!("{}Z", text.replace('T', " ")),
        None => format!("{} s", ns.saturating_sub(begin_ns) / 1_000_000_000),
    }
}

impl View for DoctorView {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Tick { mono_ns } => self.now_ns = *mono_ns,
            Input::End(accounts) => self.now_ns = self.now_ns.max(accounts.mono_ns),
            _ => {}
        }
        let looked = self.watch.input(input, tracker);
        let is_end = matches!(input, Input::End(_));
        self.enough |= match self.watches {
            // Scans are not to the millisecond.
            Watches::For(length) => looked && self.watch.length() >= length.mul_f64(0.9),
            Watches::All => false,
            // One scan has no rates.
            Watches::On => looked && self.watch.looks() > 1,
        };
        let is_shown = self.severity.is_some() && self.watches != Watches::On;
        if !is_shown && (is_end && self.watch.looks() > 0 || std::mem::take(&mut self.enough)) {
            // What was watched for a time is judged as a whole now.
            self.watch.finish(self.now_ns);
            self.show(out);
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.watch.change(change);
    }

    fn is_done(&self) -> bool {
        self.severity.is_some() && self.watches != Watches::On
    }
}

#[cfg(test)]
mod tests;
