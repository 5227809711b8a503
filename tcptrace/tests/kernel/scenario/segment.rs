//! Segments made by hand, for what no sequence of system calls brings about reliably: a RST that
//! meets a TIME_WAIT, and FINs that cross. From the caller's namespace, on loopback or a veth pair.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// `TCP_SEND_QUEUE` and `TCP_REPAIR_OFF_NO_WP` of linux/tcp.h.
const SEND_QUEUE: i32 = 2;
const REPAIR_OFF_NO_WINDOW_PROBE: i32 = -1;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Where the window is in a TCP header.
pub const WINDOW_OFFSET: u32 = 14;

/// One segment without data or options.
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
}

impl Segment {
    /// Sends it through a raw socket of the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn send(&self) -> Result<()> {
        let (from, to) = (self.from.ip().to_canonical(), self.to.ip().to_canonical());
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).context("raw socket")?;
        // The kernel writes the IP header; a raw socket's addresses have no port.
        raw.bind(&SocketAddr::new(from, 0).into()).context("bind a raw socket")?;
        let sent = raw.send_to(&self.bytes(from, to), &SocketAddr::new(to, 0).into());
        sent.map(drop).context("send a segment")
    }

    fn bytes(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let mut header = Vec::with_capacity(20);
        header.extend(self.from.port().to_be_bytes());
        header.extend(self.to.port().to_be_bytes());
        header.extend(self.seq.to_be_bytes());
        header.extend(self.ack.to_be_bytes());
        header.extend([5 << 4, self.flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0; 4]);
        let sum = checksum(from, to, &header);
        header[16..18].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

/// The Internet checksum over the pseudo header and the segment (RFC 9293, 3.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut summed = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => summed.extend(v4.octets()),
            IpAddr::V6(v6) => summed.extend(v6.octets()),
        }
    }
    summed.extend((libc::IPPROTO_TCP as u16).to_be_bytes());
    summed.extend((segment.len() as u16).to_be_bytes());
    summed.extend(segment);
    sum(&summed)
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sequence number of the next byte (or FIN) that a connected socket sends, by way of
/// TCP_REPAIR, which is off again on return.
///
/// # Errors
/// What the kernel answered.
pub fn next_sequence(socket: &Socket) -> Result<u32> {
    let set = |name, value| sys::set_option(socket, libc::IPPROTO_TCP, name, value);
    set(libc::TCP_REPAIR, 1).context("TCP_REPAIR")?;
    set(libc::TCP_REPAIR_QUEUE, SEND_QUEUE).context("TCP_REPAIR_QUEUE")?;
    let sequence = sys::option(socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ);
    set(libc::TCP_REPAIR, REPAIR_OFF_NO_WINDOW_PROBE).context("end TCP_REPAIR")?;
    Ok(sequence.context("TCP_QUEUE_SEQ")? as u32)
}
