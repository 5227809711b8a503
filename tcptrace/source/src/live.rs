//! Inputs from the running kernel.
//!
//! Reads the ring and the counters; must not interpret what it reads.

use std::{io, sync::Arc};

use tcptrace_common::{
    counters::Hook,
    record::{self, RecordKind},
};
use zerocopy::FromBytes as _;

use super::{
    cgroups::CgroupNames,
    helper::Helper,
    owners::Owners,
    reconcile::Reconciler,
    snapshot::{Job, Reader, Round, Scope},
};
use tcptrace_host::{clock, netns::Netns};
use tcptrace_model::{
    Accept, Accounts, Clock, Event, Gaps, Input, Lost, Minisock, MinisocksBy, Reset, Transition,
    filter::Filter,
};
use tcptrace_probe::{Names, Options, Probe, ProbeError, Reserved, TimeWaitBackend, Totals, Who};
use tcptrace_track::gate::Gate;

/// The wall clock is said anew when it has moved by so much against the monotonic one: a step,
/// or a slew that has added up.
const CLOCK_TOLERANCE_NS: u64 = 100_000;

/// How often the counters and the wall clock are looked at.
const CHECK_EVERY_NS: u64 = 250_000_000;

/// How often it is asked what was missed while nothing was seen: each program's count is a file of
/// `/proc`, and a program is missed where it runs, which is mostly seen.
const MISSED_SELDOM_NS: u64 = 10_000_000_000;

/// A record is begun before it gets its time, but another CPU sees the beginning a little later: the
/// store waits in the store buffer of its CPU (2 ns late were seen), and clocks of CPUs may differ by
/// as little. What was not seen to be begun is younger than so long.
const SEEN_AFTER_NS: u64 = 1_000;

/// A live host as a source of inputs.
pub struct Live {
    probe: Probe,
    on_the_way: OnTheWay,
    started_ns: u64,
    checked_ns: u64,
    /// Up to when every event has been handed out.
    told: Told<Reserved>,
    delivered: u64,
    malformed: u64,
    /// By [`Hook`].
    lost_told: [u64; Hook::ALL.len()],
    missed_told: u64,
    /// When that was asked, and what had been seen by then.
    missed_asked: Option<(u64, u64)>,
    clock: Option<Clock>,
    /// Ends with this.
    helper: Option<Helper>,
    /// A tick is wanted at the next check: a snapshot waits for it.
    tick_wanted: bool,
}

/// Up to when every event has been handed out: of a ring that has always more, too.
///
/// What is reserved in the ring at some moment is all that was begun before it. So as soon as it has
/// been read up to there, all from before that moment has been handed out. A record that another CPU
/// has not finished hides those behind it, as does the end of a turn.
#[derive(Debug)]
struct Told<P> {
    until_ns: u64,
    /// A moment and what was reserved by then, where not all of that was read yet.
    waits_for: Option<(u64, P)>,
}

impl<P> Default for Told<P> {
    fn default() -> Self {
        Self { until_ns: 0, waits_for: None }
    }
}

impl<P: Copy> Told<P> {
    /// The ring was read for a while. At `now`, before that, so much had been `reserved`.
    fn drained(&mut self, now: u64, reserved: P, has_read: impl Fn(P) -> bool) {
        let before = self.waits_for.take();
        let told = if has_read(reserved) {
            Some(now)
        } else if let Some((at, _)) = before.filter(|(_, reserved)| has_read(*reserved)) {
            self.waits_for = Some((now, reserved));
            Some(at)
        } else {
            self.waits_for = before.or(Some((now, reserved)));
            None
        };
        if let Some(told) = told {
            self.until_ns = told.saturating_sub(SEEN_AFTER_NS);
        }
    }
}

/// What an input passes on its way from the kernel.
struct OnTheWay {
    gate: Gate,
    snapshots: Option<Reconciler>,
    cgroups: CgroupNames,
}

impl OnTheWay {
    /// Hands one on, or has it wait.
    #[inline]
    fn pass(&mut self, input: &Input, sink: &mut dyn FnMut(&Input)) {
        if let Input::Event(Event::Transition(event)) = input {
            if let (Some(snapshots), Some(sock)) = (&mut self.snapshots, &event.sock) {
                snapshots.saw(sock.netns);
            }
            if self.gate.concerns(event) {
                self.gate.pass(*event, |event| {
                    self.cgroups.pass(&Input::Event(Event::Transition(event)), sink);
                });
                return;
            }
            self.cgroups.introduce(input, sink);
        }
        sink(input);
    }
}

