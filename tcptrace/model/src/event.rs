//! What the kernel reported, as values.

use std::net::Ipv6Addr;

use tcptrace_common::record::{
    self, FLAG_BUCKETS_FULL, FLAG_DEAD, FLAG_KEY_UNKNOWN, FLAG_LINGER, FLAG_MAY_RUN,
    FLAG_OWN_PORTS, FLAG_PEER_FIN, FLAG_SOCK, FLAG_UNACCEPTED, IS_MPTCP, RESET_RECEIVED,
    RESET_SENT, SHUTDOWN_MASK, TIMESTAMPS_NONE, TIMESTAMPS_SEEN, TOTALS_HAS_SENT,
    TOTALS_QUEUE_EMPTY, TOTALS_REPAIR, TimerEvent,
};

use super::{state::TcpState, task::Task, tuple::Tuple};

const AF_INET6: u8 = 10;

/// The `SO_LINGER` setting of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Off, the default: close() returns at once and the kernel sends the rest.
    Off,
    /// On, for so many jiffies. 0: close() resets the connection.
    Jiffies(u32),
}

/// What only BTF tells of a socket at the moment of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFacts {
    /// `sk_cookie`; `None` where the kernel does not give it to tracing programs (before 5.12).
    pub cookie: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Id of its cgroup (v2); `None` where it cannot be read (before 5.15).
    pub cgroup: Option<u64>,
    /// `sk_err`, a positive errno; 0 for none.
    pub err: u16,
    /// `sk_shutdown`: 1 receive, 2 send.
    pub shutdown: u8,
    /// `SOCK_DEAD`: no process holds it.
    pub dead: bool,
    /// No process has ever held it: accept() has not handed it out.
    pub unaccepted: bool,
    /// The peer's FIN has been received (`SOCK_DONE`).
    pub peer_fin: bool,
    /// At CLOSE→SYN_SENT, and at →CLOSE out of SYN_SENT: connect() chooses from a range of ports of
    /// this socket (`IP_LOCAL_PORT_RANGE`), not from that of the namespace.
    pub own_ports: bool,
    /// `SO_LINGER`.
    pub linger: Linger,
    /// It is a subflow of an MPTCP socket, which may have fallen back to plain TCP. `None` where
    /// that is not known: at LISTEN → SYN_RECV, where a child has the bit of its listener, and in
    /// recordings of versions that did not read it.
    pub mptcp: Option<bool>,
}

impl SockFacts {
    /// What [`Self::mptcp`] is where a socket goes from `old` to `new` and has this bit.
    pub fn mptcp_by(old: TcpState, new: TcpState, bit: bool) -> Option<bool> {
        ((old, new) != (TcpState::Listen, TcpState::SynRecv)).then_some(bit)
    }
}

/// What a full socket has done in its life, as its last transition to CLOSE told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Payload bytes that the peer acknowledged, a SYN and a FIN counted as one each.
    pub bytes_acked: u64,
    /// Payload bytes received in order, a FIN counted as one.
    pub bytes_received: u64,
    /// Smoothed round-trip time in eighths of a microsecond; 0 if there was no sample.
    pub srtt_us8: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    /// Bytes received that no process has read, a FIN counted as one.
    pub unread: u32,
    /// Bytes that the peer has not acknowledged, a FIN counted as one.
    pub unacked: u32,
    /// `TCP_USER_TIMEOUT` in milliseconds; 0 for none.
    pub user_timeout_ms: u32,
    /// `TCP_LINGER2` in jiffies; 0 for the default, negative for no FIN_WAIT2 without an owner.
    pub linger2: i32,
    /// How it stood when it went to CLOSE; `None` in recordings of versions that did not read it.
    pub at_close: Option<AtClose>,
}

