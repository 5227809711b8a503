//! The pressure on ephemeral ports: for each peer that this host connects to, how many local ports
//! are taken, how fast they go and come back, and when connect() will find none.
//!
//! What counts: connections that connect() of this host gave a port. A port is taken for one
//! local address, peer address and peer port; for another peer it is free. A port that bind() or
//! listen() took is taken for all of them. Connections that were accepted take none.
//!
//! What is in use is counted anew from the tracker at the end of each interval; rates are counted
//! from changes. Of a connection from before the run it is not known who opened it: its local
//! port says so, if it is a listener's it was accepted. Nor is it known whether it was bound.

mod flow;
mod forecast;
mod limits;
mod path;

pub use flow::Flow;
use flow::Flows;
use forecast::Course;
pub use forecast::Outlook;
pub use limits::{Limits, Reuse};
pub use path::Path;

use super::keyed::Keyed;
use tcptrace_model::{
    Birth, Change, Found, How, Input, MinisocksBy, NetnsKnobs, Opened, TcpState, Tuple,
    hash::{Map, Set},
};

/// Peers that are told apart; for more there is no room, which is counted.
pub const DEFAULT_LIMIT: usize = 1 << 18;

/// Ports of listeners and bound connections that are remembered.
const BOUND_LIMIT: usize = 1 << 17;

/// What a second of it is no more than nothing, where rates are shown to a tenth.
const LEAST_RATE: f64 = 0.05;

/// `TCP_TIMEWAIT_LEN`, seconds.
const TIMEWAIT_LEN_S: f64 = 60.0;

/// One path at the end of an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub path: Path,
    /// Ports of connections that are not in TIME_WAIT.
    pub live: u64,
    /// Ports in TIME_WAIT; `None`: not observable.
    pub time_wait: Option<u64>,
    /// Of those, how many connect() may take all the same (`tcp_tw_reuse`); `None`: not known.
    pub reusable: Option<u64>,
    /// Of those in TIME_WAIT, how many connect() may take or may not: it is not known whether their
    /// peers have sent timestamps. If there are any, `reusable` and `free` are not known.
    pub uncertain: u64,
    /// Ports that connect() may choose one of: offered by the sysctls, and not taken for all
    /// peers; `None`: not known.
    pub usable: Option<u64>,
    /// Ports that it would find now; `None`: not known.
    pub free: Option<u64>,
    /// As `free`, at least: none of the [`uncertain`](Self::uncertain) ones may be taken. All of them
    /// make it as many more.
    pub free_at_least: Option<u64>,
    /// What happened in the interval.
    pub flow: Flow<u64>,
    /// connect() that found no port, since the start.
    pub failed_total: u64,
    /// What happens a second, smoothed.
    pub smoothed: Flow<f64>,
    /// When connect() will find none.
    pub outlook: Outlook,
}

impl Row {
    /// connect() that found no port, in the interval and since the start; `None` where the hook
    /// tells neither the namespace nor why connect() failed.
    pub fn failures(&self) -> Option<(u64, u64)> {
        self.path.netns.map(|_| (self.flow.failed, self.failed_total))
    }
}

/// The network namespace of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Inode; `None`: the hook cannot tell.
    pub netns: Option<u32>,
    /// What its sysctls allow, or why that is not known.
    pub limits: Result<Limits, String>,
    /// Ports on offer that are taken for all peers: by listeners, by what they accepted, and by
    /// connections that were bound to a port before connect().
    pub bound: u64,
    /// Nothing tells of its TIME_WAITs.
    pub time_wait_unseen: bool,
}

/// All paths at the end of an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// Its length.
    pub seconds: f64,
    /// The worst first.
    pub rows: Vec<Row>,
    /// Those of the rows.
    pub spaces: Vec<Space>,
    /// Connections that no path had room for.
    pub left_out: u64,
}

impl Interval {
    /// Which part of the ports that connect() may choose it would not find now, on the path where
    /// that is largest: 0 to 1; 0 where no path takes any, `None` where it is known of none.
    pub fn worst_used(&self) -> Option<f64> {
        if self.rows.is_empty() {
            return Some(0.0);
        }
        let used = |row: &Row| {
            let (usable, free) = (row.usable?, row.free?);
            Some(if usable == 0 { 1.0 } else { usable.saturating_sub(free) as f64 / usable as f64 })
        };
        self.rows.iter().filter_map(used).reduce(f64::max)
    }
}

/// What connections take on one path, at a moment.
#[derive(Clone, Debug, Default)]
struct Taken {
    live: u64,
    /// Since when each TIME_WAIT is one, and whether its peer has sent timestamps.
    time_waits: Vec<(u64, Option<bool>)>,
}

