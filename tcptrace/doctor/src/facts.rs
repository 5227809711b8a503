//! What is known of a host, as plain values: all that a rule may look at.
//!
//! What could not be seen is `None` or an error with words, and never 0.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
};

use tcptrace_model::{
    How, Initiator, NetStat, Opened, ProcessName, SockStat, Sysctls, TcpState, Tuple,
};
use tcptrace_stats::{
    ports,
    stuck::{Cause, Door},
};

/// The host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// What was watched.
    pub watched: Watched,
    /// What a namespace of this kernel begins with, or why that is not known.
    pub defaults: Result<Sysctls, String>,
    /// What the host's sysctl files set.
    pub files: Vec<Setting>,
    /// Its network namespaces, in the order of their inodes.
    pub spaces: Vec<NetnsFacts>,
}

/// What was watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The window's length: from one scan of all sockets to another.
    pub seconds: f64,
    /// Whether it was seen what happened to the connections of each namespace; if not, why.
    pub events: Result<(), String>,
    /// Events that were lost in the window: what is counted by them is a lower bound.
    pub lost: Losses,
}

/// Events that tcptrace did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// So many are known of.
    pub events: u64,
    /// There was a loss of which nobody knows how many it took.
    pub uncounted: bool,
    /// Of a recording, the time of which nothing is known, nanoseconds.
    pub gap_ns: u64,
}

impl Losses {
    /// Whether there was any.
    pub fn is_any(self) -> bool {
        self.events > 0 || self.uncounted || self.gap_ns > 0
    }

    /// These and those.
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            uncounted: self.uncounted || other.uncounted,
            gap_ns: self.gap_ns.saturating_add(other.gap_ns),
        }
    }
}

/// An assignment in a sysctl file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file, escaped.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// Name with dots: `net.ipv4.tcp_tw_recycle`.
    pub key: String,
    /// What it is set to.
    pub value: String,
}

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct NetnsFacts {
    /// Its inode.
    pub netns: u32,
    /// Its name, if it has one, escaped.
    pub name: Option<Box<str>>,
    /// What it is called in a text: by its name, if it has one, and its inode.
    pub called: String,
    /// What comes before a command that is to run in it: `nsenter --net=/run/netns/blue `. Empty where it is the
    /// only one, or that of who asks.
    pub enter: String,
    /// Its sysctls.
    pub sysctls: Sysctls,
    /// The kernel's counters.
    pub counters: Counted,
    /// Sockets by state at the last look; in TIME_WAIT and FIN_WAIT2 minisocks are among them.
    pub states: HashMap<TcpState, u64>,
    /// Listeners at the last scan, the fullest first.
    pub listeners: Vec<Listening>,
    /// Connections that wait for something, those first of which most have for long.
    pub waiting: Vec<Waiting>,
    /// Paths on which this host connects, those first that run out of ports first.
    pub paths: Vec<ports::Row>,
    /// Its ports that are taken for all peers, if there are any.
    pub bound: Option<ports::Space>,
    /// Whether it is known which ports sockets are bound to that neither listen nor are connected.
    pub lists_bound: bool,
    /// Why it cannot be said when they do.
    pub ports_unknown: Option<String>,
    /// How connections ended while it was watched, by whom.
    pub endings: Vec<Ended>,
    /// TIME_WAITs at the end, by whom, the most first; empty where there are too few to name.
    pub time_wait_by: Vec<(String, u64)>,
}

impl NetnsFacts {
    /// The command that sets a sysctl in it.
    pub fn sysctl(&self, name: &str, value: impl fmt::Display) -> String {
        format!("{}sysctl -w {name}={value}", self.enter)
    }

    /// How many are in `state`.
    pub fn count(&self, state: TcpState) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// How many ended so while it was watched.
    pub fn ended(&self, which: impl Fn(How) -> bool) -> u64 {
        self.endings.iter().filter(|ended| which(ended.how)).map(|ended| ended.count).sum()
    }