/// How a full socket stood when it went to CLOSE, as far as that tells why it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtClose {
    /// Of [`Totals::unacked`], bytes that were never sent, a FIN counted as one.
    pub unsent: u32,
    /// `sk_err_soft`, a positive errno: the last ICMP or routing error that did not end the
    /// connection by itself; 0 for none.
    pub err_soft: u16,
    /// Keep-alive or window probes that were not answered (`icsk_probes_out`).
    pub probes: u8,
    /// It was in repair mode (`TCP_REPAIR`), in which closing sends nothing.
    pub repair: bool,
    /// It has sent a segment: of one in SYN_SENT, its SYN.
    pub has_sent: bool,
    /// Its receive queue was empty. close() empties it before it resets a connection,
    /// connect(AF_UNSPEC) after.
    pub queue_empty: bool,
}

/// One run of `sock:inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`; reused by the kernel as soon as it is freed.
    pub skaddr: u64,
    /// The state left.
    pub old: TcpState,
    /// The state entered.
    pub new: TcpState,
    /// The two ends, as far as the kernel had set them.
    pub tuple: Tuple,
    /// The task on the CPU, often a bystander.
    pub task: Task,
    /// What only BTF tells; `None` from the classic tracepoint.
    pub sock: Option<SockFacts>,
    /// A filter is in force that needs what the kernel had not set yet.
    pub key_unknown: bool,
    /// There was no room for a minisock of this connection (`tcp_max_tw_buckets`).
    pub buckets_full: bool,
    /// At →CLOSE of a connection: what it did. `None` elsewhere, and from the classic tracepoint.
    pub totals: Option<Totals>,
}

/// Why the kernel sent a RST: the names of `enum sk_rst_reason` (6.10) that tell of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RstReason {
    /// `SK_RST_REASON_TCP_ABORT_ON_DATA`: data came after close().
    AbortOnData,
    /// `SK_RST_REASON_TCP_ABORT_ON_CLOSE`: close() with data unread.
    AbortOnClose,
    /// `SK_RST_REASON_TCP_ABORT_ON_LINGER`: `TCP_LINGER2` below 0.
    AbortOnLinger,
    /// `SK_RST_REASON_TCP_ABORT_ON_MEMORY`: too many orphans, or no memory.
    AbortOnMemory,
    /// `SK_RST_REASON_TCP_STATE`: the state calls for it; `SO_LINGER` 0 and connect(AF_UNSPEC).
    TcpState,
    /// `SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT`.
    KeepaliveTimeout,
    /// `SK_RST_REASON_TCP_DISCONNECT_WITH_DATA`: connect(AF_UNSPEC) with data unsent.
    DisconnectWithData,
    /// Another one.
    Other,
}

/// Which way a RST went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetDirection {
    /// This host sent it.
    Sent,
    /// It came from the peer, or so the kernel behaved: the tracepoint also fires where data
    /// arrives after close(), and no RST came.
    Received,
}

/// A RST that a full socket sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`.
    pub skaddr: u64,
    /// Which way.
    pub direction: ResetDirection,
    /// The state of the socket at that moment: CLOSE already where close() resets. `None` where a
    /// kernel without BTF does not tell (`tcp_receive_reset`).
    pub state: Option<TcpState>,
    /// Why it was sent; `None` where the kernel does not tell (before 6.10).
    pub reason: Option<RstReason>,
}

/// A process took a connection from a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock` of the connection.
    pub skaddr: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The task that called accept().
    pub task: Task,
}

/// Who stopped a minisock's timer before its time, by the kernel function that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopper {
    /// `tcp_timewait_state_process()`: a RST came.
    StateProcess,
    /// `tcp_v4_rcv()`, `tcp_v6_rcv()`: a SYN came for a TIME_WAIT, or data for a FIN_WAIT2.
    Receive,
    /// `tcp_v4_connect()`, `tcp_v6_connect()`: the port was taken for a new connection.
    Connect,
    /// `tcp_abort()`: SOCK_DESTROY.
    Abort,
    /// `inet_twsk_purge()`: the network namespace is going.
    Purge,
}