/// Keeps the account.
pub struct Ports {
    limits: Keyed<u32, Result<Limits, String>>,
    flows: Keyed<Path, Flows>,
    /// Ports that have been listened on: a connection from before that has one was accepted.
    listening: Set<(Option<u32>, u16)>,
    /// Connections whose port was bound before connect(), by their id.
    bound: Set<u64>,
    /// Something tells of minisocks.
    time_wait_seen: bool,
    began_ns: u64,
    /// Intervals were passed over.
    passed: bool,
    hz: u32,
    limit: usize,
    left_out: u64,
}

impl Default for Ports {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Ports {
    /// An account of at most `limit` paths.
    pub fn new(limit: usize) -> Self {
        Self {
            limits: Keyed::default(),
            flows: Keyed::default(),
            listening: Set::default(),
            bound: Set::default(),
            time_wait_seen: false,
            began_ns: 0,
            passed: false,
            hz: 0,
            limit,
            left_out: 0,
        }
    }

    /// The first interval begins.
    pub fn start(&mut self, now_ns: u64) {
        self.flows.clear();
        self.began_ns = now_ns;
    }

    /// Takes in what is not an event.
    pub fn input(&mut self, input: &Input) {
        match input {
            Input::Begin { hz, minisocks, .. } => {
                self.hz = *hz;
                self.time_wait_seen = *minisocks != MinisocksBy::Nothing;
            }
            Input::Knobs(knobs) => {
                let NetnsKnobs { netns, knobs, .. } = &**knobs;
                self.limits.insert(*netns, Limits::of(knobs));
            }
            _ => {}
        }
    }

    /// Takes in one change.
    pub fn change(&mut self, change: &Change) {
        let moved = match change {
            Change::Moved(moved) => moved,
            Change::Found(found) => {
                if found.state == TcpState::Listen {
                    self.listens(found.netns, found.tuple.lport);
                }
                return;
            }
            Change::Gone(gone) => {
                self.bound.remove(&gone.id);
                return;
            }
            Change::Retired(_) => return,
        };
        if moved.new == TcpState::Listen {
            self.listens(moved.netns, moved.tuple.lport);
        }
        let begins = (moved.old, moved.new) == (TcpState::Close, TcpState::SynSent);
        // connect() of a socket without a port gets one after this event, so it has none in it.
        if begins && moved.tuple.lport != 0 {
            if self.bound.len() < BOUND_LIMIT {
                self.bound.insert(moved.id);
            }
            return;
        }
        let ends = moved.new == TcpState::Close;
        let fails = moved.verdict.how == Some(How::NoLocalPort);
        if !(begins || ends || fails || moved.new == TcpState::TimeWait) {
            // On the way through the other states it keeps its port: most events are such.
            return;
        }
        // Few are, on most hosts none.
        let was_bound = !self.bound.is_empty()
            && if ends { self.bound.remove(&moved.id) } else { self.bound.contains(&moved.id) };
        if was_bound || !self.counts(moved.netns, &moved.tuple, moved.birth) {
            return;
        }
        let path = Path::of(moved.netns, &moved.tuple);
        let Some(flow) = self.flow(path, moved.mono_ns) else { return };
        if begins {
            flow.opened += 1;
        } else if fails {
            flow.opened -= 1;
            flow.failed += 1;
        } else if ends {
            flow.returned += 1;
            flow.at_once += i64::from(moved.old != TcpState::TimeWait);
        } else {
            flow.to_time_wait += 1;
        }
    }

    fn listens(&mut self, netns: Option<u32>, port: u16) {
        if self.listening.len() < BOUND_LIMIT {
            self.listening.insert((netns, port));
        }
    }

    /// Whether a connection that was not bound takes one of the ports that connect() chooses.
    fn counts(&mut self, netns: Option<u32>, tuple: &Tuple, birth: Option<Birth>) -> bool {
        let connected = match birth.map(|birth| birth.opened) {
            Some(Opened::Connect) => true,
            Some(Opened::Accept | Opened::Listen) => false,
            None => !self.listening.contains(&(netns, tuple.lport)),
        };
        // An autobound port that is not known yet is one of those that are chosen.
        if !connected || tuple.lport == 0 {
            return connected;
        }
        let limits = netns.and_then(|netns| self.limits.get_mut(&netns));
        limits.and_then(|limits| limits.as_ref().ok()).is_none_or(|it| it.offers(tuple.lport))
    }

    fn flow(&mut self, path: Path, at_ns: u64) -> Option<&mut Flow<i64>> {
        if self.flows.len() >= self.limit && self.flows.get_mut(&path).is_none() {
            self.left_out += 1;
            return None;
        }
        Some(&mut self.flows.of(&path, || Flows::new(at_ns)).now)
    }

