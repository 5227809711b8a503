//! A report and when it is.

use tcptrace_stats::stuck::{Report, Wanted};

/// A report and when it is.
pub(super) struct Moment<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) report: &'a Report,
    pub(super) mono_ns: u64,
    /// Since the report before, if there was one.
    pub(super) since_ns: Option<u64>,
}

impl Moment<'_> {
    pub(super) fn seconds(&self) -> Option<f64> {
        self.since_ns.map(|ns| ns as f64 / 1e9)
    }

    pub(super) fn per_second(&self, change: Option<i64>) -> Option<f64> {
        Some(change? as f64 / self.seconds().filter(|seconds| *seconds > 0.0)?)
    }
}
