//! Bounds what a recording may have the analysis remember.
//!
//! A host has as many namespaces, sysctls and ports as its memory holds, and what it reports of them was
//! paid for by it. A recording may name millions in a few bytes. What goes beyond these limits, which no
//! host of today reaches, is left out and counted. Must not touch what is within them.

use std::collections::HashMap;

use tcptrace_model::{Input, Snapshot, Sysctl, TcpState};

/// Network namespaces of which anything is remembered.
const SPACES: usize = 1 << 14;

/// Ranges of reserved ports, in all namespaces.
const RANGES: usize = 1 << 18;

/// Ports with a SYN queue, ports that are only bound, and listeners, in all namespaces: each.
const PORTS: usize = 1 << 17;

/// Of one namespace, what is remembered of its last dump, and of its sysctls.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    ranges: usize,
    syn_queues: usize,
    bound: usize,
    listeners: usize,
}

/// What was remembered so far.
#[derive(Debug, Default)]
pub(super) struct Quota {
    spaces: HashMap<u32, Space>,
    all: Space,
    /// The namespace whose dump is being read.
    dump: Option<u32>,
    /// There is no room for the namespace whose dump is being read.
    refuses: bool,
    left_out: u64,
}

impl Quota {
    /// Inputs that were left out.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether there is room for `input`, which may be cut to what there is room for.
    pub(super) fn admits(&mut self, input: &mut Input) -> bool {
        let admitted = match input {
            Input::Sysctls(sysctls) => {
                let ranges = match &sysctls.sysctls.ip_local_reserved_ports {
                    Sysctl::Is(ranges) => ranges.len(),
                    _ => 0,
                };
                let had = self.spaces.get(&sysctls.netns).map_or(0, |space| space.ranges);
                let fits = self.all.ranges - had + ranges <= RANGES;
                self.space(sysctls.netns).is_some_and(|space| {
                    space.ranges = if fits { ranges } else { 0 };
                    true
                }) && {
                    self.all.ranges = self.all.ranges - had + if fits { ranges } else { 0 };
                    if !fits {
                        let why = "there are too many ranges in this recording".into();
                        sysctls.sysctls.ip_local_reserved_ports = Sysctl::Unreadable(why);
                        self.left_out += 1;
                    }
                    true
                }
            }
            Input::Counters(counters) => self.space(counters.netns).is_some(),
            Input::NetnsName(named) => self.space(named.netns).is_some(),
            Input::Snapshot(snapshot) => self.snapshot(snapshot),
            _ => true,
        };
        self.left_out += u64::from(!admitted);
        admitted
    }

    /// The namespace, if there is room for it.
    fn space(&mut self, netns: u32) -> Option<&mut Space> {
        if self.spaces.len() >= SPACES && !self.spaces.contains_key(&netns) {
            return None;
        }
        Some(self.spaces.entry(netns).or_default())
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> bool {
        match snapshot {
            Snapshot::Begin { netns, .. } => {
                self.refuses = false;
                let Some(space) = self.space(*netns) else {
                    (self.dump, self.refuses) = (None, true);
                    return false;
                };
                let before =
                    std::mem::replace(space, Space { ranges: space.ranges, ..Space::default() });
                self.all.syn_queues -= before.syn_queues;
                self.all.bound -= before.bound;
                self.all.listeners -= before.listeners;
                self.dump = Some(*netns);
                true
            }
            Snapshot::SynQueue(_) => self.count(|space| &mut space.syn_queues),
            Snapshot::Bound(_) => self.count(|space| &mut space.bound),
            Snapshot::Socket(socket) if socket.state == TcpState::Listen => {
                self.count(|space| &mut space.listeners)
            }
            Snapshot::Socket(_) | Snapshot::Info(_) => !self.refuses,
            Snapshot::End(_) => {
                self.dump = None;
                !std::mem::take(&mut self.refuses)
            }
            Snapshot::Open | Snapshot::OpenMinisocks | Snapshot::Over { .. } => true,
        }
    }

    /// Counts one more of a kind in the present dump, if there is room.
    fn count(&mut self, of: impl Fn(&mut Space) -> &mut usize) -> bool {
        let Some(space) = self.dump.and_then(|netns| self.spaces.get_mut(&netns)) else {
            // Outside of a dump it is nobody's, and nothing remembers it.
            return !self.refuses;
        };
        if *of(&mut self.all) >= PORTS {
            return false;
        }
        *of(&mut self.all) += 1;
        *of(space) += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{NetnsSysctls, PortRange, Sysctls, script};

    fn sysctls(netns: u32, ranges: u16) -> Input {
        let range = |at: u16| PortRange { low: 2 * at, high: 2 * at };
        let ip_local_reserved_ports = Sysctl::Is((0..ranges).map(range).collect());
        let sysctls = Sysctls { ip_local_reserved_ports, ..Sysctls::default() };
        Input::Sysctls(Box::new(NetnsSysctls { mono_ns: 1, netns, sysctls }))
    }

    #[test]
    fn more_namespaces_than_there_is_room_for_are_left_out_with_their_dumps() {
        let mut quota = Quota::default();
        for netns in 0..SPACES as u32 {
            assert!(quota.admits(&mut sysctls(netns, 0)));
        }
        assert!(!quota.admits(&mut sysctls(u32::MAX, 0)));
        assert!(quota.admits(&mut sysctls(7, 0)), "a known one may change");
        let text = format!(
            "1ms snapshot open\n1ms snapshot {}\n1ms socket LISTEN 5 10.0.0.1:7 0.0.0.0:0\n\
             1ms snapshot end\n1ms snapshot 7\n1ms socket LISTEN 5 10.0.0.1:7 0.0.0.0:0\n\
             1ms snapshot end\n1ms snapshot over\n",
            u32::MAX
        );
        let admitted: Vec<_> =
            script::inputs(&text).unwrap().iter_mut().map(|input| quota.admits(input)).collect();
        assert_eq!(admitted, [true, false, false, false, true, true, true, true]);
        assert_eq!(quota.left_out(), 4);
    }

    #[test]
    fn the_ranges_of_all_namespaces_are_bounded_and_a_new_value_takes_the_room_of_the_old() {
        let mut quota = Quota::default();
        let full = (RANGES / 32_000) as u32;
        for _ in 0..3 {
            for netns in 0..full {
                let mut input = sysctls(netns, 32_000);
                assert!(quota.admits(&mut input));
                assert_eq!(input, sysctls(netns, 32_000));
            }
        }
        let mut input = sysctls(full, 32_000);
        assert!(quota.admits(&mut input));
        let Input::Sysctls(cut) = input else { panic!() };
        assert!(matches!(cut.sysctls.ip_local_reserved_ports, Sysctl::Unreadable(_)));
        assert_eq!(quota.left_out(), 1);
    }
}
