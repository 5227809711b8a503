//! Gathers the facts from inputs and changes, whatever their source.
//!
//! Facts are those of a window: from one scan of all sockets to another. Sockets are as the last scan
//! has them, and how long they have waited is the tracker's knowledge; counters are those of the scan
//! that began the window and of the one that ended it. Which windows are judged is not decided here
//! but in [`crate::watch`].

mod ends;
mod waiting;

use std::collections::{BTreeMap, HashMap, VecDeque};

use self::ends::Ends;
use super::facts::{
    Counted, HostFacts, Listening, Losses, NetnsFacts, Reading, Setting, Watched, Who,
};
use tcptrace_model::{
    Change, Found, Holder, Input, NetStat, SnapFull, SnapSocket, Snapshot, Sysctls, TcpState,
    hash::{Map, Set},
};
use tcptrace_stats::{
    group,
    ports::{self, Outlook, Ports},
};
use tcptrace_track::Tracker;

/// Listeners that are kept, in one namespace.
const LISTENERS: usize = 1 << 16;
/// Namespaces of which anything is known.
const SPACES: usize = 1 << 16;
/// From so many TIME_WAITs on it is counted whose they are.
pub const WORTH_NAMING: u64 = 1000;
/// Paths of which it is said who takes their ports.
const NAMED_PATHS: usize = 256;
/// Readings of the counters that are kept are so far apart, at the least: nanoseconds. A namespace
/// that is scanned each second needs no more of them than one that is scanned each five.
const APART_NS: u64 = 4_000_000_000;

/// Why what happened to connections says nothing of a namespace.
const UNPLACED: &str = "the hook in force (tracepoint) does not tell the namespace of a connection";

/// What the host says beside the inputs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// As in [`HostFacts::defaults`].
    pub defaults: Result<Sysctls, String>,
    /// As in [`HostFacts::files`].
    pub files: Vec<Setting>,
    /// As in [`Watched::events`].
    pub events: Result<(), String>,
    /// The network namespace in which commands run that name none.
    pub own_netns: Option<u32>,
}

impl Setup {
    /// Of a recording, which has none of it: what it lacks is another host's.
    pub fn recorded() -> Self {
        Self {
            defaults: Err("not recorded".to_owned()),
            files: Vec::new(),
            events: Ok(()),
            own_netns: None,
        }
    }
}

/// A window that facts can be had of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// From the last scan but one to the last.
    Step,
    /// From the first scan that is not older than this on.
    Since(u64),
    /// From the first scan on.
    All,
}

/// What happened between two scans.
struct Step {
    from_ns: u64,
    ends: Ends,
    lost: Losses,
}

impl Step {
    fn from(from_ns: u64) -> Self {
        Self { from_ns, ends: Ends::default(), lost: Losses::default() }
    }

    fn join(&mut self, later: &Self) {
        self.ends.join(&later.ends);
        self.lost = self.lost.and(later.lost);
    }
}

/// Gathers.
pub(super) struct Collector {
    setup: Setup,
    ports: Ports,
    spaces: BTreeMap<u32, Space>,
    /// The namespace whose dump comes.
    current: Option<(u32, Sockets)>,
    scan: Scan,
    /// When the first scan of all sockets was over.
    began_ns: Option<u64>,
    /// When the last one was.
    ended_ns: u64,
    /// What happens since.
    now: Step,
    /// The steps before, as far back as windows go.
    steps: VecDeque<Step>,
    /// Since the first scan; `None`: nobody asks.
    all: Option<Step>,
    /// For so long steps are kept, nanoseconds.
    keep_ns: u64,
}

#[derive(Default)]
struct Scan {
    /// Of minisocks alone: not for us.
    minisocks: bool,
    has: Set<u32>,
}

/// One namespace, so far.
#[derive(Default)]
struct Space {
    sysctls: Sysctls,
    /// Of the scan of all sockets that came first.
    first: Option<(u64, Reading)>,
    /// Of those of the last minute, some seconds apart.
    readings: VecDeque<(u64, Reading)>,
    /// Of the last but one.
    before: Option<(u64, Reading)>,
    last: Option<(u64, Reading)>,
    why: Option<String>,
    sockets: Sockets,
}

/// One dump.
#[derive(Default)]
struct Sockets {
    states: HashMap<TcpState, u64>,
    listeners: Vec<SnapSocket>,
}

impl Sockets {
    fn add(&mut self, socket: &SnapSocket) {
        *self.states.entry(socket.state).or_default() += 1;
        if socket.state == TcpState::Listen && self.listeners.len() < LISTENERS {
            self.listeners.push(socket.clone());
        }
    }
}

