//! The numbers of any task in the reader's PID namespace.

use core::ptr;

use tcptrace_common::globals::{ABSENT, Pids};

use crate::peek::peek;

/// PID namespaces inside each other that are looked at, the first one not counted. The kernel allows
/// 32 (`MAX_PID_NS_LEVEL`); a container in a container in a container has 3.
const LEVELS: u32 = 8;

/// Reads a field of a read-only global: see `globals` for why by a volatile read.
macro_rules! read {
    ($($field:ident).+) => {
        // SAFETY: a reference to a field of a static is valid and aligned for a read.
        unsafe { ptr::read_volatile(&raw const $($field).+) }
    };
}

/// The numbers of a task in the reader's namespace, the process in the upper half; 0 if it has none
/// there. One number and not two: what is returned by memory costs stack in both functions, and up to
/// 6.12 the verifier adds up both, also where this is never called (check_max_stack_depth()).
#[inline(never)]
pub(crate) fn in_readers(task: u64, pids: &'static Pids, group_leader: u32) -> u64 {
    if read!(pids.offsets.thread_pid) == ABSENT || group_leader == ABSENT {
        return 0;
    }
    let pid: u64 = peek(task, read!(pids.offsets.thread_pid));
    let level: u32 = peek(pid, read!(pids.offsets.pid_level));
    let mut at = 1;
    while at <= LEVELS && at <= level {
        let ns: u64 = peek(upid(pids, pid, at), read!(pids.offsets.upid_ns));
        if peek::<u32>(ns, read!(pids.offsets.pidns_inum)) == read!(pids.reader) {
            let leader: u64 = peek(task, group_leader);
            let leaders_pid: u64 = peek(leader, read!(pids.offsets.thread_pid));
            return u64::from(number(pids, leaders_pid, at)) << 32
                | u64::from(number(pids, pid, at));
        }
        at += 1;
    }
    0
}

/// Address of the `struct upid` of a `struct pid` in the namespace at this level.
#[inline(always)]
fn upid(pids: &'static Pids, pid: u64, level: u32) -> u64 {
    let behind = u64::from(level) * u64::from(read!(pids.offsets.upid_size));
    pid.wrapping_add(u64::from(read!(pids.offsets.pid_numbers))).wrapping_add(behind)
}

#[inline(always)]
fn number(pids: &'static Pids, pid: u64, level: u32) -> u32 {
    peek(upid(pids, pid, level), read!(pids.offsets.upid_nr))
}
