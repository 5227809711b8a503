//! RSTs of sockets that are not known yet: of connections that a snapshot has told of by their
//! cookies, and of those that no event has told of.
//!
//! A RST is reported with the address of its socket alone, and moments before the event by which
//! that becomes known. Must not keep one for another socket: an address that is born anew has none.

use super::{table::Table, verdict::Resets};
use tcptrace_model::Reset;

/// Addresses kept. The event is the next thing that the kernel does with the socket.
const LIMIT: usize = 4096;

/// RSTs by the address of the full socket.
pub(super) struct Strays(Table<Resets>);

impl Default for Strays {
    fn default() -> Self {
        Self(Table::new(LIMIT))
    }
}

impl Strays {
    /// A socket that is not known, and is not in CLOSE, sent or received a RST.
    pub(super) fn add(&mut self, event: &Reset) {
        let mut resets = self.0.get(event.skaddr).copied().unwrap_or_default();
        resets.add(event.direction, event.reason);
        // Of one that goes to keep the limit, only the reason of its end is not known then.
        let _ = self.0.insert(event.skaddr, resets);
    }

    /// How many had to go to keep the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.0.evicted()
    }

    /// Takes out those of the socket at `skaddr`.
    pub(super) fn take(&mut self, skaddr: u64) -> Option<Resets> {
        if self.0.is_empty() { None } else { self.0.remove(skaddr) }
    }
}