impl Collector {
    /// One that has seen nothing yet. Windows go back as far as `keep_ns` and, if `all`, to the
    /// first scan.
    pub(super) fn new(setup: Setup, keep_ns: u64, all: bool) -> Self {
        Self {
            setup,
            ports: Ports::default(),
            spaces: BTreeMap::new(),
            current: None,
            scan: Scan::default(),
            began_ns: None,
            ended_ns: 0,
            now: Step::from(0),
            steps: VecDeque::new(),
            all: all.then(|| Step::from(0)),
            keep_ns,
        }
    }

    /// Takes in what is not an event. Says whether a scan of all sockets is over with it.
    pub(super) fn input(&mut self, input: &Input) -> bool {
        self.ports.input(input);
        match input {
            Input::Sysctls(sysctls) => {
                if let Some(space) = self.space(sysctls.netns) {
                    space.sysctls = sysctls.sysctls.clone();
                }
            }
            Input::Counters(counters) => {
                if let Some(space) = self.space(counters.netns) {
                    space.read(counters.mono_ns, &counters.counters);
                }
            }
            Input::Lost(lost) => self.lost(Losses { events: lost.count, ..Losses::default() }),
            Input::Missed { .. } => self.lost(Losses { uncounted: true, ..Losses::default() }),
            // A gap of no length has lost something too.
            Input::Gap(gap) => self.lost(Losses { gap_ns: gap.ns().max(1), ..Losses::default() }),
            Input::Snapshot(snapshot) => return self.snapshot(snapshot),
            _ => {}
        }
        false
    }

    fn lost(&mut self, lost: Losses) {
        self.now.lost = self.now.lost.and(lost);
    }