/// What happened to a minisock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinisockEvent {
    /// Its timer was started: it was born, or its time begins anew.
    Started,
    /// Its timer was stopped: to be started anew, to run, or for good.
    Stopped {
        /// It may run all the same: its time had come, or it is about to be stopped and may be
        /// faster. What follows tells.
        may_run: bool,
        /// Who stopped it, if that is known.
        by: Option<Stopper>,
    },
    /// Its timer ran.
    Expired,
    /// Nothing: it was looked at, and is in TIME_WAIT.
    Peeked,
    /// Its timer gets a new time; it is not new.
    Restarted,
    /// It was freed. What was told before says why; if nothing was, who freed it.
    Ended {
        /// Who did, if that is known.
        by: Option<Stopper>,
    },
}

impl MinisockEvent {
    /// Whether its timer is given a time, new or first, at this very moment.
    pub const fn gives_a_time(self) -> bool {
        matches!(self, Self::Started | Self::Restarted)
    }
}

/// A `struct inet_timewait_sock`, when something happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minisock {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the minisock; reused by the kernel as soon as it is freed.
    pub addr: u64,
    /// What happened.
    pub event: MinisockEvent,
    /// FIN_WAIT2 or TIME_WAIT.
    pub substate: TcpState,
    /// The two ends.
    pub tuple: Tuple,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The cookie of the full socket that it stands for.
    pub cookie: Option<u64>,
    /// When its timer is to run, in jiffies.
    pub expires: u64,
    /// The present, in jiffies.
    pub jiffies: u64,
    /// Whether the peer has sent TCP timestamps (`tw_ts_recent_stamp`), without which connect() never
    /// takes over its port; `None` where this event does not tell.
    pub timestamps: Option<bool>,
}

/// A record that is not what the kernel side of this version writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a record with impossible values {0} and {1}")]
pub struct BadRecord(u8, u8);

impl Transition {
    /// The values of a record, in one go: it is built where it is wanted, and not copied there.
    #[inline]
    fn of(raw: &record::Transition, totals: Option<Totals>) -> Result<Self, BadRecord> {
        let (Some(old), Some(new)) =
            (TcpState::from_kernel(raw.old), TcpState::from_kernel(raw.new))
        else {
            return Err(BadRecord(raw.old, raw.new));
        };
        let flag = |bit| raw.flags & bit != 0;
        Ok(Self {
            mono_ns: raw.mono_ns,
            skaddr: raw.skaddr,
            old,
            new,
            tuple: Tuple {
                laddr: Ipv6Addr::from(raw.laddr),
                raddr: Ipv6Addr::from(raw.raddr),
                lport: raw.lport,
                rport: raw.rport,
                v6_socket: raw.family == AF_INET6,
            },
            task: Task::from(&raw.task),
            sock: flag(FLAG_SOCK).then(|| SockFacts {
                cookie: (raw.cookie != 0).then_some(raw.cookie),
                netns: raw.netns,
                cgroup: (raw.cgroup != 0).then_some(raw.cgroup),
                err: raw.sk_err,
                shutdown: raw.shutdown & SHUTDOWN_MASK,
                dead: flag(FLAG_DEAD),
                unaccepted: flag(FLAG_UNACCEPTED),
                peer_fin: flag(FLAG_PEER_FIN),
                own_ports: flag(FLAG_OWN_PORTS),
                linger: if flag(FLAG_LINGER) {
                    Linger::Jiffies(raw.linger_jiffies)
                } else {
                    Linger::Off
                },
                mptcp: SockFacts::mptcp_by(old, new, raw.shutdown & IS_MPTCP != 0),
            }),
            key_unknown: flag(FLAG_KEY_UNKNOWN),
            buckets_full: flag(FLAG_BUCKETS_FULL),
            totals,
        })
    }
}

impl TryFrom<&record::Transition> for Transition {
    type Error = BadRecord;

    #[inline]
    fn try_from(raw: &record::Transition) -> Result<Self, BadRecord> {
        Self::of(raw, None)
    }
}

