//! How long something took, over many times.
//!
//! What was measured, what is only a lower bound and what is not known are kept apart: a lower
//! bound is in no quantile.

use hdrhistogram::Histogram;

use super::rows::{Rows, Scale};
use tcptrace_model::{Age, EndReason};

/// Digits to which a quantile is right.
const DIGITS: u8 = 3;

/// The longest duration that has a bucket of its own, in microseconds: 12 days. It bounds the
/// memory of a histogram to some 120 KiB. Mean and maximum are exact beyond it too.
const LONGEST_US: u64 = 1 << 40;

/// Durations of one kind.
#[derive(Clone, Debug)]
pub struct Measure {
    /// In microseconds.
    histogram: Histogram<u32>,
    /// One for each scale that may suit.
    rows: Vec<Rows>,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
    /// Of those counted, dated to within so much.
    about: u64,
    within_ns: u64,
    at_least: u64,
    at_least_max_ns: u64,
    unknown: u64,
    /// How many ended so, in the order of [`EndReason::ALL`].
    ends: [u64; EndReason::ALL.len()],
}

impl Measure {
    /// Nothing measured yet. `minute` for what the kernel ends after a minute.
    pub fn new(minute: bool) -> Self {
        #[expect(clippy::expect_used, reason = "it refuses nothing but more than five digits")]
        let histogram = Histogram::new(DIGITS).expect("three digits");
        let mut scales = vec![Scale::Micros, Scale::Millis, Scale::Seconds];
        scales.extend(minute.then_some(Scale::Minute));
        Self {
            histogram,
            rows: scales.into_iter().map(Rows::new).collect(),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
            about: 0,
            within_ns: 0,
            at_least: 0,
            at_least_max_ns: 0,
            unknown: 0,
            ends: [0; EndReason::ALL.len()],
        }
    }

    /// Adds one.
    pub fn add(&mut self, age: Age, end: Option<EndReason>) {
        if let Some(slot) = end
            .and_then(|end| EndReason::ALL.iter().position(|&reason| reason == end))
            .and_then(|at| self.ends.get_mut(at))
        {
            *slot += 1;
        }
        match age {
            Age::Exactly(ns) => self.measured(ns),
            Age::About { ns, within_ns } => {
                self.about += 1;
                self.within_ns = self.within_ns.max(within_ns);
                self.measured(ns);
            }
            Age::AtLeast(ns) => {
                self.at_least += 1;
                self.at_least_max_ns = self.at_least_max_ns.max(ns);
            }
            Age::Unknown => self.unknown += 1,
        }
    }

    fn measured(&mut self, ns: u64) {
        let us = ns / 1000;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
        for rows in &mut self.rows {
            rows.add(us);
        }
        // It resizes itself, and refuses only what a usize cannot index.
        let _ = self.histogram.record(us.min(LONGEST_US));
    }

    /// Adds what `other` measured, which is of the same kind.
    pub fn join(&mut self, other: &Self) {
        // It resizes itself, as above.
        let _ = self.histogram.add(&other.histogram);
        self.rows.iter_mut().zip(&other.rows).for_each(|(sum, rows)| sum.join(rows));
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.about += other.about;
        self.within_ns = self.within_ns.max(other.within_ns);
        self.at_least += other.at_least;
        self.at_least_max_ns = self.at_least_max_ns.max(other.at_least_max_ns);
        self.unknown += other.unknown;
        self.ends.iter_mut().zip(other.ends).for_each(|(sum, count)| *sum += count);
    }

    /// How many were added.
    pub fn added(&self) -> u64 {
        self.count + self.at_least + self.unknown
    }

