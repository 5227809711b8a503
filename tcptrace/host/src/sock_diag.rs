//! All TCP sockets of a network namespace, by `NETLINK_SOCK_DIAG`: what `ss -tan` reads.
//!
//! It is the only source that knows the sockets older than the tracer, the request sockets of the
//! SYN queue, and the remaining time of a TIME_WAIT. It asks and hands on; counting, matching
//! against events and reading a state's number are the caller's.
//!
//! What a dump is not: one instant. The kernel walks its hash table bucket by bucket
//! (`inet_diag_dump_icsk()`), 16 sockets at a time, so a socket born or gone meanwhile may be in
//! it or not, and one in a bucket that changes may come twice or, rarely, not at all. The cookie
//! tells the same socket. Kernels 4.4 and later, where request sockets are in the same table.
//!
//! The dump gives every socket a cookie that had none (`sock_gen_cookie()`).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use zerocopy::IntoBytes;

mod wire;

#[cfg(test)]
mod kernel_tests;

pub use wire::Malformed;
use wire::{Body, Messages, Request, WITH_INFO};

/// What is read at a time. The kernel fills at most 32 KiB (`netlink_recvmsg()` caps what it
/// learns from the reader's buffer); the rest is room for kernels that fill more.
const BUFFER: usize = 128 * 1024;
/// The buffer never grows past this, whatever a datagram says of its length.
const MAX_BUFFER: usize = 16 * 1024 * 1024;
/// How often a dump is begun before it is handed over as it is.
const MAX_PASSES: u32 = 4;
/// A dump is answered within the reader's own system calls, so waiting means that it was lost.
const RECEIVE_TIMEOUT_S: i64 = 10;

/// `TCP_FIN_WAIT2`
const FIN_WAIT2: u8 = 5;
/// `TCP_TIME_WAIT`
const TIME_WAIT: u8 = 6;
/// `TCP_CLOSING`: the last state that a socket in the dumped tables may have.
const CLOSING: u8 = 11;
/// `TCP_BOUND_INACTIVE`: a pseudo-state that exists in sock_diag's mask alone.
const BOUND_INACTIVE: u8 = 13;

/// Address family of a socket. One of `AF_INET6` may carry v4-mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

impl Family {
    /// Both: every TCP socket.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::BOTH.into_iter().find(|family| family.number() == number)
    }
}

/// The states to dump, by the kernel's numbers (`enum tcp_state`, `TCP_ESTABLISHED` = 1).
///
/// A TIME_WAIT minisock is found by its substate: FIN_WAIT2 (5) gives full sockets and orphaned
/// minisocks alike. SYN_RECV (3) includes the request sockets of the SYN queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateMask(u32);

impl StateMask {
    /// Every state that `ss -a` shows: ESTABLISHED (1) to CLOSING (11). Sockets in CLOSE that
    /// were never connected are in no table that is dumped; see [`Self::BOUND`].
    pub const ALL: Self = Self(((1 << (CLOSING + 1)) - 1) & !1);
    /// Sockets that are bound to a port and neither connected nor listening; they come with state
    /// CLOSE (7). Kernel 6.8; earlier ones have no answer to it, and give no such socket.
    pub const BOUND: Self = Self(1 << BOUND_INACTIVE);
    /// What minisocks may be in: TIME_WAIT, or FIN_WAIT2, which full sockets are in too.
    pub const OF_MINISOCKS: Self = Self::of(FIN_WAIT2).union(Self::of(TIME_WAIT));
    /// No state.
    pub const NONE: Self = Self(0);

    /// One state, by the kernel's number; [`Self::NONE`] for a number that no kernel has (above
    /// 11, or 0).
    pub const fn of(state: u8) -> Self {
        if state == 0 || state > CLOSING { Self::NONE } else { Self(1 << state) }
    }

    /// Either's states.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn bits(self) -> u32 {
        self.0
    }
}

