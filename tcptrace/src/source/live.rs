//! Inputs from the running kernel.
//!
//! Reads the ring and the counters; must not interpret what it reads.

use std::io;

use tcptrace_common::{counters::Hook, record};
use zerocopy::FromBytes as _;

use crate::{
    host::clock,
    model::{Accounts, Clock, Event, Input, Lost, Transition},
    probe::{Options, Probe, ProbeError},
    track::gate::Gate,
};

/// The wall clock is said anew when it has moved by so much against the monotonic one: a step,
/// or a slew that has added up.
const CLOCK_TOLERANCE_NS: u64 = 100_000;

/// How often the counters and the wall clock are looked at.
const CHECK_EVERY_NS: u64 = 250_000_000;

/// A live host as a source of inputs.
pub struct Live {
    probe: Probe,
    gate: Gate,
    started_ns: u64,
    checked_ns: u64,
    delivered: u64,
    malformed: u64,
    lost_told: u64,
    clock: Option<Clock>,
}

impl Live {
    /// Attaches the hooks.
    pub fn start(options: &Options) -> Result<Self, ProbeError> {
        let probe = Probe::start(options)?;
        let started_ns = clock::monotonic_ns()
            .map_err(|error| ProbeError::Setup(format!("cannot read the clock: {error}")))?;
        Ok(Self {
            probe,
            gate: Gate::default(),
            started_ns,
            checked_ns: 0,
            delivered: 0,
            malformed: 0,
            lost_told: 0,
            clock: None,
        })
    }

    /// The kernel side, for what describes it.
    pub fn probe(&mut self) -> &mut Probe {
        &mut self.probe
    }

    /// The first input: from when on nothing is missed.
    pub fn begin(&self) -> io::Result<Input> {
        Ok(Input::Begin { mono_ns: self.started_ns, hz: clock::hz()? })
    }

    /// Hands out what is in the ring, at most `limit` records, and says how many those were.
    /// Every record before one that was handed out has been handed out.
    pub fn drain(&mut self, limit: usize, sink: &mut impl FnMut(Input)) -> usize {
        let mut count = 0;
        while count < limit
            && let Some(item) = self.probe.ring.next()
        {
            count += 1;
            match parse(&item) {
                Some(event) => {
                    self.gate.pass(event, |event| {
                        sink(Input::Event(Event::Transition(event)));
                    });
                }
                None => self.malformed += 1,
            }
        }
        self.delivered += count as u64;
        count
    }

    /// Says what has been lost and how the clocks stand, a few times a second. To be called when
    /// the ring has just been emptied, since a loss is later than what was in the ring.
    pub fn check(&mut self, sink: &mut impl FnMut(Input)) -> Result<(), ProbeError> {
        let now = monotonic_ns()?;
        if now.saturating_sub(self.checked_ns) >= CHECK_EVERY_NS {
            self.checked_ns = now;
            self.check_now(sink)?;
        }
        Ok(())
    }

    fn check_now(&mut self, sink: &mut impl FnMut(Input)) -> Result<(), ProbeError> {
        let lost = self.probe.totals(Hook::SetState)?.lost;
        if lost > self.lost_told {
            let count = lost - self.lost_told;
            self.lost_told = lost;
            sink(Input::Lost(Lost { hook: Hook::SetState, count, mono_ns: monotonic_ns()? }));
        }
        let now = clock::sample().map_err(clock_error)?;
        let moved = self.clock.is_none_or(|told| {
            told.realtime_offset_ns.abs_diff(now.realtime_offset_ns) > CLOCK_TOLERANCE_NS
        });
        if moved {
            self.clock = Some(now);
            sink(Input::Clock(now));
        }
        sink(Input::Tick { mono_ns: now.mono_ns });
        Ok(())
    }

    /// Takes the hooks off, so that the ring gets no more records.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        self.probe.detach()
    }

    /// The account of the run so far.
    pub fn accounts(&self) -> Result<Accounts, ProbeError> {
        let totals = self.probe.totals(Hook::SetState)?;
        let held = self.gate.filtered();
        let now = monotonic_ns()?;
        Ok(Accounts {
            mono_ns: now,
            seconds: now.saturating_sub(self.started_ns) as f64 / 1e9,
            seen: totals.seen,
            delivered: self.delivered.saturating_sub(held),
            filtered: totals.filtered + held,
            lost: totals.lost,
            missed: self.probe.missed(),
            malformed: self.malformed,
        })
    }

    /// Drains what programs that were still running on another CPU at the time of
    /// [`Self::detach`] may add, until the account balances, and closes the account. A program
    /// runs for microseconds; if the account is still open after `patience_ns`, it is shown so.
    pub fn settle(
        &mut self,
        patience_ns: u64,
        sink: &mut impl FnMut(Input),
    ) -> Result<Accounts, ProbeError> {
        let deadline = monotonic_ns()? + patience_ns;
        let accounts = loop {
            self.drain(usize::MAX, sink);
            let accounts = self.accounts()?;
            if accounts.balance() == 0 || accounts.mono_ns > deadline {
                break accounts;
            }
            std::thread::yield_now();
        };
        self.check_now(sink)?;
        sink(Input::End(accounts));
        Ok(accounts)
    }
}

fn parse(bytes: &[u8]) -> Option<Transition> {
    // One kind so far; the kind byte is what distinguishes records of equal length.
    let raw = record::Transition::ref_from_bytes(bytes).ok()?;
    if raw.kind != record::RecordKind::Transition as u8 {
        return None;
    }
    Transition::try_from(raw).ok()
}

fn monotonic_ns() -> Result<u64, ProbeError> {
    clock::monotonic_ns().map_err(clock_error)
}

fn clock_error(error: io::Error) -> ProbeError {
    ProbeError::Setup(format!("cannot read the clock: {error}"))
}
