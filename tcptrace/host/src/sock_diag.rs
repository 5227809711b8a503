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
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use zerocopy::IntoBytes;

mod bound;
#[cfg(fuzzing)]
pub mod fuzz;
mod socket;
mod wire;

#[cfg(test)]
mod kernel_tests;

pub use bound::lists_bound;
pub use socket::{DiagSocket, Family, StateMask};
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

    /// `SO_NETNS_COOKIE` of the namespace that it is in (5.14).
    pub fn netns_cookie(&self) -> Option<u64> {
        let mut cookie = 0_u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as `self` is borrowed; the kernel writes at most
        // `len` bytes to `cookie`, which is as long, and the length to `len`.
        let refused = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        (refused == 0 && len as usize == size_of::<u64>() && cookie != 0).then_some(cookie)
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

    /// The same, and each full socket comes with its [`TcpInfo`](tcptrace_model::TcpInfo). That takes the lock of each
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

    /// Asks for this full socket alone, as it is now, with its [`TcpInfo`](tcptrace_model::TcpInfo); `None` if it is there no
    /// more. Two system calls and one look into the hash table
    /// (`inet_diag_dump_one_icsk()`), where [`Self::dump_with_info`] takes the lock of every socket
    /// in a state.
    pub fn one_with_info(&mut self, socket: &DiagSocket) -> Result<Option<DiagSocket>, DiagError> {
        if self.unfinished {
            self.drain()?;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let request = Request::one(socket, WITH_INFO, self.sequence);
        self.unfinished = true;
        send(self.socket.as_raw_fd(), request.as_bytes(), MsgFlags::empty())
            .map_err(DiagError::call("send"))?;
        loop {
            let received = self.receive(MsgFlags::empty())?;
            let datagram = self.buffer.get(..received).ok_or(DiagError::TooLarge(received))?;
            let Some(message) = Messages::new(datagram, self.sequence).next() else { continue };
            self.unfinished = false;
            return match message?.body {
                Body::Socket(socket) => Ok(Some(socket)),
                Body::Refused(libc::ENOENT | libc::ESTALE) => Ok(None),
                Body::Refused(number) | Body::Done(Some(number)) => Err(DiagError::refused(number)),
                Body::Done(None) => Ok(None),
            };
        }
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
