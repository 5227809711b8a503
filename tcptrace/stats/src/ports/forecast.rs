//! When the ports run out, if all goes on as it does.
//!
//! A port is taken by connect() and comes back at once where the peer closed first or a RST ended
//! it, else when its TIME_WAIT is over. Those in TIME_WAIT come back at known times; new ones
//! follow them one holding time later. So with `r` connections a second and a holding time of `h`
//! seconds the use tends to `r * h`, and if that is less than there is it never runs out.

/// What is to be said of the future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlook {
    /// Something is not known.
    Unknown,
    /// connect() fails now.
    Now,
    /// connect() fails in so many seconds, at this rate.
    In(f64),
    /// Not at this rate.
    Never,
}

impl Outlook {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Now => "now",
            Self::In(_) => "later",
            Self::Never => "never",
        }
    }

    /// Seconds until connect() fails.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Self::Now => Some(0.0),
            Self::In(seconds) => Some(seconds),
            Self::Unknown | Self::Never => None,
        }
    }
}

/// The use of the ports to one peer, and how it changes.
#[derive(Clone, Debug)]
pub(super) struct Course<'a> {
    /// Ports that there are to choose from.
    pub(super) offered: u64,
    /// Of those, taken.
    pub(super) taken: u64,
    /// In how many seconds the taken ones that are in TIME_WAIT come back, in order.
    pub(super) due_s: &'a [f64],
    /// Ports a second that go from use into TIME_WAIT.
    pub(super) to_time_wait_per_s: f64,
    /// How long each is held there, seconds.
    pub(super) held_s: f64,
    /// Ports a second by which those not in TIME_WAIT become more, or fewer.
    pub(super) growth_per_s: f64,
}

/// A connect() finds none when as many as there are free have found one: on average half the
/// time between two after that.
const NEXT: f64 = 0.5;

/// Beyond this (some 30 years) a number says nothing.
const HORIZON_S: f64 = 1e9;

impl Course<'_> {
    pub(super) fn outlook(&self) -> Outlook {
        if self.taken >= self.offered {
            return Outlook::Now;
        }
        let mut free = (self.offered - self.taken) as f64 + NEXT;
        let mut now_s = 0.0;
        // Until the first of those that go into TIME_WAIT from now on comes back.
        let slope = self.to_time_wait_per_s + self.growth_per_s;
        for &due_s in self.due_s.iter().chain([&self.held_s]) {
            let due_s = due_s.clamp(now_s, self.held_s.max(now_s));
            let takes = slope * (due_s - now_s);
            if takes >= free {
                return Outlook::In(now_s + free / slope);
            }
            free += 1.0 - takes;
            now_s = due_s;
        }
        // The last step of the loop was no port.
        free -= 1.0;
        if free <= 0.0 {
            return Outlook::In(now_s);
        }
        // From then on as many come back as go.
        let after_s = free / self.growth_per_s;
        if self.growth_per_s > 0.0 && now_s + after_s < HORIZON_S {
            Outlook::In(now_s + after_s)
        } else {
            Outlook::Never
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rate` connections a second, each closed from here at once, since `since_s` seconds.
    fn churn(offered: u64, rate: f64, since_s: f64, held_s: f64) -> Outlook {
        let made = (rate * since_s.min(held_s)).round() as u64;
        let due_s: Vec<f64> =
            (0..made).map(|k| held_s - since_s.min(held_s) + (k as f64 + 0.5) / rate).collect();
        Course {
            offered,
            taken: made,
            due_s: &due_s,
            to_time_wait_per_s: rate,
            held_s,
            growth_per_s: 0.0,
        }
        .outlook()
    }

    fn seconds(outlook: Outlook) -> f64 {
        let Outlook::In(seconds) = outlook else { panic!("{outlook:?}") };
        seconds
    }

    #[test]
    fn below_rate_times_holding_time_it_never_runs_out() {
        for since_s in [1.0, 30.0, 60.0, 600.0] {
            assert_eq!(churn(100, 1.6, since_s, 60.0), Outlook::Never, "{since_s}");
            assert_eq!(churn(1000, 16.5, since_s, 60.0), Outlook::Never, "{since_s}");
        }
    }

    #[test]
    fn above_it_runs_out_when_the_free_ones_are_taken() {
        for since_s in [0.5, 2.0, 4.0] {
            let runs_out = since_s + seconds(churn(100, 20.0, since_s, 60.0));
            assert!((runs_out - 5.0).abs() < 0.1, "{runs_out}");
        }
        // 1.75 a second fill 100 ports in 57 s, before the first one comes back.
        assert!((seconds(churn(100, 1.75, 1.0, 60.0)) - 56.0).abs() < 1.0);
    }

    #[test]
    fn returns_that_are_due_are_counted_at_their_times() {
        let course = |due_s: &[f64]| {
            Course {
                offered: 100,
                taken: 90,
                due_s,
                to_time_wait_per_s: 10.0,
                held_s: 60.0,
                growth_per_s: 0.0,
            }
            .outlook()
        };
        assert!((seconds(course(&[])) - 1.05).abs() < 1e-9);
        assert!((seconds(course(&[0.5; 50])) - 6.05).abs() < 1e-9);
        // Just too late to help.
        assert!((seconds(course(&[1.06; 50])) - 1.05).abs() < 1e-9);
        assert!((seconds(course(&[1.04; 50])) - 6.05).abs() < 1e-9);
    }

    #[test]
    fn a_short_holding_time_holds_little() {
        assert_eq!(churn(100, 90.0, 10.0, 1.0), Outlook::Never);
        assert!(seconds(churn(100, 110.0, 0.5, 1.0)) < 1.0);
        // What is held for no time at all takes nothing.
        assert_eq!(churn(100, 1e6, 10.0, 0.0), Outlook::Never);
    }

    #[test]
    fn connections_that_stay_run_it_dry_in_the_end() {
        let course = Course {
            offered: 1000,
            taken: 100,
            due_s: &[],
            to_time_wait_per_s: 1.0,
            held_s: 60.0,
            growth_per_s: 0.5,
        };
        // 1000 - 100 - 60 that are in TIME_WAIT at any time.
        let expected = 840.5 / 0.5;
        assert!((seconds(course.outlook()) - expected).abs() < 1e-6);
        let shrinking = Course { growth_per_s: -0.5, ..course.clone() };
        assert_eq!(shrinking.outlook(), Outlook::Never);
        let still = Course { growth_per_s: 0.0, to_time_wait_per_s: 0.0, ..course.clone() };
        assert_eq!(still.outlook(), Outlook::Never);
        let full = Course { taken: 1000, ..course };
        assert_eq!(full.outlook(), Outlook::Now);
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let course = Course {
            offered: 2,
            taken: 1,
            due_s: &[-5.0, f64::INFINITY, 1e300],
            to_time_wait_per_s: 1e300,
            held_s: 60.0,
            growth_per_s: f64::MIN_POSITIVE,
        };
        assert!(seconds(course.outlook()) >= 0.0);
    }
}
