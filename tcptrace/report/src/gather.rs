//! Gathers the facts of a report along the way: what other views show at a moment is kept as it was
//! at its worst.

use super::{
    facts::{Facts, OfReason, OfSpan},
    timeline::Timeline,
};
use tcptrace_doctor::{
    collect::Setup,
    watch::{self, Watch},
};
use tcptrace_model::{Accounts, Change, Gap, Input, Snapshot, StateSet, TcpState};
use tcptrace_record::Header;
use tcptrace_stats::{
    closers::{self, Closers, Tally},
    durations::{self, Durations, Span, Spans},
    group::{By, Key},
    named::{Group, named},
    ports::{self, Ports},
    stuck::{self, Survey},
};
use tcptrace_track::Tracker;

/// Groups and sockets that are told of.
const SHOWN: usize = 20;

/// Gaps that are reported one by one.
const GAPS: usize = 100;

/// What is gathered.
pub struct Gather {
    header: Header,
    begin_ns: Option<u64>,
    offset_ns: Option<i64>,
    timeline: Timeline,
    doctor: Watch,
    durations: Durations,
    closers: Closers,
    survey: Survey,
    stuck: Option<(u64, stuck::Report)>,
    ports: Ports,
    ports_worst: Option<(u64, ports::Interval)>,
    gaps: Vec<Gap>,
    /// A round of snapshots is over: at the next tick, what was told is looked at.
    look: bool,
    started: bool,
}

impl Gather {
    /// Nothing yet, of a recording with this `header`.
    pub fn new(header: Header) -> Self {
        let wanted =
            stuck::Wanted { states: StateSet::all(), older: None, by: By::Holder, top: SHOWN };
        Self {
            header,
            begin_ns: None,
            offset_ns: None,
            timeline: Timeline::new(),
            doctor: Watch::new(Setup::recorded(), watch::Span::WHOLE),
            durations: Durations::new(Spans::lingering(), None, durations::DEFAULT_LIMIT),
            closers: Closers::new(None, closers::DEFAULT_LIMIT),
            survey: Survey::new(wanted),
            stuck: None,
            ports: Ports::default(),
            ports_worst: None,
            gaps: Vec::new(),
            look: false,
            started: false,
        }
    }

    /// Takes in an input that is no event.
    pub fn input(&mut self, input: &Input, tracker: &Tracker) {
        self.timeline.input(input);
        self.doctor.input(input, tracker);
        self.survey.input(input);
        self.ports.input(input);
        match input {
            Input::Begin { mono_ns, .. } => {
                self.begin_ns.get_or_insert(*mono_ns);
                self.closers.begin(*mono_ns);
            }
            Input::Clock(clock) => self.offset_ns = Some(clock.realtime_offset_ns),
            Input::Lost(_) | Input::Missed { .. } => self.closers.lost(),
            Input::Gap(gap) => {
                self.closers.lost();
                if self.gaps.len() < GAPS {
                    self.gaps.push(*gap);
                }
            }
            Input::Snapshot(Snapshot::Over { all: true, .. }) => self.look = true,
            Input::Tick { mono_ns } if self.look => {
                self.look = false;
                self.look(*mono_ns, tracker);
            }
            _ => {}
        }
    }

    /// Takes in a change.
    pub fn change(&mut self, change: &Change) {
        self.timeline.change(change);
        self.doctor.change(change);
        self.closers.add(change);
        self.ports.change(change);
        if let Change::Moved(moved) = change {
            self.durations.add(moved);
        }
    }

    /// Keeps what is worse at `now` than it was.
    fn look(&mut self, now: u64, tracker: &Tracker) {
        let report = self.survey.report(now, tracker);
        if self.stuck.as_ref().is_none_or(|(_, worst)| badness(&report) >= badness(worst)) {
            self.stuck = Some((now, report));
        }
        if !std::mem::replace(&mut self.started, true) {
            self.ports.start(now);
            return;
        }
        let mut interval = self.ports.interval(now, || tracker.census());
        interval.rows.truncate(SHOWN);
        let fewest = |interval: &ports::Interval| {
            let all_bound = interval.spaces.iter().any(|space| space.used_up().is_some());
            let free = interval.rows.iter().filter_map(|row| row.free);
            free.chain(all_bound.then_some(0)).min().unwrap_or(u64::MAX)
        };
        if self.ports_worst.as_ref().is_none_or(|(_, worst)| fewest(&interval) <= fewest(worst)) {
            self.ports.name_takers(&mut interval.rows, || tracker.census());
            self.ports_worst = Some((now, interval));
        }
    }

    /// The facts, when it is all over.
    pub fn facts(&mut self, accounts: &Accounts, tracker: &Tracker) -> Facts {
        let now = accounts.mono_ns;
        self.look(now, tracker);
        let groups = self.closers.take(now, tracker.census());
        let closers = named(groups, tracker, |sum, more| sum.join(&more));
        let (time_wait, linger) = measures(&self.durations);
        Facts {
            header: self.header.clone(),
            live: false,
            stretch: (self.begin_ns.unwrap_or(now).min(now), now),
            offset_ns: self.offset_ns,
            diagnosis: (self.doctor.looks() > 0).then(|| {
                self.doctor.finish(now);
                self.doctor.diagnosis()
            }),
            timeline: self.timeline.finish(now),
            time_wait,
            linger,
            closers: most_first(closers),
            stuck: self.stuck.take(),
            ports: self.ports_worst.take(),
            gaps: std::mem::take(&mut self.gaps),
            losses: (*accounts).into(),
            doubts: tracker.counts(),
        }
    }
}

/// TIME_WAITs by why they ended, and each other state of a close.
pub(super) fn measures(durations: &Durations) -> (Vec<OfReason>, Vec<OfSpan>) {
    let time_wait = Span::In(TcpState::TimeWait);
    let reason = |key| match key {
        Key::Reason(reason) => reason,
        _ => None,
    };
    let lingering = Span::ALL.into_iter().filter(|&span| span != time_wait);
    let of = |span| durations.of(span).into_iter().map(move |(key, it)| (span, key, it.clone()));
    (
        of(time_wait).map(|(_, key, it)| (reason(key), it)).collect(),
        lingering.flat_map(of).map(|(span, _, it)| (span, it)).collect(),
    )
}

/// In the order in which they are told: who closed most first.
pub(super) fn most_first(mut closers: Vec<(Group, Tally)>) -> Vec<(Group, Tally)> {
    closers.sort_by_cached_key(|(group, tally)| {
        (std::cmp::Reverse((tally.closed(), tally.failed())), group.clone())
    });
    closers
}

/// How many connections are stuck.
fn badness(report: &stuck::Report) -> u64 {
    report.stuck()
}
