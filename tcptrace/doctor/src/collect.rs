//! Gathers the facts from inputs and changes, whatever their source.
//!
//! Sockets are as the last round of snapshots has them; what stayed was in the first one too.
//! Counters are those of the first and the last reading. How connections ended, and ports, are the
//! business of `tcptrace_stats::closers` and `tcptrace_stats::ports`.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
};

use super::facts::{
    CloseWait, Counted, Ended, HostFacts, Lasting, Listening, NetnsFacts, Setting, Watched, Who,
};
use tcptrace_model::{
    Change, Found, Holder, Input, Knobs, NetStat, SnapFull, SnapSocket, Snapshot, TcpState, Tuple,
    hash::{Map, Set},
};
use tcptrace_stats::{
    closers::{self, Closers, DEFAULT_LIMIT},
    ports::{self, Ports},
};
use tcptrace_track::Tracker;

/// Sockets whose staying is watched, in one namespace.
const WATCHED_LIMIT: usize = 1 << 18;
/// Namespaces whose ends are counted.
const SPACES_LIMIT: usize = 4096;
/// Namespaces of which anything is known.
const SPACES: usize = 1 << 16;
/// From so many TIME_WAITs on it is counted whose they are.
pub const WORTH_NAMING: u64 = 1000;

/// What the host tells beside the inputs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// As in [`HostFacts::defaults`].
    pub defaults: Result<Knobs, String>,
    /// As in [`HostFacts::files`].
    pub files: Vec<Setting>,
    /// As in [`Watched::events`].
    pub events: Result<(), String>,
}

impl Setup {
    /// Of a recording, which has none of it: what it lacks is another host's.
    pub fn recorded() -> Self {
        Self { defaults: Err("not recorded".to_owned()), files: Vec::new(), events: Ok(()) }
    }
}

/// Gathers.
pub struct Collector {
    setup: Setup,
    ports: Ports,
    closers: Map<u32, Closers>,
    spaces: BTreeMap<u32, Space>,
    /// The namespace whose dump is being told.
    current: Option<(u32, Sockets)>,
    /// The round that is being told.
    round: Round,
    /// Since when all is watched: the first whole round was over.
    began_ns: Option<u64>,
    ended_ns: u64,
    lossy: bool,
    /// There was a connection whose namespace is not known.
    unplaced: bool,
    /// There was no room for what happened in some namespace.
    crowded: bool,
}

/// Paths of which it is said who takes their ports.
const NAMED_PATHS: usize = 256;

/// Why what happened to connections says nothing of a namespace.
const UNPLACED: &str = "the hook in force (tracepoint) does not tell the namespace of a connection";

#[derive(Default)]
struct Round {
    /// Of minisocks alone: not for us.
    minisocks: bool,
    told: Set<u32>,
}

/// One namespace, so far.
#[derive(Default)]
struct Space {
    knobs: Knobs,
    counted: Counted,
    first_ns: u64,
    /// The connections that were in a state to be left soon at the first look, by cookie and ends
    /// (a socket that connects again keeps its cookie), and how long they were in it then, at the
    /// least, in milliseconds.
    early: Option<Map<(u64, Tuple), Option<NonZeroU64>>>,
    looks: u64,
    sockets: Sockets,
    /// By cookie, the longest queue for accept() of any look.
    queued: Map<u64, u32>,
}

/// One dump.
#[derive(Default)]
struct Sockets {
    states: HashMap<TcpState, u64>,
    /// In CLOSE_WAIT and held, or orphans in FIN_WAIT2.
    waiting: Vec<SnapSocket>,
    listeners: Vec<SnapSocket>,
}

impl Sockets {
    fn add(&mut self, socket: &SnapSocket) {
        *self.states.entry(socket.state).or_default() += 1;
        let orphan = socket.full.as_ref().is_none_or(|full| full.inode == 0);
        match socket.state {
            TcpState::Listen if self.listeners.len() < WATCHED_LIMIT => {
                self.listeners.push(socket.clone());
            }
            TcpState::CloseWait if self.waiting.len() < WATCHED_LIMIT => {
                self.waiting.push(socket.clone());
            }
            TcpState::FinWait2 if orphan && self.waiting.len() < WATCHED_LIMIT => {
                self.waiting.push(socket.clone());
            }
            _ => {}
        }
    }
}

