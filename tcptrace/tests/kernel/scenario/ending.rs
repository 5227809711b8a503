//! Ends other than the plain ones: what the socket options, the timers and the two programs can make
//! of a connection. Each returns when the client's end, and the server's where it is named, is gone.

use std::{
    io::{self, Write as _},
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use socket2::{SockFilter, Socket, TcpKeepalive};

use crate::{
    net::{Pair, sysctl},
    scenario::{
        again,
        conn::{
            Connection, Ends, Family, Listener, bound_in_time, expect_end, expect_error,
            local_address,
        },
        place::{Place, Side},
    },
    sys::{SIOCOUTQNSD, now, option, queued, set_option, tcp_info},
    unsupported::Unsupported,
    wait,
    witness::{Counters, State},
};

/// The socket hears nothing from now on: a filter drops all that comes.
///
/// # Errors
/// What the kernel answered.
pub fn deafen(socket: &Socket) -> Result<()> {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[drop_all]).context("SO_ATTACH_FILTER")
}

fn established(place: impl Into<Place>) -> Result<Connection> {
    Listener::open(place, 0)?.connect(None)
}

/// The client writes, nobody acknowledges, and `tcp_retries2` is over.
///
/// # Errors
/// A step that did not come about.
pub fn retransmit_timeout(place: impl Into<Place>) -> Result<Ends> {
    sysctl("net/ipv4/tcp_retries2", "1")?;
    unheard(established(place)?)
}

/// The client writes, nobody acknowledges, and `TCP_USER_TIMEOUT` is over.
///
/// # Errors
/// A step that did not come about.
pub fn user_timeout(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 300)?;
    unheard(connection)
}

/// The same, where `tcp_retries2` would have been over long before: it does not count then.
///
/// # Errors
/// A step that did not come about.
pub fn user_timeout_beyond_retries(place: impl Into<Place>) -> Result<Ends> {
    const TIMEOUT: Duration = Duration::from_secs(3);
    sysctl("net/ipv4/tcp_retries2", "1")?;
    let connection = established(place)?;
    let milliseconds = i32::try_from(TIMEOUT.as_millis())?;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)?;
    let start = now();
    let ends = unheard(connection)?;
    // The kernel's timers are never early.
    let took = Duration::from_nanos(now() - start);
    ensure!(took >= TIMEOUT - Duration::from_millis(100), "given up after {took:?}");
    Ok(ends)
}

/// The peer's window is closed, it answers no probes, and `tcp_retries2` is over before
/// `TCP_USER_TIMEOUT`.
///
/// # Errors
/// A step that did not come about.
pub fn closed_window_retries(place: impl Into<Place>) -> Result<Ends> {
    sysctl("net/ipv4/tcp_retries2", "1")?;
    closed_window(established(place)?, 3_600_000)
}

/// The same the other way round.
///
/// # Errors
/// A step that did not come about.
pub fn closed_window_user_timeout(place: impl Into<Place>) -> Result<Ends> {
    closed_window(established(place)?, 300)
}

