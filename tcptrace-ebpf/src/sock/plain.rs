//! Reads of memory that the verifier knows nothing about: copies, by `bpf_probe_read_kernel()`.

use core::{mem::MaybeUninit, ops::Deref};

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};
use tcptrace_common::{
    filter::Facts,
    globals::{ABSENT, MINISOCK_MAX},
    record::{TIMESTAMPS_NONE, TIMESTAMPS_SEEN, TIMESTAMPS_UNKNOWN},
};

use super::{AF_INET, IPPROTO_MPTCP, Netns};
use crate::{globals::global, peek::peek};

/// Address of the `struct sock` behind a file descriptor of the task on the CPU; 0 if it is not a
/// socket's, or no more.
///
/// The table has room for it, since it was just handed out. But no reference is held: another
/// thread may have closed and opened it anew meanwhile. So file and socket must name each other.
#[inline(always)]
pub(crate) fn socket_of_fd(fd: u32) -> u64 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = peek(task, global!(files.task_files));
    let fdt: u64 = peek(files, global!(files.files_fdt));
    let array: u64 = peek(fdt, global!(files.fdt_fd));
    let file: u64 = peek(array.wrapping_add(8 * u64::from(fd)), 0);
    let socket: u64 = peek(file, global!(files.file_private_data));
    if file == 0 || peek::<u64>(socket, global!(files.socket_file)) != file {
        return 0;
    }
    peek(socket, global!(files.socket_sk))
}

/// Of an MPTCP socket, the subflow by which it was accepted; of any other, itself.
///
/// `accept()` hands the MPTCP socket out (`mptcp_accept()`), and what is traced are its subflows.
#[inline(always)]
pub(crate) fn first_subflow(addr: u64) -> u64 {
    if global!(files.msk_first) == ABSENT
        || peek::<u16>(addr, global!(sock.sk_protocol)) != IPPROTO_MPTCP
    {
        return addr;
    }
    peek(addr, global!(files.msk_first))
}

/// A copy of a `struct sock_common` and what comes next: what full sockets and minisocks share.
#[derive(Clone, Copy)]
pub(crate) struct Common<'a> {
    addr: u64,
    copy: &'a MinisockCopy,
}

/// A copy of a `struct inet_timewait_sock`. The verifier gives no typed pointer to one from its
/// timer.
#[derive(Clone, Copy)]
pub(crate) struct Minisock<'a>(Common<'a>);

impl<'a> Deref for Minisock<'a> {
    type Target = Common<'a>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Where the copy goes: the caller's, so that it is on the stack only once.
pub(crate) type MinisockCopy = MaybeUninit<[u64; MINISOCK_MAX / 8]>;

impl<'a> Minisock<'a> {
    /// Copies the minisock at `addr`; `None` if that is no readable memory.
    #[inline(always)]
    pub(crate) fn read(addr: u64, copy: &'a mut MinisockCopy) -> Option<Self> {
        Common::read(addr, copy).map(Self)
    }

    #[inline(always)]
    pub(crate) fn substate(&self) -> u8 {
        self.at(global!(minisock.tw_substate))
    }

    /// `tw_timer.expires`, in jiffies.
    #[inline(always)]
    pub(crate) fn expires(&self) -> u64 {
        self.at(global!(minisock.tw_timer) + global!(minisock.timer_expires))
    }

    /// Whether its peer has sent TCP timestamps, as a record has it.
    #[inline(always)]
    pub(crate) fn timestamps(&self) -> u8 {
        let offset = global!(minisock.tw_ts_recent_stamp);
        if offset == ABSENT {
            return TIMESTAMPS_UNKNOWN;
        }
        match peek::<u32>(self.addr, offset) {
            0 => TIMESTAMPS_NONE,
            _ => TIMESTAMPS_SEEN,
        }
    }

    /// Whether its timer is to run (`timer_pending()`).
    #[inline(always)]
    pub(crate) fn timer_is_pending(&self) -> bool {
        let pprev: u64 = self.at(global!(minisock.tw_timer) + global!(minisock.timer_pprev));
        pprev != 0
    }
}

impl<'a> Common<'a> {
    /// Copies the socket at `addr`; `None` if that is no readable memory.
    #[inline(always)]
    pub(crate) fn read(addr: u64, copy: &'a mut MinisockCopy) -> Option<Self> {
        // SAFETY: the destination is as long as told, and the helper checks the source.
        let fault = unsafe {
            bpf_probe_read_kernel(copy.as_mut_ptr().cast(), MINISOCK_MAX as u32, addr as *const _)
        };
        (fault == 0).then_some(Self { addr, copy })
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the loader refuses offsets that reach past the copy, and the verifier refuses
        // the program if it did not. Fields are aligned in the structure.
        unsafe {
            self.copy
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(offset as usize)
                .cast::<T>()
                .read_volatile()
        }
    }

    pub(crate) fn addr(&self) -> u64 {
        self.addr
    }

    #[inline(always)]
    pub(crate) fn family(&self) -> u16 {
        self.at(global!(sock.skc_family))
    }

    #[inline(always)]
    pub(crate) fn cookie(&self) -> u64 {
        self.at(global!(minisock.skc_cookie))
    }

    #[inline(always)]
    pub(crate) fn lport(&self) -> u16 {
        self.at(global!(sock.skc_num))
    }

    #[inline(always)]
    pub(crate) fn rport(&self) -> u16 {
        u16::from_be(self.at(global!(sock.skc_dport)))
    }

    /// As [`Sock::addresses`].
    #[inline(always)]
    pub(crate) fn addresses(&self, family: u16) -> ([u32; 4], [u32; 4]) {
        if family == AF_INET {
            let mapped = 0xffff_u32.to_be();
            let laddr = self.at(global!(sock.skc_rcv_saddr));
            let raddr = self.at(global!(sock.skc_daddr));
            return ([0, 0, mapped, laddr], [0, 0, mapped, raddr]);
        }
        (self.at(global!(sock.skc_v6_rcv_saddr)), self.at(global!(sock.skc_v6_daddr)))
    }

    /// Its network namespace.
    #[inline(always)]
    pub(crate) fn netns(&self) -> Netns {
        if global!(sock.skc_net) == ABSENT {
            return Netns::UNKNOWN;
        }
        let net: u64 = self.at(global!(sock.skc_net));
        let inode = peek(net, global!(sock.net_inum));
        let cookie = global!(sock.net_cookie);
        Netns { inode, cookie: if cookie == ABSENT { 0 } else { peek(net, cookie) } }
    }

    /// `sk_protocol`, of a full socket.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u16 {
        peek(self.addr, global!(sock.sk_protocol))
    }

    /// As [`super::Sock::full_state`].
    #[inline(always)]
    pub(crate) fn full_state(&self) -> Option<u8> {
        super::full(self.at(global!(sock.skc_state)))
    }

    /// As [`super::Sock::facts`].
    #[inline(always)]
    pub(crate) fn facts(&self) -> Facts {
        let family = self.family();
        let (laddr, raddr) = self.addresses(family);
        let num = self.lport();
        let sport = || u16::from_be(peek(self.addr, global!(sock.inet_sport)));
        Facts {
            old: 0,
            new: 0,
            family,
            netns: self.netns().identity(),
            laddr,
            raddr,
            lport: if num == 0 { sport() } else { num },
            rport: self.rport(),
        }
    }
}