    /// Those who ended most connections so, with how many, in words; empty if nobody did.
    pub fn who(&self, which: impl Fn(How) -> bool) -> String {
        let found = self.endings.iter().filter(|ended| which(ended.how));
        most(found.map(|ended| (ended.who.as_str(), ended.count)))
    }

    /// Those that wait in `state` for one of `causes`.
    pub fn waiting(
        &self,
        states: &[TcpState],
        causes: &[Cause],
    ) -> impl Iterator<Item = &Waiting> + Clone {
        let is =
            |waiting: &&Waiting| states.contains(&waiting.state) && causes.contains(&waiting.cause);
        self.waiting.iter().filter(is)
    }

    /// Orphans in FIN_WAIT2: now, and of those, how many have been for long.
    pub fn fin_wait2(&self) -> (u64, u64) {
        let orphans = self
            .waiting
            .iter()
            .filter(|waiting| waiting.state == TcpState::FinWait2 && waiting.who == Who::Orphan);
        orphans.fold((0, 0), |sum, group| (sum.0 + group.now, sum.1 + group.lasting))
    }
}

/// The three that have most, in words: `nginx :80 (17), curl →:443 (2)`. A name that comes more than
/// once is one group, and what is left out is counted, so that the numbers add up to the whole.
pub fn most<'a>(groups: impl Iterator<Item = (&'a str, u64)>) -> String {
    const NAMED: usize = 3;
    let mut joined: BTreeMap<&str, u64> = BTreeMap::new();
    groups.for_each(|(name, count)| *joined.entry(name).or_default() += count);
    let mut groups: Vec<_> = joined.into_iter().collect();
    groups.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let named: Vec<_> =
        groups.iter().take(NAMED).map(|(name, count)| format!("{name} ({count})")).collect();
    let more = groups.len().saturating_sub(NAMED);
    let left: u64 = groups.iter().skip(NAMED).map(|(_, count)| count).sum();
    let rest = if more > 0 { format!(" and {more} more ({left})") } else { String::new() };
    named.join(", ") + &rest
}

/// The counters that rules and sysctls ask for.
pub const COUNTERS: [&str; 11] = [
    "ActiveOpens",
    "PassiveOpens",
    "ListenOverflows",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
    "TCPTimeWaitOverflow",
    "TCPAbortOnData",
    "TCPAbortOnClose",
    "TCPAbortOnTimeout",
    "TCPAbortOnMemory",
    "SyncookiesSent",
];

/// [`COUNTERS`] at a moment: a namespace has some two hundred, and there may be thousands of
/// namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    values: [Option<u64>; COUNTERS.len()],
    /// How many sockets there were.
    pub sockets: SockStat,
}

impl Reading {
    /// Of all that a namespace counts.
    pub fn of(stat: &NetStat) -> Self {
        let value = |name: &str| {
            let value = stat.tcp_ext.get(name).or_else(|| stat.tcp.get(name))?;
            u64::try_from(*value).ok()
        };
        Self { values: COUNTERS.map(value), sockets: stat.sockets }
    }

    /// One of [`COUNTERS`]; `None`: this kernel does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        let at = COUNTERS.iter().position(|known| *known == name);
        debug_assert!(at.is_some(), "{name} is not kept");
        self.values[at?]
    }

    /// With `name` at `value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<u64>) -> Self {
        if let Some(at) = COUNTERS.iter().position(|known| *known == name) {
            self.values[at] = value;
        }
        self
    }
}

/// Counters of a namespace, read twice.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// When the window began; `None` if they were read but once.
    pub first: Option<Reading>,
    /// When it ended.
    pub last: Option<Reading>,
    /// Why there is none.
    pub why: Option<String>,
    /// Between the two.
    pub seconds: f64,
}

impl Counted {
    /// What has been counted since the namespace was made; `None`: not known, or this kernel has
    /// no such counter.
    pub fn total(&self, name: &str) -> Option<u64> {
        self.last.as_ref()?.get(name)
    }

    /// What was counted between the two readings.
    pub fn grew(&self, name: &str) -> Option<u64> {
        Some(self.total(name)?.saturating_sub(self.first.as_ref()?.get(name)?))
    }