    /// What is known of a namespace; `None` if there is no room for another.
    fn space(&mut self, netns: u32) -> Option<&mut Space> {
        if self.spaces.len() >= SPACES && !self.spaces.contains_key(&netns) {
            self.now.ends.crowded = true;
            return None;
        }
        Some(self.spaces.entry(netns).or_default())
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> bool {
        match snapshot {
            Snapshot::Open => self.scan = Scan::default(),
            Snapshot::OpenMinisocks => self.scan = Scan { minisocks: true, ..Scan::default() },
            Snapshot::Begin { netns, .. } => {
                if self.scan.has.len() < SPACES || self.spaces.contains_key(netns) {
                    self.scan.has.insert(*netns);
                }
                self.current = Some((*netns, Sockets::default()));
            }
            Snapshot::Socket(socket) => {
                if let Some((_, sockets)) = &mut self.current {
                    sockets.add(socket);
                }
            }
            Snapshot::End(end) => {
                let dumped = self.current.take().filter(|_| !self.scan.minisocks);
                if let Some((netns, mut sockets)) = dumped {
                    let unseen = end.unseen;
                    for (state, count) in [
                        (TcpState::SynRecv, unseen.syn_queue),
                        (TcpState::FinWait2, unseen.fin_wait2),
                        (TcpState::TimeWait, unseen.time_wait),
                    ] {
                        *sockets.states.entry(state).or_default() += u64::from(count);
                    }
                    if let Some(space) = self.space(netns) {
                        space.sockets = sockets;
                    }
                }
            }
            Snapshot::Over { mono_ns, all: true } => {
                // What a whole scan does not have is gone.
                self.spaces.retain(|netns, _| self.scan.has.contains(netns));
                if self.began_ns.is_none() {
                    self.ports.start(*mono_ns);
                }
                self.step(*mono_ns);
                return true;
            }
            Snapshot::Info(_)
            | Snapshot::SynQueue(_)
            | Snapshot::Bound(_)
            | Snapshot::Over { .. } => {}
        }
        false
    }

    /// A scan was over at `now_ns`: what happened until then was one step.
    fn step(&mut self, now_ns: u64) {
        if self.began_ns.is_none() {
            // What came before the first scan is in no window.
            self.began_ns = Some(now_ns);
            self.now = Step::from(now_ns);
            if let Some(all) = &mut self.all {
                *all = Step::from(now_ns);
            }
        } else if now_ns > self.ended_ns {
            let step = std::mem::replace(&mut self.now, Step::from(now_ns));
            if let Some(all) = &mut self.all {
                all.join(&step);
            }
            self.steps.push_back(step);
            let keep_ns = self.keep_ns;
            while self.steps.front().is_some_and(|step| step.from_ns + keep_ns < now_ns) {
                self.steps.pop_front();
            }
        }
        self.ended_ns = now_ns;
    }

    /// Takes in a change.
    pub(super) fn change(&mut self, change: &Change) {
        self.ports.change(change);
        if let Change::Moved(moved) = change {
            self.now.ends.add(moved);
        }
    }

    /// When the first scan of all sockets was over, and when the last one was: `CLOCK_MONOTONIC`,
    /// nanoseconds. `None`: none is over yet.
    pub(super) fn watched(&self) -> Option<(u64, u64)> {
        self.began_ns.map(|began_ns| (began_ns, self.ended_ns))
    }

    /// Counts ports and what waits at `now_ns`, with what the tracker knows then; what has waited for
    /// `lasting_ns` is lasting. The facts that there are of the last step.
    pub(super) fn look(&mut self, now_ns: u64, lasting_ns: u64, tracker: &Tracker) -> HostFacts {
        let interval = self.ports.interval(now_ns, || tracker.census());
        let mut paths: Map<u32, Vec<ports::Row>> = Map::default();
        let mut rows = interval.rows;
        // The worst come first, and only those are named.
        let pressed = |row: &ports::Row| {
            let soon = matches!(row.outlook, Outlook::Now | Outlook::In(_));
            soon || row.failed_total + row.own_failed > 0
        };
        // One that has failed for its own range alone is not urgent, and comes later.
        rows.sort_by_key(|row| !pressed(row));
        let pressed = rows.iter().take(NAMED_PATHS).take_while(|row| pressed(row)).count();
        self.ports.name_takers(&mut rows[..pressed], || tracker.census());
        for row in rows {
            if let Some(netns) = row.path.netns {
                paths.entry(netns).or_default().push(row);
            }
        }
        let mut unknown: Map<u32, String> = Map::default();
        let mut bound: Map<u32, ports::Space> = Map::default();
        for space in interval.spaces {
            bound.extend(space.netns.map(|netns| (netns, space.clone())));
            let why = match space.limits {
                Err(why) => why,
                Ok(_) if space.time_wait_unseen => "TIME_WAITs are not observable".to_owned(),
                Ok(_) => continue,
            };
            unknown.extend(space.netns.map(|netns| (netns, why)));
        }
        let only = self.spaces.keys().next().copied().filter(|_| self.spaces.len() == 1);
        let mut waiting = waiting::waiting(now_ns, lasting_ns, only, tracker);
        let mut time_waits = self.time_waits(tracker);
        let spaces = self
            .spaces
            .iter()
            .map(|(&netns, space)| NetnsFacts {
                netns,
                name: tracker.namespaces().name(netns).map(Into::into),
                called: tracker.namespaces().long(netns),
                enter: self.enter(netns, tracker),
                sysctls: space.sysctls.clone(),
                counters: Counted::default(),
                states: space.sockets.states.clone(),
                listeners: space.listeners(),
                waiting: waiting.remove(&netns).unwrap_or_default(),
                paths: paths.remove(&netns).unwrap_or_default(),
                bound: bound.remove(&netns),
                lists_bound: self.ports.lists_bound(netns),
                ports_unknown: unknown.remove(&netns),
                endings: Vec::new(),
                time_wait_by: time_waits.remove(&netns).unwrap_or_default(),
            })
            .collect();
        let nothing = Watched { seconds: 0.0, events: Ok(()), lost: Losses::default() };
        let mut host = HostFacts {
            watched: nothing,
            defaults: self.setup.defaults.clone(),
            files: self.setup.files.clone(),
            spaces,
        };
        self.fit(&mut host, Window::Step);
        host
    }

    /// Makes of `host`, as [`Collector::look`] gave it, the facts of another window that ends at the
    /// last scan.
    pub(super) fn fit(&self, host: &mut HostFacts, window: Window) {
        let mut sum = Step::from(self.ended_ns);
        let step = match (window, &self.all) {
            (Window::All, Some(all)) => all,
            (Window::Step, _) => self.steps.back().unwrap_or(&sum),
            (Window::Since(_) | Window::All, _) => {
                let since_ns = if let Window::Since(ns) = window { ns } else { 0 };
                let within = self.steps.iter().filter(|step| step.from_ns >= since_ns);
                sum = within
                    .fold(None, |sum: Option<Step>, step| {
                        let mut sum = sum.unwrap_or_else(|| Step::from(step.from_ns));
                        sum.join(step);
                        Some(sum)
                    })
                    .unwrap_or(sum);
                &sum
            }
        };
        let seconds = self.ended_ns.saturating_sub(step.from_ns) as f64 / 1e9;
        let mut endings = step.ends.facts();
        for facts in &mut host.spaces {
            facts.endings = endings.remove(&facts.netns).unwrap_or_default();
            if let Some(space) = self.spaces.get(&facts.netns) {
                facts.counters = space.counted(window);
            }
        }
        host.watched = Watched {
            seconds,
            events: match self.setup.events.clone() {
                Ok(()) if step.ends.unplaced => Err(UNPLACED.to_owned()),
                Ok(()) if step.ends.crowded => Err(format!(
                    "more than {} network namespaces: what happened in the others was not counted",
                    ends::SPACES
                )),
                events => events,
            },
            lost: step.lost,
        };
    }

    /// As in [`NetnsFacts::enter`].
    fn enter(&self, netns: u32, tracker: &Tracker) -> String {
        if self.spaces.len() == 1 || self.setup.own_netns == Some(netns) {
            return String::new();
        }
        let namespaces = tracker.namespaces();
        // Of a recording, the path may lead to another namespace by now, or be another host's.
        let is_live = self.setup.own_netns.is_some();
        match namespaces.path(netns).filter(|_| is_live) {
            Some(path) => format!("nsenter --net={path} "),
            None => format!("in network namespace {}: ", namespaces.long(netns)),
        }
    }

    /// Whose TIME_WAITs there are, where there are many.
    fn time_waits(&self, tracker: &Tracker) -> Map<u32, Vec<(String, u64)>> {
        let many = |space: &Space| {
            space.sockets.states.get(&TcpState::TimeWait).is_some_and(|&n| n >= WORTH_NAMING)
        };
        // A host has up to a million connections: only where there is something to name.
        let named: Set<u32> =
            self.spaces.iter().filter(|(_, space)| many(space)).map(|(netns, _)| *netns).collect();
        let mut counts: Map<u32, Map<group::Key, u64>> = Map::default();
        if named.is_empty() {
            return Map::default();
        }
        let here = |found: &Found| {
            found.state == TcpState::TimeWait && found.netns.is_some_and(|id| named.contains(&id))
        };
        for found in tracker.census().filter(here) {
            let of = counts.entry(found.netns.unwrap_or_default()).or_default();
            *of.entry(group::service(&found)).or_default() += 1;
        }
        let sorted = |of: Map<group::Key, u64>| {
            let mut by: Vec<_> = of.into_iter().map(|(key, n)| (key.to_string(), n)).collect();
            by.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            by
        };
        counts.into_iter().map(|(netns, of)| (netns, sorted(of))).collect()
    }
}

impl Space {
    fn read(&mut self, mono_ns: u64, read: &Result<NetStat, Box<str>>) {
        let stat = match read {
            Ok(stat) => stat,
            Err(why) => {
                self.why = Some(why.to_string());
                return;
            }
        };
        let reading = (mono_ns, Reading::of(stat));
        self.first.get_or_insert(reading);
        self.before = self.last.replace(reading);
        let apart = |last: &(u64, Reading)| mono_ns.saturating_sub(last.0) >= APART_NS;
        if self.readings.back().is_none_or(apart) {
            self.readings.push_back(reading);
        }
        while self.readings.len() > READINGS {
            self.readings.pop_front();
        }
    }

