//! The read-only globals of the kernel object, set before it is loaded.
//!
//! The verifier knows the value of a frozen read-only global, so an offset added to a pointer is
//! a constant to it, and a branch on a feature that is off is dead code that it never looks at.
//! That is what makes one object fit every kernel without CO-RE relocations.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// `bpf_get_socket_cookie()` may be called (tracing programs: 5.12).
pub const FEATURE_COOKIE: u32 = 1 << 0;
/// The BTF-typed `tcp_send_reset` has the reason as its third argument (6.10).
pub const FEATURE_RESET_REASON: u32 = 1 << 1;
/// `bpf_get_current_task_btf()` may be called (tracing programs: 5.11).
pub const FEATURE_TASK_BTF: u32 = 1 << 2;

/// Where the fields of the kernel's structures are, in bytes, as `/sys/kernel/btf/vmlinux` says.
/// Every one may be [`ABSENT`] when there is no BTF; then only the classic tracepoint is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct SockOffsets {
    /// `sock.__sk_common.skc_daddr`
    pub skc_daddr: u32,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub skc_rcv_saddr: u32,
    /// `sock.__sk_common.skc_dport`, big-endian there
    pub skc_dport: u32,
    /// `sock.__sk_common.skc_num`, host order; zeroed by `inet_put_port()` before →CLOSE
    pub skc_num: u32,
    /// `sock.__sk_common.skc_family`
    pub skc_family: u32,
    /// `sock.__sk_common.skc_net.net`
    pub skc_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `net.net_cookie` (5.12)
    pub net_cookie: u32,
    /// `sock.__sk_common.skc_v6_daddr`
    pub skc_v6_daddr: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub skc_v6_rcv_saddr: u32,
    /// `sock.__sk_common.skc_flags`
    pub skc_flags: u32,
    /// `sock.__sk_common.skc_state`
    pub skc_state: u32,
    /// `sock.sk_err`
    pub sk_err: u32,
    /// `sock.sk_shutdown`
    pub sk_shutdown: u32,
    /// `sock.sk_lingertime`
    pub sk_lingertime: u32,
    /// `sock.sk_socket`, what a process holds of it
    pub sk_socket: u32,
    /// `sock.sk_protocol`, 16 bits since 5.6
    pub sk_protocol: u32,
    /// `sock.sk_cgrp_data.cgroup`; absent where it is still a tagged word (before 5.15)
    pub sk_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kn_id: u32,
    /// `tcp_sock.inet_conn.icsk_inet.inet_sport`, big-endian; outlives `skc_num`
    pub inet_sport: u32,
    /// `tcp_sock.inet_conn.icsk_inet.local_port_range`, two ports of 16 bits, 0 for none (6.3)
    pub local_port_range: u32,
    /// Number of the bit `SOCK_DEAD` in `skc_flags` (`enum sock_flags`)
    pub sock_dead_bit: u32,
    /// Number of the bit `SOCK_LINGER` in `skc_flags`
    pub sock_linger_bit: u32,
    /// Number of the bit `SOCK_DONE` in it
    pub sock_done_bit: u32,
    /// `tcp_sock.is_mptcp`, a bool; absent without CONFIG_MPTCP
    pub is_mptcp: u32,
}

impl SockOffsets {
    /// No field known: what is set where there is no BTF.
    pub const NONE: Self = Self {
        skc_daddr: ABSENT,
        skc_rcv_saddr: ABSENT,
        skc_dport: ABSENT,
        skc_num: ABSENT,
        skc_family: ABSENT,
        skc_net: ABSENT,
        net_inum: ABSENT,
        net_cookie: ABSENT,
        skc_v6_daddr: ABSENT,
        skc_v6_rcv_saddr: ABSENT,
        skc_flags: ABSENT,
        skc_state: ABSENT,
        sk_err: ABSENT,
        sk_shutdown: ABSENT,
        sk_lingertime: ABSENT,
        sk_socket: ABSENT,
        sk_protocol: ABSENT,
        sk_cgroup: ABSENT,
        cgroup_kn: ABSENT,
        kn_id: ABSENT,
        inet_sport: ABSENT,
        local_port_range: ABSENT,
        sock_dead_bit: ABSENT,
        sock_linger_bit: ABSENT,
        sock_done_bit: ABSENT,
        is_mptcp: ABSENT,
    };
}