    /// How many were measured.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.added() == 0
    }

    /// The mean of what was measured, nanoseconds; exact.
    pub fn mean_ns(&self) -> Option<u64> {
        // A mean is not larger than the largest, which is an u64.
        self.sum_ns.checked_div(self.count.into()).map(|mean| mean as u64)
    }

    /// The longest that was measured, nanoseconds; exact.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// A quantile of what was measured, nanoseconds; right to three digits, never more than the
    /// maximum.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let us = self.histogram.value_at_quantile(quantile);
        self.max_ns().map(|max| us.saturating_mul(1000).min(max))
    }

    /// How many of those measured are dated by a timer, and to within how many nanoseconds.
    pub fn about(&self) -> (u64, u64) {
        (self.about, self.within_ns)
    }

    /// How many are only known to have taken some time at least, and the largest such bound in
    /// nanoseconds.
    pub fn at_least(&self) -> (u64, u64) {
        (self.at_least, self.at_least_max_ns)
    }

    /// How many there were of which no time is known at all.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// How many ended as a minisock, by reason, measured or not.
    pub fn ends(&self) -> impl Iterator<Item = (EndReason, u64)> {
        EndReason::ALL.into_iter().zip(self.ends).filter(|(_, count)| *count > 0)
    }

    /// How many ended for `reason`.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ends().find(|(of, _)| *of == reason).map_or(0, |(_, count)| count)
    }

    /// The rows that tell most: the unit follows the median.
    pub fn rows(&self) -> &Rows {
        let median_us = self.histogram.value_at_quantile(0.5);
        let minute = self.max_ns / 1000 >= Scale::Minute.begins(16) * Scale::Minute.unit_us();
        let scale = match median_us {
            _ if minute && self.rows.len() > 3 => 3,
            0..10_000 => 0,
            10_000..1_000_000_000 => 1,
            _ => 2,
        };
        &self.rows[scale]
    }

    /// The rows of that scale, if they are kept.
    pub fn rows_of(&self, scale: Scale) -> Option<&Rows> {
        self.rows.iter().find(|rows| rows.scale() == scale)
    }

    /// What was measured in the buckets of the histogram: the largest microsecond in each that
    /// is not empty, and how many there are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_bound_is_in_no_quantile() {
        let mut measure = Measure::new(false);
        for ms in 1..=100 {
            measure.add(Age::Exactly(ms * 1_000_000), None);
        }
        let before = (measure.mean_ns(), measure.max_ns(), measure.quantile_ns(0.99));
        for _ in 0..1000 {
            measure.add(Age::AtLeast(9_000_000_000), Some(EndReason::Killed));
            measure.add(Age::Unknown, None);
        }
        assert_eq!(before, (measure.mean_ns(), measure.max_ns(), measure.quantile_ns(0.99)));
        assert_eq!(measure.mean_ns(), Some(50_500_000));
        assert_eq!((measure.count(), measure.unknown()), (100, 1000));
        assert_eq!(measure.at_least(), (1000, 9_000_000_000));
        assert_eq!(measure.ended(EndReason::Killed), 1000);
        assert_eq!(measure.buckets().map(|(_, count)| count).sum::<u64>(), 100);
        assert_eq!(measure.rows().used().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn joined_is_as_if_measured_together() {
        let ages = [
            Age::Exactly(5_000_000),
            Age::About { ns: 70_000_000_000, within_ns: 4_000_000 },
            Age::AtLeast(9_000_000),
            Age::Unknown,
            Age::Exactly(60_000_000_000),
            Age::AtLeast(1_000_000),
        ];
        let measured = |ages: &[Age]| {
            let mut measure = Measure::new(true);
            ages.iter().for_each(|age| measure.add(*age, Some(EndReason::Expired)));
            measure
        };
        let (whole, mut joined) = (measured(&ages), measured(&ages[..3]));
        joined.join(&measured(&ages[3..]));
        let all = |measure: &Measure| {
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                measure.added(),
                measure.mean_ns(),
                measure.max_ns(),
                measure.quantile_ns(0.9),
                measure.about(),
                measure.at_least(),
                measure.ends().collect::<Vec<_>>(),
                measure.rows().used().collect::<Vec<_>>(),
                measure.buckets().collect::<Vec<_>>(),
            )
        };
        assert_eq!(all(&joined), all(&whole));
        assert_eq!((joined.count(), joined.unknown()), (3, 1));
    }

    #[test]
    fn nothing_measured_has_no_mean() {
        let mut measure = Measure::new(true);
        assert!(measure.is_empty());
        measure.add(Age::AtLeast(5), None);
        assert!(!measure.is_empty());
        assert_eq!(
            (measure.mean_ns(), measure.max_ns(), measure.quantile_ns(0.5)),
            (None, None, None)
        );
        assert_eq!(measure.rows().used().count(), 0);
    }

    #[test]
    fn the_longest_of_all_is_no_trouble() {
        let mut measure = Measure::new(true);
        measure.add(Age::Exactly(u64::MAX), None);
        measure.add(Age::Exactly(u64::MAX), None);
        assert_eq!((measure.mean_ns(), measure.max_ns()), (Some(u64::MAX), Some(u64::MAX)));
        assert!(measure.quantile_ns(0.5).is_some_and(|ns| ns >= LONGEST_US * 1000));
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut measure = Measure::new(false);
        for us in 0..100_000_u64 {
            measure.add(Age::Exactly(us * 1000), None);
        }
        for quantile in [0.5, 0.9, 0.99] {
            let ns = measure.quantile_ns(quantile).unwrap() as f64;
            assert!((ns / (quantile * 1e8) - 1.0).abs() < 0.0011, "{quantile}: {ns}");
        }
    }
}
