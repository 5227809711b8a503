//! What a view that begins in the middle of a recording must know of the time before.

use std::collections::BTreeMap;

use tcptrace_model::{BoundPort, Input, Snapshot, SnapshotEnd, SynQueue};
use tcptrace_record::Context;

/// Network namespaces of a recording of which a view is told how their last dump ended.
const SPACES: usize = 1 << 16;

/// What a view must know of the time before it begins.
#[derive(Default)]
pub(super) struct Early {
    pub(super) any: bool,
    pub(super) context: Context,
    /// By namespace, how its last dump ended, where that tells of what no event does.
    spaces: BTreeMap<u32, (Ports, SnapshotEnd)>,
    /// Of the dump that is being told.
    ports: Ports,
    /// The namespace whose dump is being told, if that is of all its sockets.
    netns: Option<u32>,
    minisocks_alone: bool,
    /// All have been dumped.
    whole: bool,
    /// There were more namespaces than there is room for.
    cut: bool,
}

/// What the dump of a namespace tells of local ports, and no event does.
#[derive(Default)]
struct Ports {
    syn_queues: Vec<SynQueue>,
    bound: Vec<BoundPort>,
}

impl Ports {
    fn is_empty(&self) -> bool {
        self.syn_queues.is_empty() && self.bound.is_empty()
    }
}

impl Early {
    pub(super) fn take(&mut self, input: &Input) {
        self.any = true;
        match input {
            Input::Snapshot(Snapshot::Open) => self.minisocks_alone = false,
            Input::Snapshot(Snapshot::OpenMinisocks) => self.minisocks_alone = true,
            Input::Snapshot(Snapshot::Begin { netns, .. }) => {
                self.netns = Some(*netns).filter(|_| !self.minisocks_alone);
                self.ports = Ports::default();
            }
            // There is at most one for each port.
            Input::Snapshot(Snapshot::SynQueue(queue))
                if self.ports.syn_queues.len() < usize::from(u16::MAX) =>
            {
                self.ports.syn_queues.push(*queue);
            }
            Input::Snapshot(Snapshot::Bound(port))
                if self.ports.bound.len() < usize::from(u16::MAX) =>
            {
                self.ports.bound.push(**port);
            }
            Input::Snapshot(Snapshot::End(end)) => {
                let ports = std::mem::take(&mut self.ports);
                let Some(netns) = self.netns.take() else { return };
                let nothing = SnapshotEnd { mono_ns: end.mono_ns, ..SnapshotEnd::default() };
                if *end == nothing && ports.is_empty() {
                    self.spaces.remove(&netns);
                } else if self.spaces.len() < SPACES || self.spaces.contains_key(&netns) {
                    self.spaces.insert(netns, (ports, *end));
                } else {
                    self.cut = true;
                }
            }
            Input::Snapshot(Snapshot::Over { all: true, .. }) => self.whole = true,
            lasting if tcptrace_record::lasts(lasting) => self.context.take(lasting.clone()),
            _ => {}
        }
    }

    /// The last dumps as one round at `mono_ns`, without sockets; its last piece says that it is
    /// over. Nothing, if there was none of everything.
    pub(super) fn snapshot(&self, mono_ns: u64) -> Vec<Input> {
        if !self.whole {
            return Vec::new();
        }
        let dumps = self.spaces.iter().flat_map(|(&netns, (ports, end))| {
            let begin = Snapshot::Begin { mono_ns, netns };
            let end = Snapshot::End(SnapshotEnd { mono_ns, ..*end });
            let queues = ports.syn_queues.iter().copied().map(Snapshot::SynQueue);
            let bound = ports.bound.iter().map(|port| Snapshot::Bound(Box::new(*port)));
            [begin].into_iter().chain(queues).chain(bound).chain([end])
        });
        // A round that lacks namespaces is not one of all.
        let over = Snapshot::Over { mono_ns, all: !self.cut };
        [Snapshot::Open].into_iter().chain(dumps).chain([over]).map(Input::Snapshot).collect()
    }
}
