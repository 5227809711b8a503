//! What every scenario starts from: an address family, a listener, an established connection, and
//! the two plain ways to close it.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::scenario::place::{Place, Side};
use crate::sys::now;
use crate::unsupported::supported;
use crate::wait::DEADLINE;
use crate::witness::{State, Tuple};

/// Which addresses on which sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET, 127.0.0.1.
    V4,
    /// AF_INET6, ::1.
    V6,
    /// AF_INET6, ::ffff:127.0.0.1.
    Mapped,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    /// The loopback address of the family, with a port.
    pub fn address(self, port: u16) -> SocketAddr {
        let host = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
            Self::Mapped => IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
        };
        SocketAddr::new(host, port)
    }

    /// A TCP socket of the family that never blocks for longer than the deadline.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no IPv6.
    pub fn socket(self) -> Result<Socket> {
        let domain = match self {
            Self::V4 => Domain::IPV4,
            Self::V6 | Self::Mapped => Domain::IPV6,
        };
        let made = Socket::new(domain, Type::STREAM, Some(Protocol::TCP));
        let socket = supported(&format!("{self:?} socket"), &[libc::EAFNOSUPPORT], made)?;
        if self == Self::Mapped {
            socket.set_only_v6(false)?;
        }
        bound_in_time(&socket)?;
        Ok(socket)
    }
}

/// Bounds every blocking call on a socket, connect and accept included.
///
/// # Errors
/// What the kernel answered.
pub fn bound_in_time(socket: &Socket) -> Result<()> {
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    Ok(())
}

/// When a step ran: `CLOCK_MONOTONIC` in ns, right before and right after.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

/// Does `step` and says when.
pub fn timed<T>(step: impl FnOnce() -> T) -> (T, Span) {
    let from = now();
    let value = step();
    (value, Span { from, to: now() })
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub server: SocketAddr,
}

impl Ends {
    /// As the socket of that end has it.
    pub fn of(&self, side: Side) -> Tuple {
        match side {
            Side::Client => self.of_client(),
            Side::Server => self.of_server(),
        }
    }

    /// As the client's socket has it.
    pub fn of_client(&self) -> Tuple {
        Tuple { local: self.client, remote: self.server }
    }

    /// As the server's accepted socket has it.
    pub fn of_server(&self) -> Tuple {
        Tuple { local: self.server, remote: self.client }
    }
}

/// A listening socket.
pub struct Listener {
    pub place: Place,
    pub family: Family,
    pub address: SocketAddr,
    pub socket: Socket,
}

impl Listener {
    /// Listens on `port`, or on one that the kernel picks (0).
    ///
    /// # Errors
    /// As [`Family::socket`], and what the kernel answered.
    pub fn open(place: impl Into<Place>, port: u16) -> Result<Self> {
        let place = place.into();
        let socket = place.socket(Side::Server)?;
        socket.set_reuse_address(true)?;
        let address = place.address(Side::Server, port);
        socket.bind(&address.into()).context("bind the listener")?;
        socket.listen(16).context("listen")?;
        let address = local_address(&socket)?;
        Ok(Self { family: place.family, place, address, socket })
    }

    /// Connects a client to it and accepts it; with `client_port`, the client binds that port
    /// (with SO_REUSEADDR) first.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn connect(&self, client_port: Option<u16>) -> Result<Connection> {
        let client = self.place.socket(Side::Client)?;
        if let Some(port) = client_port {
            client.set_reuse_address(true)?;
            let address = self.place.address(Side::Client, port);
            client.bind(&address.into()).with_context(|| format!("bind {address}"))?;
        }
        let (connected, connect) = timed(|| client.connect(&self.address.into()));
        connected.with_context(|| format!("connect to {}", self.address))?;
        let (server, peer) = self.socket.accept().context("accept")?;
        bound_in_time(&server)?;
        let ends = Ends { client: local_address(&client)?, server: self.address };
        ensure!(peer.as_socket() == Some(ends.client), "accepted {peer:?}, not {ends:?}");
        self.place.wait(Side::Client, ends, State::Established)?;
        self.place.wait(Side::Server, ends, State::Established)?;
        Ok(Connection { place: self.place.clone(), client, server, ends, connect })
    }
}

/// An established connection, both ends in hand.
pub struct Connection {
    pub place: Place,
    pub client: Socket,
    pub server: Socket,
    pub ends: Ends,
    pub connect: Span,
}

/// A connection that was closed in order by both.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    pub ends: Ends,
    pub connect: Span,
    /// The end that closed first, and has the TIME_WAIT.
    pub active: Tuple,
    pub first_close: Span,
    pub second_close: Span,
    /// A clock reading (ns) at which the TIME_WAIT was there.
    pub time_wait_seen: u64,
}

impl Connection {
    /// The client closes, then the server: returns when the client's end is in TIME_WAIT.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn close_by_client(self) -> Result<Closed> {
        let Self { place, client, server, ends, connect } = self;
        close_in_order(&place, ends, connect, (client, Side::Client), (server, Side::Server))
    }

    /// The server closes, then the client: returns when the server's end is in TIME_WAIT.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn close_by_server(self) -> Result<Closed> {
        let Self { place, client, server, ends, connect } = self;
        close_in_order(&place, ends, connect, (server, Side::Server), (client, Side::Client))
    }

    /// The client resets the connection (SO_LINGER 0): returns when nothing is left of it.
    ///
    /// # Errors
    /// A step that did not come about.
    pub fn abort(self) -> Result<()> {
        let Self { place, client, server, ends, .. } = self;
        client.set_linger(Some(std::time::Duration::ZERO))?;
        drop(client);
        place.gone(Side::Client, ends)?;
        drop(server);
        place.gone(Side::Server, ends)
    }
}

fn close_in_order(
    place: &Place,
    ends: Ends,
    connect: Span,
    (first, active): (Socket, Side),
    (second, passive): (Socket, Side),
) -> Result<Closed> {
    let ((), first_close) = timed(|| drop(first));
    place.wait(active, ends, State::FinWait2)?;
    place.wait(passive, ends, State::CloseWait)?;
    expect_end(&second)?;
    let ((), second_close) = timed(|| drop(second));
    place.gone(passive, ends)?;
    let row = place.wait(active, ends, State::TimeWait)?;
    ensure!(row.is_minisock() && row.inode == 0, "a TIME_WAIT that is no minisock: {row:?}");
    let active = ends.of(active);
    Ok(Closed { ends, connect, active, first_close, second_close, time_wait_seen: now() })
}

/// Reads the end of the stream, and nothing else.
///
/// # Errors
/// Data, an error, or nothing within the deadline.
pub fn expect_end(mut socket: &Socket) -> Result<()> {
    let read = socket.read(&mut [0; 64]).context("read the end of the stream")?;
    ensure!(read == 0, "read {read} bytes where the stream should end");
    Ok(())
}

/// Reads until an error, and returns its errno.
///
/// # Errors
/// The end of the stream, or nothing within the deadline.
pub fn expect_error(mut socket: &Socket) -> Result<i32> {
    match socket.read(&mut [0; 64]) {
        Ok(read) => bail!("read {read} bytes where an error should be"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("no error on the socket within {DEADLINE:?}")
        }
        Err(error) => error.raw_os_error().context("an error without an errno"),
    }
}

/// The socket's own address.
///
/// # Errors
/// What the kernel answered.
pub fn local_address(socket: &Socket) -> Result<SocketAddr> {
    socket.local_addr()?.as_socket().context("an address that is not an IP address")
}
