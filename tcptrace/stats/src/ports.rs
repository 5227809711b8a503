//! The pressure on ephemeral ports: for each peer that this host connects to, how many local ports
//! are taken, how fast they go and come back, and when connect() will find none.
//!
//! What counts: connections that connect() of this host gave a port. A port is taken for one
//! local address, peer address and peer port; for another peer it is free. A port that bind() or
//! listen() took is taken for all of them, whatever the address that it was bound to
//! (`__inet_hash_connect()` passes over it). Connections that were accepted take none.
//!
//! What is in use is counted anew from the tracker at the end of each interval; rates are counted
//! from changes. Of a connection from before the run it is not known who opened it: its local
//! port says so, if it is a listener's it was accepted. Nor is it known whether it was bound.

mod bound;
mod flow;
mod forecast;
mod held;
mod limits;
mod path;
mod takers;

use bound::BoundPorts;
pub use flow::Flow;
use flow::Flows;
use forecast::Course;
pub use forecast::Outlook;
use held::{Held, held};
pub use limits::{Limits, Reuse};
pub use path::Path;
pub use takers::{Taker, Takers};

use takers::Counted;

use super::keyed::Keyed;
use tcptrace_model::{
    Birth, BoundPort, Change, Found, How, Input, MinisocksBy, NetnsSysctls, Opened, Task, TcpState,
    Tuple,
    hash::{Map, Set},
};
use tcptrace_track::namespaces::Namespaces;

/// Peers that are told apart; for more there is no room, which is counted.
pub const DEFAULT_LIMIT: usize = 1 << 18;

/// Ports of listeners and bound connections that are remembered.
const BOUND_LIMIT: usize = 1 << 17;

/// Network namespaces whose sysctls are remembered.
const NAMESPACES: usize = 1 << 16;

/// What a second of it is no more than nothing, where rates are shown to a tenth.
const LEAST_RATE: f64 = 0.05;

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
    /// connect() that found no port in a range of its socket's own (`IP_LOCAL_PORT_RANGE`), since the
    /// start: not among those. What such sockets open and return is in no rate.
    pub own_failed: u64,
    /// What happens a second, smoothed.
    pub smoothed: Flow<f64>,
    /// When connect() will find none.
    pub outlook: Outlook,
    /// Who takes those ports that are [`live`](Self::live) or in [`time_wait`](Self::time_wait);
    /// `None`: not asked ([`Ports::name_takers`]).
    pub takers: Option<Takers>,
}

impl Row {
    /// Which part of the ports that connect() may choose it would not find now: 0 to 1; `None` where
    /// that is not known.
    pub fn used(&self) -> Option<f64> {
        let (usable, free) = (self.usable?, self.free?);
        Some(if usable == 0 { 1.0 } else { usable.saturating_sub(free) as f64 / usable as f64 })
    }

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
    /// What it is called: by its name, if it has one, and its inode. Escaped.
    pub called: Option<String>,
    /// What its sysctls allow, or why that is not known.
    pub limits: Result<Limits, String>,
    /// Ports on offer that are taken for all peers: by listeners, by what they accepted, by
    /// connections that were bound to a port before connect(), and those of
    /// [`inactive`](Self::inactive).
    pub bound: u64,
    /// Ports on offer that sockets were bound to at the last scan which neither listened nor were
    /// connected; `None`: not known (before Linux 6.8), and [`bound`](Self::bound) is a lower bound.
    pub inactive: Option<u64>,
    /// Who took those of `bound`.
    pub bound_by: Takers,
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
    /// Those of the rows, and those where ports are bound.
    pub spaces: Vec<Space>,
    /// Connections that no path had room for.
    pub left_out: u64,
    /// Sockets that are bound to a port, have a range of their own or listen, and for which there was no
    /// room: their connections are counted as if connect() had chosen their ports.
    pub not_remembered: u64,
}

impl Space {
    /// The ports that are on offer, if all of them are bound: connect() finds none, whatever the peer,
    /// and nor does bind() to port 0, unless for an address that some of them are not bound to.
    pub fn used_up(&self) -> Option<u64> {
        let offered = u64::from(self.limits.as_ref().ok()?.offered());
        (self.bound >= offered).then_some(offered)
    }
}

