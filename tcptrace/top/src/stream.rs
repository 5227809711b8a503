//! The last transitions, bounded, and what is to be said of those that are not kept.

use std::{collections::VecDeque, num::NonZeroU64};

use tcptrace_model::{Age, Closer, EndReason, Moved, Owner, TcpState, Tuple, Verdict};

/// Transitions that are kept: two megabytes.
pub(super) const KEPT: usize = 16_384;

/// What of a [`Moved`] is shown, or told apart by a filter. Small: each transition is written to
/// memory that was not touched for as long as it takes to fill it all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) mono_ns: u64,
    pub(super) old: TcpState,
    pub(super) new: TcpState,
    pub(super) tuple: Tuple,
    /// Inode of the network namespace, 0 where that is not known.
    pub(super) netns: u32,
    pub(super) cgroup: Option<NonZeroU64>,
    pub(super) in_old: Age,
    pub(super) owner: Option<Owner>,
    pub(super) closer: Option<Closer>,
    pub(super) end_reason: Option<EndReason>,
    pub(super) verdict: Verdict,
}

impl From<&Moved> for Kept {
    fn from(moved: &Moved) -> Self {
        Self {
            id: moved.id,
            mono_ns: moved.mono_ns,
            old: moved.old,
            new: moved.new,
            tuple: moved.tuple,
            netns: moved.netns.unwrap_or(0),
            cgroup: moved.sock.and_then(|sock| sock.cgroup).and_then(NonZeroU64::new),
            in_old: moved.in_old,
            owner: moved.owner,
            closer: moved.closer,
            end_reason: moved.end_reason,
            verdict: moved.verdict,
        }
    }
}

/// The last transitions.
#[derive(Debug, Default)]
pub(super) struct Stream {
    kept: VecDeque<Kept>,
    /// How many there were before the first that is kept.
    dropped: u64,
    /// It takes nothing in: what goes by meanwhile is counted.
    held: bool,
    passed: u64,
}

impl Stream {
    /// Takes one in.
    pub(super) fn add(&mut self, moved: &Moved) {
        if self.held {
            self.passed += 1;
            return;
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(moved.into());
    }

    /// Holds still, or goes on.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// How many went by while it held still.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// How many are not kept any more.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many there were, for telling whether there are new ones.
    pub(super) fn total(&self) -> u64 {
        self.dropped + self.kept.len() as u64 + self.passed
    }

    /// Those that are kept, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Change, script};
    use tcptrace_track::Tracker;

    #[test]
    fn what_is_kept_of_a_transition_is_small() {
        assert!(size_of::<Kept>() <= 216, "{}", size_of::<Kept>());
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_does_not_keep() {
        let mut stream = Stream::default();
        let inputs = script::inputs("1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n").unwrap();
        let mut moved = None;
        Tracker::default().apply(&inputs[0], &mut |change| {
            if let Change::Moved(one) = change {
                moved = Some(one);
            }
        });
        let moved = moved.unwrap();
        (0..KEPT + 7).for_each(|_| stream.add(&moved));
        assert_eq!((stream.iter().count(), stream.dropped()), (KEPT, 7));
        stream.hold(true);
        (0..5).for_each(|_| stream.add(&moved));
        assert_eq!((stream.iter().count(), stream.dropped(), stream.passed()), (KEPT, 7, 5));
        assert_eq!(stream.total(), KEPT as u64 + 12);
    }
}