/// Where `struct tcp_sock` keeps what a connection did, in bytes: all of them, or none.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TotalsOffsets {
    /// `tcp_sock.bytes_acked`
    pub bytes_acked: u32,
    /// `tcp_sock.bytes_received`
    pub bytes_received: u32,
    /// `tcp_sock.srtt_us`
    pub srtt_us: u32,
    /// `tcp_sock.total_retrans`
    pub total_retrans: u32,
    /// `tcp_sock.rcv_nxt`
    pub rcv_nxt: u32,
    /// `tcp_sock.copied_seq`
    pub copied_seq: u32,
    /// `tcp_sock.write_seq`
    pub write_seq: u32,
    /// `tcp_sock.snd_una`
    pub snd_una: u32,
    /// `tcp_sock.inet_conn.icsk_user_timeout`
    pub user_timeout: u32,
    /// `tcp_sock.linger2`
    pub linger2: u32,
    /// `tcp_sock.snd_nxt`
    pub snd_nxt: u32,
    /// `tcp_sock.segs_out`
    pub segs_out: u32,
    /// The byte in which the bit `tcp_sock.repair` is
    pub repair: u32,
    /// That bit in it
    pub repair_mask: u32,
    /// `sock.sk_err_soft`
    pub err_soft: u32,
    /// `sock.sk_receive_queue.qlen`
    pub receive_qlen: u32,
    /// `tcp_sock.inet_conn.icsk_probes_out`
    pub probes_out: u32,
}

impl TotalsOffsets {
    /// Not known: totals are not told.
    pub const NONE: Self = Self {
        bytes_acked: ABSENT,
        bytes_received: ABSENT,
        srtt_us: ABSENT,
        total_retrans: ABSENT,
        rcv_nxt: ABSENT,
        copied_seq: ABSENT,
        write_seq: ABSENT,
        snd_una: ABSENT,
        user_timeout: ABSENT,
        linger2: ABSENT,
        snd_nxt: ABSENT,
        segs_out: ABSENT,
        repair: ABSENT,
        repair_mask: 0,
        err_soft: ABSENT,
        receive_qlen: ABSENT,
        probes_out: ABSENT,
    };
}

/// Where the record of `tcp:tcp_send_reset` or `tcp:tcp_receive_reset` has its fields, in bytes, as
/// its `format` file says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ResetLayout {
    /// `skaddr`, a pointer
    pub skaddr: u32,
    /// `state`, an int; absent in `tcp_receive_reset`
    pub state: u32,
    /// `reason`, an int; absent before 6.10 and in `tcp_receive_reset`
    pub reason: u32,
    /// `sport`, host order; absent where the addresses are `struct sockaddr`s
    pub sport: u32,
    /// `dport`, likewise
    pub dport: u32,
    /// `saddr_v6`, v4-mapped for IPv4, or `saddr`, a `struct sockaddr` (6.10)
    pub saddr: u32,
    /// `daddr_v6` or `daddr`
    pub daddr: u32,
}

impl ResetLayout {
    /// No layout known: what is set where the classic tracepoint is not used.
    pub const NONE: Self = Self {
        skaddr: 0,
        state: ABSENT,
        reason: ABSENT,
        sport: ABSENT,
        dport: ABSENT,
        saddr: 0,
        daddr: 0,
    };
}

/// Layouts of the classic tracepoints of resets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Resets {
    /// `tcp:tcp_send_reset`
    pub sent: ResetLayout,
    /// `tcp:tcp_receive_reset`
    pub received: ResetLayout,
}

impl Resets {
    /// Not known.
    pub const NONE: Self = Self { sent: ResetLayout::NONE, received: ResetLayout::NONE };
}

