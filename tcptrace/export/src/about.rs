//! What is the same in all rows of a table, and what they refer to.

use tcptrace_record::Header;
use tcptrace_track::cgroups::Cgroups;

/// What is the same in all rows, and what they refer to.
pub struct About {
    pub(super) header: Header,
    pub(super) hz: u32,
    pub(super) cgroups: Cgroups,
    /// Addresses of kernel objects are written.
    pub(super) addresses: bool,
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, nanoseconds, once it is known.
    pub(super) offset_ns: Option<i64>,
}

impl About {
    /// A moment on the wall clock, nanoseconds since 1970.
    pub(super) fn real_ns(&self, mono_ns: u64) -> Option<i64> {
        i64::try_from(mono_ns).ok()?.checked_add(self.offset_ns?)
    }
}
