//! Ends that few programs bring about: in repair mode, in the middle of connect(), and in a
//! handshake by Fast Open that does not end. The kernel's own counters and the programs' errors say
//! what happened.

use std::{io, mem::MaybeUninit, net::Shutdown, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    net::sysctl,
    scenario::{
        again,
        conn::{Ends, Family, Listener, local_address},
        ending::deafen,
        place::{Place, Side},
        quiet::Quiet,
        segment::{ACK, SYN, sum},
    },
    sys::set_option,
    wait,
    witness::{Counters, State, find},
};

/// The client closes in repair mode (`TCP_REPAIR`), as CRIU does of a program that it has taken a
/// checkpoint of: with data unread and `SO_LINGER` 0, both of which else call for a RST. Its peer
/// notices nothing.
///
/// # Errors
/// A step that did not come about.
pub fn repaired(place: Place) -> Result<Ends> {
    let connection = Listener::open(place, 0)?.connect(None)?;
    let (place, ends) = (connection.place, connection.ends);
    io::Write::write_all(&mut &connection.server, b"unread")?;
    let mut peeked = [MaybeUninit::uninit(); 1];
    ensure!(connection.client.peek(&mut peeked)? == 1, "nothing there to leave unread");
    connection.client.set_linger(Some(std::time::Duration::ZERO))?;
    set_option(&connection.client, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1).context("TCP_REPAIR")?;
    let quiet = Quiet::from_here(&place)?;
    drop(connection.client);
    place.gone(Side::Client, ends)?;
    quiet.no_rst(&place)?;
    let server = place.at(Side::Server, || find(ends.of_server()))?;
    ensure!(server.is_some_and(|row| row.state == State::Established), "{server:?}");
    Ok(ends)
}

/// How a program gives up on a connect() that is not answered, other than by close().
#[derive(Clone, Copy, Debug)]
pub enum GiveUp {
    /// shutdown()
    Shutdown,
    /// connect(AF_UNSPEC)
    Disconnect,
}

/// The client gives up in SYN_SENT, and keeps its socket.
///
/// # Errors
/// A step that did not come about.
pub fn given_up(place: Place, way: GiveUp) -> Result<Ends> {
    let listener = Listener::open(place, 0)?;
    let place = &listener.place;
    deafen(&listener.socket)?;
    let client = place.socket(Side::Client)?;
    client.set_nonblocking(true)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
    let ends = Ends { client: local_address(&client)?, server: listener.address };
    place.wait(Side::Client, ends, State::SynSent)?;
    let quiet = Quiet::from_here(place)?;
    match way {
        GiveUp::Shutdown => client.shutdown(Shutdown::Both).context("shutdown()")?,
        GiveUp::Disconnect => again::disconnect(&client)?,
    }
    place.gone(Side::Client, ends)?;
    quiet.no_rst(place)?;
    // So tcp_disconnect() tells a program whose connect() is under way.
    let error = client.take_error()?.and_then(|error| error.raw_os_error());
    ensure!(error == Some(libc::ECONNRESET), "the program was told {error:?}");
    Ok(ends)
}

/// `TFO_CLIENT_ENABLE`, `TFO_SERVER_ENABLE`, and neither asks for a cookie (`TFO_CLIENT_NO_COOKIE`,
/// `TFO_SERVER_COOKIE_NOT_REQD`).
const FAST_OPEN: u32 = 0x1 | 0x2 | 0x4 | 0x200;

/// A child by Fast Open in SYN_RECV: its SYN-ACK is not heard.
struct HalfOpen {
    listener: Listener,
    client: Socket,
    ends: Ends,
    /// The sequence number of the SYN-ACK.
    seq: u32,
}

fn half_open(place: Place) -> Result<HalfOpen> {
    for side in [Side::Client, Side::Server] {
        place.at(side, || sysctl("net/ipv4/tcp_fastopen", &FAST_OPEN.to_string()))?;
    }
    let listener = Listener::open(place, 0)?;
    let place = &listener.place;
    set_option(&listener.socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 4)?;
    // A copy of each segment that comes to the client's host.
    let domain = if v4(place) { Domain::IPV4 } else { Domain::IPV6 };
    let wire = place.at(Side::Client, || Socket::new(domain, Type::RAW, Some(Protocol::TCP)))?;
    wire.set_nonblocking(true)?;
    let client = place.socket(Side::Client)?;
    deafen(&client)?;
    client.set_nonblocking(true)?;
    match client.send_to_with_flags(b"hello", &listener.address.into(), libc::MSG_FASTOPEN) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error).context("sendto(MSG_FASTOPEN)"),
    }
    let ends = Ends { client: local_address(&client)?, server: listener.address };
    place.wait(Side::Server, ends, State::SynRecv)?;
    let seq = wait::until("the SYN-ACK", || syn_ack(&wire, v4(place), ends))?;
    Ok(HalfOpen { client, ends, seq, listener })
}

