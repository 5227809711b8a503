//! The queues of sockets that are not ESTABLISHED, as the last snapshot had them.
//!
//! Apart from the connections: of a million of those, few are in a state where it is asked what
//! hangs in their queues. Must hold nothing that the last snapshot of a namespace had not.

use std::collections::HashMap;

use crate::model::{Queues, SnapSocket, TcpState};

/// Queues by cookie, with the namespace.
#[derive(Default)]
pub(super) struct LastQueues(HashMap<u64, (u32, Queues)>);

impl LastQueues {
    /// Replaces what was known of the namespaces for which `told` says so.
    pub(super) fn replace<'a>(
        &mut self,
        told: impl Fn(u32) -> bool,
        rows: impl Iterator<Item = &'a (u32, SnapSocket)>,
    ) {
        self.0.retain(|_, (netns, _)| !told(*netns));
        self.0.extend(rows.filter_map(|(netns, row)| {
            let full = row.full.as_ref().filter(|_| row.state != TcpState::Established)?;
            Some((row.cookie, (*netns, full.queues)))
        }));
        // A peak of stuck sockets is not to cost its memory for ever.
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    pub(super) fn get(&self, cookie: u64) -> Option<Queues> {
        self.0.get(&cookie).map(|(_, queues)| *queues)
    }
}
