//! What is measured, by group, and over which time.

use std::borrow::Cow;

use tcptrace_stats::{
    durations::{Durations, Span},
    group::Key,
    measure::Measure,
    named::{Group, named},
    steps::Steps,
};
use tcptrace_track::Tracker;

/// What is measured.
pub enum Subject {
    /// The time in states and the whole life.
    Durations(Durations),
    /// The steps of the close.
    Steps(Steps),
}

/// The groups of `span`, by what they are called: the largest first, the rest last.
pub(super) fn groups<'a>(
    durations: &'a Durations,
    span: Span,
    tracker: &Tracker,
) -> Vec<(Group, Cow<'a, Measure>)> {
    let groups = durations.of(span).into_iter();
    let mut named =
        named(groups.map(|(key, measure)| (key, Cow::Borrowed(measure))), tracker, |sum, more| {
            sum.to_mut().join(&more)
        });
    // What was joined may be larger than what came before it.
    named.sort_by_key(|(group, measure)| {
        (group.key() == Key::Other, std::cmp::Reverse(measure.added()))
    });
    named
}

/// A stretch of time, `CLOCK_MONOTONIC`, nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    /// When the hooks came into force.
    pub(super) begin_ns: u64,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Stretch {
    /// Where it begins and ends, seconds since the hooks came into force.
    pub(super) fn seconds(&self) -> (f64, f64) {
        let since = |ns: u64| ns.saturating_sub(self.begin_ns) as f64 / 1e9;
        (since(self.from_ns), since(self.to_ns))
    }
}