impl Collector {
    /// One that has seen nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            ports: Ports::default(),
            closers: Map::default(),
            spaces: BTreeMap::new(),
            current: None,
            round: Round::default(),
            began_ns: None,
            ended_ns: 0,
            lossy: false,
            unplaced: false,
            crowded: false,
        }
    }

    /// Takes in what is not an event. Says whether a round of all sockets is over with it.
    pub fn input(&mut self, input: &Input) -> bool {
        self.ports.input(input);
        match input {
            Input::Knobs(knobs) => {
                if let Some(space) = self.space(knobs.netns) {
                    space.knobs = knobs.knobs.clone();
                }
            }
            Input::Counters(counters) => {
                if let Some(space) = self.space(counters.netns) {
                    space.count(counters.mono_ns, &counters.counters);
                }
            }
            Input::Lost(_) | Input::Missed { .. } => self.lossy = true,
            Input::Snapshot(snapshot) => return self.snapshot(snapshot),
            _ => {}
        }
        false
    }

    /// What is known of a namespace; `None` if there is no room for another.
    fn space(&mut self, netns: u32) -> Option<&mut Space> {
        if self.spaces.len() >= SPACES && !self.spaces.contains_key(&netns) {
            self.crowded = true;
            return None;
        }
        Some(self.spaces.entry(netns).or_default())
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> bool {
        match snapshot {
            Snapshot::Open => self.round = Round::default(),
            Snapshot::OpenMinisocks => {
                self.round = Round { minisocks: true, ..Round::default() };
            }
            Snapshot::Begin { netns, .. } => {
                if self.round.told.len() < SPACES || self.spaces.contains_key(netns) {
                    self.round.told.insert(*netns);
                }
                self.current = Some((*netns, Sockets::default()));
            }
            Snapshot::Socket(socket) => {
                if let Some((_, sockets)) = &mut self.current {
                    sockets.add(socket);
                }
            }
            Snapshot::End(end) => {
                let taken = self.current.take().filter(|_| !self.round.minisocks);
                if let Some((netns, mut sockets)) = taken {
                    let unseen = end.unseen;
                    for (state, count) in [
                        (TcpState::SynRecv, unseen.syn_queue),
                        (TcpState::FinWait2, unseen.fin_wait2),
                        (TcpState::TimeWait, unseen.time_wait),
                    ] {
                        *sockets.states.entry(state).or_default() += u64::from(count);
                    }
                    if let Some(space) = self.space(netns) {
                        space.dumped(sockets);
                    }
                }
            }
            Snapshot::Over { mono_ns, all: true } => {
                self.ended_ns = *mono_ns;
                // What a whole round does not have is gone.
                self.spaces.retain(|netns, _| self.round.told.contains(netns));
                if self.began_ns.is_none() {
                    self.began_ns = Some(*mono_ns);
                    self.ports.start(*mono_ns);
                }
                return true;
            }
            Snapshot::Info(_)
            | Snapshot::SynQueue(_)
            | Snapshot::Bound(_)
            | Snapshot::Over { .. } => {}
        }
        false
    }

    /// Takes in a change.
    pub fn change(&mut self, change: &Change) {
        self.ports.change(change);
        let Change::Moved(moved) = change else { return };
        let Some(netns) = moved.netns else {
            self.unplaced = true;
            return;
        };
        // Most do not: those need not find where.
        if !closers::counts(change) {
            return;
        }
        if self.closers.len() >= SPACES_LIMIT && !self.closers.contains_key(&netns) {
            self.crowded = true;
        } else {
            let new = || Closers::new(None, DEFAULT_LIMIT);
            self.closers.entry(netns).or_insert_with(new).add(change);
        }
    }

    /// How long all was watched, nanoseconds; `None`: no round is over yet.
    pub fn watched_ns(&self) -> Option<u64> {
        self.began_ns.map(|began| self.ended_ns.saturating_sub(began))
    }

    /// The facts at `now_ns`.
    pub fn facts(&mut self, now_ns: u64, tracker: &Tracker) -> HostFacts {
        let interval = self.ports.interval(now_ns, || tracker.census());
        let mut paths: Map<u32, Vec<_>> = Map::default();
        let mut rows = interval.rows;
        // The worst come first, and only those are named.
        let pressed = rows.len().min(NAMED_PATHS);
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
        let watched_ms = self.watched_ns().unwrap_or(0) / 1_000_000;
        let spaces = std::mem::take(&mut self.spaces);
        let spaces = spaces
            .into_iter()
            .map(|(netns, space)| {
                let mut facts = space.facts(netns, watched_ms);
                facts.paths = paths.remove(&netns).unwrap_or_default();
                facts.bound = bound.remove(&netns);
                facts.lists_bound = self.ports.lists_bound(netns);
                facts.ports_unknown = unknown.remove(&netns);
                self.ends(&mut facts, now_ns, tracker);
                facts
            })
            .collect();
        HostFacts {
            watched: Watched {
                seconds: self.watched_ns().unwrap_or(0) as f64 / 1e9,
                events: match self.setup.events.clone() {
                    Ok(()) if self.unplaced => Err(UNPLACED.to_owned()),
                    Ok(()) if self.crowded => Err(format!(
                        "more than {SPACES_LIMIT} network namespaces: what happened in the others \
                         was not counted"
                    )),
                    events => events,
                },
                lossy: self.lossy,
            },
            defaults: self.setup.defaults.clone(),
            files: self.setup.files.clone(),
            spaces,
        }
    }

    /// How connections of this namespace ended, and whose TIME_WAITs there are.
    fn ends(&mut self, facts: &mut NetnsFacts, now_ns: u64, tracker: &Tracker) {
        let new = || Closers::new(None, DEFAULT_LIMIT);
        let mut closers = self.closers.remove(&facts.netns).unwrap_or_else(new);
        let named = facts.count(TcpState::TimeWait) >= WORTH_NAMING;
        let here = |found: &Found| named && found.netns == Some(facts.netns);
        // A host has up to a million connections: only where there is something to name.
        let census = named.then(|| tracker.census()).into_iter().flatten().filter(here);
        for (key, tally) in closers.take(now_ns, census) {
            let who = key.to_string();
            let endings = tally.endings().map(|(ending, count)| (ending.how, count));
            for (how, count) in endings.chain(tally.failures()) {
                facts.endings.push(Ended { who: who.clone(), how, count });
            }
            if tally.alive() > 0 {
                facts.time_wait_by.push((who, tally.alive()));
            }
        }
        facts.time_wait_by.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        facts.endings.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.who.cmp(&b.who)));
    }
}

