//! Tells what cgroups are called, each before the first input that names it.
//!
//! Must not hold the ring up: a look-up takes about 2 µs, and where it has to be a walk of the
//! whole tree, that is at most once a second (see [`tcptrace_host::cgroup`]).

use std::collections::{HashSet, VecDeque};

use super::helper::Names;
use tcptrace_host::cgroup::{Answer, Hierarchy};
use tcptrace_model::{Event, Input, Snapshot};
use tcptrace_track::cgroups::LIMIT;

/// What has been told.
#[derive(Debug)]
pub struct CgroupNames {
    /// The helper process, which may find any by its id.
    helper: Option<Names>,
    /// `None` where there is no such hierarchy.
    hierarchy: Option<Hierarchy>,
    told: HashSet<u64>,
    /// In the order in which they were told. The tracker forgets in the same order, and later.
    order: VecDeque<u64>,
    /// The one that came last, 0 for none.
    last: u64,
    /// The time of the last input that has one; `CLOCK_MONOTONIC`, nanoseconds.
    now: u64,
}

impl CgroupNames {
    /// Finds the hierarchy. Where that cannot be, no cgroup gets a name.
    pub fn open() -> Self {
        Self {
            helper: None,
            hierarchy: Hierarchy::open().ok(),
            told: HashSet::new(),
            order: VecDeque::new(),
            last: 0,
            now: 0,
        }
    }

    /// Asks `helper` from now on, for as long as it answers.
    pub(super) fn ask(&mut self, helper: Option<Names>) {
        self.helper = helper;
    }

    /// Hands `input` on, after the name of the cgroup that is in it.
    pub fn pass(&mut self, input: &Input, sink: &mut dyn FnMut(&Input)) {
        self.introduce(input, sink);
        sink(input);
    }

    /// Hands out the name of the cgroup that is in `input`, which is to be handed on after it.
    #[inline]
    pub fn introduce(&mut self, input: &Input, sink: &mut dyn FnMut(&Input)) {
        let id = match input {
            Input::Event(Event::Transition(event)) => {
                self.now = event.mono_ns;
                event.sock.and_then(|sock| sock.cgroup)
            }
            Input::Snapshot(Snapshot::Begin { mono_ns, .. }) => {
                self.now = *mono_ns;
                None
            }
            Input::Snapshot(Snapshot::Socket(socket)) => {
                socket.full.as_ref().and_then(|full| full.cgroup).map(u64::from)
            }
            _ => None,
        };
        if let Some(id) = id
            && id != self.last
        {
            self.name(id, sink);
        }
    }

    fn name(&mut self, id: u64, sink: &mut dyn FnMut(&Input)) {
        if self.told.contains(&id) {
            self.last = id;
            return;
        }
        let mut answer = self.helper.as_mut().and_then(|helper| helper.path(id, self.now));
        if answer.is_none() {
            // From now on as it can be found here.
            self.helper = None;
            answer = self.hierarchy.as_mut().map(|hierarchy| hierarchy.path(id, self.now));
        }
        let Some(answer) = answer else { return };
        match answer {
            Answer::NotYet => return,
            Answer::Nowhere => {}
            Answer::Path(path) => sink(&Input::Cgroup { id, path }),
        }
        if self.order.len() >= LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        self.told.insert(id);
        self.order.push_back(id);
        self.last = id;
    }
}