/// The timer that runs on a socket (`idiag_timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// None
    None,
    /// Retransmission, loss probe or reordering; SYN-ACK of a request socket
    Retransmit,
    /// `sk_timer`: keepalive, or the remaining FIN_WAIT2 of an orphan that is still a full socket
    KeepAlive,
    /// A minisock's
    TimeWait,
    /// Zero-window probe
    Probe,
    /// A number that a later kernel may have added
    Other(u8),
}

impl Timer {
    const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Retransmit,
            2 => Self::KeepAlive,
            3 => Self::TimeWait,
            4 => Self::Probe,
            other => Self::Other(other),
        }
    }
}

/// One TCP socket, as the kernel described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// The socket's own family.
    pub family: Family,
    /// The kernel's number: 1 ESTABLISHED … 11 CLOSING. A minisock says its substate: 6
    /// TIME_WAIT, or 5 FIN_WAIT2 (orphaned). A request socket says 3, SYN_RECV.
    pub state: u8,
    /// Local address and port.
    pub local: SocketAddr,
    /// Peer's address and port; unspecified and 0 for a listener.
    pub peer: SocketAddr,
    /// `sk_cookie`, which a minisock takes over from the socket that it replaces. A request
    /// socket's is its own.
    pub cookie: u64,
    /// Inode of the open file; 0 where no process holds one: orphans, minisocks, request sockets,
    /// connections not yet accepted.
    pub inode: u32,
    /// User of the socket's owner; always 0 for minisocks and request sockets.
    pub uid: u32,
    /// Interface that it is bound to; 0 for none.
    pub ifindex: u32,
    /// Bytes received and not yet read, a FIN counted as one; for a listener, connections waiting
    /// for `accept()`.
    pub rqueue: u32,
    /// Bytes written and not yet acknowledged, a SYN and a FIN counted as one each; for a listener,
    /// the limit of the accept queue.
    pub wqueue: u32,
    /// Which timer runs.
    pub timer: Timer,
    /// Until that timer is due, in milliseconds; 0 where none runs. A minisock's counts to
    /// `tw_timer.expires`, and the timer wheel fires up to some seconds later (2 s at HZ=250).
    pub expires_ms: u32,
    /// Retransmissions, probes or SYN-ACKs sent so far by that timer.
    pub retrans: u8,
    /// Id of the cgroup (v2) that it was made in, of full sockets (`INET_DIAG_CGROUP_ID`). Kernel
    /// 5.8 with CONFIG_SOCK_CGROUP_DATA.
    pub cgroup: Option<NonZeroU64>,
    /// Of full sockets, where a dump [asked](SockDiag::dump_with_info) for it.
    pub info: Option<TcpInfo>,
}

/// What `struct tcp_info` says of how long a socket has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Timeouts of the oldest unacknowledged segment since the last progress
    /// (`icsk_retransmits`).
    pub retransmits: u8,
    /// How often the timeout was doubled (`icsk_backoff`).
    pub backoff: u8,
    /// The present timeout, in microseconds (`icsk_rto`).
    pub rto_us: u32,
    /// Since the last segment with an acknowledgement that was not out of date, in milliseconds
    /// (`rcv_tstamp`, which `tcp_ack()` sets): a difference of two counts of jiffies.
    pub last_ack_recv_ms: u32,
}

impl DiagSocket {
    /// Whether it is a `struct inet_timewait_sock`: in TIME_WAIT, or an orphaned FIN_WAIT2.
    pub fn is_minisock(&self) -> bool {
        self.timer == Timer::TimeWait
    }
}

