//! The socket tables of the network namespaces as inputs, by sock_diag.
//!
//! Blocks for as long as the dumps take (about 0.5 µs a socket), so where a ring is to be drained
//! meanwhile this runs on another thread. Decides nothing about what it reads, but for what is a
//! socket of ours: request sockets are the SYN queue, and what is merely bound is in no state.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

use crate::{
    host::{
        clock,
        netns::{self, Netns},
        sock_diag::{DiagSocket, Family, StateMask},
    },
    model::{Input, SnapSocket, Snapshot, SnapshotEnd, TcpState, Tuple, Unseen, filter::Filter},
};

/// What is to be dumped.
#[derive(Debug)]
pub struct Scope {
    /// Only this namespace; `None`: all that can be reached.
    pub only: Option<Netns>,
    /// The sockets to keep, by the same rule as their events.
    pub filter: Filter,
    /// Minisocks have events; else they are but counted.
    pub minisocks_told: bool,
}

/// Dumps to be taken.
#[derive(Debug)]
pub struct Job {
    scope: Arc<Scope>,
    /// Only namespaces with these inodes.
    among: Option<BTreeSet<u32>>,
}

/// What they brought.
#[derive(Debug)]
pub struct Round {
    pub(super) all: bool,
    pub(super) spaces: Vec<Space>,
    /// Why a namespace is missing or is not told in full.
    pub(super) remarks: Vec<String>,
    over_ns: u64,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) netns: u32,
    began_ns: u64,
    sockets: Vec<SnapSocket>,
    end: SnapshotEnd,
}

impl Space {
    /// A namespace that is not there any more.
    pub(super) fn gone(netns: u32, now: u64) -> Self {
        let end = SnapshotEnd { mono_ns: now, ..SnapshotEnd::default() };
        Self { netns, began_ns: now, sockets: Vec::new(), end }
    }
}

impl Job {
    /// Every namespace of `scope`.
    pub fn all(scope: Arc<Scope>) -> Self {
        Self { scope, among: None }
    }

    /// Those of them that have one of these inodes.
    pub fn among(scope: Arc<Scope>, inodes: BTreeSet<u32>) -> Self {
        Self { scope, among: Some(inodes) }
    }

    /// Takes the dumps. Never fails: what could not be done is in the remarks.
    pub fn run(&self) -> Round {
        let mut remarks = Vec::new();
        let namespaces = match &self.scope.only {
            Some(netns) => vec![netns.clone()],
            None => reachable(&mut remarks),
        };
        let mut spaces = Vec::new();
        for netns in &namespaces {
            if self.among.as_ref().is_some_and(|among| !among.contains(&netns.id.inode)) {
                continue;
            }
            match dump(netns, &self.scope) {
                Ok(space) => {
                    if space.end.lacks_some {
                        remarks.push(format!(
                            "network namespace {} changed faster than sock_diag could read it: \
                             its snapshot may lack some sockets",
                            netns.id.inode
                        ));
                    }
                    spaces.push(space);
                }
                // It ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => remarks.push(format!(
                    "connections that were there before in network namespace {} are not shown: \
                     {error}",
                    netns.id.inode
                )),
            }
        }
        let over_ns = clock::monotonic_ns().unwrap_or(u64::MAX);
        Round { all: self.among.is_none(), spaces, remarks, over_ns }
    }
}

impl Round {
    /// Hands it out, but for [`Snapshot::Open`], which came before.
    pub fn feed(self, sink: &mut impl FnMut(Input)) {
        let mut tell = |snapshot| sink(Input::Snapshot(snapshot));
        for Space { netns, began_ns: mono_ns, sockets, end } in self.spaces {
            tell(Snapshot::Begin { mono_ns, netns });
            sockets.into_iter().for_each(|socket| tell(Snapshot::Socket(socket)));
            tell(Snapshot::End(end));
        }
        tell(Snapshot::Over { mono_ns: self.over_ns, all: self.all });
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

/// Dumps one namespace. The socket by which that is done keeps the namespace alive, so it does
/// not outlive this.
fn dump(netns: &Netns, scope: &Scope) -> io::Result<Space> {
    let inode = netns.id.inode;
    let mut diag = netns.open_diag()?;
    let began_ns = clock::monotonic_ns()?;
    let dump = diag.dump(
        &Family::BOTH,
        StateMask::ALL,
        || (Vec::new(), Unseen::default()),
        |(sockets, unseen), socket| take(socket, inode, scope, sockets, unseen),
    )?;
    let (sockets, unseen) = dump.value;
    let end = SnapshotEnd { mono_ns: clock::monotonic_ns()?, lacks_some: dump.interrupted, unseen };
    Ok(Space { netns: inode, began_ns, sockets, end })
}

fn take(
    socket: &DiagSocket,
    netns: u32,
    scope: &Scope,
    sockets: &mut Vec<SnapSocket>,
    unseen: &mut Unseen,
) {
    let tuple = tuple(socket);
    let Some(state) = TcpState::from_kernel(socket.state) else { return };
    if state == TcpState::Close || !scope.filter.keeps(&tuple, netns) {
        return;
    }
    let mini = socket.is_minisock();
    match state {
        // A request socket has no owner. Nor has a child of TCP Fast Open that was not accepted
        // yet; the two cannot be told apart.
        TcpState::SynRecv if socket.inode == 0 => unseen.syn_queue += 1,
        TcpState::TimeWait if mini && !scope.minisocks_told => unseen.time_wait += 1,
        _ if mini && !scope.minisocks_told => unseen.fin_wait2 += 1,
        _ => sockets.push(SnapSocket {
            state,
            tuple,
            cookie: socket.cookie,
            minisock_expires_ms: mini.then_some(socket.expires_ms),
        }),
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
