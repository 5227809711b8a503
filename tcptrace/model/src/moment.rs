//! Moments of a recording, as they are typed: `--since`, `--until`.

use std::{str::FromStr, time::Duration};

use jiff::{Timestamp, civil, tz::TimeZone};
use thiserror::Error;

/// A moment of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// So long after its beginning: `90s`, `+5m`.
    After(Duration),
    /// So long before its end: `-30s`.
    BeforeEnd(Duration),
    /// A date and time: `2026-11-22T12:00:00Z`.
    At(Timestamp),
    /// A date and time where the user is: `2026-11-22 12:00`.
    Local(civil::DateTime),
    /// The first such time of day in it, where the user is: `12:00:05`.
    TimeOfDay(civil::Time),
}

/// A word that is no moment.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "'{0}' is not a moment: give 12:00:05, 2026-11-22T12:00:00Z, 90s (after the beginning) or -30s \
     (before the end)"
)]
pub struct BadMoment(String);

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(word: &str) -> Result<Self, BadMoment> {
        let bad = || BadMoment(word.escape_default().to_string());
        if let Some(rest) = word.strip_prefix('-') {
            return length(rest).map(Self::BeforeEnd).ok_or_else(bad);
        }
        if let Some(after) = length(word.strip_prefix('+').unwrap_or(word)) {
            return Ok(Self::After(after));
        }
        if let Ok(at) = word.parse() {
            return Ok(Self::At(at));
        }
        if let Ok(at) = word.parse() {
            return Ok(Self::Local(at));
        }
        word.parse().map(Self::TimeOfDay).map_err(|_| bad())
    }
}

/// `90`, `1.5` (seconds), `90s`, `1h30m`, `250ms`; 0 too. `12:00` is a time of day.
fn length(word: &str) -> Option<Duration> {
    if word.contains([':', '-', 'e', 'E']) {
        return None;
    }
    match word.parse() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => word.parse::<jiff::SignedDuration>().ok()?.try_into().ok(),
    }
}

impl Moment {
    /// The moment on the wall clock, nanoseconds, for a recording that begins at `begin_ns` and
    /// ends at `end_ns` of it.
    pub fn realtime_ns(self, begin_ns: i128, end_ns: i128) -> i128 {
        let of = |length: Duration| i128::try_from(length.as_nanos()).unwrap_or(i128::MAX / 4);
        let local = |at: civil::DateTime| {
            at.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp().as_nanosecond())
        };
        match self {
            Self::After(length) => begin_ns + of(length),
            Self::BeforeEnd(length) => end_ns - of(length),
            Self::At(at) => at.as_nanosecond(),
            // What no calendar has is before everything.
            Self::Local(at) => local(at).unwrap_or(i128::MIN),
            Self::TimeOfDay(time) => {
                let Ok(begin) = Timestamp::from_nanosecond(begin_ns) else { return begin_ns };
                let date = begin.to_zoned(TimeZone::system()).date();
                let on = |date: civil::Date| local(date.to_datetime(time)).unwrap_or(begin_ns);
                let today = on(date);
                match date.tomorrow() {
                    Ok(tomorrow) if today < begin_ns => on(tomorrow),
                    _ => today,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_dates_and_times_are_told_apart() {
        let secs = Duration::from_secs;
        for (word, moment) in [
            ("90", Moment::After(secs(90))),
            ("+5m", Moment::After(secs(300))),
            ("0", Moment::After(secs(0))),
            ("-30s", Moment::BeforeEnd(secs(30))),
            ("1.5h", Moment::After(secs(5400))),
            ("2026-11-22T07:00:00Z", Moment::At(Timestamp::from_second(1_795_330_800).unwrap())),
            ("2026-11-22 12:00", Moment::Local(civil::date(2026, 11, 22).at(12, 0, 0, 0))),
            ("12:00:05", Moment::TimeOfDay(civil::time(12, 0, 5, 0))),
            ("12:00", Moment::TimeOfDay(civil::time(12, 0, 0, 0))),
        ] {
            assert_eq!(word.parse(), Ok(moment), "{word}");
        }
        for word in ["", "-", "soon", "5 apples", "1e9", "--5", "25:00", "\x1b[2J"] {
            let error = word.parse::<Moment>().unwrap_err().to_string();
            assert!(!error.contains('\x1b') && error.contains("is not a moment"), "{error}");
        }
    }

    #[test]
    fn a_moment_is_somewhere_on_the_wall_clock() {
        let second = 1_000_000_000;
        let (begin, end) = (1_000 * second, 2_000 * second);
        let at = |word: &str| word.parse::<Moment>().unwrap().realtime_ns(begin, end);
        assert_eq!(at("90s"), 1_090 * second);
        assert_eq!(at("-30s"), 1_970 * second);
        assert_eq!(at("1970-01-01T00:20:00Z"), 1_200 * second);
        let time_of_day = at("00:00:01");
        assert!((begin..begin + 86_400 * second).contains(&time_of_day), "{time_of_day}");
    }
}
