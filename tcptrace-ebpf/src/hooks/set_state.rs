//! `sock:inet_sock_set_state`, the two ways to attach to it.
//!
//! The tracepoint itself is the same from 4.16 to 7.3. The BTF-typed way sees the socket; the
//! classic one sees only what the tracepoint's own record has.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, TracePointContext},
};
use aya_log_ebpf::error;
use tcptrace_common::{
    counters::Hook,
    filter::{Facts, Verdict, verdict},
    globals::{ABSENT, TRACEPOINT_MAX},
    record::{
        Closed, FLAG_BUCKETS_FULL, FLAG_DEAD, FLAG_KEY_UNKNOWN, FLAG_LINGER, FLAG_OWN_PORTS,
        FLAG_PEER_FIN, FLAG_SOCK, FLAG_UNACCEPTED, IS_MPTCP, RecordKind, SHUTDOWN_MASK, Transition,
    },
};

use crate::{
    emit::{Counters, add_one},
    filter::InForce,
    globals::global,
    hooks::PASS_ON,
    maps::GUARD,
    sock::{IPPROTO_TCP, Netns, Pointers, Sock},
    task::Current,
};

mod ran;

const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const TCP_CLOSING: u8 = 11;

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_btf(ctx: BtfTracePointContext) -> i32 {
    let Some(guard) = GUARD.get_ptr_mut(0) else { return 0 };
    ran::note(guard, &ctx);
    tell(&ctx, 0);
    0
}

/// The same where [`set_state_btf`] was interrupted, and the kernel does not run it again: by a
/// softirq, or by a task that is scheduled there.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn set_state_btf_nested(ctx: BtfTracePointContext) -> i32 {
    let Some(guard) = GUARD.get_ptr_mut(0) else { return 0 };
    if ran::take_note(guard, &ctx) {
        return 0;
    }
    // SAFETY: a field of this CPU's element, which is there as long as the program runs.
    let stood_in = unsafe { &raw mut (*guard).stood_in };
    // SAFETY: aligned, and nothing else writes it.
    unsafe { add_one(stood_in) };
    tell(&ctx, 1);
    0
}

/// Tells of one transition, as the `program`th of the hook.
#[inline(always)]
fn tell(ctx: &BtfTracePointContext, program: u32) {
    let sk = Sock::new(ctx.arg::<*const c_void>(0));
    if sk.protocol() != IPPROTO_TCP {
        return;
    }
    let Some(counters) = Counters::seen_by(Hook::SetState, program) else { return };
    let pointers = sk.pointers();
    let task = Current::ask();
    let old = ctx.arg::<i32>(1) as u8;
    let new = ctx.arg::<i32>(2) as u8;
    let family = sk.family();
    let (laddr, raddr) = sk.addresses(family);
    let mut lport = sk.num();
    if lport == 0 && !(old == TCP_CLOSE && new == TCP_SYN_SENT) {
        lport = sk.sport();
    }
    let netns = pointers.netns();
    let facts =
        Facts { old, new, family, netns: netns.identity(), laddr, raddr, lport, rport: sk.dport() };
    let verdict = verdict(&InForce, &facts);
    if verdict == Verdict::Drop {
        return counters.filtered();
    }
    if new == TCP_CLOSE && old != TCP_LISTEN && global!(totals.bytes_acked) != ABSENT {
        counters.emit(|record: *mut Closed| {
            // SAFETY: a field of the reserved record, which is aligned and not shared yet.
            let transition = unsafe { &raw mut (*record).transition };
            write_btf(transition, sk, &pointers, task, netns, &facts, verdict);
            Fields(transition).put_kind(RecordKind::Closed as u8);
            // SAFETY: as above.
            let totals = unsafe { &raw mut (*record).totals };
            // SAFETY: as above.
            unsafe { totals.write(sk.totals()) };
        });
    } else {
        counters.emit(|record: *mut Transition| {
            write_btf(record, sk, &pointers, task, netns, &facts, verdict);
        });
    }
}

/// Writes a whole transition of a socket that BTF shows.
#[inline(always)]
fn write_btf(
    record: *mut Transition,
    sk: Sock,
    pointers: &Pointers,
    task: Current,
    netns: Netns,
    facts: &Facts,
    verdict: Verdict,
) {
    let &Facts { old, new, .. } = facts;
    let (dead, done, linger) = sk.dead_done_and_linger();
    // Only here may tcp_time_wait() have found no room.
    let full =
        new == TCP_CLOSE && (old == TCP_FIN_WAIT2 || old == TCP_CLOSING) && pointers.buckets_full();
    let unaccepted = new == TCP_CLOSE && pointers.unaccepted(dead);
    // Where connect() begins, and where it ends without a port.
    let own_ports = ((old == TCP_CLOSE && new == TCP_SYN_SENT)
        || (old == TCP_SYN_SENT && new == TCP_CLOSE))
        && sk.has_own_ports();
    let flags = FLAG_SOCK
        | flag(dead, FLAG_DEAD)
        | flag(done, FLAG_PEER_FIN)
        | flag(linger, FLAG_LINGER)
        | flag(full, FLAG_BUCKETS_FULL)
        | flag(unaccepted, FLAG_UNACCEPTED)
        | flag(own_ports, FLAG_OWN_PORTS);
    write(record, task, netns, facts, verdict, flags, sk.addr());
    let fields = Fields(record);
    fields.put_shutdown(sk.shutdown() & SHUTDOWN_MASK | flag(sk.is_mptcp(), IS_MPTCP));
    fields.put_sk_err(sk.err());
    // Up to 6.12 a child's own cookie is set right after this event, over any given here.
    let unborn = old == TCP_LISTEN && new == TCP_SYN_RECV && facts.rport == 0;
    fields.put_cookie(if unborn { 0 } else { sk.cookie() });
    fields.put_cgroup(pointers.cgroup());
    fields.put_linger_jiffies(sk.linger_jiffies());
}