    fn counted(&self, window: Window) -> Counted {
        let first = match window {
            Window::Step => self.before,
            Window::All => self.first,
            // Read with the scan, which was over a moment later.
            Window::Since(ns) => {
                let from_ns = ns.saturating_sub(APART_NS / 4);
                self.readings.iter().find(|(at_ns, _)| *at_ns >= from_ns).copied()
            }
        };
        // The last one is no beginning.
        let first = first.filter(|first| self.last.is_some_and(|last| last.0 > first.0));
        let seconds = self.last.zip(first).map(|(last, first)| last.0.saturating_sub(first.0));
        Counted {
            first: first.map(|(_, reading)| reading),
            last: self.last.map(|(_, reading)| reading),
            why: self.why.clone(),
            seconds: seconds.unwrap_or(0) as f64 / 1e9,
        }
    }

    fn listeners(&self) -> Vec<Listening> {
        let listening = |socket: &SnapSocket| {
            let (queued, limit) = queue(socket);
            Listening { tuple: socket.tuple, who: who(socket.full.as_deref()), queued, limit }
        };
        let mut listeners: Vec<_> = self.sockets.listeners.iter().map(listening).collect();
        listeners.sort_by_key(|listener| {
            (i64::from(listener.limit) - i64::from(listener.queued), listener.tuple.lport)
        });
        listeners
    }
}

/// Readings that are kept of a namespace: those of a minute, and one more.
const READINGS: usize = 17;

/// Of a listener: how many wait, and how many may.
fn queue(listener: &SnapSocket) -> (u32, u32) {
    listener.full.as_ref().map_or((0, 0), |full| (full.queues.unread, full.queues.unsent))
}

fn who(full: Option<&SnapFull>) -> Who {
    match full {
        Some(SnapFull { holder: Some(Holder { task, .. }), .. }) => {
            Who::Process { pid: task.tgid, name: task.name() }
        }
        _ => Who::Unknown,
    }
}