impl TryFrom<&record::Closed> for Transition {
    type Error = BadRecord;

    #[inline]
    fn try_from(raw: &record::Closed) -> Result<Self, BadRecord> {
        let totals = &raw.totals;
        let totals = Totals {
            bytes_acked: totals.bytes_acked,
            bytes_received: totals.bytes_received,
            srtt_us8: totals.srtt_us8,
            retransmits: totals.retransmits,
            unread: totals.unread,
            unacked: totals.unacked,
            user_timeout_ms: totals.user_timeout_ms,
            linger2: totals.linger2,
            at_close: Some(AtClose {
                unsent: totals.unsent,
                err_soft: totals.err_soft,
                probes: totals.probes,
                repair: totals.flags & TOTALS_REPAIR != 0,
                has_sent: totals.flags & TOTALS_HAS_SENT != 0,
                queue_empty: totals.flags & TOTALS_QUEUE_EMPTY != 0,
            }),
        };
        Self::of(&raw.transition, Some(totals))
    }
}

/// Whether a peer has sent timestamps, as a record has it.
fn timestamps(raw: u8) -> Option<bool> {
    match raw {
        TIMESTAMPS_NONE => Some(false),
        TIMESTAMPS_SEEN => Some(true),
        _ => None,
    }
}

impl Reset {
    /// The value of a record; `reason` is the name of its number in this kernel.
    pub fn from_record(raw: &record::Reset, reason: Option<RstReason>) -> Result<Self, BadRecord> {
        let bad = || BadRecord(raw.direction, raw.state);
        let direction = match raw.direction {
            RESET_SENT => ResetDirection::Sent,
            RESET_RECEIVED => ResetDirection::Received,
            _ => return Err(bad()),
        };
        let state = match raw.state {
            0 => None,
            state => Some(TcpState::from_kernel(state).ok_or_else(bad)?),
        };
        Ok(Self { mono_ns: raw.mono_ns, skaddr: raw.skaddr, direction, state, reason })
    }
}

impl From<&record::Accept> for Accept {
    fn from(raw: &record::Accept) -> Self {
        let task = Task::from(&raw.task);
        Self { mono_ns: raw.mono_ns, skaddr: raw.skaddr, netns: raw.netns, task }
    }
}

impl Minisock {
    /// The value of a record; `by` is who its stack says did it.
    pub fn from_record(raw: &record::Minisock, by: Option<Stopper>) -> Result<Self, BadRecord> {
        let bad = || BadRecord(raw.event, raw.substate);
        let event = match raw.event {
            e if e == TimerEvent::Started as u8 => MinisockEvent::Started,
            e if e == TimerEvent::Stopped as u8 => {
                MinisockEvent::Stopped { may_run: raw.flags & FLAG_MAY_RUN != 0, by }
            }
            e if e == TimerEvent::Expired as u8 => MinisockEvent::Expired,
            e if e == TimerEvent::Peeked as u8 => MinisockEvent::Peeked,
            e if e == TimerEvent::Restarted as u8 => MinisockEvent::Restarted,
            e if e == TimerEvent::Ended as u8 => MinisockEvent::Ended { by },
            _ => return Err(bad()),
        };
        let substate = TcpState::from_kernel(raw.substate)
            .filter(|state| matches!(state, TcpState::FinWait2 | TcpState::TimeWait))
            .ok_or_else(bad)?;
        Ok(Self {
            mono_ns: raw.mono_ns,
            addr: raw.addr,
            event,
            substate,
            tuple: Tuple {
                laddr: Ipv6Addr::from(raw.laddr),
                raddr: Ipv6Addr::from(raw.raddr),
                lport: raw.lport,
                rport: raw.rport,
                v6_socket: raw.family == AF_INET6,
            },
            netns: raw.netns,
            cookie: (raw.cookie != 0).then_some(raw.cookie),
            expires: raw.expires,
            jiffies: raw.jiffies,
            timestamps: timestamps(raw.timestamps),
        })
    }
}
