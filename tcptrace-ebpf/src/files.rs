//! Which processes have which sockets open: an iterator over the open files of all tasks
//! (`iter/task_file`).
//!
//! Writes a [`SocketFile`] for each socket of each process, of any family: user space knows which
//! it wants. Needs `bpf_sock_from_file()` (5.11, commit 4f19cab76136); where there is none, the
//! verifier refuses it, and it must therefore not be in one object with what traces.
#![no_std]
#![no_main]

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};
use tcptrace_common::files::{Offsets, SocketFile};

mod numbers;
mod peek;

#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNSET;

/// `struct bpf_iter__task_file`: the loader has checked that it is so.
#[repr(C)]
struct Context {
    /// `struct bpf_iter_meta *`, whose first field is the `struct seq_file *`
    meta: *const *const c_void,
    task: *const c_void,
    fd: u64,
    file: *const c_void,
}

/// Reads a field of what the verifier follows by BTF: a bad address reads as 0.
macro_rules! field {
    ($base:expr, $offset:ident => $ty:ty) => {{
        // SAFETY: a reference to a field of a static is valid and aligned for a read.
        let offset = unsafe { ptr::read_volatile(&raw const OFFSETS.$offset) };
        let at: *const $ty = $base.cast::<u8>().wrapping_add(offset as usize).cast();
        // SAFETY: `base` is typed by BTF and the offset is that of the named field.
        unsafe { ptr::read_volatile(at) }
    }};
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn files(ctx: *const Context) -> i32 {
    // SAFETY: the program's own context, which nobody changes while it runs.
    let context = unsafe { &*ctx };
    let (task, file) = (context.task, context.file);
    // Both are null when all have been told.
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: a file as the verifier knows it.
    if unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.is_null() {
        return 0;
    }
    // Of a process's threads the kernel passes over those that share its files
    // (task_seq_get_next()). What a thread has for itself is the process's all the same, as what is
    // left open where the first thread has ended; /proc/PID/fd shows neither.
    let process = field!(task, task_group_leader => *const c_void);
    let tgid = number(task, process);
    // It has none in the reader's PID namespace.
    if tgid == 0 {
        return 0;
    }
    let inode = field!(file, file_inode => *const c_void);
    let told = SocketFile {
        started_ns: field!(process, task_start_boottime => u64),
        tgid,
        // `unsigned long`, of which a socket's has 32 bits: the lower ones come first.
        inode: field!(inode, inode_ino => u64) as u32,
    };
    // SAFETY: it is the first field of what `meta` points to.
    let seq = unsafe { context.meta.read() };
    // What does not fit into the kernel's buffer is written again by the kernel, in the next read().
    // SAFETY: the file that is being read, and as many bytes as there are.
    unsafe {
        bpf_seq_write(seq.cast_mut().cast(), (&raw const told).cast(), size_of_val(&told) as u32)
    };
    0
}

/// The process's number in the reader's PID namespace.
#[inline(always)]
fn number(task: *const c_void, process: *const c_void) -> u32 {
    // SAFETY: a field of a static is valid and aligned for a read.
    let reader = unsafe { (&raw const OFFSETS.pids.reader).read_volatile() };
    // SAFETY: as above.
    let group_leader = unsafe { (&raw const OFFSETS.task_group_leader).read_volatile() };
    if reader == 0 {
        return field!(task, task_tgid => u32);
    }
    (numbers::in_readers(process as u64, &OFFSETS.pids, group_leader) >> 32) as u32
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: nothing here can panic, and the verifier refuses an endless loop, so an
    // object in which this was linked would not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