    /// Ends the interval at `now_ns`, with all connections that are known then. The time of each
    /// is since when it is in its state.
    pub fn interval<C>(&mut self, now_ns: u64, census: impl Fn() -> C) -> Interval
    where
        C: Iterator<Item = Found>,
    {
        let (taken, bound) = self.count(&census);
        let seconds = now_ns.saturating_sub(self.began_ns) as f64 / 1e9;
        let paths: Set<Path> =
            taken.keys().chain(self.flows.iter().map(|(path, _)| path)).copied().collect();
        let nothing = Taken::default();
        let mut rows: Vec<Row> = Vec::with_capacity(paths.len());
        for path in paths {
            let bound = bound.get(&path.netns).map_or(0, |ports| ports.len() as u64);
            let taken = taken.get(&path).unwrap_or(&nothing);
            let row = self.row(path, taken, bound, now_ns);
            // What happened in an interval that was passed over still shows as a rate.
            let rate =
                if self.passed { row.smoothed.opened.max(row.smoothed.returned) } else { 0.0 };
            let moved = row.flow != Flow::default() || row.failed_total > 0 || rate >= LEAST_RATE;
            if moved || row.live > 0 || !taken.time_waits.is_empty() {
                rows.push(row);
            }
        }
        self.over(now_ns);
        rows.sort_by(|a, b| {
            urgency(a).total_cmp(&urgency(b)).then_with(|| {
                let taken = |row: &Row| row.live + row.time_wait.unwrap_or(0);
                taken(b).cmp(&taken(a)).then_with(|| a.path.cmp(&b.path))
            })
        });
        let spaces = self.spaces(&rows, &bound);
        Interval { seconds, rows, spaces, left_out: self.left_out }
    }

    /// Ends an interval of which nobody asks what was in it, if that is as long as `length_ns`: so
    /// that what is said next is not of all the time since.
    pub fn pass(&mut self, now_ns: u64, length_ns: u64) {
        if now_ns.saturating_sub(self.began_ns) < length_ns {
            return;
        }
        self.passed = true;
        let began_ns = self.began_ns;
        self.flows.values_mut().for_each(|flows| flows.roll(began_ns, now_ns));
        self.over(now_ns);
    }

    /// The next interval begins.
    fn over(&mut self, now_ns: u64) {
        self.began_ns = now_ns;
        self.flows.retain(|flows| !flows.past.is_over());
    }

    /// What is taken on each path, and in each namespace for all.
    fn count<C>(
        &mut self,
        census: &impl Fn() -> C,
    ) -> (Map<Path, Taken>, Map<Option<u32>, Set<u16>>)
    where
        C: Iterator<Item = Found>,
    {
        let mut taken: Map<Path, Taken> = Map::default();
        let mut bound: Map<Option<u32>, Set<u16>> = Map::default();
        // Listeners first: they say which connections from before were accepted.
        for found in census().filter(|found| found.state == TcpState::Listen) {
            self.listens(found.netns, found.tuple.lport);
        }
        for found in census() {
            let Found { netns, tuple, .. } = found;
            let is_bound = self.bound.contains(&found.id);
            if !is_bound && self.counts(netns, &tuple, found.birth) {
                let path = Path::of(netns, &tuple);
                if !taken.contains_key(&path) && taken.len() >= self.limit {
                    self.left_out += 1;
                    continue;
                }
                let taken = taken.entry(path).or_default();
                match found.state {
                    TcpState::TimeWait => taken.time_waits.push((found.mono_ns, found.timestamps)),
                    _ => taken.live += 1,
                }
                continue;
            }
            let limits = netns.and_then(|netns| self.limits.get(&netns)?.as_ref().ok());
            if limits.is_some_and(|limits| limits.offers(tuple.lport)) {
                bound.entry(netns).or_default().insert(tuple.lport);
            }
        }
        (taken, bound)
    }

