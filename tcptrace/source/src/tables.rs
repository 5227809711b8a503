//! Reads the socket tables of the network namespaces, by sock_diag.
//!
//! Blocks for as long as the dumps take (about 0.5 µs a socket). Decides nothing about what it
//! reads, but for what is a socket of ours: request sockets are the SYN queue, and of what is merely
//! bound only its port counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    ages,
    dump::{Bound, Of, Order, Round, Space},
    infos::{self, Suspects},
    owners::Owners,
};
use tcptrace_host::{
    caps::Capabilities,
    clock,
    netns::{self, Netns},
    netstat,
    sock_diag::{self, DiagSocket, Family, StateMask},
    sysctl,
};
use tcptrace_model::{
    BoundPort, Exited, NetnsCounters, NetnsSysctls, Queues, SnapFull, SnapInfo, SnapSocket,
    SnapshotEnd, SynQueue, TcpState, Tuple, Unseen, filter::Filter,
};

/// What is to be dumped.
#[derive(Debug)]
pub struct Scope {
    /// Only this namespace; `None`: all that can be reached.
    pub only: Option<Netns>,
    /// The sockets to keep, by the same rule as their events.
    pub filter: Filter,
    /// Who holds the sockets is looked up.
    pub owners: Option<Owners>,
    /// Timers and progress of every socket are asked for, and not only of those that may be stuck:
    /// that takes the lock of each.
    pub infos_of_all: bool,
}

/// The tables, and what is remembered of them from one round to the next.
#[derive(Debug)]
pub(super) struct Tables {
    scope: Scope,
    /// The namespaces as of the last time that they were looked for: that takes longer than to
    /// dump the minisocks in them.
    namespaces: Mutex<Option<Arc<[Netns]>>>,
    /// The kernel lists sockets that are bound and nothing else.
    lists_bound: bool,
}

impl Tables {
    pub(super) fn new(scope: Scope) -> Self {
        // To be tried before anything is given up: it takes a socket that is bound.
        Self { scope, namespaces: Mutex::new(None), lists_bound: sock_diag::lists_bound() }
    }

    /// Processes that were named as holders and that have ended since.
    pub(super) fn ended(&self, now: u64) -> Vec<Exited> {
        self.scope.owners.as_ref().map(|owners| owners.ended(now)).unwrap_or_default()
    }

    /// Opens what needs rights that are given up next.
    pub(super) fn prepare(&self) {
        if let Some(owners) = &self.scope.owners {
            owners.prepare();
        }
    }

    /// Whether these are of one namespace that was asked for.
    pub(super) fn are_of_one(&self) -> bool {
        self.scope.only.is_some()
    }

    /// Dumps one namespace. The socket by which that is done keeps the namespace alive, so it does
    /// not outlive this.
    fn dump(&self, netns: &Netns, order: &Order) -> io::Result<Space> {
        let minisocks_alone = order.is_of_minisocks();
        let inode = netns.id.inode;
        let mut diag = netns.open_diag()?;
        // Only asked for of the one that -N names: its inode may be another's by now.
        let filter = &self.scope.filter;
        if let (Some(asked), Some(there)) = (filter.netns_cookie, diag.netns_cookie())
            && asked != there
        {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is another namespace by now", netns.path.display()),
            ));
        }
        let began_ns = clock::monotonic_ns()?;
        let lists_bound = self.lists_bound && !minisocks_alone;
        let states = match (minisocks_alone, lists_bound) {
            (true, _) => StateMask::OF_MINISOCKS,
            (false, true) => StateMask::ALL.union(StateMask::BOUND),
            (false, false) => StateMask::ALL,
        };
        let dump = diag.dump(&Family::BOTH, states, Taken::default, |taken, socket| {
            if socket.is_minisock() || !minisocks_alone {
                taken.take(socket, inode, &self.scope.filter, order.minisocks_told);
            }
        })?;
        let Taken { mut sockets, unseen, syn_queues, bound, suspects } = dump.value;
        let mono_ns = clock::monotonic_ns()?;
        let infos = if minisocks_alone {
            Vec::new()
        } else {
            let keeps = |socket: &DiagSocket| self.scope.filter.keeps(&tuple(socket), inode);
            let passing = sockets.iter().any(should_pass);
            infos::ask(&mut diag, &suspects, passing, self.scope.infos_of_all, keeps)?
        };
        if !order.told.contains(&inode) {
            date(&mut sockets, &infos, mono_ns)?;
        }
        let end = SnapshotEnd { mono_ns, lacks_some: dump.interrupted, unseen, lists_bound };
        let sysctls = if minisocks_alone {
            None
        } else {
            match sysctl::sysctls(netns) {
                Ok(sysctls) => Some(Box::new(NetnsSysctls { mono_ns, netns: inode, sysctls })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                // Not known, as where no dump has told them: the sockets are told all the same.
                Err(_) => None,
            }
        };
        let counters = (!minisocks_alone).then(|| {
            let counters = netstat::read(netns).map_err(|error| error.to_string().into());
            Box::new(NetnsCounters { mono_ns, netns: inode, counters })
        });
        Ok(Space {
            netns: inode,
            began_ns,
            name: if minisocks_alone { None } else { netns.label().map(Into::into) },
            path: netns.path.to_str().map(Into::into),
            sockets,
            infos,
            syn_queues,
            bound,
            end,
            sysctls,
            counters,
        })
    }

    /// Takes the dumps. Never fails: what could not be done is in the remarks.
    pub(super) fn read(&self, order: &Order) -> Round {
        let cpu_ns = || clock::thread_cpu_ns().unwrap_or(0);
        let began_ns = cpu_ns();
        let mut remarks = Vec::new();
        let mut spaces = Vec::new();
        let mut there = None;
        let known = self.known().filter(|_| matches!(order.of, Of::Minisocks { anew: false }));
        let all: Option<io::Result<Vec<_>>> =
            known.map(|known| known.iter().map(|netns| self.dump(netns, order)).collect());
        if let Some(Ok(all)) = all {
            spaces = all;
        } else {
            let (namespaces, complete) = match &self.scope.only {
                Some(netns) => (vec![netns.clone()], true),
                None => reachable(&mut remarks),
            };
            let mut found: BTreeSet<u32> = namespaces.iter().map(|netns| netns.id.inode).collect();
            for netns in &namespaces {
                if let Of::Among(among) = &order.of
                    && !among.contains(&netns.id.inode)
                {
                    continue;
                }
                match self.dump(netns, order) {
                    Ok(space) => spaces.push(space),
                    // Of one that was asked for that is said; others end all the time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        found.remove(&netns.id.inode);
                        if self.scope.only.is_some() {
                            let name = netns.name.as_deref().unwrap_or_default().escape_debug();
                            remarks.push(format!(
                                "network namespace {name} ({}) is gone, or can no longer be reached: \
                                 {error}; start tcptrace again to trace another one",
                                netns.id.inode
                            ));
                        }
                    }
                    Err(error) => remarks.push(format!(
                        "connections that were there before in network namespace {} are not \
                         shown: {error}",
                        netns.id.inode
                    )),
                }
            }
            there = complete.then_some(found);
            *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(namespaces.into());
        }
        for space in spaces.iter().filter(|space| space.end.lacks_some) {
            remarks.push(format!(
                "network namespace {} changed faster than sock_diag could read it: its snapshot \
                 may lack some sockets",
                space.netns
            ));
        }
        let over_ns = clock::monotonic_ns().unwrap_or(u64::MAX);
        let all = matches!(order.of, Of::All);
        if let Some(owners) = &self.scope.owners
            && !order.is_of_minisocks()
        {
            owners.fill(&mut spaces, all, &mut remarks);
        }
        Round {
            all,
            minisocks_alone: order.is_of_minisocks(),
            spaces,
            cpu_ns: cpu_ns().saturating_sub(began_ns),
            remarks,
            over_ns,
            there,
            names: Vec::new(),
        }
    }

    fn known(&self) -> Option<Arc<[Netns]>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The namespaces that can be found, and whether those are all.
