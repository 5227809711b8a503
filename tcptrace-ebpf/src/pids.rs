//! The numbers of the process and thread on the CPU in the reader's PID namespace.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use tcptrace_common::record::FOREIGN;

use crate::{
    globals::{GLOBALS, global},
    numbers::in_readers,
};

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
    let task = unsafe { bpf_get_current_task() };
    match in_readers(task, &GLOBALS.pids, global!(task.group_leader)) {
        0 => (tgid | FOREIGN, tid | FOREIGN),
        found => ((found >> 32) as u32, found as u32),
    }
}
