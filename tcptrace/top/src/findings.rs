//! What `doctor` says of the last minutes, as of the last scan of the sockets.

use tcptrace_doctor::{
    Diagnosis,
    collect::Setup,
    watch::{Span, Watch},
};
use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// The doctor on duty.
pub(super) struct Findings {
    watch: Watch,
    latest: Option<Latest>,
}

/// A diagnosis.
pub(super) struct Latest {
    pub(super) diagnosis: Diagnosis,
    /// At that moment: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) at_ns: u64,
}

impl Findings {
    pub(super) fn new(setup: Setup) -> Self {
        Self { watch: Watch::new(setup, Span::RECENT), latest: None }
    }

    pub(super) fn input(&mut self, input: &Input, tracker: &Tracker) {
        let looked = self.watch.input(input, tracker);
        // One scan has no rates yet, and no ages but those that the kernel remembers.
        if let (true, 2.., Some(at_ns)) = (looked, self.watch.looks(), input.mono_ns()) {
            self.latest = Some(Latest { diagnosis: self.watch.diagnosis(), at_ns });
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        self.watch.change(change);
    }

    /// The last diagnosis.
    pub(super) fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }
}