fn reachable(remarks: &mut Vec<String>) -> (Vec<Netns>, bool) {
    match netns::namespaces() {
        Ok(namespaces) => {
            if let Some(refused) = namespaces.refused.first() {
                let more = match namespaces.refused.len() - 1 + namespaces.refused_more {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                remarks.push(format!(
                    "not all network namespaces can be read: {}: {}{more}; {}",
                    refused.path.display(),
                    refused.error,
                    Capabilities::effective().map_or("", Capabilities::for_other_users),
                ));
            }
            if namespaces.cut {
                remarks.push("more network namespaces or processes than are looked at".to_owned());
            }
            let complete = namespaces.refused.is_empty() && !namespaces.cut;
            (namespaces.found, complete)
        }
        Err(error) => {
            remarks.push(format!("cannot list the network namespaces: {error}"));
            (Vec::new(), false)
        }
    }
}

fn should_pass(socket: &SnapSocket) -> bool {
    socket.full.is_some() && ages::STATES.contains(&socket.state)
}

/// Since when sockets have been in their states, by `infos` that were asked for after the dump that
/// was over at `ended_ns`.
fn date(sockets: &mut [SnapSocket], infos: &[SnapInfo], ended_ns: u64) -> io::Result<()> {
    if infos.is_empty() {
        return Ok(());
    }
    // What was true at some moment since then was true then by so much less.
    let less_ms = clock::monotonic_ns()?.saturating_sub(ended_ns).div_ceil(1_000_000);
    let ages = infos::ages(infos, less_ms);
    for socket in sockets {
        if let Some(full) = &mut socket.full {
            full.in_state_ms = ages.get(&(socket.cookie, socket.state)).copied();
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
    /// Likewise.
    bound: BTreeMap<u16, Bound>,
    suspects: Suspects,
}

impl Taken {
    fn take(&mut self, socket: &DiagSocket, netns: u32, filter: &Filter, minisocks_told: bool) {
        let tuple = tuple(socket);
        let Some(state) = TcpState::from_kernel(socket.state) else { return };
        if state == TcpState::Close {
            // It has no peer, and takes its port from all: of a filter only the namespace counts.
            if filter.netns.is_none_or(|kept| kept == netns) {
                self.take_bound(socket);
            }
            return;
        }
        if !filter.keeps(&tuple, netns) {
            return;
        }
        let mini = socket.is_minisock();
        if !mini {
            self.suspects.look_at(socket);
        }
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
            TcpState::TimeWait if mini && !minisocks_told => self.unseen.time_wait += 1,
            _ if mini && !minisocks_told => self.unseen.fin_wait2 += 1,
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

impl Taken {
    /// Takes in a socket that is bound to a port and nothing else.
    fn take_bound(&mut self, socket: &DiagSocket) {
        let lport = socket.local.port();
        let bound = self.bound.entry(lport).or_insert_with(|| Bound {
            port: BoundPort { lport, sockets: 0, holder: None },
            cookie: socket.cookie,
            inode: socket.inode,
        });
        bound.port.sockets += 1;
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
