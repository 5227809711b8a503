//! Whether the kernel lists sockets that are bound and nothing else.
//!
//! A kernel before 6.8 ignores what it does not know in the mask of states
//! (`inet_diag_dump_icsk()`), and answers as if there were no such socket. So it is tried: one is bound,
//! and either it is listed or not.

use std::{
    io, iter,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use nix::sys::{
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket},
    stat::fstat,
};

use super::{Family, SockDiag, StateMask};

/// Ports that are tried one after the other where all of `ip_local_port_range` are taken: then
/// bind() to port 0 finds none.
const FIRST: u16 = 1024;
const STEP: usize = 331;

/// Whether a dump of [`StateMask::BOUND`] has the sockets that are bound to a port and neither
/// connected nor listening (6.8). `false` also where that could not be tried. Binds a socket to a
/// port of the calling thread's network namespace, and closes it.
pub fn lists_bound() -> bool {
    try_it().unwrap_or(false)
}

fn try_it() -> io::Result<bool> {
    let tried = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let at = |port| SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let mut ports = iter::once(0).chain((FIRST..=u16::MAX).step_by(STEP));
    let is_bound = ports.any(|port| bind(tried.as_raw_fd(), &at(port)).is_ok());
    if !is_bound {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // sock_diag has 32 bits of it.
    let inode = fstat(&tried)?.st_ino as u32;
    let dump = SockDiag::open()?.dump(
        &[Family::V4],
        StateMask::BOUND,
        || false,
        |found, socket| *found |= socket.inode == inode,
    )?;
    Ok(dump.value)
}
