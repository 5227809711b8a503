//! What is known of a host, as plain values: all that a rule may look at.
//!
//! What could not be seen is `None` or an error with words, and never 0.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use tcptrace_model::{Comm, How, Knobs, NetStat, TcpState, Tuple};
use tcptrace_stats::ports;

/// The host.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// What was watched.
    pub watched: Watched,
    /// What a namespace of this kernel begins with, or why that is not known.
    pub defaults: Result<Knobs, String>,
    /// What the host's sysctl files set.
    pub files: Vec<Setting>,
    /// Its network namespaces, in the order of their inodes.
    pub spaces: Vec<NetnsFacts>,
}

/// What was watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// From the first look to the last.
    pub seconds: f64,
    /// Whether it was seen what happened to the connections of each namespace; if not, why.
    pub events: Result<(), String>,
    /// Some of them were lost: what is counted by them is a lower bound.
    pub lossy: bool,
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
    /// Its sysctls.
    pub knobs: Knobs,
    /// The kernel's counters.
    pub counters: Counted,
    /// Sockets by state at the last look; in TIME_WAIT and FIN_WAIT2 minisocks are among them.
    pub states: HashMap<TcpState, u64>,
    /// Listeners at the last look, the fullest first.
    pub listeners: Vec<Listening>,
    /// Sockets in CLOSE_WAIT, by who holds them, the most first.
    pub close_wait: Vec<CloseWait>,
    /// FIN_WAIT2 that no process holds.
    pub fin_wait2: Lasting,
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

/// Counters of a namespace, read twice.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// At the first look; `None` if there was but one.
    pub first: Option<NetStat>,
    /// At the last.
    pub last: Option<NetStat>,
    /// Why there is none.
    pub why: Option<String>,
    /// Between the two.
    pub seconds: f64,
}

impl Counted {
    /// What has been counted since the namespace was made; `None`: not known, or this kernel has
    /// no such counter.
    pub fn total(&self, name: &str) -> Option<u64> {
        get(self.last.as_ref()?, name)
    }

    /// What was counted between the two looks.
    pub fn grew(&self, name: &str) -> Option<u64> {
        Some(self.total(name)?.saturating_sub(get(self.first.as_ref()?, name)?))
    }

    /// Connections that were opened between the two looks, from here and from elsewhere.
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

fn get(stat: &NetStat, name: &str) -> Option<u64> {
    let value = stat.tcp_ext.get(name).or_else(|| stat.tcp.get(name))?;
    u64::try_from(*value).ok()
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A process: the first, if there are several.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        comm: Comm,
    },
    /// None yet: nobody has accepted it.
    NotAccepted,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, comm } => write!(f, "{comm}, pid {pid}"),
            Self::NotAccepted => f.write_str("not accepted yet"),
            Self::Unknown => f.write_str("owner not known"),
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

/// Sockets of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasting {
    /// At the last look.
    pub now: u64,
    /// Of those, there at the first look already, in the same state.
    pub stayed: u64,
}

/// Sockets in CLOSE_WAIT of one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseWait {
    /// Who.
    pub who: Who,
    /// How many.
    pub count: Lasting,
    /// Of those that stayed, how many have bytes, or the FIN, that nobody has read.
    pub unread: u64,
    /// How long the oldest of those that stayed has been in CLOSE_WAIT, at the least, in
    /// milliseconds; `None` where the kernel remembers nothing that says more than that it stayed.
    pub oldest_ms: Option<u64>,
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