/// What went wrong with a dump.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// No netlink socket.
    #[error(
        "cannot open a sock_diag netlink socket: {0}; the kernel needs CONFIG_INET_DIAG, and a \
         seccomp profile must allow AF_NETLINK"
    )]
    Open(#[source] Errno),
    /// A system call on the netlink socket failed.
    #[error("reading the socket table through sock_diag failed at {call}: {errno}")]
    Call {
        /// Name of the system call.
        call: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel has no sock_diag for TCP.
    #[error(
        "the kernel cannot list TCP sockets through sock_diag ({0}): load it with `modprobe \
         tcp_diag`, or use a kernel with CONFIG_INET_TCP_DIAG"
    )]
    NoTcpDiag(Errno),
    /// The kernel refused the dump.
    #[error("the kernel refused to list TCP sockets through sock_diag: {0}")]
    Refused(Errno),
    /// No answer in time.
    #[error("the kernel gave no answer to a sock_diag dump within {RECEIVE_TIMEOUT_S} s")]
    TimedOut,
    /// The answer is not what a kernel sends.
    #[error("unreadable answer to a sock_diag dump: {0}")]
    Malformed(#[from] Malformed),
    /// A datagram that no buffer will be made for.
    #[error("a sock_diag datagram of {0} bytes, more than the {MAX_BUFFER} that are read")]
    TooLarge(usize),
}

impl DiagError {
    fn call(call: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Call { call, errno }
    }

    /// The kernel's own word, where it said one.
    fn refused(number: i32) -> Self {
        match Errno::from_raw(number) {
            // sock_diag_rcv_msg(), inet_diag_lock_handler(): no handler, and no module that has one.
            Errno::ENOENT => Self::NoTcpDiag(Errno::ENOENT),
            errno => Self::Refused(errno),
        }
    }
}

