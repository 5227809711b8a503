//! Whose process numbers this process reads: the PID namespace that its `/proc` shows.
//!
//! That of the mount, and not of the process: `unshare --pid` without a `/proc` of its own leaves a
//! process with numbers that neither `ps` nor a search of `/proc` has.

use std::{fs, io, os::unix::fs::MetadataExt as _};

/// Inode of the first PID namespace (`PROC_PID_INIT_INO`).
const FIRST: u64 = 0xEFFF_FFFC;

/// A PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// The first one: its numbers are those that the kernel itself prints.
    First,
    /// Another one, by its inode.
    Other(u32),
}

impl PidNamespace {
    /// The one that `/proc` shows.
    ///
    /// # Errors
    /// There is no `/proc`, or its process 1 may not be looked at.
    pub fn of_proc() -> io::Result<Self> {
        let status = fs::read("/proc/self/status")?;
        // The numbers of this process in the namespace of the mount and in those below it, down to its
        // own (4.1). With one there is none between. Process 1 is in the namespace that it began.
        let file = match numbers(&status) {
            Some(1) | None => "/proc/self/ns/pid",
            Some(_) => "/proc/1/ns/pid",
        };
        let inode = match fs::metadata(file) {
            Ok(metadata) => metadata.ino(),
            // Before 3.8, where no tracing works.
            Err(error) => return Err(io::Error::new(error.kind(), format!("{file}: {error}"))),
        };
        if inode == FIRST {
            return Ok(Self::First);
        }
        match u32::try_from(inode) {
            Ok(inode) => Ok(Self::Other(inode)),
            Err(_) => Err(io::Error::other("not a namespace: its inode has 64 bits")),
        }
    }
}

/// Whether `/proc` shows the PID namespace that this process is in.
///
/// # Errors
/// As [`PidNamespace::of_proc`].
pub fn proc_is_own() -> io::Result<bool> {
    let own = fs::metadata("/proc/self/ns/pid")?.ino();
    Ok(match PidNamespace::of_proc()? {
        PidNamespace::First => own == FIRST,
        PidNamespace::Other(inode) => own == u64::from(inode),
    })
}

/// How many numbers the line `NSpid:` of `/proc/PID/status` has; `None` without one. No name can
/// forge that line: the kernel escapes newlines in it.
fn numbers(status: &[u8]) -> Option<usize> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    Some(line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_numbers_are_counted() {
        assert_eq!(numbers(b"Name:\tNSpid: 1 2\nNSpid:\t812\nNSpgid:\t1\n"), Some(1));
        assert_eq!(numbers(b"NSpid:\t812\t7\t1\n"), Some(3));
        assert_eq!(numbers(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_namespace_is_found() {
        let inode = fs::metadata("/proc/self/ns/pid").unwrap().ino();
        match PidNamespace::of_proc().unwrap() {
            PidNamespace::First => assert_eq!(inode, FIRST),
            PidNamespace::Other(other) => assert_ne!(u64::from(other), FIRST),
        }
    }
}
