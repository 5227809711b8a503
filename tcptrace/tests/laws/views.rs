//! Every view's statistics on the same inputs, and what must be the same in all of them.

use std::{collections::BTreeMap, time::Duration};

use tcptrace::{
    doctor::{
        collect::Setup,
        watch::{Span as WatchSpan, Watch},
    },
    model::{Accounts, Change, Input, StateSet, TcpState},
    record::Header,
    report::Gather,
    stats::{
        closers::{self, Closers},
        conns::{Conns, Until},
        counts::{COUNTED, StateCounts},
        durations::{self, Durations, Span, Spans},
        group::By,
        since_start::SinceStart,
        stuck::{STATES, Survey, Wanted},
    },
    track::Tracker,
};

/// Far more groups and connections than there are.
const ROOM: usize = 1 << 16;

/// All of them.
pub struct Views {
    tracker: Tracker,
    /// `states`, and the metrics of `serve`.
    counts: StateCounts,
    /// `conns`.
    conns: Conns,
    ended: BTreeMap<bool, u64>,
    /// `closers`.
    closers: Closers,
    /// `hist`.
    durations: Durations,
    lives: u64,
    /// `serve`.
    since: SinceStart,
    /// `stuck`, of everything that is in these states at all.
    survey: Survey,
    /// `doctor`.
    doctor: Watch,
    /// The report.
    report: Gather,
    /// Transitions out of each state, and into CLOSE, as they were told.
    left: BTreeMap<TcpState, u64>,
    transitions: u64,
    now: u64,
}

impl Default for Views {
    fn default() -> Self {
        let states = StateSet::all();
        let wanted = Wanted { states, older: Some(Duration::ZERO), by: By::Holder, top: ROOM };
        Self {
            tracker: Tracker::default(),
            counts: StateCounts::default(),
            conns: Conns::new(Until::Close, ROOM),
            ended: BTreeMap::new(),
            closers: Closers::new(None, closers::DEFAULT_LIMIT),
            durations: Durations::new(Spans { states, life: true }, None, durations::DEFAULT_LIMIT),
            lives: 0,
            since: SinceStart::new(None),
            survey: Survey::new(wanted),
            doctor: Watch::new(Setup::recorded(), WatchSpan::RECENT),
            report: Gather::new(Header::default()),
            left: BTreeMap::new(),
            transitions: 0,
            now: 0,
        }
    }
}

impl Views {
    /// Takes one input in.
    pub fn feed(&mut self, input: &Input) {
        self.now = self.now.max(input.mono_ns().unwrap_or(0));
        let Self { tracker, counts, conns, ended, closers, durations, doctor, report, .. } = self;
        let (since, left) = (&mut self.since, &mut self.left);
        let (lives, transitions) = (&mut self.lives, &mut self.transitions);
        tracker.apply(input, &mut |change| {
            counts.change(&change);
            if let Some(one) = conns.change(&change) {
                *ended.entry(one.failed()).or_default() += 1;
            }
            closers.add(&change);
            doctor.change(&change);
            report.change(&change);
            if let Change::Moved(moved) = &change {
                durations.add(moved);
                since.add(moved);
                *transitions += 1;
                if !moved.is_birth() {
                    *left.entry(moved.old).or_default() += 1;
                }
                *lives += u64::from(moved.new == TcpState::Close && moved.old != TcpState::Listen);
            }
        });
        if let Input::Tick { mono_ns } = input {
            // As whoever reads the ring asks.
            self.tracker.due_peeks(*mono_ns);
        }
        if !matches!(input, Input::Event(_)) {
            self.counts.input(input);
            self.survey.input(input);
            self.doctor.input(input, &self.tracker);
            self.report.input(input, &self.tracker);
            if matches!(input, Input::Lost(_) | Input::Missed { .. }) {
                self.closers.lost();
            }
        }
    }

    /// How many are in a state, by the census.
    fn census(&self) -> BTreeMap<TcpState, u64> {
        let mut census = BTreeMap::new();
        self.tracker.census().for_each(|found| *census.entry(found.state).or_default() += 1);
        census
    }

    /// Holds the laws of a moment. `what` says of which.
    #[track_caller]
    pub fn agree(&mut self, what: &str) {
        let census = self.census();
        let here = |state| census.get(&state).copied().unwrap_or(0);
        // SYN_RECV is what snapshots count too, which have no ages and no owners.
        for state in COUNTED.into_iter().filter(|&state| state != TcpState::SynRecv) {
            let now = self.counts.get(state).map_or(0, |flow| flow.now);
            assert_eq!(now, here(state), "{what}: states and the census: {state}");
        }
        self.stuck_agrees(what, here);
        self.times_agree(what);
        let sum = |tallies: &mut dyn Iterator<Item = u64>| tallies.sum::<u64>();
        let ended = |failed| self.ended.get(&failed).copied().unwrap_or(0);
        let closed = sum(&mut self.closers.so_far().map(|(_, tally)| tally.closed()));
        let failed = sum(&mut self.closers.so_far().map(|(_, tally)| tally.failed()));
        assert_eq!(
            (closed, failed),
            (ended(false), ended(true)),
            "{what}: closers and conns: closed, failed"
        );
        for (_, tally) in self.closers.so_far() {
            let endings: u64 = tally.endings().map(|(_, count)| count).sum();
            let failures: u64 = tally.failures().map(|(_, count)| count).sum();
            assert_eq!((endings, failures), (tally.closed(), tally.failed()), "{what}: its parts");
        }
    }

