//! Counting and the way into the ring.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use tcptrace_common::counters::{Hook, HookCounters};

use crate::{
    globals::global,
    maps::{COUNTERS, RING},
};

/// Counters of this CPU for one program of a hook.
pub(crate) struct Counters(*mut HookCounters);

impl Counters {
    /// The counters of `hook`, with one more event seen. `None` cannot happen (the index is in
    /// range), but the verifier wants the branch.
    #[inline(always)]
    pub(crate) fn seen(hook: Hook) -> Option<Self> {
        Self::seen_by(hook, 0)
    }

    /// As [`Self::seen`], of a hook with programs that may interrupt each other: each adds to an
    /// element of its own, [`Hook::element`].
    #[inline(always)]
    pub(crate) fn seen_by(hook: Hook, program: u32) -> Option<Self> {
        let counters = COUNTERS.get_ptr_mut(hook.element(program))?;
        // SAFETY: a non-null pointer from the map to this CPU's element. The program does not
        // nest in itself on one CPU, and no other program that may interrupt it uses this element.
        let counters_mut = unsafe { &mut *counters };
        counters_mut.seen += 1;
        Some(Self(counters))
    }

    /// The event is held back by the filter.
    #[inline(always)]
    pub(crate) fn filtered(self) {
        // SAFETY: as in `seen_by`.
        let counters = unsafe { &mut *self.0 };
        counters.filtered += 1;
    }

    /// Writes one record with `fill` and hands it to user space, or counts it as lost.
    ///
    /// `fill` must write every byte of the record: the kernel does not clear it.
    #[inline(always)]
    pub(crate) fn emit<T: 'static>(self, fill: impl FnOnce(*mut T)) {
        // SAFETY: as in `seen_by`.
        let counters = unsafe { &mut *self.0 };
        let Some(mut entry) = RING.reserve::<T>(0) else {
            counters.lost += 1;
            return;
        };
        fill(entry.as_mut_ptr());
        entry.submit(wakeup(counters.seen));
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