impl Space {
    fn count(&mut self, mono_ns: u64, read: &Result<NetStat, Box<str>>) {
        match read {
            Ok(stat) if self.counted.last.is_none() => {
                self.first_ns = mono_ns;
                self.counted.last = Some(stat.clone());
            }
            Ok(stat) => {
                let before = self.counted.last.replace(stat.clone());
                if self.counted.first.is_none() {
                    self.counted.first = before;
                }
                self.counted.seconds = mono_ns.saturating_sub(self.first_ns) as f64 / 1e9;
            }
            Err(why) => self.counted.why = Some(why.to_string()),
        }
    }

    fn dumped(&mut self, sockets: Sockets) {
        if self.early.is_none() {
            let age = |socket: &SnapSocket| socket.full.as_ref().and_then(|full| full.in_state_ms);
            let early = sockets.waiting.iter();
            let early = early.map(|socket| ((socket.cookie, socket.tuple), age(socket)));
            self.early = Some(early.collect());
        }
        self.looks += 1;
        // Of those that are gone nothing is told.
        let longest = |listener: &SnapSocket| {
            let before = self.queued.get(&listener.cookie).copied().unwrap_or(0);
            (listener.cookie, queue(listener).0.max(before))
        };
        self.queued = sockets.listeners.iter().map(longest).collect();
        self.sockets = sockets;
    }