    /// Connections that were opened between the two readings, from here and from elsewhere.
    pub fn opened(&self) -> Option<u64> {
        Some(self.grew("ActiveOpens")? + self.grew("PassiveOpens")?)
    }

    /// What to say where a counter is not known.
    pub fn unknown(&self, name: &str) -> String {
        match &self.why {
            Some(why) => why.clone(),
            None if self.last.is_some() && self.total(name).is_none() => {
                format!("this kernel has no counter {name}")
            }
            None => "its counters were read only once".to_owned(),
        }
    }
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A process: the first, if there are several.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        name: ProcessName,
    },
    /// None yet: nobody has accepted it.
    NotAccepted(Door),
    /// None any more.
    Orphan,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name}, pid {pid}"),
            Self::NotAccepted(Door { listener: Some((pid, name)), lport, .. }) => {
                write!(f, "not accepted yet at :{lport} of {name}, pid {pid}")
            }
            Self::NotAccepted(Door { lport, .. }) => write!(f, "not accepted yet at :{lport}"),
            Self::Orphan => f.write_str("no process"),
            Self::Unknown => f.write_str("holder not known"),
        }
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listening {
    /// Its address.
    pub tuple: Tuple,
    /// Who listens.
    pub who: Who,
    /// Connections that wait for accept(), the most of all looks.
    pub queued: u32,
    /// How many may.
    pub limit: u32,
}

impl Listening {
    /// Whether the next one would be dropped: the kernel lets in one more than the limit
    /// (`sk_acceptq_is_full()`).
    pub fn is_full(&self) -> bool {
        self.queued > self.limit
    }
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tuple, who, queued, limit } = self;
        let address = std::net::SocketAddr::new(tuple.local_ip(), tuple.lport);
        write!(f, "{address} ({who}): {queued} wait, limit {limit}")
    }
}

/// Connections of one holder in one state that wait for one thing and, where that is the peer, for one
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Their state.
    pub state: TcpState,
    /// What they wait for.
    pub cause: Cause,
    /// Who has them open.
    pub who: Who,
    /// The peer and its port, where it is the peer that they wait for.
    pub peer: Option<SocketAddr>,
    /// How many there are.
    pub now: u64,
    /// Of those, how many have been there for longer than work takes that is just being finished.
    pub lasting: u64,
    /// Of the lasting ones, how many have bytes, or the FIN, that nobody has read.
    pub unread: u64,
    /// Bytes of the lasting ones that the peer has not acknowledged.
    pub unsent_bytes: u64,
    /// How long the oldest of the lasting ones has been there, at the least, milliseconds.
    pub oldest_ms: u64,
}

/// Connections that ended alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose they were, and the service's port; escaped.
    pub who: String,
    /// How.
    pub how: How,
    /// How many.
    pub count: u64,
    /// The peer, and the port that it serves where this end connected; `None` where there were too
    /// many to tell them apart.
    pub peer: Option<SocketAddr>,
    /// How they began, if that was seen.
    pub opened: Option<Opened>,
    /// Which end closed first, if that is known.
    pub initiator: Option<Initiator>,
    /// How long they lived, the shortest and the longest, at the least, milliseconds.
    pub lived_ms: (u64, u64),
}

/// A peer, in words: its port only where it serves at that port.
pub fn peer_words(peer: SocketAddr) -> String {
    if peer.port() == 0 { peer.ip().to_string() } else { peer.to_string() }
}

#[cfg(test)]
mod tests {
    use super::most;

    #[test]
    fn the_parts_add_up_to_the_whole_and_nobody_is_named_twice() {
        let groups = [("a", 3), ("b", 9), ("a", 4), ("c", 2), ("d", 1), ("e", 1)];
        assert_eq!(most(groups.into_iter()), "b (9), a (7), c (2) and 2 more (2)");
        assert_eq!(most([("a", 1), ("a", 2)].into_iter()), "a (3)");
        assert_eq!(most(std::iter::empty()), "");
    }
}