/// Whether it is IPv4 that is spoken.
fn v4(place: &Place) -> bool {
    place.family != Family::V6
}

/// The sequence number of the connection's SYN-ACK, if it is the next segment on `wire`.
fn syn_ack(mut wire: &Socket, v4: bool, ends: Ends) -> Result<Option<u32>> {
    let mut packet = [0; 256];
    let length = match io::Read::read(&mut wire, &mut packet) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error).context("read a segment"),
    };
    // Of IPv6 a raw socket gives no header.
    let header = if v4 { usize::from(packet[0] & 15) * 4 } else { 0 };
    let tcp = packet.get(header..length).context("a cut packet")?;
    ensure!(tcp.len() >= 20, "a cut segment");
    let ports = [u16::from_be_bytes([tcp[0], tcp[1]]), u16::from_be_bytes([tcp[2], tcp[3]])];
    let is_it = ports == [ends.server.port(), ends.client.port()] && tcp[13] == SYN | ACK;
    Ok(is_it.then(|| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])))
}

/// An ICMP error (host unreachable; of IPv6, no route) comes for the SYN-ACK of a child by Fast Open
/// that nobody has accepted yet. The program meets the error when it accepts.
///
/// # Errors
/// A step that did not come about.
pub fn unreachable_in_syn_recv(place: Place) -> Result<Ends> {
    let HalfOpen { listener, client, ends, seq } = half_open(place)?;
    let place = &listener.place;
    let quiet = Quiet::from_here(place)?;
    place.at(Side::Client, || send_unreachable(v4(place), ends, seq))?;
    place.gone(Side::Server, ends)?;
    quiet.no_rst(place)?;
    let (server, _) = listener.socket.accept().context("accept")?;
    let error = server.take_error()?.and_then(|error| error.raw_os_error());
    let expected = if v4(place) { libc::EHOSTUNREACH } else { libc::ENETUNREACH };
    ensure!(error == Some(expected), "accepted one with the error {error:?}");
    drop(client);
    place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// The same, and nothing comes at all: the kernel gives up after its SYN-ACKs.
///
/// # Errors
/// A step that did not come about.
pub fn unacknowledged_syn_ack(place: Place) -> Result<Ends> {
    place.at(Side::Server, || sysctl("net/ipv4/tcp_synack_retries", "0"))?;
    let HalfOpen { listener, client, ends, .. } = half_open(place)?;
    let place = &listener.place;
    let before = place.at(Side::Server, Counters::read)?;
    place.gone(Side::Server, ends)?;
    let aborted = place.at(Side::Server, || before.growth("TcpExt:TCPAbortOnTimeout"))?;
    ensure!(aborted == 1, "{aborted} timeouts");
    drop(client);
    place.gone(Side::Client, ends)?;
    Ok(ends)
}

/// Tells the server's host that its SYN-ACK, of this sequence number, did not come through.
fn send_unreachable(v4: bool, ends: Ends, seq: u32) -> Result<()> {
    let (domain, protocol) =
        if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let raw = Socket::new(domain, Type::RAW, Some(protocol)).context("raw socket")?;
    let (client, server) = (ends.client.ip().to_canonical(), ends.server.ip().to_canonical());
    raw.bind(&SocketAddr::new(client, 0).into()).context("bind a raw socket")?;
    // ICMP_DEST_UNREACH and ICMP_HOST_UNREACH; ICMPV6_DEST_UNREACH and ICMPV6_NOROUTE.
    let mut icmp = if v4 { vec![3, 1, 0, 0, 0, 0, 0, 0] } else { vec![1, 0, 0, 0, 0, 0, 0, 0] };
    match (server, client) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => {
            // Version and length, DSCP, length 40; id, DF; TTL, protocol, checksum.
            icmp.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, libc::IPPROTO_TCP as u8, 0, 0]);
            icmp.extend(from.octets());
            icmp.extend(to.octets());
        }
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => {
            // Version, flow label; length 20, next header, hop limit.
            icmp.extend([0x60, 0, 0, 0, 0, 20, libc::IPPROTO_TCP as u8, 64]);
            icmp.extend(from.octets());
            icmp.extend(to.octets());
        }
        mixed => bail!("of two families: {mixed:?}"),
    }
    icmp.extend(ends.server.port().to_be_bytes());
    icmp.extend(ends.client.port().to_be_bytes());
    icmp.extend(seq.to_be_bytes());
    icmp.extend([0; 12]);
    if v4 {
        // The kernel sums ICMPv6 by itself.
        let sum = sum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    raw.send_to(&icmp, &SocketAddr::new(server, 0).into()).context("send an ICMP error")?;
    Ok(())
}
