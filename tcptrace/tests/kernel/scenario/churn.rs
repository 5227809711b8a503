//! Thousands of connections in a few seconds, closed in every way that makes a minisock, in some
//! that make none, and with minisocks that later connections end.
//!
//! Nothing waits for one connection alone: what was done is for the kernel's counters to say.

use std::io;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::Socket;

use crate::net::sysctl;
use crate::scenario::conn::{Family, Listener, local_address};
use crate::wait;
use crate::witness::{State, count};

/// Connections of [`closes`].
pub const CLOSES: usize = 3000;

/// One in so many of [`closes`] leaves an orphan in FIN_WAIT2 that expires.
const ORPHAN_OF: usize = 30;

/// Connections of [`reuse`] before there are but TIME_WAITs to take, and as many that take one.
pub const REUSED: usize = 100;

/// Connections of [`overflow`].
pub const OVERFLOWED: usize = 50;

/// Opens and closes [`CLOSES`] connections, and waits until the orphans among them have expired.
///
/// # Errors
/// A step that did not come about.
pub fn closes(family: Family) -> Result<()> {
    // A small machine's limit is 2048.
    sysctl("net/ipv4/tcp_max_tw_buckets", &(2 * CLOSES).to_string())?;
    sysctl("net/ipv4/tcp_fin_timeout", "2")?;
    let listener = Listener::open(family, 0)?;
    let mut held = Vec::new();
    for i in 0..CLOSES {
        let (client, server) = pair(&listener, None)?;
        match (i % ORPHAN_OF, i % 6) {
            (0, _) => {
                drop(client);
                held.push(server);
            }
            (1, _) => {
                drop(server);
                held.push(client);
            }
            // An orphan that gets its FIN.
            (_, 0) => in_order(client, server),
            (_, 1) => in_order(server, client),
            // A FIN_WAIT2 with an owner.
            (_, 2) => by_halves(client, server)?,
            (_, 3) => by_halves(server, client)?,
            (_, 4) => {
                client.set_linger(Some(Duration::ZERO))?;
                drop(client);
            }
            _ => {
                // The minisock is the client's, and ends by its port's next connect, or the
                // server's, and ends by the SYN.
                let port = local_address(&client)?.port();
                match i % 4 {
                    1 => in_order(client, server),
                    _ => in_order(server, client),
                }
                let (client, server) = pair(&listener, Some(port))?;
                in_order(client, server);
            }
        }
    }
    wait::until("the orphans to expire", || Ok((count(State::FinWait2)? == 0).then_some(())))
}

/// Leaves a TIME_WAIT on every local port that there is to connect from, and then connects as
/// many times again, which `tcp_tw_reuse` allows. The local ports stay so few.
///
/// # Errors
/// A step that did not come about.
pub fn reuse(family: Family) -> Result<()> {
    sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    sysctl("net/ipv4/ip_local_port_range", &format!("20000 {}", 20_000 + REUSED - 1))?;
    // Outside of that range.
    let listener = Listener::open(family, 50_000)?;
    for _ in 0..REUSED {
        let (client, server) = pair(&listener, None)?;
        in_order(client, server);
    }
    // tcp_twsk_unique() wants a TIME_WAIT to be older than a second by a clock that ticks in
    // seconds (in milliseconds since 6.14).
    thread::sleep(Duration::from_secs(2));
    for _ in 0..REUSED {
        let (client, server) = pair(&listener, None)?;
        in_order(client, server);
    }
    Ok(())
}

/// Closes [`OVERFLOWED`] connections for which `tcp_max_tw_buckets` leaves no room.
///
/// # Errors
/// A step that did not come about.
pub fn overflow(family: Family) -> Result<()> {
    sysctl("net/ipv4/ip_local_port_range", "32768 60999")?;
    sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
    let listener = Listener::open(family, 0)?;
    for i in 0..OVERFLOWED {
        let (client, server) = pair(&listener, None)?;
        if i % 2 == 0 {
            by_halves(client, server)?;
        } else {
            by_halves(server, client)?;
        }
    }
    Ok(())
}

/// Both ends of a new connection; the client binds `port` first, if there is one.
fn pair(listener: &Listener, port: Option<u16>) -> Result<(Socket, Socket)> {
    let client = match port {
        None => {
            let client = listener.family.socket()?;
            // For whoever binds its port later: both must have set it (inet_csk_bind_conflict()).
            client.set_reuse_address(true)?;
            client.connect(&listener.address.into()).context("connect")?;
            client
        }
        // The last connection of that port may not be over yet.
        Some(port) => wait::until("the port to be free", || {
            let client = listener.family.socket()?;
            client.set_reuse_address(true)?;
            client.bind(&listener.family.address(port).into()).context("bind")?;
            match client.connect(&listener.address.into()) {
                Ok(()) => Ok(Some(client)),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
                Err(error) => Err(error).context("connect"),
            }
        })?,
    };
    let (server, _) = listener.socket.accept().context("accept")?;
    Ok((client, server))
}

fn in_order(first: Socket, second: Socket) {
    drop(first);
    drop(second);
}

/// `first` says that it has no more to say, and is closed when `second` is.
fn by_halves(first: Socket, second: Socket) -> Result<()> {
    first.shutdown(Shutdown::Write)?;
    drop(second);
    drop(first);
    Ok(())
}
