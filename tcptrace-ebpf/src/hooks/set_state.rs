//! `sock:inet_sock_set_state`, the two ways to attach to it.
//!
//! The tracepoint itself is the same from 4.16 to 7.3. The BTF-typed way sees the socket; the
//! classic one sees only what the tracepoint's own record has.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_ns,
        bpf_probe_read_kernel,
    },
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use aya_log_ebpf::error;
use tcptrace_common::{
    counters::Hook,
    filter::{Facts, Verdict, verdict},
    globals::TRACEPOINT_MAX,
    record::{
        COMM_LEN, FLAG_DEAD, FLAG_KEY_UNKNOWN, FLAG_LINGER, FLAG_SOCK, RecordKind, Transition,
    },
};

use crate::{
    emit::Counters,
    filter::InForce,
    globals::global,
    sock::{IPPROTO_TCP, Sock},
};

const TCP_SYN_SENT: u8 = 2;
const TCP_CLOSE: u8 = 7;

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_btf(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::new(ctx.arg::<*const c_void>(0));
    if sk.protocol() != IPPROTO_TCP {
        return 0;
    }
    let Some(counters) = Counters::seen(Hook::SetState) else { return 0 };
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    let family = sk.family();
    let (laddr, raddr) = sk.addresses(family);
    let mut lport = sk.num();
    if lport == 0 && !(old == TCP_CLOSE && new == TCP_SYN_SENT) {
        lport = sk.sport();
    }
    let facts =
        Facts { old, new, family, netns: sk.netns(), laddr, raddr, lport, rport: sk.dport() };
    let verdict = verdict(&InForce, &facts);
    if verdict == Verdict::Drop {
        return filtered(counters);
    }
    counters.emit(|record: *mut Transition| {
        let (dead, linger) = sk.dead_and_linger();
        let flags = FLAG_SOCK | flag(dead, FLAG_DEAD) | flag(linger, FLAG_LINGER);
        write(record, &facts, verdict, flags, sk.addr());
        let put = Put(record);
        put.shutdown(sk.shutdown());
        put.sk_err(sk.err());
        put.cookie(sk.cookie());
        put.cgroup(sk.cgroup());
        put.linger_jiffies(sk.linger_jiffies());
    });
    0
}

/// The record that `/sys/kernel/tracing/events/sock/inet_sock_set_state/format` describes.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub fn set_state_classic(ctx: TracePointContext) -> u32 {
    let mut raw = core::mem::MaybeUninit::<[u64; TRACEPOINT_MAX / 8]>::uninit();
    // SAFETY: the destination is as long as told; the helper fills all of it or, on a fault,
    // clears it. The record is followed by more of the same per-CPU buffer.
    let fault = unsafe {
        bpf_probe_read_kernel(raw.as_mut_ptr().cast(), TRACEPOINT_MAX as u32, ctx.as_ptr())
    };
    if fault != 0 {
        error!(&ctx, "inet_sock_set_state: the tracepoint's record cannot be read: {}", fault);
        return 0;
    }
    let raw = Raw(raw.as_ptr().cast());
    let protocol = if global!(tracepoint.protocol_size) == 1 {
        u16::from(raw.at::<u8>(global!(tracepoint.protocol)))
    } else {
        raw.at::<u16>(global!(tracepoint.protocol))
    };
    if protocol != IPPROTO_TCP {
        return 0;
    }
    let Some(counters) = Counters::seen(Hook::SetState) else { return 0 };
    let old = raw.at::<i32>(global!(tracepoint.oldstate)) as u8;
    let new = raw.at::<i32>(global!(tracepoint.newstate)) as u8;
    // inet_sport is stale here when an earlier connect() on the socket failed: not a fact.
    let lport = if old == TCP_CLOSE && new == TCP_SYN_SENT {
        0
    } else {
        raw.at::<u16>(global!(tracepoint.sport))
    };
    let facts = Facts {
        old,
        new,
        family: raw.at(global!(tracepoint.family)),
        netns: 0,
        laddr: raw.at(global!(tracepoint.saddr_v6)),
        raddr: raw.at(global!(tracepoint.daddr_v6)),
        lport,
        rport: raw.at(global!(tracepoint.dport)),
    };
    let verdict = verdict(&InForce, &facts);
    if verdict == Verdict::Drop {
        filtered(counters);
        return 0;
    }
    counters.emit(|record: *mut Transition| {
        write(record, &facts, verdict, 0, raw.at(global!(tracepoint.skaddr)));
        let put = Put(record);
        put.shutdown(0);
        put.sk_err(0);
        put.cookie(0);
        put.cgroup(0);
        put.linger_jiffies(0);
    });
    0
}

