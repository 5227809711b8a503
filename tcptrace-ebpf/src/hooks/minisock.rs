//! The records about minisocks, whichever hook tells of them.

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_stack, bpf_jiffies64, bpf_ktime_get_ns},
};
use tcptrace_common::{
    counters::Hook,
    filter::{Facts, Verdict, verdict},
    record::{self, FRAMES, MinisockStopped, RecordKind, TIMESTAMPS_UNKNOWN, TimerEvent},
};

use crate::{
    emit::Counters,
    filter::InForce,
    pids,
    sock::{
        Netns,
        plain::{Minisock, MinisockCopy},
    },
};

pub(super) const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;

/// Tells of the minisock at `addr`.
#[inline(always)]
pub(super) fn tell(addr: u64, event: TimerEvent) {
    let mut copy = MinisockCopy::uninit();
    if let Some(minisock) = Minisock::read(addr, &mut copy) {
        emit(minisock, event, 0);
    }
}

/// Tells of a minisock.
#[inline(always)]
pub(super) fn emit(minisock: Minisock<'_>, event: TimerEvent, flags: u8) {
    emit_expiring(minisock, event, flags, minisock.expires());
}

/// As [`emit`], with another time for the timer than it has yet.
#[inline(always)]
pub(super) fn emit_expiring(minisock: Minisock<'_>, event: TimerEvent, flags: u8, expires: u64) {
    let Some(counters) = Counters::seen(Hook::TimeWait) else { return };
    let netns = minisock.netns();
    let Some(facts) = facts(minisock, netns) else { return counters.filtered() };
    counters.emit(|out: *mut record::Minisock| {
        write(out, minisock, netns, &facts, event, RecordKind::Minisock, flags, expires);
    });
}

/// As [`emit`], with who is on the stack.
#[inline(always)]
pub(super) fn emit_with_stack(
    ctx: &impl EbpfContext,
    minisock: Minisock<'_>,
    event: TimerEvent,
    flags: u8,
) {
    let Some(counters) = Counters::seen(Hook::TimeWait) else { return };
    let netns = minisock.netns();
    let Some(facts) = facts(minisock, netns) else { return counters.filtered() };
    counters.emit(|out: *mut MinisockStopped| {
        let kind = RecordKind::MinisockStopped;
        write(out.cast(), minisock, netns, &facts, event, kind, flags, minisock.expires());
        // SAFETY: a field of the reserved record, which is aligned and not shared yet.
        let frames = unsafe { &raw mut (*out).frames };
        // SAFETY: as above. The helper does not clear what it does not fill.
        unsafe { frames.write([0; FRAMES]) };
        // SAFETY: the context is the program's own and the buffer as long as told.
        unsafe { bpf_get_stack(ctx.as_ptr(), frames.cast(), (8 * FRAMES) as u32, 0) };
    });
}

/// What the filter looks at, if the minisock passes it.
#[inline(always)]
fn facts(minisock: Minisock<'_>, netns: Netns) -> Option<Facts> {
    let family = minisock.family();
    let (laddr, raddr) = minisock.addresses(family);
    let facts = Facts {
        old: TCP_TIME_WAIT,
        new: TCP_CLOSE,
        family,
        netns: netns.identity(),
        laddr,
        raddr,
        lport: minisock.lport(),
        rport: minisock.rport(),
    };
    (verdict(&InForce, &facts) != Verdict::Drop).then_some(facts)
}

/// Writes a whole record; every byte, since the kernel does not clear it.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a structure of them would be built on the stack")]
fn write(
    out: *mut record::Minisock,
    minisock: Minisock<'_>,
    netns: Netns,
    facts: &Facts,
    event: TimerEvent,
    kind: RecordKind,
    flags: u8,
    expires: u64,
) {
    macro_rules! put {
        ($($field:ident: $value:expr),* $(,)?) => {
            $({
                let value = $value;
                // SAFETY: the record was reserved, is aligned to eight bytes and not shared yet.
                let field = unsafe { &raw mut (*out).$field };
                // SAFETY: as above.
                unsafe { field.write(value) };
            })*
        };
    }
    // Each value is asked for where it is written: what waits on the stack for its turn does not fit
    // there beside the copy, up to 6.12 (check_max_stack_depth()).
    // The same for as long as it lives: tcp_timewait_state_process() reads timestamps only where the
    // stamp is set already. Of one that ends it matters no more.
    put! {
        netns_cookie: netns.cookie,
        netns: netns.inode,
        expires: expires,
        flags: flags,
        timestamps: match event {
            TimerEvent::Started | TimerEvent::Restarted | TimerEvent::Peeked => minisock.timestamps(),
            TimerEvent::Stopped | TimerEvent::Expired | TimerEvent::Ended => TIMESTAMPS_UNKNOWN,
        },
    }
    let (tgid, tid) = pids::current();
    put! { tgid: tgid, tid: tid }
    // SAFETY: no arguments.
    let mono_ns = unsafe { bpf_ktime_get_ns() };
    put! { mono_ns: mono_ns }
    // SAFETY: no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    put! { jiffies: jiffies }
    // Field by field: a whole record would be built on the stack first.
    put! {
        kind: kind as u8,
        event: event as u8,
        substate: minisock.substate(),
        family: facts.family as u8,
        unused: [0; 2],
        addr: minisock.addr(),
        cookie: minisock.cookie(),
        laddr: bytes(facts.laddr),
        raddr: bytes(facts.raddr),
        lport: facts.lport,
        rport: facts.rport,
    }
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: any 16 bytes are both.
    unsafe { core::mem::transmute(words) }
}
