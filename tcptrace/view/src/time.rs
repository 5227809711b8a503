//! Wall-clock times of events, and how long something took, as text.

use std::time::Duration;

use bytes::BufMut;
use jiff::{Timestamp, tz::TimeZone};

use tcptrace_model::Clock;

const NS: i128 = 1_000_000_000;

/// A time in at most seven characters, rounded down: `12.3s`, `5m07s`, `23h59m`, `12d03h`.
pub(crate) fn duration(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}.{}s", duration.subsec_millis() / 100),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
        86_400..86_400_000 => format!("{}d{:02}h", s / 86_400, s / 3_600 % 24),
        _ => format!("{}d", s / 86_400),
    }
}

/// Turns monotonic times into wall-clock times, by the last word on how the clocks stand.
///
/// Formatting a date costs more than the rest of a line, so it is done once a second.
pub struct WallClock {
    offset_ns: Option<i64>,
    zone: TimeZone,
    pattern: &'static str,
    second: Option<i64>,
    text: String,
}

impl WallClock {
    /// Dates in UTC as RFC 3339 has them, up to the second.
    pub(super) fn utc() -> Self {
        Self::new(TimeZone::UTC, "%Y-%m-%dT%H:%M:%S")
    }

    /// The time of day where the user is.
    pub fn local_time_of_day() -> Self {
        Self::new(TimeZone::system(), "%H:%M:%S")
    }

    fn new(zone: TimeZone, pattern: &'static str) -> Self {
        Self { offset_ns: None, zone, pattern, second: None, text: String::new() }
    }

    /// Takes the clocks as they are from now on.
    pub fn set(&mut self, clock: Clock) {
        self.offset_ns = Some(clock.realtime_offset_ns);
    }

    /// Text up to the second, and the nanoseconds within it; `None` before the clocks are known.
    pub fn at(&mut self, mono_ns: u64) -> Option<(&str, u32)> {
        let real = i128::from(mono_ns) + i128::from(self.offset_ns?);
        let second = i64::try_from(real.div_euclid(NS)).ok()?;
        if self.second != Some(second) {
            let zoned = Timestamp::from_second(second).ok()?.to_zoned(self.zone.clone());
            self.text = zoned.strftime(self.pattern).to_string();
            self.second = Some(second);
        }
        Some((&self.text, real.rem_euclid(NS) as u32))
    }

    /// Appends the time as RFC 3339 with nanoseconds, if the clocks are known.
    pub(super) fn put_rfc3339(&mut self, out: &mut impl BufMut, mono_ns: u64) -> bool {
        let Some((text, ns)) = self.at(mono_ns) else { return false };
        out.put_slice(text.as_bytes());
        let mut fraction = *b".000000000Z";
        let mut rest = ns;
        for digit in fraction[1..10].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.put_slice(&fraction);
        true
    }

    /// The same as a JSON value: null if the clocks are not known.
    pub(super) fn put_json(&mut self, out: &mut impl BufMut, mono_ns: u64) {
        if self.offset_ns.is_none() {
            out.put_slice(b"null");
            return;
        }
        out.put_u8(b'"');
        self.put_rfc3339(out, mono_ns);
        out.put_u8(b'"');
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn times_are_those_of_the_wall_clock() {
        let mut wall = WallClock::utc();
        assert_eq!(wall.at(5), None, "not known yet");
        wall.set(Clock { mono_ns: 0, realtime_offset_ns: 1_795_330_800_000_000_000 });
        let mut out = BytesMut::new();
        assert!(wall.put_rfc3339(&mut out, 123_456_789));
        assert_eq!(&out[..], b"2026-11-22T07:00:00.123456789Z");
        out.clear();
        wall.set(Clock { mono_ns: 0, realtime_offset_ns: -1 });
        assert!(wall.put_rfc3339(&mut out, 0));
        assert_eq!(&out[..], b"1969-12-31T23:59:59.999999999Z", "before the epoch");
    }
}