#[inline(always)]
fn filtered(counters: Counters) -> i32 {
    counters.filtered();
    0
}

#[inline(always)]
fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

/// Writes what both ways know. Together with the five setters after it, every byte.
#[inline(always)]
fn write(record: *mut Transition, facts: &Facts, verdict: Verdict, flags: u8, skaddr: u64) {
    let put = Put(record);
    put.kind(RecordKind::Transition as u8);
    put.old(facts.old);
    put.new(facts.new);
    put.family(facts.family as u8);
    put.flags(flags | flag(verdict == Verdict::Unknown, FLAG_KEY_UNKNOWN));
    // SAFETY: no arguments.
    put.mono_ns(unsafe { bpf_ktime_get_ns() });
    put.skaddr(skaddr);
    put.laddr(&facts.laddr);
    put.raddr(&facts.raddr);
    put.lport(facts.lport);
    put.rport(facts.rport);
    put.netns(facts.netns);
    // SAFETY: no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
    put.tgid((pid_tgid >> 32) as u32);
    put.tid(pid_tgid as u32);
    // SAFETY: no arguments.
    put.uid(unsafe { bpf_get_current_uid_gid() } as u32);
    put.comm();
}

/// Writes the fields of a record in the ring, which is not initialised when it is reserved.
struct Put(*mut Transition);

macro_rules! setters {
    ($($name:ident: $ty:ty),* $(,)?) => {
        $(#[inline(always)]
        fn $name(&self, value: $ty) {
            // SAFETY: the record was reserved, is aligned to eight bytes and not shared yet.
            unsafe { (&raw mut (*self.0).$name).write(value) };
        })*
    };
}

impl Put {
    setters! {
        kind: u8, old: u8, new: u8, family: u8, flags: u8, shutdown: u8, sk_err: u16,
        mono_ns: u64, skaddr: u64, cookie: u64, cgroup: u64,
        netns: u32, tgid: u32, tid: u32, uid: u32, linger_jiffies: u32,
        lport: u16, rport: u16,
    }

    #[inline(always)]
    fn laddr(&self, addr: &[u32; 4]) {
        // SAFETY: as the setters; the field is 16 bytes, at an offset divisible by 4.
        unsafe { (&raw mut (*self.0).laddr).cast::<[u32; 4]>().write(*addr) };
    }

    #[inline(always)]
    fn raddr(&self, addr: &[u32; 4]) {
        // SAFETY: as the setters; the field is 16 bytes, at an offset divisible by 4.
        unsafe { (&raw mut (*self.0).raddr).cast::<[u32; 4]>().write(*addr) };
    }

    /// The name of the task on the CPU; the helper clears it when it fails.
    #[inline(always)]
    fn comm(&self) {
        // SAFETY: as the setters: a field of the reserved record.
        let comm = unsafe { &raw mut (*self.0).comm };
        // SAFETY: the buffer is as long as told.
        unsafe { bpf_get_current_comm(comm.cast(), COMM_LEN as u32) };
    }
}

/// A copy of the tracepoint's record on the stack.
struct Raw(*const u8);

impl Raw {
    #[inline(always)]
    fn at<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the loader refuses a layout with a field that reaches past the copy, and the
        // verifier refuses the program if it did not. Fields are aligned in the record.
        unsafe { self.0.wrapping_add(offset as usize).cast::<T>().read_volatile() }
    }
}
