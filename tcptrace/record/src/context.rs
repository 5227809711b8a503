//! What still holds of what was told earlier: said again where reading may begin.
//!
//! Bounded: as many names of cgroups and namespaces as the tracker keeps, and the sysctls of so many namespaces.

use std::collections::{HashMap, VecDeque};

use tcptrace_model::{Clock, Input, MinisocksBy, NetnsName, NetnsSysctls};
use tcptrace_track::{cgroups, namespaces};

/// Network namespaces whose sysctls are kept; the oldest goes.
const NAMESPACES: usize = 4096;

/// The last word on what holds until it is said otherwise.
#[derive(Debug, Default)]
pub struct Context {
    begin: Option<(u32, MinisocksBy, bool)>,
    clock: Option<Clock>,
    cgroups: HashMap<u64, Box<str>>,
    /// Of their paths.
    cgroup_bytes: usize,
    /// In the order in which they were first told.
    cgroup_order: VecDeque<u64>,
    sysctls: HashMap<u32, Box<NetnsSysctls>>,
    sysctl_order: VecDeque<u32>,
    names: HashMap<u32, Box<NetnsName>>,
    name_order: VecDeque<u32>,
}

/// Whether `input` is something that holds until it is said otherwise.
pub fn lasts(input: &Input) -> bool {
    matches!(
        input,
        Input::Begin { .. }
            | Input::Clock(_)
            | Input::Cgroup { .. }
            | Input::Sysctls(_)
            | Input::NetnsName(_)
    )
}

impl Context {
    /// Takes in one that [`lasts`].
    pub fn take(&mut self, input: Input) {
        match input {
            Input::Begin { hz, minisocks, resets, .. } => {
                self.begin = Some((hz, minisocks, resets))
            }
            Input::Clock(clock) => self.clock = Some(clock),
            Input::Cgroup { id, path } => {
                self.cgroup_bytes += path.len();
                match self.cgroups.insert(id, path) {
                    Some(before) => self.cgroup_bytes -= before.len(),
                    None => self.cgroup_order.push_back(id),
                }
                while (self.cgroup_order.len() > cgroups::LIMIT
                    || self.cgroup_bytes > cgroups::LIMIT_BYTES)
                    && let Some(oldest) = self.cgroup_order.pop_front()
                {
                    let gone = self.cgroups.remove(&oldest);
                    self.cgroup_bytes -= gone.map_or(0, |path| path.len());
                }
            }
            Input::NetnsName(named) => {
                let netns = named.netns;
                if self.names.insert(netns, named).is_none() {
                    self.name_order.push_back(netns);
                }
                if self.name_order.len() > namespaces::LIMIT
                    && let Some(oldest) = self.name_order.pop_front()
                {
                    self.names.remove(&oldest);
                }
            }
            Input::Sysctls(sysctls) => {
                let netns = sysctls.netns;
                if self.sysctls.insert(netns, sysctls).is_none() {
                    self.sysctl_order.push_back(netns);
                }
                if self.sysctl_order.len() > NAMESPACES
                    && let Some(oldest) = self.sysctl_order.pop_front()
                {
                    self.sysctls.remove(&oldest);
                }
            }
            _ => {}
        }
    }

    /// How the clocks stand.
    pub fn realtime_offset_ns(&self) -> Option<i64> {
        self.clock.map(|clock| clock.realtime_offset_ns)
    }

    /// All of it, for a reader that begins at `mono_ns`; nothing before the hooks are in force.
    pub fn inputs(&self, mono_ns: u64) -> impl Iterator<Item = Input> {
        let begin = self.begin.map(|(hz, minisocks, resets)| Input::Begin {
            mono_ns,
            hz,
            minisocks,
            resets,
        });
        let clock = self.clock.map(Input::Clock);
        let cgroups = self
            .cgroup_order
            .iter()
            .filter_map(|&id| Some(Input::Cgroup { id, path: self.cgroups.get(&id)?.clone() }));
        let sysctls = self.sysctl_order.iter().filter_map(|netns| self.sysctls.get(netns).cloned());
        let names = self.name_order.iter().filter_map(|netns| self.names.get(netns).cloned());
        let named = cgroups.chain(names.map(Input::NetnsName));
        begin.into_iter().chain(clock).chain(named).chain(sysctls.map(Input::Sysctls))
    }
}