fn closed_window(connection: Connection, user_timeout_ms: i32) -> Result<Ends> {
    let client = &connection.client;
    client.set_nonblocking(true)?;
    wait::until("the peer's window to be closed", || {
        match { client }.write(&[0; 1 << 16]) {
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        // All that was sent is acknowledged, and there is more, for which probes ask.
        let (waiting, unsent) = (queued(client, libc::TIOCOUTQ)?, queued(client, SIOCOUTQNSD)?);
        let is_probed = tcp_info(client)?.backoff > 0;
        Ok((is_probed && unsent > 0 && waiting == unsent).then_some(()))
    })?;
    client.set_nonblocking(false)?;
    deafen(&connection.server)?;
    set_option(client, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, user_timeout_ms)?;
    times_out(connection)
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
    connection.place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The client's keep-alive probe is not answered.
///
/// # Errors
/// A step that did not come about.
pub fn keepalive_timeout(place: impl Into<Place>) -> Result<Ends> {
    unanswered_probes(established(place)?)
}

/// The same of a connection that is there. Nothing was sent again, says the kernel's own count.
///
/// # Errors
/// A step that did not come about.
pub fn unanswered_probes(connection: Connection) -> Result<Ends> {
    let place = connection.place.clone();
    let before = place.at(Side::Client, Counters::read)?;
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1);
    connection.client.set_tcp_keepalive(&probes)?;
    deafen(&connection.server)?;
    let ends = times_out(connection)?;
    place.at(Side::Client, || -> Result<()> {
        let probes = before.growth("TcpExt:TCPKeepAlive")?;
        let (aborted, resent) =
            (before.growth("TcpExt:TCPAbortOnTimeout")?, before.growth("Tcp:RetransSegs")?);
        ensure!(
            probes >= 1 && aborted == 1 && resent == 0,
            "{probes} probes, {aborted} timeouts, {resent} sent again"
        );
        Ok(())
    })?;
    Ok(ends)
}

/// The client connects to a listener that hears nothing, with one SYN more than the first.
///
/// # Errors
/// A step that did not come about.
pub fn syn_timeout(place: impl Into<Place>) -> Result<Ends> {
    let listener = Listener::open(place, 0)?;
    deafen(&listener.socket)?;
    let client = listener.place.socket(Side::Client)?;
    set_option(&client, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::ETIMEDOUT), "{error}");
    let server = listener.address;
    // The port went with the attempt; there was one client here.
    Ok(Ends { client: listener.place.address(Side::Client, 0), server })
}

