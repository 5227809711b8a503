//! The records in the ring buffer, as the kernel side writes them.
//!
//! Every record starts with its [`RecordKind`] in the first byte and is a multiple of eight
//! bytes long, which is what `bpf_ringbuf_reserve` hands out. Integers are in the host's byte
//! order, ports included; addresses are 16 bytes in network order, IPv4 as v4-mapped IPv6.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record is: its first byte.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A [`Transition`].
    Transition = 1,
    /// A [`Minisock`].
    Minisock = 2,
    /// A [`MinisockStopped`].
    MinisockStopped = 3,
    /// A [`Closed`].
    Closed = 4,
    /// A [`Reset`].
    Reset = 5,
    /// An [`Accept`].
    Accept = 6,
}

/// The socket is closed on this side and no process holds it any more (`SOCK_DEAD`).
pub const FLAG_DEAD: u8 = 1 << 0;
/// `SO_LINGER` is on; [`Transition::linger_jiffies`] has its time.
pub const FLAG_LINGER: u8 = 1 << 1;
/// What only BTF tells was read: netns, cookie, cgroup, `sk_err`, `sk_shutdown`, linger,
/// `SOCK_DEAD`. Without it those fields are 0 and mean nothing (the classic tracepoint).
pub const FLAG_SOCK: u8 = 1 << 2;
/// A filter in force needs a port or an address that the kernel had not yet set when this event
/// fired (an autobound connect, a child of a listener on kernels up to 6.12): user space decides.
pub const FLAG_KEY_UNKNOWN: u8 = 1 << 3;

/// At →CLOSE out of FIN_WAIT2 or CLOSING: the namespace has as many minisocks as
/// `tcp_max_tw_buckets` allows, so there was no room for this connection's.
pub const FLAG_BUCKETS_FULL: u8 = 1 << 4;

/// `sk_socket` is NULL without [`FLAG_DEAD`]: no process has ever held it, since `accept()` has not
/// handed it out (`sock_graft()`).
pub const FLAG_UNACCEPTED: u8 = 1 << 5;

/// The peer's FIN has been received (`SOCK_DONE`, set by `tcp_fin()`).
pub const FLAG_PEER_FIN: u8 = 1 << 6;

/// The bits of `sk_shutdown` in [`Transition::shutdown`].
pub const SHUTDOWN_MASK: u8 = 3;

/// Beside `sk_shutdown` in [`Transition::shutdown`]: the socket is a subflow of an MPTCP socket
/// (`tcp_sock.is_mptcp`), which may have fallen back to plain TCP. Means nothing on LISTEN →
/// SYN_RECV: the child has the bit of its listener until `inet_clone_ulp()`.
///
/// A subflow that was accepted never has a `struct socket` of its own, so [`FLAG_UNACCEPTED`] says
/// nothing about it.
pub const IS_MPTCP: u8 = 1 << 7;

/// At CLOSE→SYN_SENT, and at →CLOSE out of SYN_SENT: the socket chooses its port from a range of its
/// own (`IP_LOCAL_PORT_RANGE`, 6.3), not from that of its namespace.
pub const FLAG_OWN_PORTS: u8 = 1 << 7;

/// Set in a process or thread number that is of the first PID namespace, because the task has none in
/// the reader's: numbers end at 2²² (`PID_MAX_LIMIT`). Elsewhere they are the reader's own.
pub const FOREIGN: u32 = 1 << 31;

/// Length of a task's name in the kernel (`TASK_COMM_LEN`), the closing NUL included.
pub const COMM_LEN: usize = 16;

/// Of [`Task::flags`]: [`Task::comm`] is the name of the thread-group leader. Without it the kernel
/// side had no BTF to find that by, and `comm` is the name of the thread.
pub const TASK_LEADER: u8 = 1 << 0;
/// Of [`Task::flags`]: a thread of the kernel (`PF_KTHREAD`).
pub const TASK_KERNEL: u8 = 1 << 1;

/// The task on the CPU, and the process that it belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Task {
    /// Process (thread group) by the numbers of the reader's PID namespace, or [`FOREIGN`].
    pub tgid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// Its user.
    pub uid: u32,
    /// When the process was started, in units of 10 ms since boot and cut to 32 bits: what
    /// `/proc/PID/stat` has as `starttime`, in `USER_HZ`. 0 where BTF does not have it.
    pub started: u32,
    /// The lower bits of the process's `self_exec_id`: each exec() adds one.
    pub execs: u16,
    /// The `TASK_*` bits.
    pub flags: u8,
    /// Always 0.
    pub unused: u8,
    /// Name of the thread-group leader (see [`TASK_LEADER`]), NUL-padded. Whatever bytes the process
    /// chose.
    pub comm: [u8; COMM_LEN],
    /// Name of the thread itself, likewise.
    pub thread: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Task>() == 52);

/// Whether the names of a task at this offset can be written eight bytes at a time.
const fn names_are_aligned(task: usize) -> bool {
    use core::mem::offset_of;
    (task + offset_of!(Task, comm)).is_multiple_of(8)
        && (task + offset_of!(Task, thread)).is_multiple_of(8)
}

