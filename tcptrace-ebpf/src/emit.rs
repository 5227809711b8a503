//! Counting and the way into the ring.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use tcptrace_common::counters::{Hook, HookCounters};

use crate::{
    globals::global,
    maps::{COUNTERS, RING},
};

/// Adds one to a count in a map of this CPU, which another run of this program or of another one may
/// interrupt at any instruction.
///
/// Atomic, since not every kernel and every way to run a program keeps such runs apart: before 6.1 a
/// tracing program may be interrupted by itself, and a test run (`tw_peek`) is
/// interrupted by softirqs at any time. The result is not used, so that it is the instruction that
/// kernels have had from the start (`BPF_XADD`), not the one of 5.12.
///
/// # Safety
/// `count` is aligned and in the value of a map, which is there as long as the program runs, and every
/// program that writes it does so by this.
#[inline(always)]
pub(crate) unsafe fn add_one(count: *mut u64) {
    // By hand: to Rust this target has no atomic additions, since not every kernel has all of them.
    // SAFETY: valid and aligned by the caller's word. Touches nothing else, and no stack.
    unsafe {
        asm!(
            "lock *(u64 *)({count} + 0) += {one}",
            count = in(reg) count,
            one = in(reg) 1_u64,
            options(nostack),
        );
    }
}

/// Counters of this CPU for one program of a hook.
pub(crate) struct Counters(*mut HookCounters);

impl Counters {
    /// The counters of `hook`, with one more event seen. `None` cannot happen (the index is in
    /// range), but the verifier wants the branch.
    #[inline(always)]
    pub(crate) fn seen(hook: Hook) -> Option<Self> {
        Self::seen_by(hook, 0)
    }

    /// As [`Self::seen`], of a hook with several programs, each with an element of its own:
    /// [`Hook::element`].
    #[inline(always)]
    pub(crate) fn seen_by(hook: Hook, program: u32) -> Option<Self> {
        let counters = Self(COUNTERS.get_ptr_mut(hook.element(program))?);
        counters.add(|counters| {
            // SAFETY: a field of what `counters` points to, which `Self::add` vouches for.
            unsafe { &raw mut (*counters).seen }
        });
        Some(counters)
    }

    /// Adds one to a field.
    #[inline(always)]
    fn add(&self, field: impl FnOnce(*mut HookCounters) -> *mut u64) {
        // SAFETY: a non-null pointer from the map to this CPU's element, which is never freed while a
        // program that uses the map is loaded. No program makes a reference to it, and all that write
        // it do so here.
        unsafe { add_one(field(self.0)) };
    }

    /// The event is held back by the filter.
    #[inline(always)]
    pub(crate) fn filtered(self) {
        self.add(|counters| {
            // SAFETY: as in `seen_by`.
            unsafe { &raw mut (*counters).filtered }
        });
    }

    /// Writes one record with `fill` and hands it to user space, or counts it as lost.
    ///
    /// `fill` must write every byte of the record: the kernel does not clear it.
    #[inline(always)]
    pub(crate) fn emit<T: 'static>(self, fill: impl FnOnce(*mut T)) {
        let Some(mut entry) = RING.reserve::<T>(0) else {
            self.add(|counters| {
                // SAFETY: as in `seen_by`.
                unsafe { &raw mut (*counters).lost }
            });
            return;
        };
        fill(entry.as_mut_ptr());
        // SAFETY: as in `seen_by`.
        let seen = unsafe { &raw const (*self.0).seen };
        // SAFETY: as above, and aligned. Volatile: others may add to it, and it need not be the
        // number of this very event.
        let seen = unsafe { seen.read_volatile() };
        entry.submit(wakeup(seen));
    }
}

/// A wake-up costs ten times the event, so the reader comes on its own tick; only when the ring
/// fills up faster than that is it called.
#[inline(always)]
fn wakeup(seen: u64) -> u64 {
    if seen & u64::from(global!(wakeup.every_mask)) == 0
        && RING.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(global!(wakeup.at_bytes))
    {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    u64::from(BPF_RB_NO_WAKEUP)
}