    #[track_caller]
    fn stuck_agrees(&mut self, what: &str, here: impl Fn(TcpState) -> u64) {
        let report = self.survey.report(self.now, &self.tracker);
        // Of ESTABLISHED, stuck has only those that wait for their peer.
        for &state in STATES.iter().filter(|&&state| state != TcpState::Established) {
            assert_eq!(report.all_in(state), here(state), "{what}: stuck and states: {state}");
        }
        for of in &report.sections {
            assert!(of.stuck <= of.all, "{what}: more stuck than there are: {}", of.state);
            let groups: u64 = of.groups.iter().map(|(_, count)| count.all).sum();
            assert_eq!(groups + of.rest.1.all, of.all, "{what}: groups of {}", of.state);
        }
        assert_eq!(report.oldest.len() as u64, report.stuck(), "{what}: rows of stuck");
        // And whose each is, as the census has it.
        for stuck in &report.oldest {
            assert!(STATES.contains(&stuck.found.state));
            let same = |found: &tcptrace::model::Found| found.id == stuck.found.id;
            let known = self.tracker.census().find(same).unwrap();
            let who = |found: &tcptrace::model::Found| (found.owner, found.closer, found.holder);
            assert_eq!(who(&known), who(&stuck.found), "{what}: whose it is");
        }
    }

    #[track_caller]
    fn times_agree(&self, what: &str) {
        for state in COUNTED {
            let measured: u64 =
                self.durations.of(Span::In(state)).iter().map(|(_, measure)| measure.added()).sum();
            let left = self.left.get(&state).copied().unwrap_or(0);
            assert_eq!(measured, left, "{what}: hist and transitions: {state}");
        }
        let lives: u64 =
            self.durations.of(Span::Life).iter().map(|(_, measure)| measure.added()).sum();
        assert_eq!(lives, self.lives, "{what}: lives and ends");
        let told: u64 = self.since.transitions().map(|(_, _, count)| count).sum();
        assert_eq!(told, self.transitions, "{what}: serve and transitions");
    }

    /// Holds what is true right after the tick of a whole round before which nothing moved: what
    /// the tables had is what is known.
    #[track_caller]
    pub fn agree_with_doctor(&mut self, what: &str) {
        let census = self.census();
        let Some(facts) = self.doctor.host() else { panic!("{what}: no whole scan was over") };
        for state in [TcpState::CloseWait, TcpState::Established, TcpState::TimeWait] {
            let doctor: u64 = facts.spaces.iter().map(|space| space.count(state)).sum();
            let here = census.get(&state).copied().unwrap_or(0);
            assert_eq!(doctor, here, "{what}: doctor and states: {state}");
        }
        let waiting: u64 = facts
            .spaces
            .iter()
            .flat_map(|space| &space.waiting)
            .filter(|group| group.state == TcpState::CloseWait)
            .map(|group| group.now)
            .sum();
        assert_eq!(
            waiting,
            census.get(&TcpState::CloseWait).copied().unwrap_or(0),
            "{what}: who doctor names"
        );
    }

    /// Holds what is true at the end: what waited is settled.
    #[track_caller]
    pub fn end(mut self, what: &str) {
        let accounts = Accounts {
            mono_ns: self.now.saturating_add(1),
            seconds: 1.0,
            seen: 0,
            delivered: 0,
            filtered: 0,
            lost: 0,
            missed: Some(0),
            malformed: 0,
            gaps: tcptrace::model::Gaps::default(),
        };
        self.feed(&Input::End(accounts));
        self.agree(what);
        let census = self.census();
        let facts = self.report.facts(&accounts, &self.tracker);
        if let Some(last) = facts.timeline.last() {
            for (state, now) in COUNTED.into_iter().zip(last.states) {
                if state != TcpState::SynRecv {
                    let here = census.get(&state).copied().unwrap_or(0);
                    assert_eq!(now, here, "{what}: the report and states: {state}");
                }
            }
        }
        let transitions: u64 = facts.timeline.iter().map(|moment| moment.transitions).sum();
        assert_eq!(transitions, self.transitions, "{what}: the report and transitions");
        let closed: u64 = facts.closers.iter().map(|(_, tally)| tally.closed()).sum();
        assert_eq!(
            closed,
            self.ended.get(&false).copied().unwrap_or(0),
            "{what}: the report and conns"
        );
    }
}