/// One run of `inet_sk_state_store()` on a TCP socket: `sock:inet_sock_set_state`.
///
/// Context: whatever moved the state, so the task fields name the socket's owner only for the
/// transitions that a system call makes (see `tcptrace::track`); elsewhere they are a bystander.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Transition {
    /// [`RecordKind::Transition`].
    pub kind: u8,
    /// The state left, as `enum tcp_state` has it (`TCP_ESTABLISHED` = 1).
    pub old: u8,
    /// The state entered.
    pub new: u8,
    /// `AF_INET` or `AF_INET6`, the socket's own: a v4-mapped connection has `AF_INET6`.
    pub family: u8,
    /// The `FLAG_*` bits.
    pub flags: u8,
    /// `sk_shutdown` in the bits of [`SHUTDOWN_MASK`]: `RCV_SHUTDOWN` = 1, `SEND_SHUTDOWN` = 2; and
    /// [`IS_MPTCP`].
    pub shutdown: u8,
    /// `sk_err`, a positive errno; 0 for none.
    pub sk_err: u16,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`. Reused by the kernel as soon as the socket is freed.
    pub skaddr: u64,
    /// `sk_cookie`, the join key with sock_diag and with the minisock; 0 where the kernel does
    /// not give it to tracing programs (before 5.12).
    pub cookie: u64,
    /// Local address.
    pub laddr: [u8; 16],
    /// Peer's address.
    pub raddr: [u8; 16],
    /// Id of the socket's cgroup (v2), as in `cgroup.id`; 0 where it cannot be read.
    pub cgroup: u64,
    /// `net_cookie` of the network namespace, which is never another's; 0 where the kernel has none
    /// (before 5.12).
    pub netns_cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// `sk_lingertime` in jiffies, saturated.
    pub linger_jiffies: u32,
    /// Local port; 0 while not known.
    pub lport: u16,
    /// Peer's port; 0 while not known.
    pub rport: u16,
    /// The task on the CPU.
    pub task: Task,
}

const _: () = assert!(size_of::<Transition>() == 144);
const _: () = assert!(core::mem::offset_of!(Transition, kind) == 0);
const _: () = assert!(names_are_aligned(core::mem::offset_of!(Transition, task)));

/// What happened to a minisock or its timer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerEvent {
    /// It was started: the minisock was born, or its time begins anew (`mod_timer()` cancels
    /// first, and says nothing where the new time falls into the same slot of the timer wheel).
    Started = 1,
    /// It was stopped: to be started anew, to run (an expiry follows at once), or for good.
    Stopped = 2,
    /// It ran: the minisock is at its natural end.
    Expired = 3,
    /// Nothing happened; user space asked how the minisock is.
    Peeked = 4,
    /// It gets a new time, for certain: the minisock is not new.
    Restarted = 5,
    /// The last reference to the minisock was given back.
    Ended = 6,
}

/// [`TimerEvent::Stopped`] of a timer that may run all the same: its time has come, or it is
/// about to be stopped and may be faster.
pub const FLAG_MAY_RUN: u8 = 1 << 0;

/// Not read: this kernel's BTF does not say where it is, or nothing needs it here.
pub const TIMESTAMPS_UNKNOWN: u8 = 0;
/// The peer sent no TCP timestamps: `ts_recent_stamp` is 0.
pub const TIMESTAMPS_NONE: u8 = 1;
/// The peer sent TCP timestamps, without which connect() takes over no TIME_WAIT
/// (`tcp_twsk_unique()`).
pub const TIMESTAMPS_SEEN: u8 = 2;

/// A `struct inet_timewait_sock` when something happened to its timer.
///
/// Context: the thread that closes, connects or kills (process), or softirq; by the timers'
/// tracepoints under the lock of the timer base, but for [`TimerEvent::Expired`].
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Minisock {
    /// [`RecordKind::Minisock`], or [`RecordKind::MinisockStopped`] with a stack behind.
    pub kind: u8,
    /// The [`TimerEvent`].
    pub event: u8,
    /// `tw_substate`: FIN_WAIT2 or TIME_WAIT.
    pub substate: u8,
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// The `FLAG_*` bits of this kind.
    pub flags: u8,
    /// [`TIMESTAMPS_UNKNOWN`], [`TIMESTAMPS_NONE`] or [`TIMESTAMPS_SEEN`].
    pub timestamps: u8,
    /// Always 0.
    pub unused: [u8; 2],
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the minisock. Reused by the kernel as soon as it is freed.
    pub addr: u64,
    /// `skc_cookie`, inherited from the full socket; 0 if that never had one.
    pub cookie: u64,
    /// Local address.
    pub laddr: [u8; 16],
    /// Peer's address.
    pub raddr: [u8; 16],
    /// `tw_timer.expires`, in jiffies.
    pub expires: u64,
    /// The present, in jiffies.
    pub jiffies: u64,
    /// As [`Transition::netns_cookie`].
    pub netns_cookie: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Process on the CPU.
    pub tgid: u32,
    /// Thread on the CPU.
    pub tid: u32,
    /// Local port.
    pub lport: u16,
    /// Peer's port.
    pub rport: u16,
}

const _: () = assert!(size_of::<Minisock>() == 104);

/// Return addresses kept of a stack.
pub const FRAMES: usize = 16;

/// A minisock whose timer was stopped before its time, or that ended, and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MinisockStopped {
    /// The minisock; its `kind` is [`RecordKind::MinisockStopped`].
    pub minisock: Minisock,
    /// Kernel return addresses, the innermost first; 0 behind the last.
    pub frames: [u64; FRAMES],
}

const _: () = assert!(size_of::<MinisockStopped>() == 104 + 128);

/// What a full socket has done in its life, read when it goes to CLOSE.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Totals {
    /// `bytes_acked`: payload sent that the peer acknowledged, a FIN or SYN counted as one byte.
    pub bytes_acked: u64,
    /// `bytes_received`: payload received in order, a FIN counted as one byte.
    pub bytes_received: u64,
    /// `srtt_us`, the smoothed round-trip time, in eighths of a microsecond.
    pub srtt_us8: u32,
    /// `total_retrans`: segments that were sent again.
    pub retransmits: u32,
    /// `rcv_nxt` less `copied_seq`: bytes received that no process has read, a FIN counted as one.
    pub unread: u32,
    /// `write_seq` less `snd_una`: bytes that the peer has not acknowledged, a FIN counted as one.
    pub unacked: u32,
    /// `icsk_user_timeout` (`TCP_USER_TIMEOUT`), milliseconds; 0 for none.
    pub user_timeout_ms: u32,
    /// `linger2` (`TCP_LINGER2`) in jiffies; 0 for the default, negative for no FIN_WAIT2.
    pub linger2: i32,
    /// `write_seq` less `snd_nxt`: bytes that were never sent, a FIN counted as one.
    pub unsent: u32,
    /// `sk_err_soft`, a positive errno: the last ICMP or routing error that did not end the
    /// connection by itself. `tcp_write_err()` copies it to `sk_err`.
    pub err_soft: u16,
    /// `icsk_probes_out`: keep-alive or window probes that were not answered.
    pub probes: u8,
    /// The `TOTALS_*` bits.
    pub flags: u8,
}

const _: () = assert!(size_of::<Totals>() == 48);

/// [`Totals::flags`]: the socket is in repair mode (`TCP_REPAIR`), in which `tcp_disconnect()` sends
/// nothing.
pub const TOTALS_REPAIR: u8 = 1 << 0;
/// [`Totals::flags`]: it has sent a segment (`segs_out`); of one in SYN_SENT, its SYN.
pub const TOTALS_HAS_SENT: u8 = 1 << 1;
/// [`Totals::flags`]: its receive queue is empty. `__tcp_close()` empties it before it resets,
/// `tcp_disconnect()` after.
pub const TOTALS_QUEUE_EMPTY: u8 = 1 << 2;

/// The last transition of a full socket that BTF told of: to CLOSE, out of a state other than
/// LISTEN.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Closed {
    /// The transition; its `kind` is [`RecordKind::Closed`].
    pub transition: Transition,
    /// What the socket did in its life.
    pub totals: Totals,
}

const _: () = assert!(size_of::<Closed>() == 144 + 48);

/// [`Reset::direction`]: `tcp:tcp_send_reset`.
pub const RESET_SENT: u8 = 1;
/// [`Reset::direction`]: `tcp:tcp_receive_reset`. It also fires, and no RST came, where data
/// arrives after close() (`tcp_rcv_state_process()` calls `tcp_reset()`).
pub const RESET_RECEIVED: u8 = 2;
/// [`Reset::reason`] where the kernel gives none (before 6.10, and for a RST received).
pub const NO_REASON: u32 = u32::MAX;

/// A RST that a full socket sent or received. One for no socket, a minisock or a request is not
/// told.
///
/// Context: softirq, or the process that closes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Reset {
    /// [`RecordKind::Reset`].
    pub kind: u8,
    /// [`RESET_SENT`] or [`RESET_RECEIVED`].
    pub direction: u8,
    /// `sk_state` at that moment: CLOSE already where close() resets. 0 where it is not told (the
    /// classic `tcp_receive_reset` without BTF).
    pub state: u8,
    /// Always 0.
    pub unused: u8,
    /// `enum sk_rst_reason` as this kernel numbers it, or [`NO_REASON`].
    pub reason: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`.
    pub skaddr: u64,
}

const _: () = assert!(size_of::<Reset>() == 24);

/// A process took a connection from a listener.
///
/// Context: process, in accept().
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Accept {
    /// [`RecordKind::Accept`].
    pub kind: u8,
    /// Always 0.
    pub unused: [u8; 3],
    /// Inode of the network namespace.
    pub netns: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock` of the connection.
    pub skaddr: u64,
    /// As [`Transition::netns_cookie`].
    pub netns_cookie: u64,
    /// Always 0.
    pub unused2: u32,
    /// The task that called accept().
    pub task: Task,
}

const _: () = assert!(size_of::<Accept>() == 88);
const _: () = assert!(names_are_aligned(core::mem::offset_of!(Accept, task)));
