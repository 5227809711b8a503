//! The socket tables of the network namespaces as inputs, by sock_diag.
//!
//! Blocks for as long as the dumps take (about 0.5 µs a socket), so where a ring is to be drained
//! meanwhile this runs on another thread. Decides nothing about what it reads, but for what is a
//! socket of ours: request sockets are the SYN queue, and what is merely bound is in no state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    num::NonZeroU64,
    sync::Arc,
};

use super::{ages, owners::Owners};
use crate::{
    host::{
        clock,
        netns::{self, Netns},
        netstat,
        sock_diag::{DiagSocket, Family, SockDiag, StateMask},
        sysctl,
    },
    model::{
        Input, NetnsCounters, NetnsKnobs, Queues, SnapFull, SnapSocket, Snapshot, SnapshotEnd,
        SynQueue, TcpState, Tuple, Unseen, filter::Filter,
    },
};

/// What is to be dumped.
#[derive(Debug)]
pub struct Scope {
    /// Only this namespace; `None`: all that can be reached.
    pub only: Option<Netns>,
    /// The sockets to keep, by the same rule as their events.
    pub filter: Filter,
    /// Minisocks have events, or are looked at; else they are but counted.
    pub minisocks_told: bool,
    /// Who holds the sockets is looked up.
    pub owners: Option<Owners>,
}

/// Dumps to be taken.
#[derive(Debug)]
pub struct Job {
    scope: Arc<Scope>,
    of: Of,
    /// Namespaces of which there was a dump: since when their sockets are in their states was
    /// asked then.
    told: HashSet<u32>,
}

/// Of what.
#[derive(Debug)]
enum Of {
    /// Every namespace.
    All,
    /// Those with one of these inodes.
    Among(BTreeSet<u32>),
    /// The minisocks of every namespace. These are they, as of a little while ago, if that is
    /// known: to look for them anew takes longer than to dump them.
    Minisocks(Option<Arc<Vec<Netns>>>),
}

/// What they brought.
#[derive(Debug)]
pub struct Round {
    /// Of all sockets of all namespaces.
    pub(super) all: bool,
    /// Of minisocks alone.
    pub(super) minisocks_alone: bool,
    pub(super) spaces: Vec<Space>,
    /// All namespaces that can be reached.
    pub(super) namespaces: Arc<Vec<Netns>>,
    /// CPU time that the dumps took, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Why a namespace is missing or is not told in full.
    pub(super) remarks: Vec<String>,
    over_ns: u64,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) netns: u32,
    began_ns: u64,
    pub(super) sockets: Vec<SnapSocket>,
    syn_queues: BTreeMap<u16, SynQueue>,
    end: SnapshotEnd,
    /// Its sysctls, unless they are known to be as they were.
    pub(super) knobs: Option<Box<NetnsKnobs>>,
    counters: Option<Box<NetnsCounters>>,
}

impl Space {
    /// A namespace that is not there any more.
    pub(super) fn gone(netns: u32, now: u64) -> Self {
        let end = SnapshotEnd { mono_ns: now, ..SnapshotEnd::default() };
        let (sockets, syn_queues) = (Vec::new(), BTreeMap::new());
        Self { netns, began_ns: now, sockets, syn_queues, end, knobs: None, counters: None }
    }
}

impl Job {
    /// Every namespace of `scope`.
    pub fn all(scope: Arc<Scope>) -> Self {
        Self { scope, of: Of::All, told: HashSet::new() }
    }

    /// Those of them that have one of these inodes.
    pub fn among(scope: Arc<Scope>, inodes: BTreeSet<u32>) -> Self {
        Self { scope, of: Of::Among(inodes), told: HashSet::new() }
    }

    /// The minisocks of every namespace of `scope`, which are `namespaces`, if that is known.
    pub fn minisocks(scope: Arc<Scope>, namespaces: Option<Arc<Vec<Netns>>>) -> Self {
        Self { scope, of: Of::Minisocks(namespaces), told: HashSet::new() }
    }

    /// There was a dump of these namespaces before.
    pub(super) fn after(self, told: HashSet<u32>) -> Self {
        Self { told, ..self }
    }

    /// What is to be fed before it runs.
    pub fn opening(&self) -> Input {
        Input::Snapshot(match self.of {
            Of::All | Of::Among(_) => Snapshot::Open,
            Of::Minisocks(_) => Snapshot::OpenMinisocks,
        })
    }

