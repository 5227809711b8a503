//! When the lines of a view come that tells how things stand, once or an interval at a time.
//!
//! Time is that of the inputs, so that a replay prints the same. Must not print.

use std::time::Duration;

use tcptrace_model::{Input, Snapshot};

/// When lines come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// Between two of them; `None`: there is but one.
    pub every: Option<Duration>,
    /// After so many it is enough.
    pub count: Option<u64>,
    /// Of a recording: the only one is of its end, rather than of the first moment at which everything
    /// is known.
    pub at_end: bool,
}

/// Where in its lines a view is. Moments are `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Debug)]
pub(super) struct Schedule {
    lines: Lines,
    /// The first round of snapshots is over by then: what there is is known.
    whole_ns: Option<u64>,
    last_ns: Option<u64>,
    printed: u64,
}

impl Schedule {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines, whole_ns: None, last_ns: None, printed: 0 }
    }

    /// Takes in an input.
    pub(super) fn input(&mut self, input: &Input) {
        if let Input::Snapshot(Snapshot::Over { mono_ns, all: true }) = input {
            self.whole_ns.get_or_insert(*mono_ns);
        }
    }

    /// Whether there is but one line.
    pub(super) fn is_once(&self) -> bool {
        self.lines.every.is_none()
    }

    /// Lines so far.
    pub(super) fn printed(&self) -> u64 {
        self.printed
    }

    /// When the last line was of, or [`Self::begin`].
    pub(super) fn last_ns(&self) -> Option<u64> {
        self.last_ns
    }

    /// How long it is since then, at `now`.
    pub(super) fn since_ns(&self, now: u64) -> Option<u64> {
        self.last_ns.map(|last| now.saturating_sub(last))
    }

    /// The end of the present interval.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let every_ns = u64::try_from(self.lines.every?.as_nanos()).unwrap_or(u64::MAX);
        Some(self.last_ns?.saturating_add(every_ns))
    }

    /// Whether what there is is known, and the line of the end is to be printed.
    pub(super) fn may_end(&self) -> bool {
        self.is_at_end() && self.printed == 0 && self.whole_ns.is_some()
    }

    /// Whether the only line is that of the end.
    pub(super) fn is_at_end(&self) -> bool {
        self.lines.at_end && self.lines.every.is_none()
    }

    /// Whether what there is is known by `now`, and nothing was told of it yet.
    pub(super) fn may_begin(&self, now: u64) -> bool {
        !self.is_at_end()
            && self.last_ns.is_none()
            && self.whole_ns.is_some_and(|whole| whole <= now)
    }

    /// The first interval begins, without a line.
    pub(super) fn begin(&mut self, now: u64) {
        self.last_ns = Some(now);
    }

    /// Whether an interval is over at `now`.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.due_ns().is_some_and(|due| due <= now)
    }

    /// A line of `now` was printed.
    pub(super) fn printed_at(&mut self, now: u64) {
        self.last_ns = Some(now);
        self.printed += 1;
    }

    /// Whether these were enough.
    pub(super) fn is_done(&self) -> bool {
        let count = if self.is_once() { Some(1) } else { self.lines.count };
        count.is_some_and(|count| self.printed >= count)
    }
}
