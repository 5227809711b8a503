//! Which groups have a label of their own, and which are `(other)`: few enough for a monitoring
//! system, whatever processes call themselves.
//!
//! A counter must never fall, and a series that comes and goes is worth nothing. So a group that
//! has got its label keeps it; what was counted of it before stays with the others; and there is
//! a limit to how many ever get one.

use std::collections::HashMap;

use tcptrace_stats::group::By;

/// The label of what has none of its own.
pub(super) const OTHER: &str = "(other)";
/// The label of what belongs to nobody known.
pub(super) const UNKNOWN: &str = "(unknown)";

/// Groups that wait for a label; of more it is not known how large they are.
const CANDIDATES: usize = 10_000;

/// How many times as many as are shown at first may get a label in one run.
const EVER: usize = 4;

/// `--label`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelOptions {
    /// What tells groups apart.
    pub by: By,
    /// So many have a label at first.
    pub top: usize,
}

/// Gives labels.
#[derive(Debug)]
pub(super) struct Labels {
    top: usize,
    /// How large each group is that has a label, by its name.
    labelled: HashMap<String, u64>,
    /// Likewise of those that have none.
    waiting: HashMap<String, u64>,
    /// What was counted of groups for which there was no room to wait.
    unranked: u64,
}

impl Labels {
    /// With labels for the first `top` groups, and later for those that turn out to be among the
    /// largest `top`.
    pub(super) fn new(top: usize) -> Self {
        Self { top, labelled: HashMap::new(), waiting: HashMap::new(), unranked: 0 }
    }

    /// The group has become larger by so much.
    pub(super) fn add(&mut self, name: &str, more: u64) {
        if let Some(size) = self.labelled.get_mut(name) {
            *size += more;
        } else if let Some(size) = self.waiting.get_mut(name) {
            *size += more;
        } else if self.waiting.len() < CANDIDATES {
            self.waiting.insert(name.to_owned(), more);
        } else {
            self.unranked += more;
        }
    }

    /// Gives labels to those that have grown to deserve one. What is counted from now on is
    /// theirs.
    pub(super) fn promote(&mut self) {
        let room = (self.top * EVER).saturating_sub(self.labelled.len());
        if room == 0 {
            return;
        }
        let mut sizes: Vec<u64> = self.labelled.values().copied().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        // Larger than the smallest of the `top` largest, if there are as many.
        let least = sizes.get(self.top.saturating_sub(1)).copied();
        let mut deserving: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, size)| least.is_none_or(|least| **size > least))
            .map(|(name, size)| (std::cmp::Reverse(*size), name.clone()))
            .collect();
        deserving.sort();
        for (size, name) in deserving.into_iter().take(self.top.min(room)) {
            self.waiting.remove(&name);
            self.labelled.insert(name, size.0);
        }
    }

    /// How many connections were of groups that never get a label, since too many wait for one: they are
    /// among the others, whatever their number.
    pub(super) fn unranked(&self) -> u64 {
        self.unranked
    }

    /// The label of the group of this name.
    pub(super) fn of<'a>(&self, name: &'a str) -> &'a str {
        if self.labelled.contains_key(name) { name } else { OTHER }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_get_a_label_and_keep_it() {
        let mut labels = Labels::new(2);
        for (name, size) in [("a", 5), ("b", 7), ("c", 6)] {
            labels.add(name, size);
        }
        assert_eq!(labels.of("b"), OTHER, "none has grown to one yet");
        labels.promote();
        assert_eq!(["a", "b", "c"].map(|name| labels.of(name)), [OTHER, "b", "c"]);
        labels.add("a", 100);
        labels.promote();
        assert_eq!(["a", "b", "c"].map(|name| labels.of(name)), ["a", "b", "c"]);
    }

    #[test]
    fn there_is_a_limit_to_labels_and_to_what_waits_for_one() {
        let mut labels = Labels::new(2);
        for number in 0..3 * CANDIDATES as u64 {
            labels.add(&format!("hostile-{number}"), number);
            labels.promote();
        }
        assert_eq!(labels.labelled.len(), 2 * EVER);
        assert!(labels.waiting.len() <= CANDIDATES);
        let counted = (0..3 * CANDIDATES as u64).sum::<u64>();
        let kept = labels.labelled.values().chain(labels.waiting.values()).sum::<u64>();
        assert!(labels.unranked() > 0 && kept + labels.unranked() == counted);
    }

    #[test]
    fn a_group_of_the_same_size_does_not_take_another_label() {
        let mut labels = Labels::new(1);
        labels.add("a", 3);
        labels.promote();
        labels.add("b", 3);
        labels.promote();
        assert_eq!((labels.of("a"), labels.of("b")), ("a", OTHER));
    }
}
