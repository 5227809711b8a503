//! What this process's clocks are ahead of the kernel's own (`time_namespaces(7)`, Linux 5.6), and
//! how long the host slept.
//!
//! In a time namespace `clock_gettime(CLOCK_MONOTONIC)` has an offset that the kernel's time stamps
//! (`ktime_get()`, `bpf_ktime_get_ns()`) have not. Outside of one, both offsets are 0.

use std::{fs, io};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

const SECOND_NS: i64 = 1_000_000_000;

/// Offsets of a time namespace, in ns: subtract them from what `clock_gettime()` gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// Of `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// Of `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
}

impl TimeOffsets {
    /// Those of this process, which cannot change while it runs. None on a kernel without time
    /// namespaces, which has no such file.
    pub fn read() -> io::Result<Self> {
        match fs::read("/proc/self/timens_offsets") {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// `CLOCK SECONDS NANOSECONDS` a line; other lines are passed over.
    fn parse(text: &[u8]) -> Self {
        let mut offsets = Self::default();
        for line in String::from_utf8_lossy(text).lines() {
            let mut fields = line.split_ascii_whitespace();
            let (clock, seconds, ns) = (fields.next(), fields.next(), fields.next());
            let number = |field: Option<&str>| field?.parse::<i64>().ok();
            let (Some(seconds), Some(ns)) = (number(seconds), number(ns)) else { continue };
            let offset = seconds.saturating_mul(SECOND_NS).saturating_add(ns);
            match clock {
                Some("monotonic") => offsets.monotonic_ns = offset,
                Some("boottime") => offsets.boottime_ns = offset,
                _ => {}
            }
        }
        offsets
    }

    /// How long the host was suspended since boot, in ns: `CLOCK_BOOTTIME` runs on meanwhile, and
    /// `CLOCK_MONOTONIC`, the clock of every time stamp, stands still. Too large by the time
    /// between the two readings, some tens of ns.
    pub fn suspended_ns(self) -> io::Result<i64> {
        let monotonic = nanoseconds(clock_gettime(ClockId::CLOCK_MONOTONIC)?) - self.monotonic_ns;
        let boottime = nanoseconds(clock_gettime(ClockId::CLOCK_BOOTTIME)?) - self.boottime_ns;
        Ok(boottime - monotonic)
    }
}

fn nanoseconds(time: TimeSpec) -> i64 {
    time.tv_sec().saturating_mul(SECOND_NS).saturating_add(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_are_read_and_odd_lines_passed_over() {
        let text = b"monotonic       86400    500000000\nboottime   -2 0\nodd\n";
        let offsets = TimeOffsets::parse(text);
        assert_eq!(offsets.monotonic_ns, 86_400_500_000_000);
        assert_eq!(offsets.boottime_ns, -2_000_000_000);
        assert_eq!(TimeOffsets::parse(b"\xff 1"), TimeOffsets::default());
        assert_eq!(TimeOffsets::parse(b"monotonic 9223372036854775807 1").monotonic_ns, i64::MAX);
    }

    #[test]
    fn the_kernel_never_slept_less_than_not_at_all() {
        assert!(TimeOffsets::read().unwrap().suspended_ns().unwrap() >= 0);
    }
}
