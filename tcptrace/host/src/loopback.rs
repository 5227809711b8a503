//! A short TCP life in a network namespace of its own, for who wants to see whether it is seen.
//!
//! Touches nothing of the host: the namespace ends with the thread that made it, and by then
//! nothing is left in it that could have an event.

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use nix::{
    sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare},
    sys::{
        socket::{
            AddressFamily, Shutdown, SockFlag, SockType, SockaddrIn, bind, connect, getsockname,
            setsockopt, shutdown, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::Pid,
};

use super::netns::NetnsId;

nix::ioctl_write_ptr_bad!(
    /// `SIOCSIFFLAGS` (netdevice(7)).
    set_interface_flags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);

/// The port that is connected to: one by which others are seldom disturbed.
pub const PORT: u16 = 61_337;

/// No step takes longer, whatever stands in its way.
const PATIENCE: TimeVal = TimeVal::new(1, 0);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Inode of the namespace, which is gone.
    pub netns: u32,
    /// The end that connected, closed first, and whose TIME_WAIT was taken by a second connection.
    pub client: SocketAddrV4,
    /// The end that listened, on [`PORT`].
    pub server: SocketAddrV4,
}

/// Opens and closes a connection, and opens another on the same ports, so that the first one's
/// TIME_WAIT begins and ends. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and takes a few milliseconds.
pub fn live_a_life() -> io::Result<Life> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
            io::Error::other(format!("a network namespace takes CAP_SYS_ADMIN: {error}"))
        })?;
        stay_on_this_cpu()?;
        let netns = NetnsId::own()?.inode;
        raise_loopback().map_err(|error| {
            let takes = "a loopback that is up in it takes CAP_NET_ADMIN";
            io::Error::other(format!("a network namespace was made, but {takes}: {error}"))
        })?;
        let (client, server) = reuse_a_time_wait()?;
        Ok(Life { netns, client, server })
    };
    thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("the thread in the new namespace ended in a panic")),
    })
}

/// Segments on loopback wait in a queue of the CPU that sent them: with one queue they arrive in
/// the order in which they were sent.
fn stay_on_this_cpu() -> io::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &here)?)
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

fn tcp() -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
    setsockopt(&socket, sockopt::SendTimeout, &PATIENCE)?;
    Ok(socket)
}

/// The client and the server.
fn reuse_a_time_wait() -> io::Result<(SocketAddrV4, SocketAddrV4)> {
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
    let listener = TcpListener::bind(server)?;
    setsockopt(&listener, sockopt::ReceiveTimeout, &PATIENCE)?;
    let server_name = SockaddrIn::from(server);
    let first = tcp()?;
    bind(first.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))?;
    let client: SockaddrIn = getsockname(first.as_raw_fd())?;
    connect(first.as_raw_fd(), &server_name)?;
    let (accepted, _) = listener.accept()?;
    shutdown(first.as_raw_fd(), Shutdown::Write)?;
    drop(accepted);
    // The end of what the server says has come: it is a TIME_WAIT now.
    wait_for_the_end(first)?;

    // Bound, it needs no more than TCP timestamps to take the port (`tcp_twsk_unique()`).
    let second = tcp()?;
    bind(second.as_raw_fd(), &client)?;
    connect(second.as_raw_fd(), &server_name)?;
    let (accepted, _) = listener.accept()?;
    // By a reset, which leaves nothing behind, and which has come when reading ends.
    setsockopt(&second, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(second);
    setsockopt(&accepted, sockopt::ReceiveTimeout, &PATIENCE)?;
    wait_for_the_end(accepted.into())?;
    Ok((SocketAddrV4::from(client), server))
}

/// Reads until the peer has closed or reset.
fn wait_for_the_end(socket: OwnedFd) -> io::Result<()> {
    match TcpStream::from(socket).read(&mut [0]) {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
        _ => Ok(()),
    }
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
            let life = live_a_life().unwrap();
            assert_ne!(life.netns, NetnsId::own().unwrap().inode);
            assert_eq!(life.server.port(), PORT);
        }
    }
}
