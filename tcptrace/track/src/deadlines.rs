//! What is to be settled when its time has come, the earliest first.
//!
//! An entry is not taken out when it is settled earlier, but passed over when its time comes. Must
//! not grow with those: whoever adds says from time to time which are still wanted.

use std::{cmp::Reverse, collections::BinaryHeap};

/// One thing to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    /// When it is to be settled, `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) due_ns: u64,
    /// The address of what it is about.
    pub(super) addr: u64,
}

/// Entries that are passed over before they are looked through.
const SPARE: usize = 1024;

/// Things to settle, by time.
#[derive(Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<Deadline>>);

impl Deadlines {
    /// Adds one. Of `live` things that may be waiting, `wanted` says which still are.
    pub(super) fn add(
        &mut self,
        deadline: Deadline,
        live: usize,
        wanted: impl Fn(Deadline) -> bool,
    ) {
        self.0.push(Reverse(deadline));
        if self.0.len() > 2 * live + SPARE {
            self.0.retain(|Reverse(deadline)| wanted(*deadline));
        }
    }

    /// Takes out the next whose time has come at `now`.
    pub(super) fn due(&mut self, now: u64) -> Option<Deadline> {
        let Reverse(next) = self.0.peek()?;
        if next.due_ns > now {
            return None;
        }
        self.0.pop().map(|Reverse(deadline)| deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_none_before_its_time() {
        let mut deadlines = Deadlines::default();
        for due_ns in [30, 10, 20] {
            deadlines.add(Deadline { due_ns, addr: due_ns }, 3, |_| true);
        }
        let due = |deadlines: &mut Deadlines, now| deadlines.due(now).map(|one| one.addr);
        assert_eq!(due(&mut deadlines, 9), None);
        assert_eq!(due(&mut deadlines, 20), Some(10));
        assert_eq!(due(&mut deadlines, 20), Some(20));
        assert_eq!(due(&mut deadlines, 20), None);
        assert_eq!(due(&mut deadlines, u64::MAX), Some(30));
    }

    #[test]
    fn what_is_not_wanted_any_more_does_not_pile_up() {
        let mut deadlines = Deadlines::default();
        for due_ns in 0..100_000 {
            deadlines.add(Deadline { due_ns, addr: 0 }, 1, |one| one.due_ns == 99_999);
        }
        assert!(deadlines.0.len() <= SPARE + 3, "{}", deadlines.0.len());
    }
}
