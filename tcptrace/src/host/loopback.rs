//! A short TCP life in a network namespace of its own, for who wants to see whether it is seen.
//!
//! Touches nothing of the host: the namespace ends with the thread that made it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, setsockopt,
        socket, sockopt,
    },
};

nix::ioctl_write_ptr_bad!(
    /// `SIOCSIFFLAGS` (netdevice(7)).
    set_interface_flags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);

/// Opens and closes a connection, and opens another on the same ports, so that the first one's
/// TIME_WAIT begins and ends. Needs CAP_SYS_ADMIN, and takes a few milliseconds.
pub fn live_a_life() -> io::Result<()> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        raise_loopback()?;
        reuse_a_time_wait()
    };
    thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("the thread in the new namespace ended in a panic")),
    })
}

fn tcp() -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    Ok(socket)
}

fn raise_loopback() -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from as libc::c_char;
    }
    let any = tcp()?;
    // SAFETY: the descriptor is open and the request is whole, with a name that ends in a 0.
    unsafe { set_interface_flags(any.as_raw_fd(), &raw const request) }?;
    Ok(())
}

fn reuse_a_time_wait() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(server) = listener.local_addr()? else {
        return Err(io::Error::other("an IPv4 listener with another address"));
    };
    let server = SockaddrIn::from(server);
    let first = tcp()?;
    bind(first.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))?;
    let client: SockaddrIn = getsockname(first.as_raw_fd())?;
    connect(first.as_raw_fd(), &server)?;
    let (accepted, _) = listener.accept()?;
    drop(first);
    drop(accepted);
    // Bound, it needs no more than TCP timestamps to take the port (`tcp_twsk_unique()`).
    let second = tcp()?;
    bind(second.as_raw_fd(), &client)?;
    connect(second.as_raw_fd(), &server)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_again_and_again() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root, for a network namespace of its own");
            return;
        }
        for _ in 0..3 {
            live_a_life().unwrap();
        }
    }
}
