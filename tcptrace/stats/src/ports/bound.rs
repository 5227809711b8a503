//! Local ports that sockets are bound to and nothing else: no event tells of them, so what the last
//! scan of a namespace has is all that is known.
//!
//! Must not say of a namespace that there are none where its kernel does not list them.

use tcptrace_model::{
    BoundPort, Input, Snapshot,
    hash::{Map, Set},
};

/// Ports that are remembered, of all namespaces together. Of a namespace for which there is no room
/// nothing is known.
const LIMIT: usize = 1 << 17;

/// Those of each namespace.
#[derive(Default)]
pub(super) struct BoundPorts {
    /// `None`: the kernel does not list them, or there was no room.
    spaces: Map<u32, Option<Box<[BoundPort]>>>,
    /// The namespace whose dump is being told, and its ports so far.
    open: Option<(u32, Vec<BoundPort>)>,
    /// The round is of minisocks alone: it says nothing of these.
    minisocks_alone: bool,
    /// The namespaces of this round.
    told: Set<u32>,
    kept: usize,
}

impl BoundPorts {
    /// Takes in what dumps tell.
    pub(super) fn input(&mut self, input: &Input) {
        let Input::Snapshot(snapshot) = input else { return };
        match snapshot {
            Snapshot::Open => (self.minisocks_alone, self.told) = (false, Set::default()),
            Snapshot::OpenMinisocks => self.minisocks_alone = true,
            Snapshot::Begin { netns, .. } => {
                self.open = (!self.minisocks_alone).then(|| (*netns, Vec::new()));
            }
            Snapshot::Bound(port) => {
                if let Some((_, ports)) = &mut self.open
                    && ports.len() < LIMIT
                {
                    ports.push(**port);
                }
            }
            Snapshot::End(end) => {
                let Some((netns, ports)) = self.open.take() else { return };
                self.forget(netns);
                self.told.insert(netns);
                let has_room = self.kept + ports.len() < LIMIT;
                let ports = (end.lists_bound && has_room).then(|| ports.into_boxed_slice());
                self.kept += ports.as_ref().map_or(0, |ports| ports.len());
                self.spaces.insert(netns, ports);
            }
            // What a whole round does not have is gone.
            Snapshot::Over { all: true, .. } if !self.minisocks_alone => {
                let Self { spaces, told, .. } = self;
                spaces.retain(|netns, _| told.contains(netns));
                self.kept = spaces.values().flatten().map(|ports| ports.len()).sum();
            }
            Snapshot::Socket(_)
            | Snapshot::Info(_)
            | Snapshot::SynQueue(_)
            | Snapshot::Over { .. } => {}
        }
    }

    fn forget(&mut self, netns: u32) {
        let was = self.spaces.remove(&netns).flatten();
        self.kept -= was.map_or(0, |ports| ports.len());
    }

    /// Those of a namespace, as of its last scan; `None`: not known.
    pub(super) fn of(&self, netns: u32) -> Option<&[BoundPort]> {
        self.spaces.get(&netns)?.as_deref()
    }

    /// The namespaces that were scanned.
    pub(super) fn spaces(&self) -> impl Iterator<Item = u32> {
        self.spaces.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;

    fn fed(bound: &mut BoundPorts, text: &str) {
        script::inputs(text).unwrap().iter().for_each(|input| bound.input(input));
    }

    fn ports(bound: &BoundPorts, netns: u32) -> Option<Vec<u16>> {
        Some(bound.of(netns)?.iter().map(|port| port.lport).collect())
    }

    #[test]
    fn the_last_scan_of_a_namespace_counts_and_one_that_is_gone_has_none() {
        let mut bound = BoundPorts::default();
        fed(
            &mut bound,
            "0ms snapshot open\n0ms snapshot 5\n0ms bound 7\n0ms bound 8\n\
             0ms snapshot end lists-bound\n0ms snapshot 6\n0ms bound 9\n\
             0ms snapshot end lists-bound\n0ms snapshot over\n",
        );
        assert_eq!((ports(&bound, 5), ports(&bound, 6)), (Some(vec![7, 8]), Some(vec![9])));
        // One of minisocks alone tells of none of them.
        let minisocks = "1ms snapshot minisocks\n1ms snapshot 5\n1ms snapshot end\n";
        fed(&mut bound, &format!("{minisocks}1ms snapshot over\n"));
        assert_eq!((ports(&bound, 5), bound.kept), (Some(vec![7, 8]), 3));
        let again =
            "2ms snapshot open\n2ms snapshot 5\n2ms bound 8\n2ms snapshot end lists-bound\n";
        fed(&mut bound, &format!("{again}2ms snapshot over\n"));
        assert_eq!((ports(&bound, 5), ports(&bound, 6), bound.kept), (Some(vec![8]), None, 1));
    }

    #[test]
    fn what_is_not_listed_or_has_no_room_is_unknown() {
        let mut bound = BoundPorts::default();
        fed(&mut bound, "0ms snapshot open\n0ms snapshot 5\n0ms snapshot end\n");
        assert_eq!((bound.of(5), bound.of(6)), (None, None));
        let all: String = (0..=u16::MAX).map(|port| format!("0ms bound {port}\n")).collect();
        for netns in 1..4 {
            fed(&mut bound, &format!("0ms snapshot {netns}\n{all}0ms snapshot end lists-bound\n"));
        }
        assert_eq!(bound.of(1).map(<[_]>::len), Some(65_536));
        assert_eq!(bound.of(3), None);
        assert!(bound.kept < LIMIT, "{}", bound.kept);
    }
}