/// The record that `/sys/kernel/tracing/events/sock/inet_sock_set_state/format` describes.
///
/// Not by aya's `#[tracepoint]`, which makes every program return 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint/sock/inet_sock_set_state")]
pub extern "C" fn set_state_classic(ctx: *mut c_void) -> u32 {
    let ctx = TracePointContext::new(ctx);
    let mut raw = core::mem::MaybeUninit::<[u64; TRACEPOINT_MAX / 8]>::uninit();
    // SAFETY: the destination is as long as told; the helper fills all of it or, on a fault,
    // clears it. The record is followed by more of the same per-CPU buffer.
    let fault = unsafe {
        bpf_probe_read_kernel(raw.as_mut_ptr().cast(), TRACEPOINT_MAX as u32, ctx.as_ptr())
    };
    if fault != 0 {
        error!(&ctx, "inet_sock_set_state: the tracepoint's record cannot be read: {}", fault);
        return PASS_ON;
    }
    let raw = Raw(raw.as_ptr().cast());
    let protocol = if global!(tracepoint.protocol_size) == 1 {
        u16::from(raw.at::<u8>(global!(tracepoint.protocol)))
    } else {
        raw.at::<u16>(global!(tracepoint.protocol))
    };
    if protocol != IPPROTO_TCP {
        return PASS_ON;
    }
    let Some(counters) = Counters::seen(Hook::SetState) else { return PASS_ON };
    let task = Current::ask();
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
        counters.filtered();
        return PASS_ON;
    }
    counters.emit(|record: *mut Transition| {
        let skaddr = raw.at(global!(tracepoint.skaddr));
        write(record, task, Netns::UNKNOWN, &facts, verdict, 0, skaddr);
        let fields = Fields(record);
        fields.put_shutdown(0);
        fields.put_sk_err(0);
        fields.put_cookie(0);
        fields.put_cgroup(0);
        fields.put_linger_jiffies(0);
    });
    PASS_ON
}

#[inline(always)]
fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

/// Writes what both ways know. Together with the five setters after it, every byte.
#[inline(always)]
fn write(
    record: *mut Transition,
    task: Current,
    netns: Netns,
    facts: &Facts,
    verdict: Verdict,
    flags: u8,
    skaddr: u64,
) {
    let fields = Fields(record);
    fields.put_kind(RecordKind::Transition as u8);
    fields.put_old(facts.old);
    fields.put_new(facts.new);
    fields.put_family(facts.family as u8);
    fields.put_flags(flags | flag(verdict == Verdict::Unknown, FLAG_KEY_UNKNOWN));
    // SAFETY: no arguments.
    fields.put_mono_ns(unsafe { bpf_ktime_get_ns() });
    fields.put_skaddr(skaddr);
    fields.put_laddr(facts.laddr);
    fields.put_raddr(facts.raddr);
    fields.put_lport(facts.lport);
    fields.put_rport(facts.rport);
    fields.put_netns(netns.inode);
    fields.put_netns_cookie(netns.cookie);
    // SAFETY: a field of the reserved record, which is aligned and not shared yet.
    task.write(unsafe { &raw mut (*record).task });
}

/// Writes the fields of a record in the ring, which is not initialised when it is reserved.
struct Fields(*mut Transition);

macro_rules! setters {
    ($($setter:ident => $field:ident: $ty:ty),* $(,)?) => {
        $(#[inline(always)]
        fn $setter(&self, value: $ty) {
            // SAFETY: the record was reserved, is aligned to eight bytes and not shared yet.
            let field = unsafe { &raw mut (*self.0).$field };
            // SAFETY: as above; the cast is between types of one size and, at its offset, of
            // sufficient alignment.
            unsafe { field.cast::<$ty>().write(value) };
        })*
    };
}

impl Fields {
    setters! {
        put_kind => kind: u8,
        put_old => old: u8,
        put_new => new: u8,
        put_family => family: u8,
        put_flags => flags: u8,
        put_shutdown => shutdown: u8,
        put_sk_err => sk_err: u16,
        put_mono_ns => mono_ns: u64,
        put_skaddr => skaddr: u64,
        put_cookie => cookie: u64,
        put_cgroup => cgroup: u64,
        put_netns_cookie => netns_cookie: u64,
        put_netns => netns: u32,
        put_linger_jiffies => linger_jiffies: u32,
        put_lport => lport: u16,
        put_rport => rport: u16,
        put_laddr => laddr: [u32; 4],
        put_raddr => raddr: [u32; 4],
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