/// The way from a task and a file descriptor to the socket, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct FileOffsets {
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.fd`
    pub fdt_fd: u32,
    /// `file.private_data`, of a socket's file its `struct socket`
    pub file_private_data: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `mptcp_sock.first`, the subflow by which an MPTCP connection was accepted; absent without
    /// CONFIG_MPTCP
    pub msk_first: u32,
    /// `ret` in the record of `syscalls:sys_exit_accept` and `sys_exit_accept4`, as their `format`
    /// files say
    pub record_ret: u32,
}

impl FileOffsets {
    /// Not known.
    pub const NONE: Self = Self {
        task_files: ABSENT,
        files_fdt: ABSENT,
        fdt_fd: ABSENT,
        file_private_data: ABSENT,
        socket_file: ABSENT,
        socket_sk: ABSENT,
        msk_first: ABSENT,
        record_ret: ABSENT,
    };
}

/// Where `struct task_struct` says which process a thread belongs to, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TaskOffsets {
    /// `task_struct.group_leader`
    pub group_leader: u32,
    /// `task_struct.comm`, a multiple of eight. Absent: nothing here is read, and names are those of
    /// threads.
    pub comm: u32,
    /// `task_struct.flags`
    pub flags: u32,
    /// `task_struct.start_boottime`, nanoseconds (5.5)
    pub start_boottime: u32,
    /// `task_struct.self_exec_id`
    pub self_exec_id: u32,
}

impl TaskOffsets {
    /// Not known.
    pub const NONE: Self = Self {
        group_leader: ABSENT,
        comm: ABSENT,
        flags: ABSENT,
        start_boottime: ABSENT,
        self_exec_id: ABSENT,
    };
}

/// Where the room for minisocks is told, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BucketOffsets {
    /// `net.ipv4.tcp_death_row.sysctl_max_tw_buckets`; absent where the row is behind a pointer
    /// (5.18 to 6.0)
    pub max: u32,
    /// `….tw_refcount`, one more than there are (6.1), or `….tw_count` (before 5.18)
    pub count: u32,
    /// What an empty row counts: 1 or 0
    pub base: u32,
}

impl BucketOffsets {
    /// Not known.
    pub const NONE: Self = Self { max: ABSENT, count: ABSENT, base: 0 };
}

/// Where the fields of a minisock and of its timer are, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct MinisockOffsets {
    /// `timer_list.function`
    pub timer_function: u32,
    /// `timer_list.expires`
    pub timer_expires: u32,
    /// `inet_timewait_sock.tw_timer`
    pub tw_timer: u32,
    /// `inet_timewait_sock.tw_substate`
    pub tw_substate: u32,
    /// `sock_common.skc_cookie`, which a minisock shares with the full socket
    pub skc_cookie: u32,
    /// `timer_list.entry.pprev`, not NULL while the timer is to run
    pub timer_pprev: u32,
    /// `tcp_timewait_sock.tw_ts_recent_stamp`
    pub tw_ts_recent_stamp: u32,
    /// Always 0.
    pub unused: u32,
    /// Address of `tw_timer_handler()`; 0 matches no timer.
    pub tw_timer_handler: u64,
}

/// The most of a minisock that the kernel side copies, in bytes; the loader refuses offsets past
/// it.
pub const MINISOCK_MAX: usize = 192;

impl MinisockOffsets {
    /// Not known: no timer matches.
    pub const NONE: Self = Self {
        timer_function: ABSENT,
        timer_expires: ABSENT,
        tw_timer: ABSENT,
        tw_substate: ABSENT,
        skc_cookie: ABSENT,
        timer_pprev: ABSENT,
        tw_ts_recent_stamp: ABSENT,
        unused: 0,
        tw_timer_handler: 0,
    };
}

/// Where the fields of the classic tracepoint's record are, in bytes, as its `format` file says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TracepointLayout {
    /// `skaddr`, a pointer
    pub skaddr: u32,
    /// `oldstate`, an int
    pub oldstate: u32,
    /// `newstate`, an int
    pub newstate: u32,
    /// `sport`, host order
    pub sport: u32,
    /// `dport`, host order
    pub dport: u32,
    /// `family`
    pub family: u32,
    /// `protocol`
    pub protocol: u32,
    /// 1 where `protocol` is a `__u8` (before 5.6), else 2
    pub protocol_size: u32,
    /// `saddr_v6`, v4-mapped for IPv4
    pub saddr_v6: u32,
    /// `daddr_v6`
    pub daddr_v6: u32,
}

/// The longest classic record that the kernel side can copy, in bytes; the loader refuses a
/// layout that goes past it. 72 from 4.16 to 7.3.
pub const TRACEPOINT_MAX: usize = 96;

impl TracepointLayout {
    /// No layout known: what is set where the classic tracepoint is not used.
    pub const NONE: Self = Self {
        skaddr: 0,
        oldstate: 0,
        newstate: 0,
        sport: 0,
        dport: 0,
        family: 0,
        protocol: 0,
        protocol_size: 0,
        saddr_v6: 0,
        daddr_v6: 0,
    };
}

/// Keep IPv4, and IPv6 sockets whose ends are v4-mapped.
pub const FILTER_V4: u32 = 1 << 0;
/// Keep IPv6 that is not v4-mapped.
pub const FILTER_V6: u32 = 1 << 1;
/// Keep the local ports marked in the `PORTS` map.
pub const FILTER_LPORT: u32 = 1 << 2;
/// Keep the peer's ports marked in the `PORTS` map.
pub const FILTER_RPORT: u32 = 1 << 3;
/// Keep one network namespace.
pub const FILTER_NETNS: u32 = 1 << 4;
/// Keep connections with either end in a prefix of the `NETS` map.
pub const FILTER_NET: u32 = 1 << 5;

/// The filter in force. Conditions of different kinds must all hold.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Filter {
    /// With [`FILTER_NETNS`], the namespace: its `net_cookie`, or its inode.
    pub netns: u64,
    /// The `FILTER_*` bits; 0 keeps everything.
    pub conditions: u32,
    /// 1 where `netns` is a cookie. An inode becomes another namespace's as soon as it is free.
    pub netns_by_cookie: u32,
}

/// The way from a task to its numbers in each PID namespace, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct PidOffsets {
    /// `task_struct.thread_pid`
    pub thread_pid: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`
    pub pid_numbers: u32,
    /// Length of a `struct upid`
    pub upid_size: u32,
    /// `upid.nr`
    pub upid_nr: u32,
    /// `upid.ns`
    pub upid_ns: u32,
    /// `pid_namespace.ns.inum`
    pub pidns_inum: u32,
}

