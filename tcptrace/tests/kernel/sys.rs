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

/// Asks how much was not sent yet (`SIOCOUTQNSD`).
pub const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Bytes in the send queue: with `TIOCOUTQ` all that are not acknowledged.
///
/// # Errors
/// What the kernel answered.
pub fn queued(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<i32> {
    let mut bytes = 0_i32;
    // SAFETY: the descriptor is open for the length of the borrow, and both requests write an int.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut bytes) };
    if done == 0 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// What `TCP_INFO` says of a connection's life.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// How often the timeout was doubled: of a closed window, probes that were answered among them.
    pub backoff: u8,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
}

/// `getsockopt` of `TCP_INFO`, whose beginning is ABI.
///
/// # Errors
/// What the kernel answered.
pub fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    let mut words = [0_u32; 34];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most
    // `length` bytes, which is the size of `words`, and any bytes are valid.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done != 0 || (length as usize) < size_of_val(&words) {
        return Err(io::Error::last_os_error());
    }
    // As both architectures that tcptrace is for have it: the lower half first.
    let wide = |word: usize| u64::from(words[word]) | u64::from(words[word + 1]) << 32;
    Ok(TcpInfo {
        backoff: words[1].to_le_bytes()[0],
        total_retrans: words[25],
        bytes_acked: wide(30),
        bytes_received: wide(32),
    })
}
