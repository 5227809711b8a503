//! The queues of sockets that are not ESTABLISHED, as the last snapshot had them.
//!
//! Apart from the connections: of a million of those, few are in a state where it is asked what
//! hangs in their queues. Must hold nothing that the last snapshot of a namespace had not.

use super::rows::Row;
use tcptrace_model::{Queues, TcpState, Tuple, hash::Map};

/// Queues of full sockets by cookie, with the namespace.
#[derive(Default)]
pub(super) struct LastQueues(Map<u64, (u32, Last)>);

/// What the last snapshot had of a full socket.
#[derive(Clone, Copy)]
pub(super) struct Last {
    /// The state that it was in.
    pub(super) state: TcpState,
    pub(super) queues: Queues,
    /// A process had it open.
    pub(super) held: bool,
    tuple: Tuple,
}

impl LastQueues {
    /// Replaces what was known of the namespaces for which `told` says so. Of at most `limit` sockets:
    /// of others it is not known.
    pub(super) fn replace<'a>(
        &mut self,
        told: impl Fn(u32) -> bool,
        rows: impl Iterator<Item = &'a Row>,
        limit: usize,
    ) {
        self.0.retain(|_, (netns, _)| !told(*netns));
        let room = limit.saturating_sub(self.0.len());
        let lasts = rows.filter_map(|Row { netns, socket }| {
            let (state, tuple) = (socket.state, socket.tuple);
            let full = socket.full.as_ref().filter(|_| state != TcpState::Established)?;
            let last = Last { state, queues: full.queues, held: full.inode != 0, tuple };
            Some((socket.cookie, (*netns, last)))
        });
        self.0.extend(lasts.take(room));
        // A peak of stuck sockets is not to cost its memory for ever.
        if self.0.capacity() > 4 * self.0.len() {
            self.0.shrink_to_fit();
        }
    }

    /// What the last snapshot had of the connection of the full socket with this cookie: of another
    /// one, from before it connected again, nothing.
    pub(super) fn get(&self, cookie: u64, tuple: &Tuple) -> Option<&Last> {
        let (_, last) = self.0.get(&cookie)?;
        // A connect() whose local port has not been told has it all the same.
        let same = last.tuple == *tuple || *tuple == Tuple { lport: 0, ..last.tuple };
        same.then_some(last)
    }
}