    /// Dumps one namespace. The socket by which that is done keeps the namespace alive, so it does
    /// not outlive this.
    fn dump(&self, netns: &Netns) -> io::Result<Space> {
        let scope = &*self.scope;
        let minisocks_alone = matches!(self.of, Of::Minisocks(_));
        let inode = netns.id.inode;
        let mut diag = netns.open_diag()?;
        let began_ns = clock::monotonic_ns()?;
        let states = if minisocks_alone { StateMask::OF_MINISOCKS } else { StateMask::ALL };
        let dump = diag.dump(&Family::BOTH, states, Taken::default, |taken, socket| {
            if socket.is_minisock() || !minisocks_alone {
                taken.take(socket, inode, scope);
            }
        })?;
        let Taken { mut sockets, unseen, syn_queues } = dump.value;
        let mono_ns = clock::monotonic_ns()?;
        if !minisocks_alone && !self.told.contains(&inode) {
            date(&mut sockets, &mut diag, mono_ns)?;
        }
        let end = SnapshotEnd { mono_ns, lacks_some: dump.interrupted, unseen };
        let knobs = if minisocks_alone {
            None
        } else {
            match sysctl::knobs(netns) {
                Ok(knobs) => Some(Box::new(NetnsKnobs { mono_ns, netns: inode, knobs })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                // Not known, as where no dump has told them: the sockets are told all the same.
                Err(_) => None,
            }
        };
        let counters = (!minisocks_alone).then(|| {
            let counters = netstat::read(netns).map_err(|error| error.to_string().into());
            Box::new(NetnsCounters { mono_ns, netns: inode, counters })
        });
        Ok(Space { netns: inode, began_ns, sockets, syn_queues, end, knobs, counters })
    }

    /// Takes the dumps. Never fails: what could not be done is in the remarks.
    pub fn run(&self) -> Round {
        let cpu_ns = || clock::thread_cpu_ns().unwrap_or(0);
        let began_ns = cpu_ns();
        let mut remarks = Vec::new();
        let mut spaces = Vec::new();
        let mut done = None;
        if let Of::Minisocks(Some(known)) = &self.of
            && let Ok(all) = known.iter().map(|netns| self.dump(netns)).collect()
        {
            (spaces, done) = (all, Some(Arc::clone(known)));
        }
        let namespaces = done.unwrap_or_else(|| {
            let namespaces = match &self.scope.only {
                Some(netns) => vec![netns.clone()],
                None => reachable(&mut remarks),
            };
            for netns in &namespaces {
                if let Of::Among(among) = &self.of
                    && !among.contains(&netns.id.inode)
                {
                    continue;
                }
                match self.dump(netns) {
                    Ok(space) => spaces.push(space),
                    // It ended meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => remarks.push(format!(
                        "connections that were there before in network namespace {} are not \
                         shown: {error}",
                        netns.id.inode
                    )),
                }
            }
            Arc::new(namespaces)
        });
        for space in spaces.iter().filter(|space| space.end.lacks_some) {
            remarks.push(format!(
                "network namespace {} changed faster than sock_diag could read it: its snapshot \
                 may lack some sockets",
                space.netns
            ));
        }
        let over_ns = clock::monotonic_ns().unwrap_or(u64::MAX);
        let all = matches!(self.of, Of::All);
        if let Some(owners) = &self.scope.owners
            && !matches!(self.of, Of::Minisocks(_))
        {
            owners.fill(&mut spaces, all, &mut remarks);
        }
        Round {
            all,
            minisocks_alone: matches!(self.of, Of::Minisocks(_)),
            spaces,
            namespaces,
            cpu_ns: cpu_ns().saturating_sub(began_ns),
            remarks,
            over_ns,
        }
    }
}

impl Round {
    /// Hands it out, but for its opening, which came before.
    pub fn feed(self, sink: &mut impl FnMut(Input)) {
        for Space { netns, began_ns: mono_ns, sockets, syn_queues, end, knobs, counters } in
            self.spaces
        {
            if let Some(knobs) = knobs {
                sink(Input::Knobs(knobs));
            }
            if let Some(counters) = counters {
                sink(Input::Counters(counters));
            }
            let mut tell = |snapshot| sink(Input::Snapshot(snapshot));
            tell(Snapshot::Begin { mono_ns, netns });
            sockets.into_iter().for_each(|socket| tell(Snapshot::Socket(socket)));
            syn_queues.into_values().for_each(|queue| tell(Snapshot::SynQueue(queue)));
            tell(Snapshot::End(end));
        }
        sink(Input::Snapshot(Snapshot::Over { mono_ns: self.over_ns, all: self.all }));
    }

