//! What `doctor` says, again and again: each time of what was watched from one round of snapshots
//! to another.
//!
//! It counts what others count too, so it rests between: of a minute it watches some ten seconds,
//! or all the time while somebody looks.

use tcptrace_doctor::{
    Diagnosis,
    collect::{Collector, Setup},
};
use tcptrace_model::{Change, Input};
use tcptrace_record::{Context, lasts};
use tcptrace_track::Tracker;

/// What a rate needs, at least: nanoseconds.
const LEAST_NS: u64 = 4_500_000_000;

/// How long it rests while nobody looks, nanoseconds.
const REST_NS: u64 = 50_000_000_000;

/// The doctor on duty.
pub(super) struct Findings {
    setup: Setup,
    collector: Collector,
    /// What still holds, for the next collector.
    context: Context,
    enough: bool,
    /// It rests until then: `CLOCK_MONOTONIC`, nanoseconds.
    rests_until_ns: Option<u64>,
    /// Somebody looks.
    looked_at: bool,
    latest: Option<Latest>,
}

/// A diagnosis.
pub(super) struct Latest {
    pub(super) diagnosis: Diagnosis,
    /// Of so many seconds.
    pub(super) seconds: f64,
    /// At that moment: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) at_ns: u64,
}

impl Findings {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            collector: Collector::new(setup.clone()),
            setup,
            context: Context::default(),
            enough: false,
            rests_until_ns: None,
            looked_at: false,
            latest: None,
        }
    }

    /// Whether somebody looks by now.
    pub(super) fn look(&mut self, looked_at: bool) {
        self.looked_at = looked_at;
    }

    pub(super) fn input(&mut self, input: &Input, tracker: &Tracker) {
        if lasts(input) {
            self.context.take(input.clone());
        }
        if let Some(until_ns) = self.rests_until_ns {
            // It watches from the beginning of a round on.
            let rested = self.looked_at || input.mono_ns().is_some_and(|now| now >= until_ns);
            match input {
                Input::Tick { mono_ns } if rested => self.wake(*mono_ns),
                _ => {}
            }
            return;
        }
        if self.collector.input(input) {
            self.enough |= self.collector.watched_ns().is_some_and(|ns| ns >= LEAST_NS);
        }
        match input {
            Input::Tick { mono_ns } if self.enough => self.diagnose(*mono_ns, tracker),
            Input::End(accounts) if self.collector.watched_ns().is_some() => {
                self.diagnose(accounts.mono_ns, tracker);
            }
            _ => {}
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        if self.rests_until_ns.is_none() {
            self.collector.change(change);
        }
    }

    fn wake(&mut self, now_ns: u64) {
        self.rests_until_ns = None;
        self.enough = false;
        self.collector = Collector::new(self.setup.clone());
        for input in self.context.inputs(now_ns) {
            self.collector.input(&input);
        }
    }

    fn diagnose(&mut self, now_ns: u64, tracker: &Tracker) {
        let host = self.collector.facts(now_ns, tracker);
        let (diagnosis, seconds) = (Diagnosis::of(&host), host.watched.seconds);
        self.latest = Some(Latest { diagnosis, seconds, at_ns: now_ns });
        self.rests_until_ns = Some(now_ns.saturating_add(REST_NS));
    }

    /// The last diagnosis.
    pub(super) fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }
}
