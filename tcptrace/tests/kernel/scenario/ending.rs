//! Ends other than the plain ones: what the socket options, the timers and the two programs can make
//! of a connection. Each returns when the client's end, and the server's where it is named, is gone.

use std::{
    io::Write as _,
    os::fd::AsRawFd as _,
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{SockFilter, Socket, TcpKeepalive};

use crate::{
    net::{Pair, sysctl},
    scenario::conn::{
        Connection, Ends, Family, Listener, bound_in_time, expect_end, expect_error, local_address,
    },
    sys::{option, set_option},
    unsupported::Unsupported,
    wait,
    witness::{State, wait_gone, wait_state},
};

/// The socket hears nothing from now on: a filter drops all that comes.
///
/// # Errors
/// What the kernel answered.
pub fn deafen(socket: &Socket) -> Result<()> {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[drop_all]).context("SO_ATTACH_FILTER")
}

fn established(family: Family) -> Result<Connection> {
    Listener::open(family, 0)?.connect(None)
}

/// The client writes, nobody acknowledges, and `tcp_retries2` is over.
///
/// # Errors
/// A step that did not come about.
pub fn retransmit_timeout(family: Family) -> Result<Ends> {
    sysctl("net/ipv4/tcp_retries2", "1")?;
    unheard(established(family)?)
}

/// The client writes, nobody acknowledges, and `TCP_USER_TIMEOUT` is over.
///
/// # Errors
/// A step that did not come about.
pub fn user_timeout(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 300)?;
    unheard(connection)
}

fn unheard(connection: Connection) -> Result<Ends> {
    deafen(&connection.server)?;
    (&connection.client).write_all(b"is anybody there?")?;
    times_out(connection)
}

fn times_out(connection: Connection) -> Result<Ends> {
    let ends = connection.ends;
    let errno = expect_error(&connection.client)?;
    ensure!(errno == libc::ETIMEDOUT, "errno {errno}");
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// The client's keep-alive probe is not answered.
///
/// # Errors
/// A step that did not come about.
pub fn keepalive_timeout(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
    connection.client.set_tcp_keepalive(&probes)?;
    deafen(&connection.server)?;
    times_out(connection)
}

/// The client connects to a listener that hears nothing, with one SYN more than the first.
///
/// # Errors
/// A step that did not come about.
pub fn syn_timeout(family: Family) -> Result<Ends> {
    let listener = Listener::open(family, 0)?;
    deafen(&listener.socket)?;
    let client = family.socket()?;
    set_option(&client, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::ETIMEDOUT), "{error}");
    let server = listener.address;
    // The port went with the attempt; there was one client here.
    Ok(Ends { client: family.address(0), server })
}

