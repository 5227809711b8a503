//! The bytes of a `NETLINK_SOCK_DIAG` dump: building the request and reading the answers.
//!
//! Pure: no socket, no state between datagrams, no allocation. Any byte string may be given to
//! [`Messages`]; it ends, and it never panics, so a fuzz target is a loop over it.
//!
//! One parser of our own rather than that of `netlink-packet-sock-diag` 0.5: that crate drops the
//! remaining time of a TIME_WAIT socket (`Timer::TimeWait` carries none) and the `retrans` of
//! every timer but one, which would leave a second parser for the same 72 bytes; and it decodes
//! the attributes behind each socket into owned values, of which one number is read here. What is left of
//! the job is the two structures below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;

use zerocopy::byteorder::network_endian::U16 as NetU16;
use zerocopy::byteorder::{I32, NativeEndian, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::socket::{DiagSocket, Family, StateMask};
use tcptrace_model::{TcpInfo, Timer};

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`: type of the request and of each socket's answer.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_DUMP_INTR: u16 = 0x010;
const NLM_F_DUMP: u16 = 0x300;
const IPPROTO_TCP: u8 = 6;
/// `INET_DIAG_CGROUP_ID`; comes unasked.
const CGROUP_ID: u16 = 21;
/// `INET_DIAG_INFO`: a `struct tcp_info`.
const INFO: u16 = 2;
/// `INET_DIAG_ULP_INFO`: attributes in an attribute; comes unasked (5.4).
const ULP_INFO: u16 = 19;
/// `INET_ULP_INFO_NAME`, of these.
const ULP_NAME: u16 = 1;
/// What MPTCP calls itself there (`subflow_ulp_ops`), with its NUL.
const MPTCP: &[u8] = b"mptcp\0";

/// The extension of a request that asks for [`INFO`].
pub(super) const WITH_INFO: u8 = 1 << (INFO - 1);

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
struct Header {
    /// Length of the message, this header included, the padding after it not.
    len: U32<NativeEndian>,
    kind: U16<NativeEndian>,
    flags: U16<NativeEndian>,
    sequence: U32<NativeEndian>,
    port: U32<NativeEndian>,
}

const _: () = assert!(size_of::<Header>() == 16);

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
struct SocketId {
    local_port: NetU16,
    peer_port: NetU16,
    /// IPv4 uses the first four bytes; the kernel zeroes the rest.
    local: [u8; 16],
    peer: [u8; 16],
    ifindex: U32<NativeEndian>,
    /// Low half first, each half in the host's order (`sock_diag_save_cookie()`).
    cookie: [U32<NativeEndian>; 2],
}

/// `struct inet_diag_msg`; attributes follow it.
#[repr(C)]
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
struct SocketMessage {
    family: u8,
    state: u8,
    timer: u8,
    retrans: u8,
    id: SocketId,
    expires: U32<NativeEndian>,
    rqueue: U32<NativeEndian>,
    wqueue: U32<NativeEndian>,
    uid: U32<NativeEndian>,
    inode: U32<NativeEndian>,
}

const _: () = assert!(size_of::<SocketMessage>() == 72);

/// The beginning of `struct tcp_info` as 4.6 had it; it has only ever grown at its end.
#[repr(C)]
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
struct RawInfo {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    flags: [u8; 3],
    rto_us: U32<NativeEndian>,
    /// `tcpi_ato` to `tcpi_fackets`.
    between: [U32<NativeEndian>; 8],
    last_data_sent_ms: U32<NativeEndian>,
    last_ack_sent_ms: U32<NativeEndian>,
    last_data_recv_ms: U32<NativeEndian>,
    last_ack_recv_ms: U32<NativeEndian>,
    /// `tcpi_pmtu` and `tcpi_rcv_ssthresh`.
    sizes: [U32<NativeEndian>; 2],
    rtt_us: U32<NativeEndian>,
    /// `tcpi_rttvar` to `tcpi_rcv_space`.
    between2: [U32<NativeEndian>; 7],
    total_retrans: U32<NativeEndian>,
    /// `tcpi_pacing_rate` and `tcpi_max_pacing_rate`.
    rates: [U64<NativeEndian>; 2],
    bytes_acked: U64<NativeEndian>,
    bytes_received: U64<NativeEndian>,
    segs_out: U32<NativeEndian>,
    segs_in: U32<NativeEndian>,
    not_sent: U32<NativeEndian>,
    min_rtt_us: U32<NativeEndian>,
    data_segs_in: U32<NativeEndian>,
    data_segs_out: U32<NativeEndian>,
}

const _: () = assert!(std::mem::offset_of!(RawInfo, last_ack_recv_ms) == 56);
const _: () = assert!(std::mem::offset_of!(RawInfo, total_retrans) == 100);
const _: () = assert!(std::mem::offset_of!(RawInfo, bytes_acked) == 120);
const _: () = assert!(size_of::<RawInfo>() == 160);

/// Where later kernels have `tcpi_snd_wnd` (5.4).
const SND_WND: usize = 228;
/// Where they have `tcpi_total_rto`, `tcpi_total_rto_recoveries` and `tcpi_total_rto_time` (6.7).
const TOTAL_RTO: usize = 240;

/// A dump's request: `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
pub(super) struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    /// Bits of the attributes wanted beside the message (`1 << (INET_DIAG_* - 1)`).
    extensions: u8,
    pad: u8,
    states: U32<NativeEndian>,
    /// Which socket; a dump ignores it.
    id: SocketId,
}