impl Live {
    /// Attaches the hooks.
    pub fn start(options: &Options) -> Result<Self, ProbeError> {
        Self::of(Probe::start(options)?)
    }

    /// A source of what `probe`, which has just been started, tells.
    pub fn of(probe: Probe) -> Result<Self, ProbeError> {
        let started_ns = clock::monotonic_ns()
            .map_err(|error| ProbeError::Setup(format!("cannot read the clock: {error}")))?;
        Ok(Self {
            probe,
            on_the_way: OnTheWay {
                gate: Gate::default(),
                snapshots: None,
                cgroups: CgroupNames::open(),
            },
            started_ns,
            checked_ns: 0,
            told: Told::default(),
            delivered: 0,
            malformed: 0,
            lost_told: [0; Hook::ALL.len()],
            missed_told: 0,
            missed_asked: None,
            clock: None,
            helper: None,
            tick_wanted: false,
        })
    }

    /// Has the socket tables that `filter` keeps dumped now and every `every_ns` nanoseconds:
    /// those of `only`, or of every namespace that can be reached. With `owners` who holds the
    /// sockets is looked up.
    pub fn take_snapshots(
        &mut self,
        only: Option<Netns>,
        filter: Filter,
        owners: Option<Owners>,
        every_ns: u64,
    ) {
        self.read_by(Reader::here(Scope { only, filter, owners, infos_of_all: false }), every_ns);
    }

    /// The same by the helper process, which has been told what to dump. It finds the names of
    /// cgroups too.
    pub fn take_snapshots_by(&mut self, mut helper: Helper, every_ns: u64) {
        if let Some(link) = helper.take_link() {
            self.read_by(Reader::helper(link), every_ns);
        }
        self.on_the_way.cgroups.ask(helper.take_names());
        self.helper = Some(helper);
    }

    fn read_by(&mut self, reader: Arc<Reader>, every_ns: u64) {
        let told = self.probe.time_wait().is_some();
        self.on_the_way.snapshots =
            Some(Reconciler::new(reader, every_ns, told, self.is_sampled()));
    }

    /// Minisocks have no hook: snapshots, which must be taken then, tell of them.
    pub fn is_sampled(&self) -> bool {
        self.probe.time_wait() == Some(TimeWaitBackend::Sampling)
    }

    /// A look at minisocks before one is due, where they are sampled. At the end of a run it is to
    /// be taken once the hooks are off and the ring is empty, before [`Self::settle`].
    pub fn look_now(&mut self) -> Result<Option<Job>, ProbeError> {
        let Some(snapshots) = &mut self.on_the_way.snapshots else { return Ok(None) };
        Ok(snapshots.look(monotonic_ns()?))
    }

    /// The dumps that are to be taken now, if any: their [opening](Job::opening) is to be fed before they
    /// begin, and what comes out of them is for [`Self::snapshots_taken`].
    pub fn due_snapshots(&mut self, in_doubt: bool) -> Result<Option<Job>, ProbeError> {
        let Some(snapshots) = &mut self.on_the_way.snapshots else { return Ok(None) };
        Ok(snapshots.due(monotonic_ns()?, in_doubt))
    }

    /// Hands out what was dumped.
    pub fn snapshots_taken(&mut self, round: Round, sink: &mut dyn FnMut(&Input)) {
        let OnTheWay { snapshots, cgroups, .. } = &mut self.on_the_way;
        if let Some(snapshots) = snapshots {
            snapshots.feed(round, &mut |input| cgroups.pass(&input, sink));
            self.tick_wanted = true;
        }
    }

    /// What is to be said of snapshots that could not be taken as they should.
    pub fn take_remarks(&mut self) -> Vec<String> {
        self.on_the_way.snapshots.as_mut().map(Reconciler::take_remarks).unwrap_or_default()
    }

    /// The kernel side, for what describes it.
    pub fn probe(&mut self) -> &mut Probe {
        &mut self.probe
    }

