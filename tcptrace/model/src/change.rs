//! What the tracker concludes from its inputs.

use super::{
    event::{Linger, SockFacts, Totals},
    input::{Holder, Queues},
    state::TcpState,
    task::Task,
    tuple::Tuple,
    verdict::Verdict,
};

/// How long a socket was in the state that it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The kernel does not tell: CLOSE, where a socket merely exists; the LISTEN that a child of
    /// a listener never was in; a state entered while events were lost.
    Unknown,
    /// At least so many nanoseconds: the start was not seen.
    AtLeast(u64),
    /// So many nanoseconds, give or take: the start or the end is dated by a timer that counts
    /// in jiffies.
    About {
        /// The likeliest.
        ns: u64,
        /// How far off it may be.
        within_ns: u64,
    },
    /// So many nanoseconds.
    Exactly(u64),
}

impl Age {
    /// The lower bound in nanoseconds; 0 where nothing is known.
    pub fn least_ns(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::AtLeast(ns) | Self::Exactly(ns) => ns,
            Self::About { ns, within_ns } => ns.saturating_sub(within_ns),
        }
    }
}

/// Why a minisock ended, or was not there at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// Its time was over.
    Expired,
    /// A new connection of this host took its port (`tcp_tw_reuse`, or an explicit bind).
    ReusedByConnect,
    /// The peer opened a new connection on the same ports.
    ReusedBySyn,
    /// A RST came.
    Reset,
    /// Data came for an orphan, which was answered with a RST.
    RstSent,
    /// `SOCK_DESTROY` (`ss -K`).
    Killed,
    /// Its network namespace went.
    NetnsExit,
    /// Not known.
    Unknown,
    /// There was none: `tcp_max_tw_buckets` left no room.
    NeverCreated,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Expired,
        Self::ReusedByConnect,
        Self::ReusedBySyn,
        Self::Reset,
        Self::RstSent,
        Self::Killed,
        Self::NetnsExit,
        Self::Unknown,
        Self::NeverCreated,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::ReusedByConnect => "reused-by-connect",
            Self::ReusedBySyn => "reused-by-syn",
            Self::Reset => "reset",
            Self::RstSent => "rst-sent",
            Self::Killed => "killed",
            Self::NetnsExit => "netns-exit",
            Self::Unknown => "unknown",
            Self::NeverCreated => "never-created",
        }
    }
}

/// How an owner is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerFrom {
    /// The task that called connect().
    Connect,
    /// The task that called listen().
    Listener,
    /// The task that took the connection from the listener.
    Accept,
    /// Nobody was seen to open or accept it: the task that closed or shut down the socket.
    Close,
    /// Nobody was seen to open or accept it: a process that had the socket open when a snapshot was
    /// taken; of several the one that was started first.
    Snapshot,
}

impl OwnerFrom {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Listener => "listener",
            Self::Accept => "accept",
            Self::Close => "close",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The process that opened or accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The task, caught in a system call on this socket or found to have it open.
    pub task: Task,
    /// Which call, or how else.
    pub from: OwnerFrom,
}

/// How a closer is known: by what it had the kernel send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloserFrom {
    /// A FIN: it called close() or shutdown(), or ended and was the last to hold the socket.
    Fin,
    /// A RST: its close() was abortive (SO_LINGER 0, unread data), it disconnected the socket, or
    /// closed the listener before the connection was accepted.
    Rst,
    /// It had the kernel destroy the socket (`SOCK_DESTROY`, `ss -K`), which sends a RST.
    SockDestroy,
}

impl CloserFrom {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::SockDestroy => "sock-destroy",
        }
    }
}

/// The process whose FIN or RST left first from here: of a connection that the peer closed first,
/// the one that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Closer {
    /// The task, in whose context the FIN or RST was sent.
    pub task: Task,
    /// What it sent.
    pub from: CloserFrom,
}

/// How a connection began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opened {
    /// By connect(), here.
    Connect,
    /// By a peer, at a listener of this host.
    Accept,
    /// Not a connection but a listener.
    Listen,
}

/// The beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// `CLOCK_MONOTONIC`, nanoseconds: of connect() or listen(), or of the end of the handshake
    /// of a connection that was accepted, which was in the SYN queue before.
    pub mono_ns: u64,
    /// How.
    pub opened: Opened,
}

impl Birth {
    /// What a socket that goes from `old` to `new` at `mono_ns` begins by that, if anything.
    pub fn of(old: TcpState, new: TcpState, mono_ns: u64) -> Option<Self> {
        let opened = match (old, new) {
            (TcpState::Listen, TcpState::SynRecv) => Opened::Accept,
            (TcpState::Close, TcpState::Listen) => Opened::Listen,
            (TcpState::Close, _) => Opened::Connect,
            _ => return None,
        };
        Some(Self { mono_ns, opened })
    }
}

