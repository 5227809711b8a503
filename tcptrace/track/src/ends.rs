//! Where in a store sockets with certain ends are, for kernels that report no cookies.
//!
//! Several sockets have the same ends where listeners share a port (`SO_REUSEPORT`), where
//! namespaces use the same addresses, or where a minisock's successor has not been told apart yet.
//! Must not look through them one by one: anybody may open thousands.

use std::collections::BTreeSet;

use tcptrace_model::{TcpState, Tuple};

/// One socket, in the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) tuple: Tuple,
    pub(super) mini: bool,
    pub(super) state: TcpState,
    pub(super) netns: u32,
}

/// Indices of sockets by their ends.
#[derive(Default)]
pub(super) struct ByEnds(BTreeSet<(Ends, u32)>);

impl ByEnds {
    pub(super) fn insert(&mut self, ends: Ends, at: u32) {
        self.0.insert((ends, at));
    }

    pub(super) fn remove(&mut self, ends: Ends, at: u32) {
        self.0.remove(&(ends, at));
    }

    /// One with these ends, rather in `state`; in any namespace unless told.
    pub(super) fn find(
        &self,
        tuple: &Tuple,
        mini: bool,
        state: TcpState,
        netns: Option<u32>,
    ) -> Option<u32> {
        let in_state = |state| {
            let (least, most) = netns.map_or((0, u32::MAX), |netns| (netns, netns));
            let ends = |netns| Ends { tuple: *tuple, mini, state, netns };
            let range = (ends(least), 0)..=(ends(most), u32::MAX);
            self.0.range(range).next().map(|(_, at)| *at)
        };
        let others = TcpState::ALL.into_iter().filter(|other| *other != state);
        in_state(state).or_else(|| others.into_iter().find_map(in_state))
    }
}