    /// The first input: from when on nothing is missed.
    pub fn begin(&self) -> io::Result<Input> {
        let minisocks = match self.probe.time_wait() {
            None => MinisocksBy::Nothing,
            Some(TimeWaitBackend::Sampling) => MinisocksBy::Looks,
            Some(TimeWaitBackend::Functions | TimeWaitBackend::Timers) => MinisocksBy::Hooks,
        };
        let resets = self.probe.resets().is_ok();
        Ok(Input::Begin { mono_ns: self.started_ns, hz: clock::hz()?, minisocks, resets })
    }

    /// Hands out what is in the ring, at most `limit` records, and says how many those were.
    /// Every record before one that was handed out has been handed out.
    pub fn drain(&mut self, limit: usize, sink: &mut dyn FnMut(&Input)) -> usize {
        // What is begun after this has a later time; what has been, is to be handed out below.
        let now = clock::monotonic_ns().ok();
        let reserved = self.probe.reserved();
        let Self { probe, on_the_way, malformed, .. } = self;
        let mut count = 0;
        while count < limit
            && let Some(read) =
                probe.next_record(|bytes, names| read(bytes, names, |it| on_the_way.pass(it, sink)))
        {
            count += 1;
            *malformed += u64::from(read.is_none());
        }
        self.delivered += count as u64;
        let (told, probe) = (&mut self.told, &self.probe);
        if let Some(now) = now {
            told.drained(now, reserved, |reserved| probe.has_read(reserved));
        }
        count
    }

    /// Says up to when everything has been handed out, and a few times a second what has been lost and
    /// how the clocks stand. To be called right after the ring was read: a loss is later than what
    /// was read.
    pub fn check(
        &mut self,
        had_events: bool,
        sink: &mut dyn FnMut(&Input),
    ) -> Result<(), ProbeError> {
        let now = monotonic_ns()?;
        let had_events = std::mem::take(&mut self.tick_wanted) || had_events;
        if now.saturating_sub(self.checked_ns) >= CHECK_EVERY_NS {
            self.checked_ns = now;
            self.check_now(now, sink)?;
        } else if had_events {
            self.tick(sink);
        }
        Ok(())
    }

    /// Says up to when everything has been told.
    fn tick(&self, sink: &mut dyn FnMut(&Input)) {
        if self.told.until_ns > 0 {
            sink(&Input::Tick { mono_ns: self.told.until_ns });
        }
    }

    /// Has the kernel side look at minisocks: those in TIME_WAIT come out of the ring.
    pub fn look(&mut self, addrs: &[u64]) -> Result<(), ProbeError> {
        self.probe.peek(addrs)
    }

    fn check_now(&mut self, now: u64, sink: &mut dyn FnMut(&Input)) -> Result<(), ProbeError> {
        let mut seen = 0;
        for hook in Hook::ALL {
            let Totals { seen: of_hook, lost, .. } = self.probe.totals(hook)?;
            // Of these misses are counted.
            if matches!(hook, Hook::SetState | Hook::Reset) {
                seen += of_hook;
            }
            let told = &mut self.lost_told[hook as usize];
            if lost > *told {
                let count = lost - *told;
                *told = lost;
                sink(&Input::Lost(Lost { hook, count, mono_ns: monotonic_ns()? }));
            }
        }
        let idle =
            |(at, before): (u64, u64)| before == seen && now.saturating_sub(at) < MISSED_SELDOM_NS;
        if !self.missed_asked.is_some_and(idle) {
            self.missed_asked = Some((now, seen));
            self.ask_missed(sink)?;
        }
        let now = clock::sample().map_err(clock_error)?;
        let moved = self.clock.is_none_or(|told| {
            told.realtime_offset_ns.abs_diff(now.realtime_offset_ns) > CLOCK_TOLERANCE_NS
        });
        if moved {
            self.clock = Some(now);
            sink(&Input::Clock(now));
        }
        if let Some(snapshots) = &self.on_the_way.snapshots {
            let ended = snapshots.ended(monotonic_ns()?);
            ended.into_iter().for_each(|one| sink(&Input::Exited(one)));
        }
        self.tick(sink);
        Ok(())
    }

    fn ask_missed(&mut self, sink: &mut dyn FnMut(&Input)) -> Result<(), ProbeError> {
        let missed = self.probe.missed().unwrap_or(0);
        if missed > self.missed_told {
            let count = missed - self.missed_told;
            self.missed_told = missed;
            sink(&Input::Missed { count, mono_ns: monotonic_ns()? });
        }
        Ok(())
    }

