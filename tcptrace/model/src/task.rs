//! The task on the CPU when something happened, and the process that it belongs to.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Serialize};
use tcptrace_common::record::{self, FOREIGN, TASK_KERNEL, TASK_LEADER};

/// A task's name: whatever bytes it chose, up to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Comm([u8; 16]);

impl Comm {
    /// The name in `raw`, which ends at the first NUL.
    pub const fn new(raw: [u8; 16]) -> Self {
        Self(raw)
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        &self.0[..len]
    }

    /// The 16 bytes as the kernel has them.
    pub const fn raw(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether it can be printed as it is: graphic ASCII and blanks, no backslash.
    pub fn is_plain(&self) -> bool {
        self.as_bytes().iter().all(|&b| (b' '..=b'~').contains(&b) && b != b'\\')
    }
}

impl Hash for Comm {
    /// As one number: byte by byte it takes several times as long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

impl From<&str> for Comm {
    /// Keeps the first 15 bytes, as the kernel does.
    fn from(name: &str) -> Self {
        let mut raw = [0; 16];
        for (to, from) in raw[..15].iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self(raw)
    }
}

impl fmt::Display for Comm {
    /// Escaped: a process cannot move the cursor of whoever looks at it. UTF-8 letters stay.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain()
            && let Ok(plain) = std::str::from_utf8(self.as_bytes())
        {
            return f.pad(plain);
        }
        f.pad(&escape(self.as_bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

pub use super::text::escape;

/// A process and one of its threads: the task on the CPU, or one that was found in `/proc`. Whether
/// it has to do with a socket depends on how it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Process (thread group), as one of several: its number, or [`FOREIGN`] and that of the first
    /// PID namespace. [`Self::pid`] is what people know.
    pub tgid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// User id.
    pub uid: u32,
    /// When the process was started, in units of 10 ms since boot and cut to 32 bits (`starttime` of
    /// `/proc/PID/stat`): together with `tgid` it tells processes apart. 0: not known.
    pub started: u32,
    /// How often the process has called exec(), cut to 16 bits (`self_exec_id`). 0 also where that is
    /// not known.
    pub execs: u16,
    /// It is a thread of the kernel (`PF_KTHREAD`).
    pub is_kernel: bool,
    /// `comm` is the name of the process (of its thread-group leader), and not of the thread: false
    /// where the kernel side had no BTF to find the leader by.
    pub is_led: bool,
    /// Name of the process, if that is known; else of the thread.
    pub comm: Comm,
    /// Name of the thread.
    pub thread: Comm,
}

impl Task {
    /// A thread of which no more is known.
    pub const fn thread(tgid: u32, tid: u32, uid: u32, comm: Comm) -> Self {
        let thread = comm;
        Self { tgid, tid, uid, started: 0, execs: 0, is_kernel: false, is_led: false, comm, thread }
    }

    /// A process, by its first thread.
    pub const fn process(tgid: u32, uid: u32, started: u32, comm: Comm) -> Self {
        Self { started, is_led: true, ..Self::thread(tgid, tgid, uid, comm) }
    }

    /// The number of the process in the PID namespace of whoever traced it; `None` where it has none
    /// there, since it runs outside of that.
    pub const fn pid(&self) -> Option<u32> {
        if self.tgid & FOREIGN == 0 { Some(self.tgid) } else { None }
    }

    /// The same as text: `foreign` where there is no number.
    pub fn pid_text(&self) -> String {
        self.pid().map_or("foreign".to_owned(), |pid| pid.to_string())
    }

    /// Whether both are of one process; where that is not known for certain, whether they have one
    /// number.
    pub const fn same_process(&self, other: &Self) -> bool {
        let unknown = self.started == 0 || other.started == 0;
        self.tgid == other.tgid && (unknown || self.started == other.started)
    }

    /// The process as it is called.
    pub const fn name(&self) -> ProcessName {
        ProcessName { comm: self.comm, is_kernel: self.is_kernel }
    }
}

/// What a process is called, as outputs have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessName {
    /// The name.
    pub comm: Comm,
    /// It is a thread of the kernel: no process can have such a name.
    pub is_kernel: bool,
}

impl From<Comm> for ProcessName {
    fn from(comm: Comm) -> Self {
        Self { comm, is_kernel: false }
    }
}

impl fmt::Display for ProcessName {
    /// Escaped; a thread of the kernel in brackets, as ps(1) shows it, and a process that calls
    /// itself so with a backslash before them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.comm.as_bytes().first() {
            _ if self.is_kernel => f.pad(&format!("[{}]", self.comm)),
            Some(b'[') => f.pad(&format!("\\{}", self.comm)),
            _ => self.comm.fmt(f),
        }
    }
}

impl fmt::Debug for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl From<&record::Task> for Task {
    #[inline]
    fn from(raw: &record::Task) -> Self {
        Self {
            tgid: raw.tgid,
            tid: raw.tid,
            uid: raw.uid,
            started: raw.started,
            execs: raw.execs,
            is_kernel: raw.flags & TASK_KERNEL != 0,
            is_led: raw.flags & TASK_LEADER != 0,
            comm: Comm::new(raw.comm),
            thread: Comm::new(raw.thread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_escaped() {
        assert_eq!(Comm::from("curl").to_string(), "curl");
        assert_eq!(Comm::from("\x1b[31mevil\n").to_string(), "\\x1b[31mevil\\x0a");
        assert_eq!(Comm::from("a\\x1b").to_string(), "a\\\\x1b");
        assert_eq!(Comm::from("\u{202e}lru").to_string(), "\\u{202e}lru");
        assert_eq!(Comm::from("grün").to_string(), "grün");
        let mut raw = [0; 16];
        raw[..3].copy_from_slice(b"a\xff\x80");
        assert_eq!(Comm::new(raw).to_string(), "a\\xff\\x80");
    }

    #[test]
    fn a_process_outside_of_the_readers_namespace_has_no_number_and_is_itself_all_the_same() {
        let inside = Task::process(1, 0, 100, Comm::from("a"));
        assert_eq!((inside.pid(), inside.pid_text().as_str()), (Some(1), "1"));
        let outside = Task { tgid: 1 | FOREIGN, ..inside };
        assert_eq!((outside.pid(), outside.pid_text().as_str()), (None, "foreign"));
        assert!(!inside.same_process(&outside));
        assert!(!outside.same_process(&Task { tgid: 2 | FOREIGN, ..outside }));
    }

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let one = Task::process(7, 0, 100, Comm::from("a"));
        assert!(one.same_process(&Task { tid: 9, comm: Comm::from("b"), ..one }));
        assert!(!one.same_process(&Task { started: 101, ..one }), "the number was used again");
        assert!(!one.same_process(&Task { tgid: 8, ..one }));
        assert!(one.same_process(&Task::thread(7, 9, 0, Comm::from("b"))), "not known otherwise");
    }

    #[test]
    fn a_thread_of_the_kernel_is_no_process_of_its_name() {
        let process = Task::process(7, 0, 100, Comm::from("kworker/u8:2"));
        assert_eq!(process.name().to_string(), "kworker/u8:2");
        let kernel = Task { is_kernel: true, ..process };
        assert_eq!(format!("{:>15}|", kernel.name()), " [kworker/u8:2]|");
        let evil = Task { comm: Comm::from("\x1b["), ..kernel };
        assert_eq!(evil.name().to_string(), "[\\x1b[]");
        let disguised = Task { comm: Comm::from("[kworker/0:1]"), ..process };
        assert_eq!(disguised.name().to_string(), "\\[kworker/0:1]");
    }

    #[test]
    fn a_name_without_nul_is_sixteen_bytes() {
        assert_eq!(Comm::new([b'x'; 16]).as_bytes().len(), 16);
        assert_eq!(Comm::from("0123456789abcdefXY").to_string(), "0123456789abcde");
    }
}
