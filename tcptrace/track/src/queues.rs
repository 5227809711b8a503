//! The queues of sockets that are not ESTABLISHED, as the last snapshot had them.
//!
//! Apart from the connections: of a million of those, few are in a state where it is asked what
//! hangs in their queues. Must hold nothing that the last snapshot of a namespace had not.

use tcptrace_model::{Queues, SnapSocket, TcpState, hash::Map};

/// Queues by cookie, with the namespace.
#[derive(Default)]
pub(super) struct LastQueues(Map<u64, (u32, Last)>);

/// What the last snapshot had of a full socket.
#[derive(Clone, Copy)]
struct Last {
    /// The state that it was in.
    state: TcpState,
    queues: Queues,
    /// A process had it open.
    held: bool,
}

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
            let last = Last { state: row.state, queues: full.queues, held: full.inode != 0 };
            Some((row.cookie, (*netns, last)))
        }));
        // A peak of stuck sockets is not to cost its memory for ever.
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    /// Of a connection that was in `state` already.
    pub(super) fn get(&self, cookie: u64, state: TcpState) -> Option<Queues> {
        let (_, last) = self.0.get(&cookie)?;
        (last.state == state).then_some(last.queues)
    }

    /// Whether a process had it open.
    pub(super) fn held(&self, cookie: u64) -> Option<bool> {
        self.0.get(&cookie).map(|(_, last)| last.held)
    }
}
