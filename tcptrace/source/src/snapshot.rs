//! Rounds of snapshots as inputs: what is asked for, who reads it, what it brought.
//!
//! Reading blocks, so where a ring is to be drained meanwhile a job runs on another thread.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{helper::Link, tables::Tables};
use tcptrace_host::clock;
use tcptrace_model::{
    Input, NetnsCounters, NetnsKnobs, SnapSocket, Snapshot, SnapshotEnd, SynQueue,
};

pub use super::tables::Scope;

/// Who reads the tables.
#[derive(Debug)]
pub struct Reader(By);

#[derive(Debug)]
enum By {
    /// The thread that asks.
    Here(Tables),
    /// The helper process.
    Helper(Link),
}

impl Reader {
    /// The threads that run jobs.
    pub fn here(scope: Scope) -> Arc<Self> {
        Arc::new(Self(By::Here(Tables::new(scope))))
    }

    pub(super) fn helper(link: Link) -> Arc<Self> {
        Arc::new(Self(By::Helper(link)))
    }

    /// Whether only one namespace is read, which was asked for.
    pub(super) fn is_of_one(&self) -> bool {
        match &self.0 {
            By::Here(tables) => tables.are_of_one(),
            By::Helper(link) => link.is_of_one(),
        }
    }

    /// Whether there is nobody any more who could.
    pub(super) fn is_gone(&self) -> bool {
        matches!(&self.0, By::Helper(link) if link.is_gone())
    }

    /// What is to be said of a helper that has gone since this was asked last.
    pub(super) fn farewell(&self) -> Option<String> {
        match &self.0 {
            By::Here(_) => None,
            By::Helper(link) => link.farewell(),
        }
    }
}

/// Dumps to be taken.
#[derive(Debug)]
pub struct Job {
    by: Arc<Reader>,
    order: Order,
}

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
}

/// One namespace.
#[derive(Debug, PartialEq)]
pub(super) struct Space {
    pub(super) netns: u32,
    pub(super) began_ns: u64,
    pub(super) sockets: Vec<SnapSocket>,
    pub(super) syn_queues: BTreeMap<u16, SynQueue>,
    pub(super) end: SnapshotEnd,
    /// Its sysctls, unless they are known to be as they were.
    pub(super) knobs: Option<Box<NetnsKnobs>>,
    pub(super) counters: Option<Box<NetnsCounters>>,
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
    /// Every namespace, by `reader`. Minisocks are told as other sockets are.
    pub fn all(reader: Arc<Reader>) -> Self {
        Self::of(reader, Of::All)
    }

    pub(super) fn of(reader: Arc<Reader>, of: Of) -> Self {
        let order = Order { of, minisocks_told: true, told: HashSet::new() };
        Self { by: reader, order }
    }

    /// Whether minisocks have events, or are looked at; else they are but counted.
    pub(super) fn minisocks_told(mut self, told: bool) -> Self {
        self.order.minisocks_told = told;
        self
    }

    /// There was a dump of these namespaces before.
    pub(super) fn after(mut self, told: HashSet<u32>) -> Self {
        self.order.told = told;
        self
    }

    /// What is to be fed before it runs.
    pub fn opening(&self) -> Input {
        Input::Snapshot(match self.order.is_of_minisocks() {
            false => Snapshot::Open,
            true => Snapshot::OpenMinisocks,
        })
    }

    /// Takes the dumps. Never fails: what could not be done is in the remarks.
    pub fn run(&self) -> Round {
        match &self.by.0 {
            By::Here(tables) => tables.read(&self.order),
            By::Helper(link) => link.read(&self.order),
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
        }
    }

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
