//! What is counted from the start of a run to now and never begins anew: what a monitoring system
//! takes differences of.

use super::{
    buckets::{ANY_NS, Buckets, MINUTE_NS},
    closers::{Told, told},
    counts::COUNTED,
    group::{By, Key},
};
use tcptrace_model::{EndReason, How, Initiator, Moved, TcpState, hash::Map};

/// Groups of which ends are counted apart between two calls of [`SinceStart::take_ends`]; the
/// others are [`Key::Other`].
const GROUPS: usize = 10_000;

/// How connections came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// A connection was closed: by whom first, if that is known, and how.
    Closed(Option<Initiator>, How),
    /// There never was one: why connect() failed.
    Failed(How),
}

/// Counts of transitions, times and ends.
#[derive(Clone, Debug)]
pub struct SinceStart {
    label: Option<By>,
    /// By the kernel's numbers of the two states.
    transitions: [[u64; SLOTS]; SLOTS],
    /// In the order of [`COUNTED`].
    durations: Vec<Buckets>,
    /// In the order of [`EndReason::ALL`].
    time_waits: Vec<Buckets>,
    ends: Map<(Key, End), u64>,
}

/// The kernel's numbers of states.
const SLOTS: usize = TcpState::ALL.len() + 1;

impl SinceStart {
    /// Nothing counted yet; ends are told apart by `label`, too.
    pub fn new(label: Option<By>) -> Self {
        Self {
            label,
            transitions: [[0; SLOTS]; SLOTS],
            durations: vec![Buckets::new(ANY_NS); COUNTED.len()],
            time_waits: vec![Buckets::new(MINUTE_NS); EndReason::ALL.len()],
            ends: Map::default(),
        }
    }

    /// Takes in a transition.
    pub fn add(&mut self, moved: &Moved) {
        self.transitions[moved.old as usize][moved.new as usize] += 1;
        // The LISTEN that a child of a listener leaves is its listener's.
        if !moved.is_birth()
            && let Some(at) = COUNTED.iter().position(|&state| state == moved.old)
            && let Some(buckets) = self.durations.get_mut(at)
        {
            buckets.add(moved.in_old);
        }
        if moved.old == TcpState::TimeWait {
            let reason = moved.end_reason.unwrap_or(EndReason::Unknown);
            let at = EndReason::ALL.iter().position(|&of| of == reason);
            if let Some(buckets) = at.and_then(|at| self.time_waits.get_mut(at)) {
                buckets.add(moved.in_old);
            }
        }
        let end = match told(moved) {
            None => return,
            Some(Told::Closed(ending)) => End::Closed(ending.initiator, ending.how),
            Some(Told::Failed(how)) => End::Failed(how),
        };
        let key = self.label.map_or(Key::All, |label| label.key(moved));
        let full = self.ends.len() >= GROUPS && !self.ends.contains_key(&(key, end));
        let key = if full { Key::Other } else { key };
        *self.ends.entry((key, end)).or_default() += 1;
    }

    /// What tells ends apart besides.
    pub fn label(&self) -> Option<By> {
        self.label
    }

    /// Transitions that a connection may make, those that none has made among them, and others
    /// that were seen.
    pub fn transitions(&self) -> impl Iterator<Item = (TcpState, TcpState, u64)> {
        let pairs = TcpState::ALL.into_iter().flat_map(|old| TcpState::ALL.map(|new| (old, new)));
        pairs.map(|(old, new)| (old, new, self.transitions[old as usize][new as usize])).filter(
            |(old, new, count)| {
                // A request sock has no event.
                let possible = old.may_become(*new) && *old != TcpState::NewSynRecv;
                possible || *count > 0
            },
        )
    }

    /// The time in each state.
    pub fn durations(&self) -> impl Iterator<Item = (TcpState, &Buckets)> {
        COUNTED.into_iter().zip(&self.durations)
    }

    /// How long TIME_WAITs lived, by why they ended.
    pub fn time_waits(&self) -> impl Iterator<Item = (EndReason, &Buckets)> {
        EndReason::ALL
            .into_iter()
            .zip(&self.time_waits)
            .filter(|(reason, _)| *reason != EndReason::NeverCreated)
    }

    /// The ends since the last call, in no order: groups have names that only their caller knows.
    pub fn take_ends(&mut self) -> impl Iterator<Item = (Key, End, u64)> {
        self.ends.drain().map(|((key, end), count)| (key, end, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{
        Change,
        script::{self, ACTIVE},
    };
    use tcptrace_track::Tracker;

    fn count(text: &str, label: Option<By>) -> SinceStart {
        let (mut tracker, mut since) = (Tracker::default(), SinceStart::new(label));
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    since.add(&moved);
                }
            });
        }
        since
    }

    #[test]
    fn a_life_is_counted_once_in_each_of_its_transitions_and_times() {
        let mut since = count(ACTIVE, None);
        let made: Vec<_> = since.transitions().filter(|(.., count)| *count > 0).collect();
        assert_eq!(made.len(), 6, "{made:?}");
        assert!(made.iter().all(|(old, new, count)| old.may_become(*new) && *count == 1));
        let in_state = |state| {
            since.durations().find(|(of, _)| *of == state).map(|(_, buckets)| buckets.count())
        };
        assert_eq!(in_state(TcpState::Established), Some(1));
        assert_eq!(in_state(TcpState::Listen), Some(0));
        let (_, expired) =
            since.time_waits().find(|(reason, _)| *reason == EndReason::Expired).unwrap();
        assert_eq!((expired.count(), expired.sum_s()), (1, 60.0));
        let ends: Vec<_> = since.take_ends().collect();
        assert_eq!(ends, [(Key::All, End::Closed(Some(Initiator::Local), How::Fin), 1)]);
        assert_eq!(since.take_ends().count(), 0, "each once");
    }

    #[test]
    fn zeros_are_there_too() {
        let since = count("0ms begin\n", None);
        assert!(
            since.transitions().any(|row| { row == (TcpState::FinWait2, TcpState::TimeWait, 0) })
        );
        assert_eq!(since.durations().count(), COUNTED.len());
        assert_eq!(since.time_waits().count(), EndReason::ALL.len() - 1);
    }

    #[test]
    fn ends_are_told_apart_by_the_label() {
        let mut since = count(ACTIVE, Some(By::Port));
        let ends: Vec<_> = since.take_ends().map(|(key, ..)| key).collect();
        assert_eq!(ends, [Key::Port(Some(443))]);
    }
}
