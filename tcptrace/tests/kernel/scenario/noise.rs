//! Sockets of other protocols that do what TCP sockets do: SCTP and MPTCP fire the same tracepoint.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::scenario::conn::{Ends, Family, bound_in_time, expect_end, local_address};
use crate::unsupported::supported;
use crate::witness::rows;

/// A datagram there and back over connected UDP sockets.
///
/// # Errors
/// A step that did not come about.
pub fn udp(family: Family) -> Result<Ends> {
    let socket = || -> Result<Socket> {
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
        let socket = supported("UDP socket", &[libc::EAFNOSUPPORT], socket)?;
        bound_in_time(&socket)?;
        socket.bind(&family.address(0).into())?;
        Ok(socket)
    };
    let (client, server) = (socket()?, socket()?);
    let ends = Ends { client: local_address(&client)?, server: local_address(&server)? };
    client.connect(&ends.server.into())?;
    server.connect(&ends.client.into())?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.send(b"noise")?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
        ensure!(to.recv(&mut buffer)? == 5, "a datagram was cut");
    }
    ensure!(!any_tcp(ends.client)? && !any_tcp(ends.server)?, "UDP ports among the TCP sockets");
    Ok(ends)
}

/// An SCTP association, opened and closed by the client, then by the server.
///
/// # Errors
/// `Unsupported` where the kernel has no SCTP.
pub fn sctp(family: Family) -> Result<Ends> {
    let ends = stream(family, libc::IPPROTO_SCTP)?;
    ensure!(!any_tcp(ends.client)? && !any_tcp(ends.server)?, "SCTP ports among the TCP sockets");
    Ok(ends)
}

/// An MPTCP connection, opened and closed by the client, then by the server. Beneath it is one TCP
/// subflow with the same ports, which is TCP and is to be traced; the MPTCP socket is not.
///
/// # Errors
/// `Unsupported` where the kernel has no MPTCP.
pub fn mptcp(family: Family) -> Result<Ends> {
    stream(family, libc::IPPROTO_MPTCP)
}

fn stream(family: Family, protocol: i32) -> Result<Ends> {
    let refusals =
        [libc::EPROTONOSUPPORT, libc::ENOPROTOOPT, libc::ESOCKTNOSUPPORT, libc::EAFNOSUPPORT];
    let socket = || -> Result<Socket> {
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        let made = Socket::new(domain, Type::STREAM, Some(Protocol::from(protocol)));
        let socket = supported(&format!("socket of protocol {protocol}"), &refusals, made)?;
        bound_in_time(&socket)?;
        ensure!(socket.protocol()? == Some(Protocol::from(protocol)), "not of {protocol}");
        Ok(socket)
    };
    let listener = socket()?;
    listener.bind(&family.address(0).into())?;
    listener.listen(1)?;
    let server_address = local_address(&listener)?;
    let client = socket()?;
    client.connect(&server_address.into()).context("connect")?;
    let (server, peer) = listener.accept().context("accept")?;
    bound_in_time(&server)?;
    let client_address = peer.as_socket().context("a peer without an address")?;
    drop(client);
    expect_end(&server)?;
    Ok(Ends { client: client_address, server: server_address })
}

fn any_tcp(address: SocketAddr) -> Result<bool> {
    let has = |a: SocketAddr| a.port() == address.port();
    Ok(rows()?.iter().any(|row| has(row.tuple.local) || has(row.tuple.remote)))
}
