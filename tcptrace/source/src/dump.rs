//! What is asked of a pass over the socket tables, and what it brought, as inputs.
//!
//! Only values: who reads the tables is in `snapshot`, how in `tables`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use tcptrace_host::clock;
use tcptrace_model::{
    BoundPort, Input, NetnsCounters, NetnsName, NetnsSysctls, SnapInfo, SnapSocket, Snapshot,
    SnapshotEnd, SynQueue,
};

/// Of what, and how much of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) of: Of,
    /// Minisocks have events, or are looked at; else they are but counted.
    pub(super) minisocks_told: bool,
    /// Namespaces of which there was a dump: since when their sockets are in their states was
    /// asked then.
    pub(super) told: HashSet<u32>,
}

impl Order {
    pub(super) fn is_of_minisocks(&self) -> bool {
        matches!(self.of, Of::Minisocks { .. })
    }
}

/// Of what.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Of {
    /// Every namespace.
    All,
    /// Those with one of these inodes.
    Among(BTreeSet<u32>),
    /// The minisocks of every namespace.
    Minisocks {
        /// The namespaces are to be looked for, and not only as of the last time.
        anew: bool,
    },
}

/// What they brought.
#[derive(Debug, PartialEq)]
pub struct Round {
    /// Of all sockets of all namespaces.
    pub(super) all: bool,
    /// Of minisocks alone.
    pub(super) minisocks_alone: bool,
    pub(super) spaces: Vec<Space>,
    /// CPU time that the dumps took, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Why a namespace is missing or is not told in full.
    pub(super) remarks: Vec<String>,
    pub(super) over_ns: u64,
    /// The namespaces that were found, whether they could be read or not; `None` where not all may have
    /// been.
    pub(super) there: Option<BTreeSet<u32>>,
    /// What is to be told of the names of namespaces.
    pub(super) names: Vec<NetnsName>,
}

/// A port that sockets are bound to and nothing else, and what tells the first of them.
#[derive(Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) port: BoundPort,
    pub(super) cookie: u64,
    pub(super) inode: u32,
}

impl From<BoundPort> for Bound {
    fn from(port: BoundPort) -> Self {
        Self { port, cookie: 0, inode: 0 }
    }
}

/// One namespace.
#[derive(Debug, PartialEq)]
pub(super) struct Space {
    pub(super) netns: u32,
    pub(super) began_ns: u64,
    /// What it is called.
    pub(super) name: Option<Box<str>>,
    /// A file that leads to it.
    pub(super) path: Option<Box<str>>,
    pub(super) sockets: Vec<SnapSocket>,
    /// Of some of them.
    pub(super) infos: Vec<SnapInfo>,
    pub(super) syn_queues: BTreeMap<u16, SynQueue>,
    /// By local port.
    pub(super) bound: BTreeMap<u16, Bound>,
    pub(super) end: SnapshotEnd,
    /// Its sysctls, unless they are known to be as they were.
    pub(super) sysctls: Option<Box<NetnsSysctls>>,
    pub(super) counters: Option<Box<NetnsCounters>>,
}

impl Space {
    /// A namespace that is not there any more.
    pub(super) fn gone(netns: u32, now: u64) -> Self {
        let end = SnapshotEnd { mono_ns: now, ..SnapshotEnd::default() };
        Self {
            netns,
            began_ns: now,
            name: None,
            path: None,
            sockets: Vec::new(),
            infos: Vec::new(),
            syn_queues: BTreeMap::new(),
            bound: BTreeMap::new(),
            end,
            sysctls: None,
            counters: None,
        }
    }
}

impl Round {
    /// One that brought nothing: no namespace was read, so nothing is said of any.
    pub(super) fn nothing(order: &Order) -> Self {
        Self {
            all: false,
            minisocks_alone: order.is_of_minisocks(),
            spaces: Vec::new(),
            cpu_ns: 0,
            remarks: Vec::new(),
            over_ns: clock::monotonic_ns().unwrap_or(u64::MAX),
            there: None,
            names: Vec::new(),
        }
    }

    /// Hands it out, but for its opening, which came before.
    pub fn feed(self, sink: &mut dyn FnMut(Input)) {
        for name in self.names {
            sink(Input::NetnsName(Box::new(name)));
        }
        for space in self.spaces {
            let Space {
                netns,
                began_ns,
                name: _,
                path: _,
                sockets,
                infos,
                syn_queues,
                bound,
                end,
                sysctls,
                counters,
            } = space;
            if let Some(sysctls) = sysctls {
                sink(Input::Sysctls(sysctls));
            }
            if let Some(counters) = counters {
                sink(Input::Counters(counters));
            }
            let mut tell = |snapshot| sink(Input::Snapshot(snapshot));
            tell(Snapshot::Begin { mono_ns: began_ns, netns });
            sockets.into_iter().for_each(|socket| tell(Snapshot::Socket(socket)));
            infos.into_iter().for_each(|info| tell(Snapshot::Info(Box::new(info))));
            syn_queues.into_values().for_each(|queue| tell(Snapshot::SynQueue(queue)));
            let bound = bound.into_values().map(|bound| Box::new(bound.port));
            bound.for_each(|port| tell(Snapshot::Bound(port)));
            tell(Snapshot::End(end));
        }
        sink(Input::Snapshot(Snapshot::Over { mono_ns: self.over_ns, all: self.all }));
    }

    /// What could not be done.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}
