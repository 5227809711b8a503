//! What is asked of sock_diag, and a socket as it answers: values by the kernel's numbers.

use std::{net::SocketAddr, num::NonZeroU64};

use tcptrace_model::{TcpInfo, Timer};

/// `TCP_FIN_WAIT2`
pub(super) const FIN_WAIT2: u8 = 5;
/// `TCP_TIME_WAIT`
pub(super) const TIME_WAIT: u8 = 6;
/// `TCP_CLOSING`: the last state that a socket in the dumped tables may have.
pub(super) const CLOSING: u8 = 11;
/// `TCP_BOUND_INACTIVE`: a pseudo-state that exists in sock_diag's mask alone.
pub(super) const BOUND_INACTIVE: u8 = 13;

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

    pub(super) const fn number(self) -> u8 {
        match self {
            Self::V4 => libc::AF_INET as u8,
            Self::V6 => libc::AF_INET6 as u8,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
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

    pub(super) const fn bits(self) -> u32 {
        self.0
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
    /// A subflow of an MPTCP connection (`INET_DIAG_ULP_INFO`), which has no file of its own.
    pub mptcp: bool,
    /// Of full sockets, where it was asked for ([`dump_with_info`](super::SockDiag::dump_with_info),
    /// [`one_with_info`](super::SockDiag::one_with_info)).
    pub info: Option<TcpInfo>,
}

impl DiagSocket {
    /// Whether it is a `struct inet_timewait_sock`: in TIME_WAIT, or an orphaned FIN_WAIT2.
    pub fn is_minisock(&self) -> bool {
        self.timer == Timer::TimeWait
    }
}
