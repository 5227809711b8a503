//! Everything that the panes show, fed by inputs and changes: the statistics of the other views.
//!
//! Must not decide how anything looks.

use std::time::Duration;

use super::{
    findings::Findings,
    history::{History, Sample},
    shown::Shown,
    stream::Stream,
};
use tcptrace_doctor::collect::Setup;
use tcptrace_model::{Change, Input, StateSet, TcpState};
use tcptrace_stats::{
    closers::{Closers, DEFAULT_LIMIT},
    conns::Lives,
    counts::{COUNTED, Flow, StateCounts},
    durations::{Durations, Spans},
    group::By,
    ports::Ports,
    stuck::{Survey, Wanted},
};
use tcptrace_track::Tracker;

/// Connections whose time in each state is kept: of those that are open, and of those that were
/// closed first here.
const RECORDS: usize = 1 << 17;

/// Connections that ended and are kept.
const ENDED: usize = 4096;

/// While nobody looks at ports, what is said of them in the end is of so many nanoseconds.
const PORTS_NS: u64 = 10_000_000_000;

/// Histograms that are kept.
const HISTOGRAMS: usize = 64;

/// Rows that a list has at the most.
pub(super) const ROWS: usize = 1000;

/// The statistics.
pub(super) struct Data {
    counts: StateCounts,
    /// Of those that are shown, where not all are.
    shown_flows: StateCounts,
    pub(super) history: History,
    pub(super) durations: Durations,
    pub(super) closers: Closers,
    pub(super) ports: Ports,
    pub(super) survey: Survey,
    pub(super) findings: Findings,
    pub(super) lives: Lives,
    pub(super) stream: Stream,
    /// Transitions so far.
    pub(super) moves: u64,
    pub(super) lost: u64,
    pub(super) missed: u64,
    /// Gaps of the recording so far, and their length, nanoseconds.
    pub(super) gaps: u64,
    pub(super) gap_ns: u64,
    /// Since when closers and lifetimes are counted: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) counted_from_ns: u64,
}

impl Data {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            counts: StateCounts::default(),
            shown_flows: StateCounts::default(),
            history: History::default(),
            durations: durations(),
            closers: Closers::new(None, DEFAULT_LIMIT),
            ports: Ports::default(),
            survey: Survey::new(Wanted {
                states: StateSet::all(),
                older: None,
                by: By::Holder,
                top: ROWS,
            }),
            findings: Findings::new(setup),
            lives: Lives::new(RECORDS, ENDED),
            stream: Stream::default(),
            moves: 0,
            lost: 0,
            missed: 0,
            gaps: 0,
            gap_ns: 0,
            counted_from_ns: 0,
        }
    }

    /// Takes in what is not an event.
    pub(super) fn input(&mut self, input: &Input, tracker: &Tracker) {
        self.counts.input(input);
        self.ports.input(input);
        self.survey.input(input);
        self.findings.input(input, tracker);
        match input {
            Input::Begin { mono_ns, .. } => {
                self.counted_from_ns = *mono_ns;
                self.closers.begin(*mono_ns);
                self.ports.start(*mono_ns);
            }
            Input::Lost(lost) => {
                self.lost += lost.count;
                self.closers.lost();
            }
            Input::Gap(gap) => {
                self.gaps += 1;
                self.gap_ns += gap.ns();
                self.closers.lost();
            }
            Input::Missed { count, .. } => {
                self.missed += count;
                self.closers.lost();
            }
            _ => {}
        }
    }

    /// Takes in a change; of what is counted up, only those that are `shown`.
    pub(super) fn change(&mut self, change: &Change, shown: &Shown) {
        self.moves += u64::from(matches!(change, Change::Moved(_)));
        self.counts.change(change);
        self.ports.change(change);
        self.findings.change(change);
        self.lives.change(change);
        let all = shown.is_all();
        if !all && !shown.change(change) {
            return;
        }
        self.closers.add(change);
        if !all {
            self.shown_flows.change(change);
        }
        if let Change::Moved(moved) = change {
            self.durations.add(moved);
            self.stream.add(moved);
        }
    }

    /// Begins to count anew what is counted up, since something else is shown.
    pub(super) fn restart(&mut self, now_ns: u64) {
        self.closers.begin(now_ns);
        self.durations = durations();
        self.history.clear();
        self.shown_flows = StateCounts::default();
        self.counted_from_ns = now_ns;
    }

    /// How many are in each state now, whatever is shown.
    pub(super) fn flows(&self) -> [Flow; COUNTED.len()] {
        COUNTED.map(|state| self.counts.get(state).unwrap_or_default())
    }

    /// Notes how many are in each state now.
    pub(super) fn sample(&mut self, mono_ns: u64, tracker: &Tracker, shown: &Shown) {
        self.ports.pass(mono_ns, PORTS_NS);
        let mut flows = self.flows();
        if !shown.is_all() {
            let mut now = [0; COUNTED.len()];
            for found in tracker.census().filter(|found| shown.found(found)) {
                if let Some(index) = COUNTED.iter().position(|&state| state == found.state) {
                    now[index] += 1;
                }
            }
            for (index, state) in COUNTED.into_iter().enumerate() {
                flows[index] = self.shown_flows.get(state).unwrap_or_default();
                flows[index].now = now[index];
            }
        }
        self.history.add(Sample { mono_ns, flows });
    }
}

/// What is measured: all states that a connection leaves in time.
fn durations() -> Durations {
    use TcpState::{
        CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynSent, TimeWait,
    };
    let states = [SynSent, Established, FinWait1, FinWait2, Closing, TimeWait, CloseWait, LastAck];
    Durations::new(Spans { states: states.into_iter().collect(), life: false }, None, HISTOGRAMS)
}

/// How long at least between two looks at all connections: what such a look costs is known to be
/// some 100 ns for each, which is to be half a percent of the time.
pub(super) fn patience(tracked: u64) -> Duration {
    Duration::from_micros(20 * tracked).clamp(Duration::from_secs(1), Duration::from_secs(30))
}