impl From<DiagError> for io::Error {
    fn from(error: DiagError) -> Self {
        let kind = match &error {
            DiagError::Open(errno) | DiagError::Call { errno, .. } | DiagError::Refused(errno) => {
                io::Error::from(*errno).kind()
            }
            DiagError::NoTcpDiag(_) => io::ErrorKind::Unsupported,
            DiagError::TimedOut => io::ErrorKind::TimedOut,
            DiagError::Malformed(_) | DiagError::TooLarge(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// A finished dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dump<S> {
    /// What the caller made of the sockets.
    pub value: S,
    /// How many there were.
    pub sockets: u64,
    /// The kernel said, on the last pass too, that the dump was interrupted and may lack some.
    pub interrupted: bool,
    /// How often the dump was begun.
    pub passes: u32,
}

/// How one pass ended.
enum Pass {
    Done { interrupted: bool },
    Truncated,
}

/// A socket to the kernel's table of TCP sockets, with its receive buffer.
///
/// It stays in the network namespace that it was opened in, and **keeps that namespace alive**:
/// hold it no longer than needed for any but one's own, or the namespace's end is put off by
/// the tracer that should see it.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
    /// A dump was left before its end, so its rest may be queued and the kernel may still run it.
    unfinished: bool,
}

impl SockDiag {
    /// Opens it in the network namespace of the calling thread. Needs no privilege.
    pub fn open() -> Result<Self, DiagError> {
        Self::with_buffer(BUFFER)
    }

    fn with_buffer(bytes: usize) -> Result<Self, DiagError> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .map_err(DiagError::Open)?;
        // A connected netlink socket takes datagrams from that peer alone
        // (`netlink_getsockbyportid()`); 0 is the kernel.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(DiagError::call("connect"))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(RECEIVE_TIMEOUT_S))
            .map_err(DiagError::call("setsockopt"))?;
        Ok(Self { socket, buffer: vec![0; bytes], sequence: 0, unfinished: false })
    }

    /// Dumps the TCP sockets of these families that are in one of `states`: folds each into the
    /// value that `init` makes, which is begun anew for each pass. A pass is repeated, a few
    /// times, when the kernel says that it was interrupted or the buffer was too small.
    ///
    /// Listeners come first within a family. No allocation is made for a socket.
    pub fn dump<S>(
        &mut self,
        families: &[Family],
        states: StateMask,
        init: impl FnMut() -> S,
        fold: impl FnMut(&mut S, &DiagSocket),
    ) -> Result<Dump<S>, DiagError> {
        self.passes(families, states, 0, init, fold)
    }

    /// The same, and each full socket comes with its [`TcpInfo`]. That takes the lock of each
    /// (`tcp_get_info()`), and four times the bytes.
    pub fn dump_with_info<S>(
        &mut self,
        families: &[Family],
        states: StateMask,
        init: impl FnMut() -> S,
        fold: impl FnMut(&mut S, &DiagSocket),
    ) -> Result<Dump<S>, DiagError> {
        self.passes(families, states, WITH_INFO, init, fold)
    }

    fn passes<S>(
        &mut self,
        families: &[Family],
        states: StateMask,
        extensions: u8,
        mut init: impl FnMut() -> S,
        mut fold: impl FnMut(&mut S, &DiagSocket),
    ) -> Result<Dump<S>, DiagError> {
        let mut passes = 0;
        loop {
            passes += 1;
            let (mut value, mut sockets) = (init(), 0);
            let (mut interrupted, mut truncated) = (false, false);
            for &family in families {
                let pass = self.pass(family, states, extensions, |socket| {
                    sockets += 1;
                    fold(&mut value, socket);
                })?;
                match pass {
                    Pass::Done { interrupted: this_one } => interrupted |= this_one,
                    Pass::Truncated => {
                        truncated = true;
                        break;
                    }
                }
            }
            // A truncated pass lacks sockets for sure; the buffer has at least doubled, so this
            // ends by itself, at `MAX_BUFFER`.
            if truncated || (interrupted && passes < MAX_PASSES) {
                continue;
            }
            return Ok(Dump { value, sockets, interrupted, passes });
        }
    }

    /// One request and all its answers.
    fn pass(
        &mut self,
        family: Family,
        states: StateMask,
        extensions: u8,
        mut each: impl FnMut(&DiagSocket),
    ) -> Result<Pass, DiagError> {
        if self.unfinished {
            self.drain()?;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = Request::dump(family, states, extensions, self.sequence);
        self.unfinished = true;
        send(self.socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())
            .map_err(DiagError::call("send"))?;
        let mut interrupted = false;
        loop {
            let received = self.receive(MsgFlags::empty())?;
            let Some(datagram) = self.buffer.get(..received) else {
                self.grow(received)?;
                return Ok(Pass::Truncated);
            };
            for message in Messages::new(datagram, self.sequence) {
                let message = message?;
                interrupted |= message.interrupted;
                match message.body {
                    Body::Socket(socket) => each(&socket),
                    Body::Done(None) => {
                        self.unfinished = false;
                        return Ok(Pass::Done { interrupted });
                    }
                    Body::Done(Some(number)) | Body::Refused(number) => {
                        self.unfinished = false;
                        return Err(DiagError::refused(number));
                    }
                }
            }
        }
    }

    /// Receives one datagram; gives its full length, which may be more than the buffer holds.
    fn receive(&mut self, flags: MsgFlags) -> Result<usize, DiagError> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags | MsgFlags::MSG_TRUNC) {
                Ok(received) => return Ok(received),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(DiagError::TimedOut),
                Err(errno) => return Err(DiagError::Call { call: "recv", errno }),
            }
        }
    }

    fn grow(&mut self, needed: usize) -> Result<(), DiagError> {
        if needed > MAX_BUFFER {
            return Err(DiagError::TooLarge(needed));
        }
        self.buffer.resize(needed.next_power_of_two(), 0);
        Ok(())
    }

    /// Reads what is left of a dump that was given up: until then the kernel answers a new one
    /// with EBUSY (`__netlink_dump_start()`). Each read makes the kernel queue the next part.
    fn drain(&mut self) -> Result<(), DiagError> {
        loop {
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(DiagError::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
        self.unfinished = false;
        Ok(())
    }
}