/// A true transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Tells connections apart, within one run of the tracker. Never 0.
    pub id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the kernel's object: of the `struct sock`, and of the minisock once that has
    /// taken over. 0 for a minisock that no hook has told of: one from before, or any where they
    /// are sampled. The cookie stays the same.
    pub skaddr: u64,
    /// The state left.
    pub old: TcpState,
    /// The state entered.
    pub new: TcpState,
    /// The two ends, completed from earlier events of the connection.
    pub tuple: Tuple,
    /// Inode of the network namespace, if that is known.
    pub netns: Option<u32>,
    /// How and when it began, if that was seen.
    pub birth: Option<Birth>,
    /// Time in the state left.
    pub in_old: Age,
    /// Nanoseconds, at the least, that the connection was there before it entered the state left; 0
    /// where that is not known.
    pub before_ns: u64,
    /// Whose socket it is, if that is known.
    pub owner: Option<Owner>,
    /// Who closed it from here, if somebody has and that is known.
    pub closer: Option<Closer>,
    /// What only BTF tells.
    pub sock: Option<SockFacts>,
    /// How a minisock ended, on its way to CLOSE.
    pub end_reason: Option<EndReason>,
    /// What this transition settles of how the connection ends; on →CLOSE, and on the way into
    /// TIME_WAIT, all that is settled by then.
    pub verdict: Verdict,
}

impl Moved {
    /// Whether this is where the connection begins: it was in no state before. The LISTEN that
    /// a child leaves is its listener's.
    pub fn is_birth(&self) -> bool {
        is_birth(self.old, self.new)
    }

    /// How long it has been there by now: from its birth on, or at least since it was first known.
    pub fn lived(&self) -> Age {
        match self.birth {
            Some(birth) if birth.opened != Opened::Listen => {
                Age::Exactly(self.mono_ns.saturating_sub(birth.mono_ns))
            }
            _ => match self.before_ns.saturating_add(self.in_old.least_ns()) {
                0 => Age::Unknown,
                ns => Age::AtLeast(ns),
            },
        }
    }

    /// Whether it is a subflow of an MPTCP socket, if that is known.
    pub fn mptcp(&self) -> Option<bool> {
        self.sock.and_then(|sock| sock.mptcp)
    }

    /// The `SO_LINGER` setting, if the hook could see it.
    pub fn linger(&self) -> Option<Linger> {
        self.sock.map(|sock| sock.linger)
    }
}

/// Whether a socket that goes from `old` to `new` was in no state before.
pub fn is_birth(old: TcpState, new: TcpState) -> bool {
    Birth::of(old, new, 0).is_some()
}

/// Something to show or to count.
///
/// Who counts [`Change::Found`] up, [`Change::Gone`] down, and [`Change::Moved`] down in the
/// state left (but for a birth) and up in the state entered (but for CLOSE) has at all times as
/// many connections in each state as are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection changed its state.
    Moved(Moved),
    /// A connection is known that was there before: found in a snapshot, or when it moved.
    Found(Found),
    /// A connection is not known any more, though its end was not seen: evicted, or gone while
    /// events were lost.
    Gone(Found),
    /// A connection's full socket is gone: what it did in its life. What follows of the connection
    /// is its end, or that of its minisock. Nothing to count in any state.
    Retired(Retired),
}

/// What the full socket of a connection did in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The connection.
    pub id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// What it did.
    pub totals: Totals,
}

/// A connection in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Tells connections apart, within one run of the tracker. Never 0.
    pub id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Its state.
    pub state: TcpState,
    /// The two ends.
    pub tuple: Tuple,
    /// Inode of the network namespace, if that is known.
    pub netns: Option<u32>,
    /// How and when it began, if that was seen.
    pub birth: Option<Birth>,
    /// Whose it is, if that is known.
    pub owner: Option<Owner>,
    /// Who closed it from here, if somebody has and that is known.
    pub closer: Option<Closer>,
    /// Who had it open when a snapshot was last taken, if that is known and nobody has closed it since.
    pub holder: Option<Holder>,
    /// Its cookie, if that is known.
    pub cookie: Option<u64>,
    /// Id of its cgroup, if that is known.
    pub cgroup: Option<u64>,
    /// Of a minisock, whether the peer has sent TCP timestamps, without which connect() never takes
    /// over its port, if that is known.
    pub timestamps: Option<bool>,
    /// Whether it is a subflow of an MPTCP socket, if that is known.
    pub mptcp: Option<bool>,
    /// What the last snapshot had in its queues, if it was in this state then; only a census tells, and
    /// not of an ESTABLISHED one.
    pub queues: Option<Queues>,
    /// Segments that it had sent again, SYNs and FINs among them, when a snapshot last told: by now at
    /// least so many. Only a census tells, and of an ESTABLISHED one only where it seemed to wait.
    pub retransmits: Option<u32>,
}
