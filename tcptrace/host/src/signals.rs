//! Which signals this process was told to ignore.

use std::{fs, io};

/// A set of ignored signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored(u64);

impl Ignored {
    /// Those that the process ignores now. Asked of `/proc`, since `sigaction(2)` has no safe
    /// wrapper even for asking.
    pub fn read() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
    }

    /// Bit n - 1 stands for signal n.
    fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    /// Whether signal `number` is in it.
    pub const fn contains(self, number: i32) -> bool {
        matches!(number, 1..=64) && self.0 & (1 << (number - 1)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bit_is_signal_one() {
        let ignored = Ignored::parse("SigBlk:\tffff\nSigIgn:\t0000000000001001\n").unwrap();
        assert!(ignored.contains(libc::SIGHUP) && ignored.contains(libc::SIGPIPE));
        assert!(!ignored.contains(libc::SIGINT) && !ignored.contains(0) && !ignored.contains(65));
        assert_eq!(Ignored::parse("SigCgt:\t0\n"), None);
    }

    #[test]
    fn rust_programs_ignore_sigpipe() {
        assert!(Ignored::read().unwrap().contains(libc::SIGPIPE));
    }
}
