//! A network namespace of the process's own, so that what a run leaves in the kernel (TIME_WAITs
//! above all) dies with it, and no setting of the host is touched.

use anyhow::{Context as _, Result, bail};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// `LOOPBACK_IFINDEX`: `lo` is the first device of every namespace.
const LOOPBACK: i32 = 1;
/// `struct nlmsghdr` and `struct ifinfomsg`
const REQUEST_LEN: usize = 16 + 16;

/// Moves this thread, and the threads that it starts later, into a fresh network namespace with
/// its loopback device up.
///
/// # Errors
/// Without `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`.
pub fn enter_fresh() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace (unshare): root is needed")?;
    loopback_up().context("cannot bring up lo in the fresh network namespace")
}

/// `ip link set lo up`, by the one netlink message that it is, since iproute2 may not be there.
fn loopback_up() -> Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let up = libc::IFF_UP as u32;
    let mut request = Vec::with_capacity(REQUEST_LEN);
    request.extend((REQUEST_LEN as u32).to_ne_bytes());
    request.extend(libc::RTM_NEWLINK.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    request.extend([0; 8]); // sequence number, port id
    request.extend([0; 4]); // AF_UNSPEC, padding, device type
    request.extend(LOOPBACK.to_ne_bytes());
    request.extend(up.to_ne_bytes()); // ifi_flags
    request.extend(up.to_ne_bytes()); // ifi_change
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    send(fd, &request, MsgFlags::empty())?;

    // struct nlmsghdr, then the error as an int: 0 is the acknowledgement
    let mut reply = [0_u8; 256];
    let length = recv(fd, &mut reply, MsgFlags::empty())?;
    let Some(error) = reply[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()) else {
        bail!("the kernel's answer is {length} bytes, too short to be one");
    };
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        errno => Err(nix::errno::Errno::from_raw(-errno).into()),
    }
}
