//! The numbers of the process and thread on the CPU in the reader's PID namespace.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use tcptrace_common::{globals::ABSENT, record::FOREIGN};

use crate::{globals::global, peek::peek};

/// PID namespaces inside each other that are looked at, the first one not counted. The kernel allows
/// 32 (`MAX_PID_NS_LEVEL`); a container in a container in a container has 3.
const LEVELS: u32 = 8;

/// (process, thread) on the CPU; [`FOREIGN`] ones have no number in the reader's namespace.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    // SAFETY: no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    let (tgid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    if global!(pids.reader) == 0 {
        return (tgid, tid);
    }
    // bpf_get_ns_current_pid_tgid() answers only for tasks whose innermost namespace is the one that
    // is asked for: not for those of a container that the reader's namespace has in it.
    // SAFETY: no arguments.
    match in_readers(unsafe { bpf_get_current_task() }) {
        0 => (tgid | FOREIGN, tid | FOREIGN),
        found => ((found >> 32) as u32, found as u32),
    }
}

/// The numbers of a task in the reader's namespace, the process in the upper half; 0 if it has none
/// there. One number and not two: what is returned by memory costs stack in both functions, and up to
/// 6.12 the verifier adds up both, also where this is never called (check_max_stack_depth()).
#[inline(never)]
fn in_readers(task: u64) -> u64 {
    if global!(pids.offsets.thread_pid) == ABSENT || global!(task.group_leader) == ABSENT {
        return 0;
    }
    let pid: u64 = peek(task, global!(pids.offsets.thread_pid));
    let level: u32 = peek(pid, global!(pids.offsets.pid_level));
    let mut at = 1;
    while at <= LEVELS && at <= level {
        let ns: u64 = peek(upid(pid, at), global!(pids.offsets.upid_ns));
        if peek::<u32>(ns, global!(pids.offsets.pidns_inum)) == global!(pids.reader) {
            let leader: u64 = peek(task, global!(task.group_leader));
            let leaders_pid: u64 = peek(leader, global!(pids.offsets.thread_pid));
            return u64::from(number(leaders_pid, at)) << 32 | u64::from(number(pid, at));
        }
        at += 1;
    }
    0
}

/// Address of the `struct upid` of a `struct pid` in the namespace at this level.
#[inline(always)]
fn upid(pid: u64, level: u32) -> u64 {
    let behind = u64::from(level) * u64::from(global!(pids.offsets.upid_size));
    pid.wrapping_add(u64::from(global!(pids.offsets.pid_numbers))).wrapping_add(behind)
}

#[inline(always)]
fn number(pid: u64, level: u32) -> u32 {
    peek(upid(pid, level), global!(pids.offsets.upid_nr))
}
