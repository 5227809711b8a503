//! Which minisocks are to be looked at, and when.
//!
//! The move from FIN_WAIT2 to TIME_WAIT inside a minisock shows in no tracepoint, unless its
//! timer changes its slot. So those in FIN_WAIT2 are looked at again and again, ever more
//! seldom: most move within milliseconds, the others are orphans that may stay for a minute.

use std::collections::VecDeque;

/// When a minisock is looked at for the first time after its birth.
const FIRST_NS: u64 = 5_000_000;

/// The longest between two looks.
const LONGEST_NS: u64 = 500_000_000;

/// Minisocks that may wait; more are not looked at, and tell of themselves when they end.
const LIMIT: usize = 1 << 20;

struct Look {
    addr: u64,
    /// Which minisock it is about: the address may be another's by then.
    id: u64,
    at_ns: u64,
    wait_ns: u64,
}

/// The minisocks in FIN_WAIT2, by the time at which they are to be looked at.
#[derive(Default)]
pub(super) struct Peeks {
    /// One queue for each interval, so that each is in order.
    queues: [VecDeque<Look>; 8],
}

impl Peeks {
    /// A minisock in FIN_WAIT2 is there since `now`. `id` tells it from others that are at its
    /// address later.
    pub(super) fn add(&mut self, addr: u64, id: u64, now: u64) {
        self.push(Look { addr, id, at_ns: now.saturating_add(FIRST_NS), wait_ns: FIRST_NS });
    }

    fn push(&mut self, look: Look) {
        let queue = (look.wait_ns / FIRST_NS).ilog2().min(7) as usize;
        if self.queues[queue].len() < LIMIT {
            self.queues[queue].push_back(look);
        }
    }

    /// Whether none waits to be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Hands out the addresses of those that are due at `now` and, by address and id, still wanted,
    /// and puts them back for later.
    pub(super) fn due(&mut self, now: u64, mut wanted: impl FnMut(u64, u64) -> bool) -> Vec<u64> {
        let mut due = Vec::new();
        for i in 0..self.queues.len() {
            while self.queues[i].front().is_some_and(|look| look.at_ns <= now) {
                let Some(look) = self.queues[i].pop_front() else { break };
                if wanted(look.addr, look.id) {
                    due.push(look.addr);
                    let wait_ns = (2 * look.wait_ns).min(LONGEST_NS);
                    self.push(Look { at_ns: now.saturating_add(wait_ns), wait_ns, ..look });
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn looks_are_ever_more_seldom_and_end_when_not_wanted() {
        let mut peeks = Peeks::default();
        peeks.add(7, 1, 0);
        let mut looks = Vec::new();
        for ms in 0..3_000 {
            if !peeks.due(ms * MS, |_, _| true).is_empty() {
                looks.push(ms);
            }
        }
        assert_eq!(looks, [5, 15, 35, 75, 155, 315, 635, 1135, 1635, 2135, 2635]);
        assert!(!peeks.is_empty());
        assert_eq!(peeks.due(9_000 * MS, |_, _| false), [0; 0]);
        assert!(peeks.is_empty());
        assert_eq!(peeks.due(99_000 * MS, |_, _| true), [0; 0], "it was forgotten");
    }
}
