//! Whether the program of the socket hook was run for a transition: see [`Guard`].
//!
//! Both programs may be interrupted between any two instructions, by transitions that one of the two
//! is then run for. Where the first is interrupted, those leave no note; between the two, each
//! leaves a note and takes it off again; where the second is, each leaves one above the one that is
//! looked for, or, once that is gone, one that nobody will take off.

use aya_ebpf::programs::BtfTracePointContext;
use tcptrace_common::counters::{Guard, Note};

/// The note of the transition that `ctx` is about.
#[inline(always)]
fn states(ctx: &BtfTracePointContext) -> u64 {
    u64::from(ctx.arg::<i32>(1) as u8) | u64::from(ctx.arg::<i32>(2) as u8) << 8
}

/// Where the `at`th note is.
#[inline(always)]
fn slot(guard: *mut Guard, at: u64) -> *mut Note {
    // SAFETY: a field of this CPU's element, which is there as long as the program runs.
    let notes = unsafe { &raw mut (*guard).notes };
    notes.cast::<Note>().wrapping_add((at % Guard::NOTES) as usize)
}

#[inline(always)]
fn top(guard: *mut Guard) -> *mut u64 {
    // SAFETY: as in `slot`.
    unsafe { &raw mut (*guard).top }
}

#[inline(always)]
fn runs(guard: *mut Guard) -> *mut u64 {
    // SAFETY: as in `slot`.
    unsafe { &raw mut (*guard).runs }
}

/// Leaves a note that the program was run for the transition of `ctx`.
#[inline(always)]
pub(super) fn note(guard: *mut Guard, ctx: &BtfTracePointContext) {
    let (top, runs) = (top(guard), runs(guard));
    // SAFETY: aligned, and of this CPU's element. Volatile: others may write it in between.
    let run = unsafe { runs.read_volatile() };
    // SAFETY: as above.
    unsafe { runs.write_volatile(run.wrapping_add(1)) };
    // SAFETY: as above.
    let at = unsafe { top.read_volatile() };
    let note = Note { skaddr: ctx.arg::<u64>(0), states_and_run: states(ctx) | run << 16 };
    // SAFETY: as above; within the notes.
    unsafe { slot(guard, at).write_volatile(note) };
    // SAFETY: as above.
    unsafe { top.write_volatile(at.wrapping_add(1)) };
}

/// Whether there is a note of the transition of `ctx`, which is gone then.
#[inline(always)]
pub(super) fn take_note(guard: *mut Guard, ctx: &BtfTracePointContext) -> bool {
    let states = states(ctx);
    let top = top(guard);
    // SAFETY: as in `note`.
    let runs = unsafe { runs(guard).read_volatile() };
    // SAFETY: as in `note`.
    let mut at = unsafe { top.read_volatile() };
    let mut left = Guard::NOTES;
    // Nearly always it is the first. Of two alike, the newer one is above.
    let (slot, run) = loop {
        if left == 0 {
            return false;
        }
        left -= 1;
        at = at.wrapping_sub(1);
        let slot = slot(guard, at);
        // SAFETY: as in `note`.
        let Note { skaddr, states_and_run } = unsafe { slot.read_volatile() };
        if skaddr == ctx.arg::<u64>(0) && states_and_run & 0xffff == states {
            break (slot, states_and_run >> 16);
        }
    };
    // SAFETY: as in `note`.
    unsafe { slot.write_volatile(Note::default()) };
    // A note has 48 bits of the number.
    if (runs.wrapping_sub(run) << 16) >> 16 >= Guard::STALE {
        return false;
    }
    // SAFETY: as above.
    unsafe { top.write_volatile(at) };
    true
}