    /// What could not be done.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}

fn reachable(remarks: &mut Vec<String>) -> Vec<Netns> {
    match netns::namespaces() {
        Ok(namespaces) => {
            if let Some(refused) = namespaces.refused.first() {
                let more = match namespaces.refused.len() - 1 + namespaces.refused_more {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                remarks.push(format!(
                    "not all network namespaces can be looked at: {}: {}{more}; for those of \
                     other users' processes CAP_SYS_PTRACE is needed",
                    refused.path.display(),
                    refused.error,
                ));
            }
            if namespaces.cut {
                remarks.push("more network namespaces or processes than are looked at".to_owned());
            }
            namespaces.found
        }
        Err(error) => {
            remarks.push(format!("cannot list the network namespaces: {error}"));
            Vec::new()
        }
    }
}

/// Since when sockets have been in states that should pass, of those that are in `sockets`, by a
/// second dump of these states alone. The first was over at `ended_ns`.
fn date(sockets: &mut [SnapSocket], diag: &mut SockDiag, ended_ns: u64) -> io::Result<()> {
    let dated = |socket: &SnapSocket| socket.full.is_some() && ages::STATES.contains(&socket.state);
    if !sockets.iter().any(dated) {
        return Ok(());
    }
    let dump =
        diag.dump_with_info(&Family::BOTH, ages::mask(), HashMap::new, |known, socket| {
            if let Some(state) = TcpState::from_kernel(socket.state)
                && let Some(ms) = ages::at_least_ms(socket, state).and_then(NonZeroU64::new)
            {
                known.insert((socket.cookie, state), ms);
            }
        })?;
    // What was true at some moment since then was true then by so much less.
    let less_ms = clock::monotonic_ns()?.saturating_sub(ended_ns).div_ceil(1_000_000);
    for socket in sockets {
        if let Some(full) = &mut socket.full {
            let ms = dump.value.get(&(socket.cookie, socket.state));
            full.in_state_ms = ms.and_then(|ms| NonZeroU64::new(ms.get().saturating_sub(less_ms)));
        }
    }
    Ok(())
}

/// What a dump has.
#[derive(Default)]
struct Taken {
    sockets: Vec<SnapSocket>,
    unseen: Unseen,
    /// By local port.
    syn_queues: BTreeMap<u16, SynQueue>,
}

impl Taken {
    fn take(&mut self, socket: &DiagSocket, netns: u32, scope: &Scope) {
        let tuple = tuple(socket);
        let Some(state) = TcpState::from_kernel(socket.state) else { return };
        if state == TcpState::Close || !scope.filter.keeps(&tuple, netns) {
            return;
        }
        let mini = socket.is_minisock();
        match state {
            // A request socket has no owner. Nor has a child of TCP Fast Open that was not accepted
            // yet; the two cannot be told apart.
            TcpState::SynRecv if socket.inode == 0 => {
                self.unseen.syn_queue += 1;
                let lport = tuple.lport;
                let none = SynQueue { lport, waiting: 0, resent: 0 };
                let queue = self.syn_queues.entry(lport).or_insert(none);
                queue.waiting += 1;
                queue.resent += u32::from(socket.retrans > 0);
            }
            TcpState::TimeWait if mini && !scope.minisocks_told => self.unseen.time_wait += 1,
            _ if mini && !scope.minisocks_told => self.unseen.fin_wait2 += 1,
            _ => self.sockets.push(SnapSocket {
                state,
                tuple,
                cookie: socket.cookie,
                minisock_expires_ms: mini.then_some(socket.expires_ms),
                full: (!mini).then(|| Box::new(full(socket))),
            }),
        }
    }
}

fn full(socket: &DiagSocket) -> SnapFull {
    SnapFull {
        inode: socket.inode,
        uid: socket.uid,
        queues: Queues { unread: socket.rqueue, unsent: socket.wqueue },
        cgroup: socket.cgroup,
        holder: None,
        in_state_ms: None,
    }
}

fn tuple(socket: &DiagSocket) -> Tuple {
    let v6 = |addr: SocketAddr| match addr {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    Tuple {
        laddr: v6(socket.local),
        raddr: v6(socket.peer),
        lport: socket.local.port(),
        rport: socket.peer.port(),
        v6_socket: socket.family == Family::V6,
    }
}
