//! What the program over open files (`tcptrace-ebpf/src/files.rs`) is told, and what it tells.

use crate::globals::Pids;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where the fields are that it reads, in bytes: all of them, for it is not loaded without; and in whose
/// numbers it tells processes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Offsets {
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.start_boottime`, nanoseconds (5.5)
    pub task_start_boottime: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// The reader's PID namespace.
    pub pids: Pids,
}

impl Offsets {
    /// What the object carries until it is loaded.
    pub const UNSET: Self = Self {
        task_group_leader: 0,
        task_tgid: 0,
        task_start_boottime: 0,
        file_inode: 0,
        inode_ino: 0,
        pids: Pids::FIRST,
    };
}

/// A socket that a process has open. One that it has open several times is told as often.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SocketFile {
    /// When the process was started, in nanoseconds of CLOCK_BOOTTIME, without a time namespace's
    /// offset.
    pub started_ns: u64,
    /// The process's number in the reader's PID namespace.
    pub tgid: u32,
    /// The socket's inode: `get_next_ino()` gives 32 bits.
    pub inode: u32,
}
