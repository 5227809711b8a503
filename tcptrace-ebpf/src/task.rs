//! The task on the CPU, and the process that it belongs to.
//!
//! Must not judge whether it has to do with the socket: that depends on the transition, which user
//! space knows.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf, bpf_get_current_uid_gid,
};
use tcptrace_common::{
    globals::{ABSENT, FEATURE_TASK_BTF},
    record::{self, COMM_LEN, TASK_KERNEL, TASK_LEADER},
};

use crate::{globals::global, peek::peek, pids, sock::field};

/// `PF_KTHREAD` (`include/linux/sched.h`): not in BTF, but of the ABI, since `/proc/PID/stat` shows
/// it. The same bit since 2.6.27.
const PF_KTHREAD: u32 = 0x0020_0000;

/// `NSEC_PER_SEC / USER_HZ`, by which `/proc/PID/stat` counts `starttime`.
const TICK_NS: u64 = 10_000_000;

/// A task's name in memory order.
type Name = [u64; COMM_LEN / 8];

/// The task on the CPU.
#[derive(Clone, Copy)]
pub(crate) struct Current(By);

#[derive(Clone, Copy)]
enum By {
    /// As pointers that the verifier follows by BTF (5.11).
    Btf { task: *const c_void, leader: *const c_void },
    /// As addresses, for copies.
    Addresses { task: u64, leader: u64 },
    /// There is no BTF: by helpers alone.
    Helpers,
}

impl Current {
    /// To be asked once, before anything that the verifier walks on more than one path (see
    /// [`crate::sock::Sock::pointers`]).
    #[inline(always)]
    pub(crate) fn ask() -> Self {
        if global!(task.comm) == ABSENT {
            return Self(By::Helpers);
        }
        if global!(features) & FEATURE_TASK_BTF != 0 {
            // SAFETY: no arguments.
            let task = unsafe { bpf_get_current_task_btf() }.cast_const().cast::<c_void>();
            let leader = field!(task, task.group_leader => *const c_void);
            return Self(By::Btf { task, leader });
        }
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task() };
        let leader = peek(task, global!(task.group_leader));
        Self(By::Addresses { task, leader })
    }

    /// Writes every byte of a record's task.
    #[inline(always)]
    pub(crate) fn write(self, to: *mut record::Task) {
        let (tgid, tid) = pids::current();
        // SAFETY: no arguments.
        let uid = unsafe { bpf_get_current_uid_gid() } as u32;
        let (flags, execs, started) = match self.0 {
            By::Btf { task, leader } => {
                let (comm, thread) = (typed_name(leader), typed_name(task));
                put_names(to, comm, thread);
                (
                    field!(task, task.flags => u32),
                    if global!(task.self_exec_id) == ABSENT {
                        0
                    } else {
                        field!(leader, task.self_exec_id => u32)
                    },
                    if global!(task.start_boottime) == ABSENT {
                        0
                    } else {
                        field!(leader, task.start_boottime => u64)
                    },
                )
            }
            By::Addresses { task, leader } => {
                put_names(to, peeked_name(leader), peeked_name(task));
                (
                    peek(task, global!(task.flags)),
                    if global!(task.self_exec_id) == ABSENT {
                        0
                    } else {
                        peek(leader, global!(task.self_exec_id))
                    },
                    if global!(task.start_boottime) == ABSENT {
                        0
                    } else {
                        peek(leader, global!(task.start_boottime))
                    },
                )
            }
            By::Helpers => {
                put_helpers_name(to);
                (0, 0, 0)
            }
        };
        let kernel = if flags & PF_KTHREAD != 0 { TASK_KERNEL } else { 0 };
        let led = if matches!(self.0, By::Helpers) { 0 } else { TASK_LEADER };
        macro_rules! put {
            ($($field:ident: $value:expr),* $(,)?) => {
                $({
                    let value = $value;
                    // SAFETY: the record was reserved, its task is aligned in it and not shared yet.
                    let field = unsafe { &raw mut (*to).$field };
                    // SAFETY: as above.
                    unsafe { field.write(value) };
                })*
            };
        }
        put! {
            tgid: tgid,
            tid: tid,
            uid: uid,
            started: (started / TICK_NS) as u32,
            execs: execs as u16,
            flags: kernel | led,
            unused: 0,
        }
    }
}

/// The name of a task to which the verifier has a typed pointer.
#[inline(always)]
fn typed_name(task: *const c_void) -> Name {
    // The loader leaves names out where they are not aligned to eight bytes.
    [field!(task, task.comm => u64), field!(task, task.comm, 8 => u64)]
}

#[inline(always)]
fn peeked_name(task: u64) -> Name {
    [peek(task, global!(task.comm)), peek(task, global!(task.comm) + 8)]
}

#[inline(always)]
fn put_names(to: *mut record::Task, comm: Name, thread: Name) {
    // SAFETY: a field of the reserved record.
    let at = unsafe { &raw mut (*to).comm };
    put_name(at, comm);
    // SAFETY: as above.
    let at = unsafe { &raw mut (*to).thread };
    put_name(at, thread);
}

#[inline(always)]
fn put_name(to: *mut [u8; COMM_LEN], name: Name) {
    // SAFETY: as long as the field, which is aligned for it in every record (`names_are_aligned`).
    unsafe { to.cast::<Name>().write(name) };
}

/// The name of the thread in both places.
#[inline(always)]
fn put_helpers_name(to: *mut record::Task) {
    // SAFETY: a field of the reserved record.
    let comm = unsafe { &raw mut (*to).comm };
    // SAFETY: the buffer is as long as told; the helper clears it when it fails.
    unsafe { bpf_get_current_comm(comm.cast(), COMM_LEN as u32) };
    // SAFETY: as above.
    let thread = unsafe { &raw mut (*to).thread };
    // SAFETY: as above.
    unsafe { bpf_get_current_comm(thread.cast(), COMM_LEN as u32) };
}