/// The client gives up on a connect() that is not answered.
///
/// # Errors
/// A step that did not come about.
pub fn abandoned(place: impl Into<Place>) -> Result<Ends> {
    let listener = Listener::open(place, 0)?;
    deafen(&listener.socket)?;
    let client = listener.place.socket(Side::Client)?;
    client.set_nonblocking(true)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
    let client_address = local_address(&client)?;
    let ends = Ends { client: client_address, server: listener.address };
    listener.place.wait(Side::Client, ends, State::SynSent)?;
    drop(client);
    listener.place.gone(Side::Client, ends)?;
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
pub fn orphan_gives_up(place: impl Into<Place>) -> Result<Ends> {
    sysctl("net/ipv4/tcp_orphan_retries", "1")?;
    let connection = established(place)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    connection.place.wait(Side::Client, ends, State::FinWait1)?;
    connection.place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The client has closed, its FIN is not heard, and the server writes: the client's kernel behaves
/// as if a RST had come, and none did.
///
/// # Errors
/// A step that did not come about.
pub fn data_after_close(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    connection.place.wait(Side::Client, ends, State::FinWait1)?;
    (&connection.server).write_all(b"too late")?;
    connection.place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The client has closed, its FIN is not heard, and the server resets the connection.
///
/// # Errors
/// A step that did not come about.
pub fn reset_after_close(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    let ends = connection.ends;
    deafen(&connection.server)?;
    drop(connection.client);
    connection.place.wait(Side::Client, ends, State::FinWait1)?;
    connection.server.set_linger(Some(Duration::ZERO))?;
    drop(connection.server);
    connection.place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The client calls connect(AF_UNSPEC) on its connection.
///
/// # Errors
/// A step that did not come about.
pub fn disconnect(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    again::disconnect(&connection.client)?;
    let ends = connection.ends;
    connection.place.gone(Side::Client, ends)?;
    let errno = expect_error(&connection.server)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    Ok(ends)
}

/// The listener closes before anybody has accepted the client.
///
/// # Errors
/// A step that did not come about.
pub fn listener_closes(place: impl Into<Place>) -> Result<Ends> {
    let listener = Listener::open(place, 0)?;
    let client = listener.place.socket(Side::Client)?;
    client.connect(&listener.address.into())?;
    let client_address = local_address(&client)?;
    let ends = Ends { client: client_address, server: listener.address };
    listener.place.wait(Side::Server, ends, State::Established)?;
    drop(listener.socket);
    listener.place.gone(Side::Server, ends)?;
    let errno = expect_error(&client)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    Ok(ends)
}

/// The client closes with data unread and `SO_LINGER` 0, both of which call for a RST.
///
/// # Errors
/// A step that did not come about.
pub fn unread_and_linger(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
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
pub fn linger_after_fin(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    let ends = connection.ends;
    connection.server.shutdown(std::net::Shutdown::Write)?;
    connection.place.wait(Side::Client, ends, State::CloseWait)?;
    expect_end(&connection.client)?;
    connection.client.set_linger(Some(Duration::ZERO))?;
    both_gone(connection)
}

/// The client closes, and the server once the client's RST is there.
fn both_gone(connection: Connection) -> Result<Ends> {
    let ends = connection.ends;
    drop(connection.client);
    connection.place.gone(Side::Client, ends)?;
    let errno = expect_error(&connection.server)?;
    ensure!(errno == libc::ECONNRESET, "errno {errno}");
    drop(connection.server);
    connection.place.gone(Side::Server, ends)?;
    Ok(ends)
}

/// The client closes with `TCP_LINGER2` below 0: no waiting in FIN_WAIT2.
///
/// # Errors
/// A step that did not come about.
pub fn linger2(place: impl Into<Place>) -> Result<Ends> {
    let connection = established(place)?;
    let ends = connection.ends;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_LINGER2, -1)?;
    let seconds = option(&connection.client, libc::IPPROTO_TCP, libc::TCP_LINGER2)?;
    ensure!(seconds < 0, "TCP_LINGER2 is {seconds}");
    drop(connection.client);
    connection.place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The client closes a FIN that is not heard, and there may be no orphan at all. Changes the whole
/// host, so only where that is a virtual machine made for these tests.
///
/// # Errors
/// `Unsupported` elsewhere; a step that did not come about.
pub fn orphan_limit(place: impl Into<Place>) -> Result<Ends> {
    if std::env::var_os("VM_TEST").is_none() {
        return Err(Unsupported("tcp_max_orphans is the whole host's".to_owned()).into());
    }
    let before = max_orphans("0")?;
    let ended = (|| {
        let connection = established(place)?;
        let ends = connection.ends;
        deafen(&connection.server)?;
        drop(connection.client);
        connection.place.gone(Side::Client, ends)?;
        Ok(ends)
    })();
    max_orphans(before.trim())?;
    ended
}

/// Sets `tcp_max_orphans`, which only the first namespace shows, and returns what it was.
fn max_orphans(value: &str) -> Result<String> {
    const PATH: &str = "/proc/sys/net/ipv4/tcp_max_orphans";
    let set = || -> Result<String> {
        let first = std::fs::File::open("/proc/1/ns/net").context("open /proc/1/ns/net")?;
        setns(first, CloneFlags::CLONE_NEWNET).context("enter the first namespace")?;
        let before = std::fs::read_to_string(PATH).with_context(|| format!("read {PATH}"))?;
        std::fs::write(PATH, value).with_context(|| format!("write {value} to {PATH}"))?;
        Ok(before)
    };
    // The namespace is the thread's.
    let joined = std::thread::scope(|scope| scope.spawn(set).join());
    joined.unwrap_or_else(|panic| resume_unwind(panic))
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
pub fn owned(place: impl Into<Place>) -> Result<Owned> {
    let listener = Listener::open(place, 0)?;
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
        let client = listener.place.socket(Side::Client)?;
        client.connect(&address.into())?;
        let ends = Ends { client: local_address(&client)?, server: address };
        listener.place.wait(Side::Server, ends, State::Established)?;
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
        listener.place.wait(Side::Server, ends, State::CloseWait)?;
        drop(server);
        listener.place.gone(Side::Server, ends)?;
        Ok(Owned { ends, client_tid, acceptor_tid })
    })
}
