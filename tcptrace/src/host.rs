//! The only reader of /proc, /sys and netlink.

pub mod caps;
pub mod clock;
