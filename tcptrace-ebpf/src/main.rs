//! The kernel side of tcptrace: programs that turn kernel events into records in the ring.
//!
//! A program reads, filters, emits, and keeps no state of its own: no per-socket map (a lookup
//! costs as much as the whole event), no durations, no verdicts. Those belong to user space.
#![feature(asm_experimental_arch)]
#![no_std]
#![no_main]

mod emit;
mod filter;
mod globals;
mod hooks;
mod maps;
mod numbers;
mod peek;
mod pids;
mod sock;
mod task;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: nothing here can panic, and the verifier refuses an endless loop, so an
    // object in which this was linked would not load.
    loop {}
}

/// Tracing programs may call `bpf_probe_read_kernel` and `bpf_ktime_get_ns` freely only from a
/// GPL-compatible object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
