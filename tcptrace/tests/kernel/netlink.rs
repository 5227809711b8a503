//! As much netlink as the fixtures need: build a request, send it, read up to its acknowledgement.
//!
//! By hand, because it is four kinds of request: the well-kept crate for the purpose, rtnetlink,
//! brings an asynchronous runtime's worth of code into a binary that must stay small and static.

use std::io::{self, Read};
use std::mem::size_of;

use socket2::{Domain, Protocol, Socket, Type};

use crate::wait::DEADLINE;

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;

/// A request under construction: header, fixed part, attributes. Native byte order throughout.
pub struct Message(Vec<u8>);

impl Message {
    /// A request of type `kind`, acknowledged, with `flags` beside `NLM_F_REQUEST | NLM_F_ACK`.
    pub fn new(kind: u16, flags: i32) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    /// Appends bytes as they are: the fixed part of a request.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.pad()
    }

    /// Appends a `struct ifinfomsg` for the device `index`, with `flags` set in its `ifi_flags`.
    pub fn link(self, index: u32, flags: i32) -> Self {
        self.raw(&[0; 4])
            .raw(&index.to_ne_bytes())
            .raw(&flags.to_ne_bytes())
            .raw(&flags.to_ne_bytes())
    }

    /// Appends one attribute.
    pub fn attribute(self, kind: u16, payload: &[u8]) -> Self {
        self.nest(kind, |message| message.unpadded(payload))
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.0.len() - start) as u16;
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.pad()
    }

    fn unpadded(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Messages and attributes begin at multiples of four.
    fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// A message from the kernel: its type and what follows its header.
pub struct Reply {
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// A netlink socket of the calling thread's network namespace.
pub struct Netlink(Socket);

impl Netlink {
    /// Opens one; `protocol` is `NETLINK_ROUTE` or `NETLINK_SOCK_DIAG`.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn open(protocol: i32) -> io::Result<Self> {
        let protocol = Some(Protocol::from(protocol));
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, protocol)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(socket))
    }

    /// Sends a request and returns what came before its acknowledgement.
    ///
    /// # Errors
    /// The errno that the kernel refused it with, or that of the exchange.
    pub fn request(&self, Message(mut bytes): Message) -> io::Result<Vec<Reply>> {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.0.send(&bytes)?;
        let mut replies = Vec::new();
        loop {
            for reply in self.receive()? {
                if i32::from(reply.kind) != libc::NLMSG_ERROR {
                    replies.push(reply);
                    continue;
                }
                return match word(&reply.payload, 0)? as i32 {
                    0 => Ok(replies),
                    negated => Err(io::Error::from_raw_os_error(-negated)),
                };
            }
        }
    }

    /// The next datagram from the kernel: an answer, or a notification of a joined group.
    ///
    /// # Errors
    /// That of the read (`WouldBlock` at the deadline), or `InvalidData`.
    pub fn receive(&self) -> io::Result<Vec<Reply>> {
        let mut buffer = vec![0; 1 << 16];
        let length = (&self.0).read(&mut buffer)?;
        let mut rest = &buffer[..length];
        let mut replies = Vec::new();
        while rest.len() >= HEADER {
            let length = word(rest, 0)? as usize;
            let payload = rest.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            replies.push(Reply { kind, payload: payload.to_vec() });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(replies)
    }

    /// Joins a multicast group. Bind first, by any request: the kernel does not notify a socket
    /// that has no port (`do_one_broadcast`).
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn join(&self, group: u32) -> io::Result<()> {
        crate::sys::set_option(
            &self.0,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group as i32,
        )
    }
}

/// The 32-bit word at `offset`, in native byte order.
///
/// # Errors
/// `InvalidData` past the end.
pub fn word(bytes: &[u8], offset: usize) -> io::Result<u32> {
    let word = bytes.get(offset..offset + size_of::<u32>()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(u32::from_ne_bytes(word.try_into().map_err(|_| io::ErrorKind::InvalidData)?))
}