const _: () = assert!(size_of::<Request>() == 72);

impl Request {
    /// Asks for all TCP sockets of `family` in one of `states`, with `extensions`.
    pub(super) fn dump(family: Family, states: StateMask, extensions: u8, sequence: u32) -> Self {
        let id = SocketId {
            local_port: NetU16::ZERO,
            peer_port: NetU16::ZERO,
            local: [0; 16],
            peer: [0; 16],
            ifindex: U32::ZERO,
            cookie: [U32::ZERO; 2],
        };
        Self::new(NLM_F_REQUEST | NLM_F_DUMP, family, states, extensions, sequence, id)
    }

    /// Asks for this socket alone, whatever its state is now.
    pub(super) fn one(socket: &DiagSocket, extensions: u8, sequence: u32) -> Self {
        let bytes = |address: IpAddr| {
            let mut bytes = [0; 16];
            match address {
                IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => bytes = v6.octets(),
            }
            bytes
        };
        let id = SocketId {
            local_port: NetU16::new(socket.local.port()),
            peer_port: NetU16::new(socket.peer.port()),
            local: bytes(socket.local.ip()),
            peer: bytes(socket.peer.ip()),
            ifindex: U32::new(socket.ifindex),
            // The low half first.
            cookie: [U32::new(socket.cookie as u32), U32::new((socket.cookie >> 32) as u32)],
        };
        Self::new(NLM_F_REQUEST, socket.family, StateMask::ALL, extensions, sequence, id)
    }

    fn new(
        flags: u16,
        family: Family,
        states: StateMask,
        extensions: u8,
        sequence: u32,
        id: SocketId,
    ) -> Self {
        Self {
            header: Header {
                len: U32::new(size_of::<Self>() as u32),
                kind: U16::new(SOCK_DIAG_BY_FAMILY),
                flags: U16::new(flags),
                sequence: U32::new(sequence),
                port: U32::ZERO,
            },
            family: family.number(),
            protocol: IPPROTO_TCP,
            extensions,
            pad: 0,
            states: U32::new(states.bits()),
            id,
        }
    }
}

/// A message of the dump.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    /// `NLM_F_DUMP_INTR`: what is dumped changed in a way that may have made the dump skip some.
    pub(super) interrupted: bool,
    pub(super) body: Body,
}

/// What a message says.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// One socket.
    Socket(DiagSocket),
    /// The dump is over: well, or with this errno (positive).
    Done(Option<i32>),
    /// The kernel refused the request, with this errno (positive).
    Refused(i32),
}

/// Bytes that are not a sock_diag dump: what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes left than a message's header has, or than the header says.
    #[error("a netlink message runs past the end of its datagram")]
    MessageCut,
    /// A message too short for what its type promises.
    #[error("a netlink message is too short for its type")]
    BodyCut,
    /// A socket that is neither `AF_INET` nor `AF_INET6`.
    #[error("a socket of address family {0} in a dump of TCP sockets")]
    Family(u8),
}

/// The messages of one datagram that answer the request with this sequence number; those of an
/// earlier request, still queued when it was given up, are passed over. After an error it ends.
pub(super) struct Messages<'a> {
    rest: &'a [u8],
    sequence: u32,
}

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8], sequence: u32) -> Self {
        Self { rest: datagram, sequence }
    }

    /// The next message whatever it is, and what is inside; `None` at the end.
    fn split(&mut self) -> Result<Option<(&'a Header, &'a [u8])>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (header, _) = Header::ref_from_prefix(self.rest).map_err(|_| Malformed::MessageCut)?;
        let len = usize::try_from(header.len.get()).map_err(|_| Malformed::MessageCut)?;
        let body = self.rest.get(size_of::<Header>()..len).ok_or(Malformed::MessageCut)?;
        // NLMSG_ALIGN; the last message of a datagram may come without its padding.
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok(Some((header, body)))
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<Message, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = loop {
            let (header, body) = match self.split() {
                Ok(Some(message)) => message,
                Ok(None) => return None,
                Err(malformed) => break Err(malformed),
            };
            if header.sequence.get() != self.sequence {
                continue;
            }
            let interrupted = header.flags.get() & NLM_F_DUMP_INTR != 0;
            match Body::parse(header.kind.get(), body) {
                Ok(Some(body)) => break Ok(Message { interrupted, body }),
                Ok(None) => {}
                Err(malformed) => break Err(malformed),
            }
        };
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