/// The client gives up on a connect() that is not answered.
///
/// # Errors
/// A step that did not come about.
pub fn abandoned(family: Family) -> Result<Ends> {
    let listener = Listener::open(family, 0)?;
    deafen(&listener.socket)?;
    let client = family.socket()?;
    client.set_nonblocking(true)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
    let client_address = local_address(&client)?;
    let ends = Ends { client: client_address, server: listener.address };
    wait_state(ends.of_client(), State::SynSent)?;
    drop(client);
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// connect() to an address of a network that nobody there has.
///
/// # Errors
/// A step that did not come about.
pub fn unreachable() -> Result<(Pair, Ends)> {
    let pair = Pair::veth()?;
    let server = std::net::SocketAddr::from(([10, 77, 0, 99], 9));
    pair.left.run(|| -> Result<()> {
        let client = Family::V4.socket()?;
        let Err(error) = client.connect(&server.into()) else { bail!("connected") };
        ensure!(error.raw_os_error() == Some(libc::EHOSTUNREACH), "{error}");
        Ok(())
    })?;
    Ok((pair, Ends { client: (Pair::LEFT, 0).into(), server }))
}

/// The client closes, and nobody acknowledges its FIN.
///
/// # Errors
/// A step that did not come about.
pub fn orphan_gives_up(family: Family) -> Result<Ends> {
    sysctl("net/ipv4/tcp_orphan_retries", "1")?;
    let connection = established(family)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    wait_state(ends.of_client(), State::FinWait1)?;
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// The client has closed, its FIN is not heard, and the server writes: the client's kernel behaves
/// as if a RST had come, and none did.
///
/// # Errors
/// A step that did not come about.
pub fn data_after_close(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    wait_state(ends.of_client(), State::FinWait1)?;
    (&connection.server).write_all(b"too late")?;
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// The client has closed, its FIN is not heard, and the server resets the connection.
///
/// # Errors
/// A step that did not come about.
pub fn reset_after_close(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    wait_state(ends.of_client(), State::FinWait1)?;
    connection.server.set_linger(Some(Duration::ZERO))?;
    drop(connection.server);
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// The client calls connect(AF_UNSPEC) on its connection.
///
/// # Errors
/// A step that did not come about.
pub fn disconnect(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let nowhere =
        libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let fd = connection.client.as_raw_fd();
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the address is as long as told.
    let done = unsafe { libc::connect(fd, &raw const nowhere, length) };
    ensure!(done == 0, "connect(AF_UNSPEC): {}", std::io::Error::last_os_error());
    let ends = connection.ends;
    wait_gone(ends.of_client())?;
    let errno = expect_error(&connection.server)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    Ok(ends)
}

/// The listener closes before anybody has accepted the client.
///
/// # Errors
/// A step that did not come about.
pub fn listener_closes(family: Family) -> Result<Ends> {
    let listener = Listener::open(family, 0)?;
    let client = family.socket()?;
    client.connect(&listener.address.into())?;
    let client_address = local_address(&client)?;
    let ends = Ends { client: client_address, server: listener.address };
    wait_state(ends.of_server(), State::Established)?;
    drop(listener);
    wait_gone(ends.of_server())?;
    let errno = expect_error(&client)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    Ok(ends)
}

/// The client closes with data unread and `SO_LINGER` 0, both of which call for a RST.
///
/// # Errors
/// A step that did not come about.
pub fn unread_and_linger(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    (&connection.server).write_all(b"unread")?;
    let mut peeked = [std::mem::MaybeUninit::uninit(); 1];
    ensure!(connection.client.peek(&mut peeked)? == 1, "nothing there to leave unread");
    connection.client.set_linger(Some(Duration::ZERO))?;
    both_gone(connection)
}

/// The server has closed; the client, which has read that, closes with `SO_LINGER` 0.
///
/// # Errors
/// A step that did not come about.
pub fn linger_after_fin(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let ends = connection.ends;
    connection.server.shutdown(std::net::Shutdown::Write)?;
    wait_state(ends.of_client(), State::CloseWait)?;
    expect_end(&connection.client)?;
    connection.client.set_linger(Some(Duration::ZERO))?;
    both_gone(connection)
}

fn both_gone(connection: Connection) -> Result<Ends> {
    let ends = connection.ends;
    drop(connection.client);
    wait_gone(ends.of_client())?;
    drop(connection.server);
    wait_gone(ends.of_server())?;
    Ok(ends)
}

/// The client closes with `TCP_LINGER2` below 0: no waiting in FIN_WAIT2.
///
/// # Errors
/// A step that did not come about.
pub fn linger2(family: Family) -> Result<Ends> {
    let connection = established(family)?;
    let ends = connection.ends;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1)?;
    let seconds = option(&connection.client, libc::IPPROTO_TCP, libc::TCP_LINGER2)?;
    ensure!(seconds < 0, "TCP_LINGER2 is {seconds}");
    drop(connection.client);
    wait_gone(ends.of_client())?;
    Ok(ends)
}

/// The client closes a FIN that is not heard, and there may be no orphan at all. Changes the whole
/// host, so only where that is a virtual machine made for these tests.
///
/// # Errors
/// `Unsupported` elsewhere; a step that did not come about.
pub fn orphan_limit(family: Family) -> Result<Ends> {
    if std::env::var_os("VM_TEST").is_none() {
        return Err(Unsupported("tcp_max_orphans is the whole host's".to_owned()).into());
    }
    let path = "/proc/sys/net/ipv4/tcp_max_orphans";
    let before = std::fs::read_to_string(path)?;
    std::fs::write(path, "0")?;
    let ended = (|| {
        let connection = established(family)?;
        let ends = connection.ends;
        deafen(&connection.server)?;
        drop(connection.client);
        wait_gone(ends.of_client())?;
        Ok(ends)
    })();
    std::fs::write(path, before.trim())?;
    ended
}

/// Two sockets of a connection, each opened by a thread of its own name.
pub struct Owned {
    pub ends: Ends,
    pub client_tid: i32,
    pub acceptor_tid: i32,
}

/// The names of the threads of [`owned`], as a task has them.
pub const CLIENT: &str = "the-client";
/// The thread that accepts.
pub const ACCEPTOR: &str = "the-acceptor";

/// One thread listens, another accepts, a third connects and closes first; the listener's thread
/// closes what the acceptor handed over.
///
/// # Errors
/// A step that did not come about.
pub fn owned(family: Family) -> Result<Owned> {
    let listener = Listener::open(family, 0)?;
    let address = listener.address;
    let accepted = AtomicBool::new(false);
    // A thread is in the namespace of the one that starts it.
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let accept = || -> Result<(Socket, i32)> {
        let (server, _) = listener.socket.accept()?;
        accepted.store(true, Ordering::Release);
        bound_in_time(&server)?;
        Ok((server, nix::unistd::gettid().as_raw()))
    };
    let connect = || -> Result<(Ends, i32)> {
        let client = family.socket()?;
        client.connect(&address.into())?;
        let ends = Ends { client: local_address(&client)?, server: address };
        wait_state(ends.of_server(), State::Established)?;
        wait::until("accept()", || Ok(accepted.load(Ordering::Acquire).then_some(())))?;
        drop(client);
        Ok((ends, nix::unistd::gettid().as_raw()))
    };
    std::thread::scope(|scope| {
        let acceptor = named(ACCEPTOR).spawn_scoped(scope, accept)?;
        let client = named(CLIENT).spawn_scoped(scope, connect)?;
        let (ends, client_tid) = client.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let (server, acceptor_tid) =
            acceptor.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        wait_state(ends.of_server(), State::CloseWait)?;
        drop(server);
        wait_gone(ends.of_server())?;
        Ok(Owned { ends, client_tid, acceptor_tid })
    })
}