    fn facts(self, netns: u32, watched_ms: u64) -> NetnsFacts {
        let Self { knobs, counted, early, looks, sockets, queued, .. } = self;
        // The first look is not compared with itself.
        let early = early.filter(|_| looks > 1).unwrap_or_default();
        let mut fin_wait2 = Lasting::default();
        let mut close_wait: Map<Who, CloseWait> = Map::default();
        for socket in &sockets.waiting {
            let before = early.get(&(socket.cookie, socket.tuple));
            let stayed = u64::from(before.is_some());
            if socket.state == TcpState::FinWait2 {
                fin_wait2.now += 1;
                fin_wait2.stayed += stayed;
                continue;
            }
            let who = who(socket.full.as_deref());
            let new = CloseWait { who, count: Lasting::default(), unread: 0, oldest_ms: None };
            let group = close_wait.entry(who).or_insert(new);
            group.count.now += 1;
            group.count.stayed += stayed;
            let unread = socket.full.as_ref().is_some_and(|full| full.queues.unread > 0);
            group.unread += u64::from(unread) * stayed;
            // What the kernel told of it at the first look was true then.
            let age_ms = before.copied().flatten().map(|ms| ms.get().saturating_add(watched_ms));
            group.oldest_ms = group.oldest_ms.max(age_ms);
        }
        // Those that were counted and not kept.
        let known: u64 = close_wait.values().map(|group| group.count.now).sum();
        let all = sockets.states.get(&TcpState::CloseWait).copied().unwrap_or(0);
        let nobody = Who::Unknown;
        if all > known {
            let new =
                CloseWait { who: nobody, count: Lasting::default(), unread: 0, oldest_ms: None };
            close_wait.entry(nobody).or_insert(new).count.now += all - known;
        }
        let mut close_wait: Vec<_> = close_wait.into_values().collect();
        close_wait
            .sort_by_key(|group| (std::cmp::Reverse(group.count.stayed), group.who.to_string()));
        let mut listeners: Vec<_> = sockets
            .listeners
            .iter()
            .map(|socket| Listening {
                tuple: socket.tuple,
                who: who(socket.full.as_deref()),
                queued: queued.get(&socket.cookie).copied().unwrap_or(0),
                limit: queue(socket).1,
            })
            .collect();
        listeners.sort_by_key(|listener| {
            (i64::from(listener.limit) - i64::from(listener.queued), listener.tuple.lport)
        });
        let counters = counted;
        let states = sockets.states;
        NetnsFacts {
            netns,
            knobs,
            counters,
            states,
            listeners,
            close_wait,
            fin_wait2,
            ..NetnsFacts::default()
        }
    }
}

/// Of a listener: how many wait, and how many may.
fn queue(listener: &SnapSocket) -> (u32, u32) {
    listener.full.as_ref().map_or((0, 0), |full| (full.queues.unread, full.queues.unsent))
}

fn who(full: Option<&SnapFull>) -> Who {
    match full {
        Some(SnapFull { holder: Some(Holder { task, .. }), .. }) => {
            Who::Process { pid: task.tgid, comm: task.comm }
        }
        Some(SnapFull { inode: 0, .. }) => Who::NotAccepted,
        _ => Who::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_model::script;

    use super::*;

    fn take(collector: &mut Collector, tracker: &mut Tracker, text: &str) {
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| collector.change(&change));
            collector.input(&input);
        }
    }

    #[test]
    fn ends_in_more_namespaces_than_there_is_room_for_are_said_not_to_be_counted() {
        let (mut collector, mut tracker) = (Collector::new(Setup::recorded()), Tracker::default());
        take(&mut collector, &mut tracker, "0ms begin");
        let close = |netns: usize| {
            let of = format!("10.0.0.1:7 10.0.0.2:443 cookie={netns:x} netns={netns}");
            format!(
                "1ms sk={netns:x} SYN_SENT>ESTABLISHED {of}\n\
                 2ms sk={netns:x} ESTABLISHED>CLOSE {of} err=104"
            )
        };
        for netns in 1..=SPACES_LIMIT {
            take(&mut collector, &mut tracker, &close(netns));
        }
        assert_eq!(collector.facts(3_000_000, &tracker).watched.events, Ok(()));
        // Facts give away what was counted: fill it anew.
        for netns in 1..=SPACES_LIMIT + 1 {
            take(&mut collector, &mut tracker, &close(netns));
        }
        let why = collector.facts(4_000_000, &tracker).watched.events.unwrap_err();
        assert!(why.contains("more than 4096 network namespaces"), "{why}");
    }

    #[test]
    fn listeners_that_are_gone_are_forgotten_and_close_waits_that_were_not_kept_are_counted() {
        let mut space = Space::default();
        for cookie in 1..100 {
            let text = format!("1ms socket LISTEN {cookie:x} 10.0.0.1:80 0.0.0.0:0 unread=3");
            let Some(Input::Snapshot(Snapshot::Socket(socket))) =
                script::inputs(&text).unwrap().pop()
            else {
                panic!("a socket")
            };
            let mut sockets = Sockets::default();
            sockets.add(&socket);
            sockets.states.insert(TcpState::CloseWait, 7);
            space.dumped(sockets);
            assert_eq!(space.queued.len(), 1);
        }
        let facts = space.facts(5, 0);
        assert_eq!(facts.close_wait.iter().map(|group| group.count.now).sum::<u64>(), 7);
    }
}