impl Body {
    /// `None` for what says nothing about the dump: an acknowledgement, `NLMSG_NOOP`, a type that
    /// a later kernel may add.
    fn parse(kind: u16, body: &[u8]) -> Result<Option<Self>, Malformed> {
        Ok(match kind {
            SOCK_DIAG_BY_FAMILY => Some(Self::Socket(DiagSocket::parse(body)?)),
            // A dump that fails ends with the errno in its last message (`netlink_dump_done()`);
            // one that ends well has a number that is not negative there, or nothing.
            NLMSG_DONE => Some(Self::Done(errno(body))),
            NLMSG_ERROR if body.len() < 4 => return Err(Malformed::BodyCut),
            NLMSG_ERROR => errno(body).map(Self::Refused),
            _ => None,
        })
    }
}

/// The errno (positive) that a message carries as a negative number in its first four bytes.
fn errno(body: &[u8]) -> Option<i32> {
    let (value, _) = I32::<NativeEndian>::read_from_prefix(body).ok()?;
    (value.get() < 0).then(|| value.get().saturating_neg())
}

impl DiagSocket {
    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let (raw, attributes) =
            SocketMessage::ref_from_prefix(body).map_err(|_| Malformed::BodyCut)?;
        let family = Family::from_number(raw.family).ok_or(Malformed::Family(raw.family))?;
        let address = |bytes: [u8; 16]| match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
        };
        let [low, high] = raw.id.cookie;
        Ok(Self {
            family,
            state: raw.state,
            local: SocketAddr::new(address(raw.id.local), raw.id.local_port.get()),
            peer: SocketAddr::new(address(raw.id.peer), raw.id.peer_port.get()),
            cookie: u64::from(high.get()) << 32 | u64::from(low.get()),
            inode: raw.inode.get(),
            uid: raw.uid.get(),
            ifindex: raw.id.ifindex.get(),
            rqueue: raw.rqueue.get(),
            wqueue: raw.wqueue.get(),
            timer: Timer::from_number(raw.timer),
            expires_ms: raw.expires.get(),
            retrans: raw.retrans,
            cgroup: attribute(attributes, CGROUP_ID).and_then(cgroup_id),
            mptcp: attribute(attributes, ULP_INFO).and_then(|ulp| attribute(ulp, ULP_NAME))
                == Some(MPTCP),
            info: attribute(attributes, INFO).and_then(tcp_info),
        })
    }
}

/// The payload of an attribute (`struct nlattr`: length with its four bytes of header, and type).
/// What does not fit ends the search: attributes are an extra.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (header, _) = <[U16<NativeEndian>; 2]>::ref_from_prefix(rest).ok()?;
        let len = usize::from(header[0].get());
        let payload = rest.get(4..len)?;
        // Flags, as NLA_F_NESTED, are in the two upper bits.
        if header[1].get() & 0x3fff == wanted {
            return Some(payload);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

/// `None` for less than 4.6 has.
fn tcp_info(payload: &[u8]) -> Option<TcpInfo> {
    let (raw, _) = RawInfo::ref_from_prefix(payload).ok()?;
    let last = |ms: &U32<NativeEndian>, segments: &U32<NativeEndian>| {
        // Without one the time is that of no segment: 0 in jiffies.
        (segments.get() > 0).then(|| ms.get())
    };
    Some(TcpInfo {
        retransmits: raw.retransmits,
        probes: raw.probes,
        backoff: raw.backoff,
        rto_us: raw.rto_us.get(),
        rtt_us: raw.rtt_us.get(),
        last_data_sent_ms: last(&raw.last_data_sent_ms, &raw.data_segs_out),
        last_data_recv_ms: last(&raw.last_data_recv_ms, &raw.data_segs_in),
        last_ack_recv_ms: raw.last_ack_recv_ms.get(),
        total_retrans: raw.total_retrans.get(),
        segs_out: raw.segs_out.get(),
        not_sent: raw.not_sent.get(),
        bytes_acked: raw.bytes_acked.get(),
        bytes_received: raw.bytes_received.get(),
        snd_wnd: at::<U32<NativeEndian>>(payload, SND_WND).map(U32::get),
        retransmitting_ms: retransmitting_ms(payload).filter(|_| raw.retransmits > 0),
    })
}

/// Since the first of the present retransmissions: the kernel has the sum of all times in which it
/// retransmitted, the present one included (`tcp_get_info()`), so there must have been but one.
fn retransmitting_ms(payload: &[u8]) -> Option<u32> {
    let [_, recoveries] = at::<[U16<NativeEndian>; 2]>(payload, TOTAL_RTO)?;
    let total_ms = at::<U32<NativeEndian>>(payload, TOTAL_RTO + 4)?;
    (recoveries.get() == 1).then(|| total_ms.get())
}

/// What is at `offset`, if the kernel has so much.
fn at<T: FromBytes + Unaligned + Immutable + KnownLayout + Copy>(
    payload: &[u8],
    offset: usize,
) -> Option<T> {
    T::read_from_prefix(payload.get(offset..)?).ok().map(|(value, _)| value)
}

fn cgroup_id(payload: &[u8]) -> Option<NonZeroU64> {
    NonZeroU64::new(u64::from_ne_bytes(payload.try_into().ok()?))
}

#[cfg(test)]
mod tests;
