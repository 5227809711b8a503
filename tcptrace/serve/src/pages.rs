//! The answers of the commands as JSON, made by the very views that print them: one line each, the
//! last one kept.
//!
//! Must not make an answer of its own: what `tcptrace states 1 -o json` prints is what
//! `/api/v1/states` says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use tcptrace_doctor::{Diagnosis, collect::Setup};
use tcptrace_model::{Change, Input, StateSet};
use tcptrace_stats::{
    closers::{Closers, DEFAULT_LIMIT as GROUPS},
    durations::{DEFAULT_LIMIT as HISTOGRAMS, Durations, Spans},
    group::By,
    ports::Interval,
    stuck::{Report as StuckReport, Wanted},
};
use tcptrace_track::Tracker;
use tcptrace_view::{
    View,
    closers::{ClosersView, Order},
    doctor::{self, DoctorView, Watches},
    hist::{self, HistView, Intervals, Subject},
    lines::Lines,
    ports::{PortsView, Shown, Which},
    states::{Format, StatesView},
    stuck::StuckView,
};

/// Rows of a report that a host could have any number of.
const TOP: usize = 100;

/// How often the counts of states are told.
const STATES_EVERY: Duration = Duration::from_secs(1);

/// A command whose answer is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    States,
    Hist,
    Closers,
    Stuck,
    Ports,
    Doctor,
}

impl Report {
    pub(super) const ALL: [Self; 6] =
        [Self::States, Self::Hist, Self::Closers, Self::Stuck, Self::Ports, Self::Doctor];

    /// The command, the `type` of its JSON, and the last part of its path.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Hist => "hist",
            Self::Closers => "closers",
            Self::Stuck => "stuck",
            Self::Ports => "ports",
            Self::Doctor => "doctor",
        }
    }
}

/// The last line of `report` in what its view has just written, if there is one: it writes of
/// losses too.
fn last_line(report: Report, out: &mut BytesMut) -> Option<Bytes> {
    if out.is_empty() {
        return None;
    }
    let written = out.split().freeze();
    let mut lines = written.split_inclusive(|&byte| byte == b'\n');
    lines.rfind(|line| is_of(report, line)).map(|line| written.slice_ref(line))
}

fn is_of(report: Report, line: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        r#type: &'a str,
    }
    serde_json::from_slice::<Kind<'_>>(line).is_ok_and(|kind| kind.r#type == report.name())
}

/// The views.
pub(super) struct Pages {
    states: StatesView,
    hist: HistView,
    closers: ClosersView,
    stuck: StuckView,
    ports: PortsView,
    doctor: DoctorView,
    out: BytesMut,
    last: [Option<Bytes>; Report::ALL.len()],
}

impl Pages {
    /// Views that tell of each `every`; the doctor knows what `setup` says.
    pub(super) fn new(every: Duration, setup: Setup) -> Self {
        let lines = |every| Lines { every: Some(every), count: None, at_end: false };
        let durations = Durations::new(Spans::lingering(), None, HISTOGRAMS);
        let wanted = Wanted { states: StateSet::all(), older: None, by: By::Holder, top: TOP };
        let shown = Shown {
            every,
            count: None,
            top: TOP,
            filter: Default::default(),
            header: false,
            which: Which::All,
        };
        Self {
            states: StatesView::new(Format::Json, lines(STATES_EVERY), false),
            hist: HistView::new(
                Subject::Durations(durations),
                hist::Format::Json,
                Some(Intervals { length: every, count: None }),
                false,
            ),
            closers: ClosersView::new(
                Closers::new(None, GROUPS),
                Order { top: Some(TOP), ..Order::default() },
                Format::Json,
                lines(every),
                false,
            ),
            stuck: StuckView::new(wanted, Format::Json, lines(every), false),
            ports: PortsView::new(Format::Json, shown),
            doctor: DoctorView::new(setup, doctor::Format::Json, Watches::On),
            out: BytesMut::new(),
            last: Default::default(),
        }
    }

    /// The last line of each, in the order of [`Report::ALL`].
    pub(super) fn last(&self) -> &[Option<Bytes>; Report::ALL.len()] {
        &self.last
    }

    /// The last report of what is stuck, and when that was: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) fn stuck(&self) -> Option<(u64, &StuckReport)> {
        self.stuck.last()
    }

    /// The last look at ephemeral ports, and when that was.
    pub(super) fn ports(&self) -> Option<(u64, &Interval)> {
        self.ports.last()
    }

    /// The last diagnosis.
    pub(super) fn diagnosis(&self) -> Option<Diagnosis> {
        self.doctor.diagnosis()
    }

    /// As [`PortsView::worst_used`].
    pub(super) fn ports_used(&self) -> Option<f64> {
        self.ports.worst_used()
    }

    pub(super) fn input(&mut self, input: &Input, tracker: &Tracker) {
        let Self { states, hist, closers, stuck, ports, doctor, out, last, .. } = self;
        let views: [&mut dyn View; Report::ALL.len()] =
            [states, hist, closers, stuck, ports, doctor];
        for ((view, report), last) in views.into_iter().zip(Report::ALL).zip(last) {
            view.input(input, tracker, out);
            if let Some(line) = last_line(report, out) {
                *last = Some(line);
            }
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        // None of them writes here but `states`, where a change is the first thing after a second.
        let Self { states, hist, closers, ports, doctor, out, last, .. } = self;
        states.change(change, out);
        if let Some(line) = last_line(Report::States, out) {
            last[Report::States as usize] = Some(line);
        }
        let views: [&mut dyn View; 4] = [hist, closers, ports, doctor];
        views.into_iter().for_each(|view| view.change(change, out));
    }

    /// As [`View::due_ns`].
    pub(super) fn due_ns(&self) -> Option<u64> {
        let views: [&dyn View; 4] = [&self.states, &self.closers, &self.stuck, &self.ports];
        views.into_iter().filter_map(View::due_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_model::script;

    use super::*;

    #[test]
    fn a_leak_that_begins_late_is_found_and_so_is_one_that_is_over() {
        for (until_s, is_over) in [(1000, false), (60, true)] {
            // The last second is published by the tick after it.
            let text = script::late_leak(600, 30, until_s, 120) + "121000ms tick\n122000ms tick\n";
            let figures = crate::tests::figures(&text);
            let line = figures.reports[Report::Doctor as usize].clone().unwrap();
            let report: serde_json::Value = serde_json::from_slice(&line).unwrap();
            let findings = report["findings"].as_array().unwrap();
            let leak = findings.iter().find(|found| found["rule"] == "close-wait").unwrap();
            assert_eq!(leak["severity"], "warning", "{leak}");
            assert_eq!(leak["over"].is_string(), is_over, "{leak}");
            assert!(!report["fine"].as_array().unwrap().contains(&"close-wait".into()));
        }
    }
}
