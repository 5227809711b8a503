//! What a report tells, as plain values: nothing here knows of pages or plots.

use tcptrace_doctor::Diagnosis;
use tcptrace_model::{Accounts, EndReason, Gap};
use tcptrace_record::Header;
use tcptrace_stats::{
    closers::Tally, durations::Span, measure::Measure, named::Group, ports, stuck,
};
use tcptrace_track::Counts;

/// An incident, or how a host that runs is doing.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where and how it was recorded.
    pub header: Header,
    /// Of a host that runs: what was looked at is as it was last, not at its worst.
    pub live: bool,
    /// What it covers: from when to when, `CLOCK_MONOTONIC`, nanoseconds.
    pub stretch: (u64, u64),
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC` at its end, nanoseconds; `None` if that was not told.
    pub offset_ns: Option<i64>,
    /// What `doctor` finds; `None` where the sockets were not read twice.
    pub diagnosis: Option<Diagnosis>,
    /// How things went over time.
    pub timeline: Vec<Moment>,
    /// How long TIME_WAIT lasted, by why it ended, the most frequent first.
    pub time_wait: Vec<OfReason>,
    /// How long connections stayed in the states of closing.
    pub linger: Vec<OfSpan>,
    /// Who closed first, the most first.
    pub closers: Vec<(Group, Tally)>,
    /// What was stuck, when most was or last; and when that was, `CLOCK_MONOTONIC`, nanoseconds.
    pub stuck: Option<(u64, stuck::Report)>,
    /// Ephemeral ports, when the path that was nearest to running out had fewest, or last; and when.
    pub ports: Option<(u64, ports::Interval)>,
    /// Stretches of time of which nothing is known, the first of them.
    pub gaps: Vec<Gap>,
    /// What is missing.
    pub losses: Losses,
    /// What the tracker could not make sense of, or had to forget.
    pub doubts: Counts,
}

impl Facts {
    /// A moment on the wall clock, nanoseconds since 1970.
    pub fn real_ns(&self, mono_ns: u64) -> Option<i128> {
        Some(i128::from(mono_ns) + i128::from(self.offset_ns?))
    }
}

/// How long TIME_WAITs lasted that ended so; `None`: it is not known how.
pub type OfReason = (Option<EndReason>, Measure);

/// How long connections were in a state, or between two.
pub type OfSpan = (Span, Measure);

/// What is missing of the events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// What became of them; `None` as long as it runs.
    pub accounts: Option<Accounts>,
    /// Lost, the ring being full or the disk too slow.
    pub lost: u64,
    /// Missed, the kernel having skipped the program; `None` where it does not tell.
    pub missed: Option<u64>,
    /// No snapshots are taken any more, although it runs.
    pub snapshots_ended: bool,
}

impl From<Accounts> for Losses {
    fn from(accounts: Accounts) -> Self {
        let Accounts { lost, missed, .. } = accounts;
        Self { accounts: Some(accounts), lost, missed, snapshots_ended: false }
    }
}

/// A piece of the timeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// When it ends: `CLOCK_MONOTONIC`, nanoseconds.
    pub end_ns: u64,
    /// How long it is, nanoseconds.
    pub length_ns: u64,
    /// Connections in each state at its end, in the order of
    /// [`COUNTED`](tcptrace_stats::counts::COUNTED).
    pub states: [u64; tcptrace_stats::counts::COUNTED.len()],
    /// Transitions in it.
    pub transitions: u64,
    /// Connections that began in it: by connect() or by being accepted.
    pub opened: u64,
    /// Connections that were closed in it.
    pub closed: u64,
    /// Events that were lost in it, or not seen.
    pub lost: u64,
}
