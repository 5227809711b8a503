//! What crosses the border between the kernel side and user space: the records in the ring
//! buffer, the counters beside it, and the read-only globals set at load time.
//!
//! Both sides are compiled from these definitions, so there is no second copy of a layout to
//! drift. Nothing here interprets: no state machine, no I/O, no allocation, no dependency on a
//! kernel version.
#![no_std]
#![forbid(unsafe_code)]

pub mod counters;
pub mod files;
pub mod filter;
pub mod globals;
pub mod record;