    fn row(&mut self, path: Path, taken: &Taken, bound: u64, now_ns: u64) -> Row {
        let limits = path.netns.and_then(|netns| self.limits.get(&netns)?.as_ref().ok());
        let seen = self.time_wait_seen;
        let usable = limits.map(|limits| u64::from(limits.offered()).saturating_sub(bound));
        let after_ns = limits.and_then(|limits| limits.reuse.after_ns(path.laddr, path.raddr));
        let (sure, hoped) = (
            held(&taken.time_waits, now_ns, self.hz, after_ns, false),
            held(&taken.time_waits, now_ns, self.hz, after_ns, true),
        );
        let time_wait = taken.time_waits.len() as u64;
        let taken_now = taken.live + sure.due_s.len() as u64;
        let uncertain = (sure.due_s.len() - hoped.due_s.len()) as u64;

        let mut flow = Flow::default();
        let (mut failed_total, mut smoothed, mut growth_per_s) = (0, Flow::default(), 0.0);
        if let Some(flows) = self.flows.get_mut(&path) {
            flow = flows.now.map(|count| u64::try_from(count).unwrap_or(0));
            flows.roll(self.began_ns, now_ns);
            failed_total = flows.past.failed;
            smoothed = flows.past.smoothed();
            growth_per_s = flows.past.growth_per_s(taken.live);
        }
        let outlook = |held: &Held| match usable {
            Some(offered) if seen => Course {
                offered,
                taken: taken.live + held.due_s.len() as u64,
                due_s: &held.due_s,
                to_time_wait_per_s: smoothed.to_time_wait,
                held_s: held.next_s,
                growth_per_s,
            }
            .outlook(),
            _ => Outlook::Unknown,
        };
        let outlook = match (outlook(&sure), outlook(&hoped)) {
            (sure, hoped) if sure == hoped => sure,
            // It depends on what is not known.
            _ => Outlook::Unknown,
        };
        let outlook = match outlook {
            // Whatever the account says, connect() is right.
            _ if flow.failed > 0 => Outlook::Now,
            // It has failed before: that it never will is not to be said beside that.
            Outlook::Never if failed_total > 0 => Outlook::Unknown,
            outlook => outlook,
        };
        let free_at_least = usable.filter(|_| seen).map(|usable| usable.saturating_sub(taken_now));
        Row {
            path,
            live: taken.live,
            time_wait: seen.then_some(time_wait),
            reusable: (seen && limits.is_some() && uncertain == 0)
                .then(|| time_wait - sure.due_s.len() as u64),
            uncertain,
            usable,
            free: free_at_least.filter(|_| uncertain == 0),
            free_at_least,
            flow,
            failed_total,
            smoothed,
            outlook,
        }
    }

    fn spaces(&self, rows: &[Row], bound: &Map<Option<u32>, Set<u16>>) -> Vec<Space> {
        let mut spaces: Vec<Space> = Vec::new();
        let mut told = Set::default();
        for netns in rows.iter().map(|row| row.path.netns).filter(|netns| told.insert(*netns)) {
            let limits = match netns {
                None => Err("this hook does not tell the network namespace".to_owned()),
                Some(netns) => self.limits.get(&netns).cloned().unwrap_or_else(|| {
                    Err("its sysctls were not read: it cannot be reached".to_owned())
                }),
            };
            spaces.push(Space {
                netns,
                limits,
                bound: bound.get(&netns).map_or(0, |ports| ports.len() as u64),
                time_wait_unseen: !self.time_wait_seen,
            });
        }
        spaces
    }
}

/// The TIME_WAITs that keep their ports from connect().
struct Held {
    /// In how many seconds each gives its port back, in order.
    due_s: Vec<f64>,
    /// How long one that begins now will keep it, seconds.
    next_s: f64,
}

/// Which of these TIME_WAITs connect() may not take, where `tcp_tw_reuse` lets it take one that is
/// `after_ns` old: only where the peer has sent timestamps (`tcp_twsk_unique()`). With `hoping` those
/// of which that is not known have.
fn held(
    time_waits: &[(u64, Option<bool>)],
    now_ns: u64,
    hz: u32,
    after_ns: Option<u64>,
    hoping: bool,
) -> Held {
    let whole_s = TIMEWAIT_LEN_S + late_s(hz);
    // Of an age that is not known better: since then at the latest.
    let mut due_s: Vec<f64> = Vec::with_capacity(time_waits.len());
    for &(since_ns, timestamps) in time_waits {
        let age_s = now_ns.saturating_sub(since_ns) as f64 / 1e9;
        match after_ns.filter(|_| timestamps.unwrap_or(hoping)) {
            Some(after_ns) => {
                let left_s = after_ns as f64 / 1e9 - age_s;
                due_s.extend((left_s > 0.0).then_some(left_s));
            }
            None => due_s.push(whole_s - age_s),
        }
    }
    due_s.sort_by(f64::total_cmp);
    // The peer is the same one for all: as those before, so the next.
    let may_take = time_waits.iter().all(|(_, timestamps)| timestamps.unwrap_or(hoping));
    let next_s = after_ns.filter(|_| may_take).map_or(whole_s, |ns| ns as f64 / 1e9);
    Held { due_s, next_s }
}

/// How much later than its 60 s a TIME_WAIT ends on average, in seconds: half of a slot of the
/// timer wheel, which are 8 times as wide each 63 slots (`LVL_START()`, `calc_index()`).
fn late_s(hz: u32) -> f64 {
    if hz == 0 {
        return 0.0;
    }
    let mut slot = 1.0;
    while TIMEWAIT_LEN_S * f64::from(hz) >= 63.0 * slot {
        slot *= 8.0;
    }
    slot / 2.0 / f64::from(hz)
}

/// What comes first in order: seconds until connect() fails.
fn urgency(row: &Row) -> f64 {
    match row.outlook {
        Outlook::Now => 0.0,
        Outlook::In(seconds) => seconds,
        Outlook::Unknown | Outlook::Never => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests;
