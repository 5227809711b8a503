//! Reads how far this process's clocks are ahead of the kernel's own (`time_namespaces(7)`, Linux
//! 5.6). Must not read a clock: that is [`super::clock`], which applies these.
//!
//! In a time namespace `clock_gettime(CLOCK_MONOTONIC)` has an offset that the kernel's time stamps
//! (`ktime_get()`, `bpf_ktime_get_ns()`) have not. Outside of one, both offsets are 0.

use std::{fs, io, os::unix::fs::MetadataExt as _};

/// Inode of the first time namespace, which has no offsets (`PROC_TIME_INIT_INO`, 0xEFFFFFFA).
const INITIAL: u64 = 0xEFFF_FFFA;

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
    ///
    /// # Errors
    /// The file cannot be read, or is of another namespace than this process's: it tells the
    /// offsets for children (`proc_timens_show_offsets()`), which differ from those in force in a
    /// process that has called `unshare(CLONE_NEWTIME)` and not forked since. On older kernels `exec`
    /// does not bring them into force either.
    pub fn read() -> io::Result<Self> {
        let text = match fs::read("/proc/self/timens_offsets") {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let inode = |file: &str| fs::metadata(file).map(|file| file.ino());
        let own = inode("/proc/self/ns/time")?;
        if own == INITIAL {
            return Ok(Self::default());
        }
        if own != inode("/proc/self/ns/time_for_children")? {
            return Err(io::Error::other(
                "the offsets of this process's time namespace cannot be read: run it as a child \
                 (unshare --time --fork)",
            ));
        }
        Ok(Self::parse(&text))
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
}
