//! The only reads of kernel structures. Every offset comes from [`crate::globals`].
//!
//! Here: what the verifier follows by BTF. [`plain`]: memory that it knows nothing about.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use tcptrace_common::{
    filter::Facts,
    globals::{ABSENT, FEATURE_COOKIE},
    record::{TOTALS_HAS_SENT, TOTALS_QUEUE_EMPTY, TOTALS_REPAIR, Totals},
};

use crate::{globals::global, peek::peek};

pub(crate) mod plain;

/// `IPPROTO_TCP`. MPTCP's parent sockets have 262, SCTP's 132.
pub(crate) const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_MPTCP`: what a process holds of an MPTCP connection.
pub(crate) const IPPROTO_MPTCP: u16 = 262;
/// `AF_INET`
pub(crate) const AF_INET: u16 = 2;

const TCP_TIME_WAIT: u8 = 6;
const TCP_NEW_SYN_RECV: u8 = 12;

/// `state` if it is one of a full socket. A minisock (TIME_WAIT) and a request (NEW_SYN_RECV) are
/// smaller structures behind the same pointer type; 0 is what a bad address reads as.
#[inline(always)]
pub(crate) fn full(state: u8) -> Option<u8> {
    (state != 0 && state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV).then_some(state)
}

/// A `struct sock *` that the verifier knows as such (an argument of a BTF-typed program).
///
/// Loads through it are made safe by the kernel: a bad address reads as 0.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*const c_void);

/// Loads a `T` at `offset` bytes behind `base`.
///
/// # Safety
/// `base` must be a pointer that the verifier follows by BTF, and `offset` one that BTF gave for
/// a field of `T`'s size: then the load is checked when the program is loaded.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: the address is that of a field, by the caller's word. `wrapping_add` makes no
    // claim about what lies between.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().wrapping_add(offset as usize).cast()) }
}

/// Reads one field of `$base`, or what is so many bytes behind its beginning (see `load`).
macro_rules! field {
    ($base:expr, $($offset:ident).+ => $ty:ty) => {{
        let (base, offset) = ($base, global!($($offset).+));
        // SAFETY: `base` is typed by BTF and the offset is that of the named field.
        unsafe { $crate::sock::load::<$ty>(base, offset) }
    }};
    ($base:expr, $($offset:ident).+, $behind:literal => $ty:ty) => {{
        let (base, offset) = ($base, global!($($offset).+) + $behind);
        // SAFETY: as above, of a part of the named field.
        unsafe { $crate::sock::load::<$ty>(base, offset) }
    }};
}
pub(crate) use field;

/// The minisock that the timer at this address is in.
#[inline(always)]
pub(crate) fn timers_minisock(timer: u64) -> u64 {
    timer.wrapping_sub(u64::from(global!(minisock.tw_timer)))
}

/// A `struct timer_list *` that the verifier knows as such.
#[derive(Clone, Copy)]
pub(crate) struct Timer(*const c_void);

impl Timer {
    pub(crate) fn new(timer: *const c_void) -> Self {
        Self(timer)
    }

    /// Whether it is that of a minisock.
    #[inline(always)]
    pub(crate) fn is_minisocks(self) -> bool {
        field!(self.0, minisock.timer_function => u64) == global!(minisock.tw_timer_handler)
    }

    /// The minisock that it is in.
    #[inline(always)]
    pub(crate) fn minisock(self) -> u64 {
        timers_minisock(self.0 as u64)
    }
}

impl Sock {
    pub(crate) fn new(sk: *const c_void) -> Self {
        Self(sk)
    }

    pub(crate) fn addr(self) -> u64 {
        self.0 as u64
    }

    /// Whether it is a full socket in the state that it tells: none of the two smaller kinds.
    #[inline(always)]
    pub(crate) fn full_state(self) -> Option<u8> {
        full(field!(self.0, sock.skc_state => u8))
    }

    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        field!(self.0, sock.sk_protocol => u16)
    }

    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        field!(self.0, sock.skc_family => u16)
    }

    /// Local address and peer's, IPv4 as v4-mapped, as four words in memory order.
    #[inline(always)]
    pub(crate) fn addresses(self, family: u16) -> ([u32; 4], [u32; 4]) {
        if family == AF_INET {
            let laddr = field!(self.0, sock.skc_rcv_saddr => u32);
            let raddr = field!(self.0, sock.skc_daddr => u32);
            let mapped = 0xffff_u32.to_be();
            return ([0, 0, mapped, laddr], [0, 0, mapped, raddr]);
        }
        (self.v6(global!(sock.skc_v6_rcv_saddr)), self.v6(global!(sock.skc_v6_daddr)))
    }

    #[inline(always)]
    fn v6(self, offset: u32) -> [u32; 4] {
        [
            // SAFETY: `offset` is that of a `struct in6_addr` in `struct sock`: four words.
            unsafe { load(self.0, offset) },
            // SAFETY: its second word.
            unsafe { load(self.0, offset + 4) },
            // SAFETY: its third word.
            unsafe { load(self.0, offset + 8) },
            // SAFETY: its fourth word.
            unsafe { load(self.0, offset + 12) },
        ]
    }

    /// Local port in host order; 0 while autobind has not chosen one, and again once
    /// `inet_put_port()` has given it back.
    #[inline(always)]
    pub(crate) fn num(self) -> u16 {
        field!(self.0, sock.skc_num => u16)
    }

    /// Local port in host order as the headers carry it: still there at →CLOSE, but stale from
    /// an earlier attempt at CLOSE→SYN_SENT.
    #[inline(always)]
    pub(crate) fn sport(self) -> u16 {
        let Some(tcp) = self.tcp() else { return 0 };
        u16::from_be(field!(tcp, sock.inet_sport => u16))
    }

    /// The same as a `struct tcp_sock *`, if it is a full TCP socket.
    #[inline(always)]
    fn tcp(self) -> Option<*const c_void> {
        // SAFETY: a socket that the verifier knows; the helper checks that it is a full TCP one.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) };
        (!tcp.is_null()).then_some(tcp.cast_const().cast())
    }

    /// Whether it is a subflow of an MPTCP socket.
    #[inline(always)]
    pub(crate) fn is_mptcp(self) -> bool {
        if global!(sock.is_mptcp) == ABSENT {
            return false; // a kernel without CONFIG_MPTCP
        }
        let Some(tcp) = self.tcp() else { return false };
        field!(tcp, sock.is_mptcp => u8) != 0
    }

    /// What the filter looks at, of a connection whose two ends are set: not to be used for the
    /// transitions in which they are being set.
    #[inline(always)]
    pub(crate) fn facts(self) -> Facts {
        let family = self.family();
        let (laddr, raddr) = self.addresses(family);
        let num = self.num();
        Facts {
            old: 0,
            new: 0,
            family,
            netns: self.netns().identity(),
            laddr,
            raddr,
            lport: if num == 0 { self.sport() } else { num },
            rport: self.dport(),
        }
    }

    /// What it did in its life; zeros where BTF did not say where that is.
    #[inline(always)]
    pub(crate) fn totals(self) -> Totals {
        let none = Totals {
            bytes_acked: 0,
            bytes_received: 0,
            srtt_us8: 0,
            retransmits: 0,
            unread: 0,
            unacked: 0,
            user_timeout_ms: 0,
            linger2: 0,
            unsent: 0,
            err_soft: 0,
            probes: 0,
            flags: 0,
        };
        let Some(tcp) = self.tcp() else { return none };
        let rcv_nxt = field!(tcp, totals.rcv_nxt => u32);
        let write_seq = field!(tcp, totals.write_seq => u32);
        let repair = u32::from(field!(tcp, totals.repair => u8));
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        Totals {
            bytes_acked: field!(tcp, totals.bytes_acked => u64),
            bytes_received: field!(tcp, totals.bytes_received => u64),
            srtt_us8: field!(tcp, totals.srtt_us => u32),
            retransmits: field!(tcp, totals.total_retrans => u32),
            unread: rcv_nxt.wrapping_sub(field!(tcp, totals.copied_seq => u32)),
            unacked: write_seq.wrapping_sub(field!(tcp, totals.snd_una => u32)),
            user_timeout_ms: field!(tcp, totals.user_timeout => u32),
            linger2: field!(tcp, totals.linger2 => i32),
            unsent: write_seq.wrapping_sub(field!(tcp, totals.snd_nxt => u32)),
            err_soft: field!(self.0, totals.err_soft => i32) as u16,
            probes: field!(tcp, totals.probes_out => u8),
            flags: bit(repair & global!(totals.repair_mask) != 0, TOTALS_REPAIR)
                | bit(field!(tcp, totals.segs_out => u32) != 0, TOTALS_HAS_SENT)
                | bit(field!(self.0, totals.receive_qlen => u32) == 0, TOTALS_QUEUE_EMPTY),
        }
    }

    /// Whether it chooses a local port from a range of its own (`IP_LOCAL_PORT_RANGE`).
    #[inline(always)]
    pub(crate) fn has_own_ports(self) -> bool {
        if global!(sock.local_port_range) == ABSENT {
            return false;
        }
        // A copy: with bpf_skc_to_tcp_sock() here 6.1 refuses the program (EINVAL, with an empty log),
        // though the constant above removes it there. The socket is a full one in these transitions.
        peek::<u32>(self.addr(), global!(sock.local_port_range)) != 0
    }

    /// What it points to. To be asked once, before anything that the verifier walks on more than
    /// one path: for each pointer that it sees loaded out of a trusted structure, kernels up to
    /// 6.18 search all of BTF (`btf_nested_type_is_trusted()`), a millisecond at a time.
    #[inline(always)]
    pub(crate) fn pointers(self) -> Pointers {
        Pointers {
            net: self.pointer(global!(sock.skc_net)),
            cgroup: self.pointer(global!(sock.sk_cgroup)),
            // As a number, so that no path is left for it to be followed.
            socket: field!(self.0, sock.sk_socket => u64),
        }
    }

    #[inline(always)]
    fn pointer(self, offset: u32) -> *const c_void {
        if offset == ABSENT {
            return core::ptr::null();
        }
        // SAFETY: `self.0` is typed by BTF and the offset is that of a pointer in it.
        unsafe { load(self.0, offset) }
    }

    #[inline(always)]
    pub(crate) fn dport(self) -> u16 {
        u16::from_be(field!(self.0, sock.skc_dport => u16))
    }

    #[inline(always)]
    pub(crate) fn err(self) -> u16 {
        field!(self.0, sock.sk_err => i32) as u16
    }

    #[inline(always)]
    pub(crate) fn shutdown(self) -> u8 {
        field!(self.0, sock.sk_shutdown => u8)
    }

    /// (`SOCK_DEAD`, `SOCK_DONE`, `SOCK_LINGER`)
    #[inline(always)]
    pub(crate) fn dead_done_and_linger(self) -> (bool, bool, bool) {
        let flags = field!(self.0, sock.skc_flags => u64);
        let bit = |number: u32| flags & (1_u64 << (number & 63)) != 0;
        (
            bit(global!(sock.sock_dead_bit)),
            bit(global!(sock.sock_done_bit)),
            bit(global!(sock.sock_linger_bit)),
        )
    }

    /// `sk_lingertime` in jiffies, saturated to 32 bits.
    #[inline(always)]
    pub(crate) fn linger_jiffies(self) -> u32 {
        let jiffies = field!(self.0, sock.sk_lingertime => u64);
        if jiffies > u64::from(u32::MAX) { u32::MAX } else { jiffies as u32 }
    }

    /// Its network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> Netns {
        Netns::read(self.pointer(global!(sock.skc_net)))
    }

    /// The socket's cookie, assigned now if it had none; 0 where the kernel does not tell.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        if global!(features) & FEATURE_COOKIE == 0 {
            return 0;
        }
        // SAFETY: a socket that the verifier knows.
        unsafe { bpf_get_socket_cookie(self.0.cast_mut()) }
    }
}

/// What a socket points to, see [`Sock::pointers`].
#[derive(Clone, Copy)]
pub(crate) struct Pointers {
    net: *const c_void,
    cgroup: *const c_void,
    socket: u64,
}

impl Pointers {
    /// Its network namespace.
    #[inline(always)]
    pub(crate) fn netns(&self) -> Netns {
        Netns::read(self.net)
    }

    /// Whether the namespace has no room for one more minisock, as `inet_twsk_alloc()` asks it;
    /// false where that cannot be read.
    #[inline(always)]
    pub(crate) fn buckets_full(&self) -> bool {
        if global!(buckets.max) == ABSENT || global!(sock.skc_net) == ABSENT {
            return false;
        }
        let count = field!(self.net, buckets.count => u32).wrapping_sub(global!(buckets.base));
        count as i32 >= field!(self.net, buckets.max => i32)
    }

    /// Id of the socket's cgroup (v2); 0 where this kernel keeps it in a form not known here.
    #[inline(always)]
    pub(crate) fn cgroup(&self) -> u64 {
        if global!(sock.sk_cgroup) == ABSENT {
            return 0;
        }
        let kn = field!(self.cgroup, sock.cgroup_kn => *const c_void);
        field!(kn, sock.kn_id => u64)
    }

    /// No process has ever held it: there is no `struct socket`, and it was not taken away.
    #[inline(always)]
    pub(crate) fn unaccepted(&self, dead: bool) -> bool {
        !dead && self.socket == 0
    }
}

/// A network namespace.
#[derive(Clone, Copy)]
pub(crate) struct Netns {
    /// Its inode, which the next namespace may get once it is gone; 0 where the kernel has no
    /// namespaces (`CONFIG_NET_NS`), or where it is not told.
    pub(crate) inode: u32,
    /// Its cookie, which no other ever gets; 0 where the kernel has none.
    pub(crate) cookie: u64,
}

impl Netns {
    /// None is told.
    pub(crate) const UNKNOWN: Self = Self { inode: 0, cookie: 0 };

    /// Of a `struct net *` out of a socket.
    #[inline(always)]
    fn read(net: *const c_void) -> Self {
        if global!(sock.skc_net) == ABSENT {
            return Self::UNKNOWN;
        }
        let cookie = match global!(sock.net_cookie) {
            ABSENT => 0,
            _ => field!(net, sock.net_cookie => u64),
        };
        Self { inode: field!(net, sock.net_inum => u32), cookie }
    }

    /// What the filter compares.
    #[inline(always)]
    pub(crate) fn identity(self) -> u64 {
        if global!(filter.netns_by_cookie) != 0 { self.cookie } else { self.inode.into() }
    }
}
