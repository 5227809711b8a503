//! What one line of `states` shows.

use tcptrace_model::TcpState;
use tcptrace_stats::counts::Flow;

/// What one line shows.
pub(super) struct Line {
    pub(super) mono_ns: u64,
    /// Since the line before, if there was one.
    pub(super) since_ns: Option<u64>,
    pub(super) rows: Vec<Row>,
    /// Connections that were found to be otherwise since the line before.
    pub(super) corrected: u64,
}

/// One state.
pub(super) struct Row {
    pub(super) state: TcpState,
    /// `None`: not observable.
    pub(super) flow: Option<Flow>,
    /// As it was at the line before.
    pub(super) before: Option<Flow>,
}

impl Row {
    pub(super) fn change(&self) -> Option<i64> {
        let (now, before) = (self.flow?.now, self.before?.now);
        Some(now as i64 - before as i64)
    }

    pub(super) fn entered(&self) -> Option<u64> {
        Some(self.flow?.entered - self.before?.entered)
    }

    pub(super) fn left(&self) -> Option<u64> {
        Some(self.flow?.left - self.before?.left)
    }
}

impl Line {
    pub(super) fn seconds(&self) -> Option<f64> {
        self.since_ns.map(|ns| ns as f64 / 1e9)
    }

    pub(super) fn per_second(&self, count: Option<u64>) -> Option<f64> {
        Some(count? as f64 / self.seconds()?)
    }
}