impl PidOffsets {
    /// Not known.
    pub const NONE: Self = Self {
        thread_pid: ABSENT,
        pid_level: ABSENT,
        pid_numbers: ABSENT,
        upid_size: 0,
        upid_nr: ABSENT,
        upid_ns: ABSENT,
        pidns_inum: ABSENT,
    };
}

/// Whose numbers of processes and threads records have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Pids {
    /// Inode of the reader's PID namespace; 0 where that is the first one, whose numbers the kernel
    /// gives without asking.
    pub reader: u32,
    /// How they are found; absent where they are not to be had: then all are
    /// [foreign](crate::record::FOREIGN).
    pub offsets: PidOffsets,
}

impl Pids {
    /// Those of the first namespace.
    pub const FIRST: Self = Self { reader: 0, offsets: PidOffsets::NONE };
}

/// Words of 64 ports each for one side in the `PORTS` map; the local side first.
pub const PORT_WORDS: u32 = 65536 / 64;

/// When the kernel side wakes the reader before its tick.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Wakeup {
    /// Ask the ring how full it is on every event whose per-CPU number has none of these bits:
    /// a power of two less one. `bpf_ringbuf_query()` on each would cost more than the event.
    pub every_mask: u32,
    /// Wake the reader when at least so many bytes wait.
    pub at_bytes: u32,
}

/// Everything that is fixed at load time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Globals {
    /// Minisocks and their timers. First, with the filter, since they are aligned to eight bytes.
    pub minisock: MinisockOffsets,
    /// The filter.
    pub filter: Filter,
    /// Offsets for the BTF-typed programs.
    pub sock: SockOffsets,
    /// Layout for the classic tracepoint.
    pub tracepoint: TracepointLayout,
    /// When to wake the reader.
    pub wakeup: Wakeup,
    /// The `FEATURE_*` bits.
    pub features: u32,
    /// Room for minisocks.
    pub buckets: BucketOffsets,
    /// What a connection did.
    pub totals: TotalsOffsets,
    /// Layouts of the classic tracepoints of resets.
    pub resets: Resets,
    /// From a file descriptor to its socket.
    pub files: FileOffsets,
    /// From a thread to its process.
    pub task: TaskOffsets,
    /// Numbers of processes.
    pub pids: Pids,
}

impl Globals {
    /// What the object carries until it is loaded: nothing known, nothing filtered.
    pub const UNSET: Self = Self {
        minisock: MinisockOffsets::NONE,
        filter: Filter { netns: 0, conditions: 0, netns_by_cookie: 0 },
        sock: SockOffsets::NONE,
        tracepoint: TracepointLayout::NONE,
        wakeup: Wakeup { every_mask: 0, at_bytes: 0 },
        features: 0,
        buckets: BucketOffsets::NONE,
        totals: TotalsOffsets::NONE,
        resets: Resets::NONE,
        files: FileOffsets::NONE,
        task: TaskOffsets::NONE,
        pids: Pids::FIRST,
    };
}
