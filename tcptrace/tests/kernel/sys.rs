//! The few system calls that neither std, nix nor socket2 wrap, as safe functions.
//!
//! Nothing here knows about TCP states or scenarios.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` now, in ns: the clock of `bpf_ktime_get_ns`.
pub fn now() -> u64 {
    // clock_gettime fails for an unknown clock or a bad pointer only; neither can be here.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// `setsockopt` with an `int`.
///
/// # Errors
/// What the kernel answered.
pub fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow, and the pointer and the length
    // are those of `value`, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `getsockopt` of an `int`.
///
/// # Errors
/// What the kernel answered.
pub fn option(socket: &impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most
    // `length` bytes, which is the size of `value`, and any bytes are a valid i32.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
