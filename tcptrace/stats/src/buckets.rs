//! Durations counted between fixed edges, as Prometheus has its histograms: what was counted once
//! stays where it is, so that the counts of many hosts can be added.
//!
//! What is only a lower bound, or not known, is in no bucket: it is counted apart.

use tcptrace_model::Age;

/// Edges for the time in any state: from a round trip to a day, nanoseconds.
pub const ANY_NS: &[u64] = &[
    100_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    600_000_000_000,
    3_600_000_000_000,
    86_400_000_000_000,
];

/// Edges for TIME_WAIT, which the kernel ends after 60 s and what its timer wheel adds to that:
/// what is below was ended early, nanoseconds.
pub const MINUTE_NS: &[u64] = &[
    10_000_000,
    100_000_000,
    1_000_000_000,
    5_000_000_000,
    15_000_000_000,
    30_000_000_000,
    45_000_000_000,
    59_000_000_000,
    59_900_000_000,
    60_500_000_000,
    61_000_000_000,
    62_000_000_000,
    64_000_000_000,
    70_000_000_000,
    120_000_000_000,
];

/// Durations between edges.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    edges_ns: &'static [u64],
    /// One for each edge, of what is longer than the edge before and not longer than this one;
    /// and one of what is longer than all.
    counts: Vec<u64>,
    sum_ns: u128,
    left_out: u64,
}

impl Buckets {
    /// Nothing counted yet, between `edges_ns`, which rise.
    pub fn new(edges_ns: &'static [u64]) -> Self {
        Self { edges_ns, counts: vec![0; edges_ns.len() + 1], sum_ns: 0, left_out: 0 }
    }

    /// Counts one.
    pub fn add(&mut self, age: Age) {
        let (Age::Exactly(ns) | Age::About { ns, .. }) = age else {
            self.left_out += 1;
            return;
        };
        let at = self.edges_ns.partition_point(|&edge| edge < ns);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum_ns += u128::from(ns);
    }

    /// The upper edge of each bucket in seconds, and how many are in it and in none before; the
    /// last edge is infinite.
    pub fn seconds(&self) -> impl Iterator<Item = (f64, u64)> {
        let edges = self.edges_ns.iter().map(|&ns| ns as f64 / 1e9).chain([f64::INFINITY]);
        edges.zip(self.counts.iter().copied())
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All that was measured, added up, seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// How many there were whose duration is not known, or only a lower bound of it.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_bucket_below_it() {
        let mut buckets = Buckets::new(&[10, 20]);
        for ns in [0, 10, 11, 20, 21, u64::MAX] {
            buckets.add(Age::Exactly(ns));
        }
        buckets.add(Age::About { ns: 15, within_ns: 9 });
        let counts: Vec<u64> = buckets.seconds().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 2]);
        assert_eq!(buckets.count(), 7);
        assert_eq!(buckets.seconds().last().map(|(edge, _)| edge), Some(f64::INFINITY));
    }

    #[test]
    fn a_lower_bound_is_in_no_bucket() {
        let mut buckets = Buckets::new(ANY_NS);
        buckets.add(Age::AtLeast(5));
        buckets.add(Age::Unknown);
        assert_eq!((buckets.count(), buckets.left_out(), buckets.sum_s()), (0, 2, 0.0));
    }

    #[test]
    fn edges_rise_and_tell_a_minute_from_what_ended_early() {
        for edges in [ANY_NS, MINUTE_NS] {
            assert!(edges.is_sorted_by(|a, b| a < b));
        }
        let mut buckets = Buckets::new(MINUTE_NS);
        buckets.add(Age::Exactly(60_000_000_000));
        buckets.add(Age::Exactly(59_800_000_000));
        let (minute, early) = (60.5, 59.9);
        let at = |wanted: f64| buckets.seconds().find(|(edge, _)| *edge == wanted).map(|b| b.1);
        assert_eq!((at(minute), at(early)), (Some(1), Some(1)));
    }
}