    /// Takes the hooks off, so that the ring gets no more records.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        self.probe.detach()
    }

    /// The account of the run so far.
    pub fn accounts(&self) -> Result<Accounts, ProbeError> {
        let mut totals = Totals::default();
        for hook in Hook::ALL {
            let of_hook = self.probe.totals(hook)?;
            totals.seen += of_hook.seen;
            totals.filtered += of_hook.filtered;
            totals.lost += of_hook.lost;
        }
        let held = self.on_the_way.gate.filtered();
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
            gaps: Gaps::default(),
        })
    }

    /// Drains what programs that were still running on another CPU at the time of
    /// [`Self::detach`] may add, until the account balances, and closes the account. A program
    /// runs for microseconds; if the account is still open after `patience_ns`, it is shown so.
    pub fn settle(
        &mut self,
        patience_ns: u64,
        sink: &mut dyn FnMut(&Input),
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
        self.missed_asked = None;
        self.check_now(accounts.mono_ns, sink)?;
        sink(&Input::End(accounts));
        Ok(accounts)
    }
}

/// Hands the input that a record is to `to`, if it has anything to tell; `None` if it is not what
/// the kernel side of this version writes.
///
/// An input is handed on where it is built: to move one costs as much as to build it.
#[inline]
fn read(bytes: &[u8], names: Names<'_>, to: impl FnOnce(&Input)) -> Option<()> {
    const TRANSITION: u8 = RecordKind::Transition as u8;
    const MINISOCK: u8 = RecordKind::Minisock as u8;
    const STOPPED: u8 = RecordKind::MinisockStopped as u8;
    const CLOSED: u8 = RecordKind::Closed as u8;
    const RESET: u8 = RecordKind::Reset as u8;
    const ACCEPT: u8 = RecordKind::Accept as u8;
    let event = match *bytes.first()? {
        TRANSITION => {
            let raw = record::Transition::ref_from_bytes(bytes).ok()?;
            Event::Transition(Transition::try_from(raw).ok()?)
        }
        CLOSED => {
            let raw = record::Closed::ref_from_bytes(bytes).ok()?;
            Event::Transition(Transition::try_from(raw).ok()?)
        }
        MINISOCK => {
            let raw = record::Minisock::ref_from_bytes(bytes).ok()?;
            Event::Minisock(Minisock::from_record(raw, None).ok()?)
        }
        STOPPED => {
            let raw = record::MinisockStopped::ref_from_bytes(bytes).ok()?;
            match names.who(&raw.frames) {
                // The start that follows at once tells all.
                Who::Restarts => return Some(()),
                Who::Stops(by) => Event::Minisock(Minisock::from_record(&raw.minisock, by).ok()?),
            }
        }
        RESET => {
            let raw = record::Reset::ref_from_bytes(bytes).ok()?;
            Event::Reset(Reset::from_record(raw, names.reason(raw.reason)).ok()?)
        }
        ACCEPT => Event::Accept(Accept::from(record::Accept::ref_from_bytes(bytes).ok()?)),
        _ => return None,
    };
    to(&Input::Event(event));
    Some(())
}

fn monotonic_ns() -> Result<u64, ProbeError> {
    clock::monotonic_ns().map_err(clock_error)
}

fn clock_error(error: io::Error) -> ProbeError {
    ProbeError::Setup(format!("cannot read the clock: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_ring_that_has_always_more_it_is_known_up_to_when_it_was_read() {
        let mut told = Told::default();
        // At each moment so much is reserved, and so much has been read a little later.
        for (now, reserved, read, until) in [
            (10_000, 50, 50, Some(9_000)),
            (20_000, 100, 60, Some(9_000)),
            (30_000, 150, 99, Some(9_000)),
            (40_000, 200, 120, Some(19_000)),
            // Behind the end of the last turn.
            (50_000, 250, 200, Some(39_000)),
            (60_000, 260, 260, Some(59_000)),
            (70_000, 260, 260, Some(69_000)),
        ] {
            told.drained(now, reserved, |reserved: u64| reserved <= read);
            assert_eq!(Some(told.until_ns), until, "{now}");
        }
    }
}