impl Interval {
    /// Which part of the ports that connect() may choose it would not find now, on the path where
    /// that is largest: 0 to 1; 0 where no path takes any, `None` where it is known of none.
    pub fn worst_used(&self) -> Option<f64> {
        if self.spaces.iter().any(|space| space.used_up().is_some()) {
            return Some(1.0);
        }
        if self.rows.is_empty() {
            return Some(0.0);
        }
        self.rows.iter().filter_map(Row::used).reduce(f64::max)
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
    /// Connections that choose from a range of their own (`IP_LOCAL_PORT_RANGE`), likewise.
    own_range: Set<u64>,
    /// connect() of these that found no port.
    own_failed: Map<Path, u64>,
    /// Ports that are bound and nothing else.
    inactive: BoundPorts,
    names: Namespaces,
    /// Something tells of minisocks.
    time_wait_seen: bool,
    began_ns: u64,
    /// Intervals were passed over.
    passed: bool,
    hz: u32,
    limit: usize,
    left_out: u64,
    /// Sockets and listeners' ports that sets had no room for.
    not_remembered: u64,
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
            own_range: Set::default(),
            own_failed: Map::default(),
            inactive: BoundPorts::default(),
            names: Namespaces::default(),
            time_wait_seen: false,
            began_ns: 0,
            passed: false,
            hz: 0,
            limit,
            left_out: 0,
            not_remembered: 0,
        }
    }

    /// The first interval begins.
    pub fn start(&mut self, now_ns: u64) {
        self.flows.clear();
        self.began_ns = now_ns;
    }

    /// Takes in what is not an event.
    pub fn input(&mut self, input: &Input) {
        self.inactive.input(input);
        self.names.input(input);
        match input {
            Input::Begin { hz, minisocks, .. } => {
                self.hz = *hz;
                self.time_wait_seen = *minisocks != MinisocksBy::Nothing;
            }
            Input::Sysctls(sysctls) => {
                let NetnsSysctls { netns, sysctls, .. } = &**sysctls;
                // Of more it is not known what they allow, which is said.
                if self.limits.len() < NAMESPACES || self.limits.get_mut(netns).is_some() {
                    self.limits.insert(*netns, Limits::of(sysctls));
                }
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
                self.own_range.remove(&gone.id);
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
            } else {
                self.not_remembered += 1;
            }
            return;
        }
        let has_own_range = moved.sock.as_ref().is_some_and(|sock| sock.own_ports);
        if begins && has_own_range {
            if self.own_range.len() < BOUND_LIMIT {
                self.own_range.insert(moved.id);
            } else {
                self.not_remembered += 1;
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
        if fails && has_own_range {
            // Its range is used up: that says nothing of the others' one.
            self.own_range.remove(&moved.id);
            if self.own_failed.len() < self.limit || self.own_failed.contains_key(&path) {
                *self.own_failed.entry(path).or_default() += 1;
            } else {
                self.left_out += 1;
            }
            return;
        }
        // How many choose from other ranges is no rate of those that choose from this one.
        let elsewhere = !self.own_range.is_empty()
            && if ends {
                self.own_range.remove(&moved.id)
            } else {
                self.own_range.contains(&moved.id)
            };
        if elsewhere {
            return;
        }
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
        } else if !self.listening.contains(&(netns, port)) {
            self.not_remembered += 1;
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
        let flowing = self.flows.iter().map(|(path, _)| path);
        let paths: Set<Path> =
            taken.keys().chain(flowing).chain(self.own_failed.keys()).copied().collect();
        let nothing = Taken::default();
        let mut rows: Vec<Row> = Vec::with_capacity(paths.len());
        for path in paths {
            let bound = bound.get(&path.netns).map_or(0, |bound| bound.ports.len() as u64);
            let taken = taken.get(&path).unwrap_or(&nothing);
            let row = self.row(path, taken, bound, now_ns);
            // What happened in an interval that was passed over still shows as a rate.
            let rate =
                if self.passed { row.smoothed.opened.max(row.smoothed.returned) } else { 0.0 };
            let moved = row.flow != Flow::default()
                || row.failed_total + row.own_failed > 0
                || rate >= LEAST_RATE;
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
        let spaces = self.spaces(&rows, bound);
        Interval {
            seconds,
            rows,
            spaces,
            left_out: self.left_out,
            not_remembered: self.not_remembered,
        }
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
    fn count<C>(&mut self, census: &impl Fn() -> C) -> (Map<Path, Taken>, Map<Option<u32>, Bound>)
    where
        C: Iterator<Item = Found>,
    {
        let mut taken: Map<Path, Taken> = Map::default();
        let mut bound = self.count_inactive();
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
                let ports = &mut bound.entry(netns).or_default().ports;
                ports.entry(tuple.lport).or_insert_with(|| takers::task(&found));
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
            own_failed: self.own_failed.get(&path).copied().unwrap_or(0),
            smoothed,
            outlook,
            takers: None,
        }
    }

    /// Ports that are bound and nothing else, in each namespace whose sysctls are known.
    fn count_inactive(&self) -> Map<Option<u32>, Bound> {
        let mut bound: Map<Option<u32>, Bound> = Map::default();
        for netns in self.inactive.spaces() {
            let limits = self.limits.get(&netns).and_then(|limits| limits.as_ref().ok());
            let Some((limits, ports)) = limits.zip(self.inactive.of(netns)) else { continue };
            let on_offer = ports.iter().filter(|port| limits.offers(port.lport));
            let taken = |port: &BoundPort| (port.lport, port.holder.map(|holder| holder.task));
            let ports: Map<_, _> = on_offer.map(taken).collect();
            bound.insert(Some(netns), Bound { inactive: Some(ports.len() as u64), ports });
        }
        bound
    }

    /// Says of each of `rows`, which are of one interval, who takes its ports. That takes another pass
    /// over the census: to be asked of those rows that are shown.
    pub fn name_takers<C>(&mut self, rows: &mut [Row], census: impl Fn() -> C)
    where
        C: Iterator<Item = Found>,
    {
        let mut counted: Map<Path, Counted> =
            rows.iter().map(|row| (row.path, Counted::default())).collect();
        if counted.is_empty() {
            return;
        }
        for found in census() {
            let path = Path::of(found.netns, &found.tuple);
            let Some(takers) = counted.get_mut(&path) else { continue };
            if !self.bound.contains(&found.id)
                && self.counts(found.netns, &found.tuple, found.birth)
            {
                takers.add(takers::task(&found));
            }
        }
        for row in rows {
            row.takers = counted.get(&row.path).map(Counted::takers);
        }
    }

    fn spaces(&self, rows: &[Row], mut bound: Map<Option<u32>, Bound>) -> Vec<Space> {
        let mut spaces: Vec<Space> = Vec::new();
        let mut told = Set::default();
        let mut without_rows: Vec<_> =
            bound.iter().filter(|(_, bound)| !bound.ports.is_empty()).map(|(n, _)| *n).collect();
        without_rows.sort_unstable();
        let all = rows.iter().map(|row| row.path.netns).chain(without_rows);
        for netns in all.filter(|netns| told.insert(*netns)) {
            let limits = match netns {
                None => Err("this hook does not tell the network namespace".to_owned()),
                Some(netns) => self.limits.get(&netns).cloned().unwrap_or_else(|| {
                    Err("its sysctls were not read: it cannot be reached".to_owned())
                }),
            };
            let Bound { ports, inactive } = bound.remove(&netns).unwrap_or_default();
            let mut by = Counted::default();
            ports.values().for_each(|task| by.add(*task));
            spaces.push(Space {
                netns,
                called: netns.map(|netns| self.names.long(netns)),
                limits,
                bound: ports.len() as u64,
                inactive,
                bound_by: by.takers(),
                time_wait_unseen: !self.time_wait_seen,
            });
        }
        spaces
    }

    /// Whether it is known which ports sockets of a namespace are bound to and nothing else.
    pub fn lists_bound(&self, netns: u32) -> bool {
        self.inactive.of(netns).is_some()
    }
}

/// Ports of a namespace that are taken for all peers, and by whom.
#[derive(Default)]
struct Bound {
    ports: Map<u16, Option<Task>>,
    /// As in [`Space::inactive`].
    inactive: Option<u64>,
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
