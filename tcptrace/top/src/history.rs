//! How many connections were in each state over the last minutes: a sample a second, bounded.

use std::collections::VecDeque;

use tcptrace_stats::counts::{COUNTED, Flow};

/// Samples that are kept: five minutes.
const KEPT: usize = 300;

/// A state is said to grow by what it was so many samples ago.
const AGO: usize = 15;

/// Growth by less than this is chance.
const LEAST: u64 = 10;

/// How it was at one moment, in the order of [`COUNTED`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) mono_ns: u64,
    /// Each state, its flows since the start.
    pub(super) flows: [Flow; COUNTED.len()],
}

/// The last samples.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds one.
    pub(super) fn add(&mut self, sample: Sample) {
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// The one before the last.
    pub(super) fn before(&self) -> Option<&Sample> {
        self.samples.get(self.samples.len().checked_sub(2)?)
    }

    /// What state `index` had in the last `seconds`, in so many parts, the last one now: the most
    /// of each part. A part from before the first sample has nothing.
    pub(super) fn parts(&self, index: usize, seconds: usize, parts: usize) -> Vec<Option<u64>> {
        let each = seconds.div_ceil(parts.max(1)).max(1);
        let newest_first = self.samples.iter().rev().map(|sample| sample.flows[index].now);
        let counts: Vec<u64> = newest_first.take(each * parts).collect();
        let mut most: Vec<_> = counts.chunks(each).map(|part| part.iter().max().copied()).collect();
        most.resize(parts, None);
        most.reverse();
        most
    }

    /// The state that grows most by its share, if one does.
    pub(super) fn growing(&self) -> Option<usize> {
        let last = self.samples.back()?;
        let ago = self.samples.len().saturating_sub(AGO + 1);
        let then = self.samples.get(ago)?;
        let grown = |index: usize| {
            let (now, before) = (last.flows[index].now, then.flows[index].now);
            let by = now.saturating_sub(before);
            // A tenth more at least.
            (by >= LEAST && by >= before / 10).then(|| by as f64 / (before as f64 + 10.0))
        };
        let grown = (0..COUNTED.len()).filter_map(|index| Some((index, grown(index)?)));
        grown.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(counts: impl IntoIterator<Item = u64>) -> History {
        let mut history = History::default();
        for (second, now) in counts.into_iter().enumerate() {
            let mut flows = [Flow::default(); COUNTED.len()];
            flows[3].now = now;
            history.add(Sample { mono_ns: second as u64, flows });
        }
        history
    }

    #[test]
    fn parts_are_the_most_of_their_time_and_end_now() {
        let history = history([1, 5, 2, 3, 9]);
        assert_eq!(history.parts(3, 4, 4), [Some(5), Some(2), Some(3), Some(9)]);
        assert_eq!(history.parts(3, 4, 2), [Some(5), Some(9)]);
        assert_eq!(history.parts(3, 8, 4), [None, Some(1), Some(5), Some(9)]);
        assert_eq!(history.parts(3, 0, 0), []);
    }

    #[test]
    fn it_forgets_what_is_old() {
        let history = history(0..1000);
        assert_eq!(history.parts(3, 10_000, 10_000).into_iter().flatten().count(), KEPT);
    }

    #[test]
    fn growth_is_more_than_chance() {
        assert_eq!(history([1000; 40]).growing(), None);
        assert_eq!(history((0..40).map(|n| 1000 + n)).growing(), None, "15 of 1000");
        assert_eq!(history((0..40).map(|n| 100 * n)).growing(), Some(3));
        assert_eq!(history((0..40).map(|n| 100 * n).rev()).growing(), None);
        assert_eq!(history([]).growing(), None);
    }
}
