//! What a record in the ring costs at the least: the measure that `cargo xtask bench` holds the
//! real programs against. Not part of tcptrace.
//!
//! On every run of `inet_sock_set_state` it takes the time, reserves a record as long as a
//! [`Transition`], writes all of it (the kind, the two states, the time and the socket's address;
//! zeroes elsewhere), and submits it without a wake-up. It reads nothing from the socket, calls
//! nothing but `bpf_ktime_get_ns`, filters nothing (so it counts MPTCP and SCTP too, of which the
//! bench makes none), and keeps no count of what succeeds.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map},
    maps::{PerCpuArray, RingBuf},
    programs::BtfTracePointContext,
};
use tcptrace_common::record::{RecordKind, Transition};

/// How many stores fill a [`Transition`].
const WORDS: usize = size_of::<Transition>() / 8;
type Words = [u64; WORDS];
const _: () = assert!(size_of::<Words>() == size_of::<Transition>());

/// The loader sets the real size.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// How often the ring was full.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
fn floor(ctx: BtfTracePointContext) -> i32 {
    let Some(mut entry) = RING.reserve::<Words>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: a non-null, aligned pointer to this CPU's element, which only this program
            // writes. Atomic, since before 6.1 it may be interrupted by itself.
            unsafe {
                asm!(
                    "lock *(u64 *)({lost} + 0) += {one}",
                    lost = in(reg) lost,
                    one = in(reg) 1_u64,
                    options(nostack),
                );
            }
        }
        return 0;
    };
    let states = u64::from(ctx.arg::<i32>(1) as u8) << 8 | u64::from(ctx.arg::<i32>(2) as u8) << 16;
    let record: *mut Words = entry.as_mut_ptr();
    put(record, 0, u64::from(RecordKind::Transition as u8) | states);
    // SAFETY: no arguments.
    put(record, 1, unsafe { bpf_ktime_get_ns() });
    put(record, 2, ctx.arg::<*const c_void>(0) as u64);
    for at in 3..WORDS {
        put(record, at, 0);
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    0
}

/// One store into the record. Volatile, or the zeroes become a call to a `memset` that goes byte
/// by byte.
#[inline(always)]
fn put(record: *mut Words, at: usize, word: u64) {
    // SAFETY: the callers stay below `WORDS`, and the record was reserved and is not shared yet.
    let place = unsafe { &raw mut (*record)[at] };
    // SAFETY: as above.
    unsafe { place.write_volatile(word) };
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
