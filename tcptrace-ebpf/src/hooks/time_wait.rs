//! What becomes of minisocks, told by their timers: `timer_start`, `timer_cancel` and
//! `timer_expire_entry`, kept to timers that run `tw_timer_handler()`.
//!
//! No tracepoint names a minisock. Function hooks do, but are refused on locked-down kernels;
//! the timer tracepoints are there on all of them. Who stopped a timer before its time is told
//! by the stack: `inet_twsk_deschedule_put()` is the same for all, its callers are not.
//!
//! These programs run for every timer of the host, so the test for the function comes first.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_stack, bpf_jiffies64, bpf_ktime_get_ns,
    },
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::{
    counters::Hook,
    filter::{Facts, Verdict, verdict},
    record::{self, FLAG_DUE, FRAMES, MinisockStopped, RecordKind, TimerEvent},
};

use crate::{
    emit::Counters,
    filter::InForce,
    sock::{Minisock, MinisockCopy, Timer},
};

const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;

/// Minisocks that one call of [`tw_peek`] looks at: the most arguments that a raw tracepoint
/// program's test run takes (`MAX_BPF_FUNC_ARGS`).
const PEEKS: usize = 12;

/// `TP_PROTO(struct timer_list *timer, …)`
#[btf_tracepoint(function = "timer_start")]
pub fn tw_timer_start(ctx: BtfTracePointContext) -> i32 {
    let timer = Timer::new(ctx.arg::<*const c_void>(0));
    if timer.is_minisocks() {
        tell(timer.minisock(), TimerEvent::Started);
    }
    0
}

/// `TP_PROTO(struct timer_list *timer)`
#[btf_tracepoint(function = "timer_cancel")]
pub fn tw_timer_cancel(ctx: BtfTracePointContext) -> i32 {
    let timer = Timer::new(ctx.arg::<*const c_void>(0));
    if timer.is_minisocks() {
        stopped(&ctx, timer.minisock());
    }
    0
}

/// `TP_PROTO(struct timer_list *timer, …)`
#[btf_tracepoint(function = "timer_expire_entry")]
pub fn tw_timer_expire(ctx: BtfTracePointContext) -> i32 {
    let timer = Timer::new(ctx.arg::<*const c_void>(0));
    if timer.is_minisocks() {
        tell(timer.minisock(), TimerEvent::Expired);
    }
    0
}

/// Run by user space (`BPF_PROG_TEST_RUN`) with the addresses of minisocks: tells of each that
/// is now in TIME_WAIT. The move from FIN_WAIT2 to TIME_WAIT inside a minisock shows in no
/// tracepoint when the timer stays in its slot of the wheel.
///
/// An address may have been freed and reused: whoever asks compares the cookie and the ends.
#[raw_tracepoint]
pub fn tw_peek(ctx: RawTracePointContext) -> i32 {
    for i in 0..PEEKS {
        let addr: u64 = ctx.arg(i);
        if addr == 0 {
            break;
        }
        peek(addr);
    }
    0
}

/// Not inlined: twelve copies of a minisock do not fit the stack.
#[inline(never)]
fn peek(addr: u64) {
    let mut copy = MinisockCopy::uninit();
    if let Some(minisock) = Minisock::read(addr, &mut copy)
        && minisock.substate() == TCP_TIME_WAIT
    {
        emit(minisock, TimerEvent::Peeked);
    }
}

#[inline(always)]
fn tell(addr: u64, event: TimerEvent) {
    let mut copy = MinisockCopy::uninit();
    if let Some(minisock) = Minisock::read(addr, &mut copy) {
        emit(minisock, event);
    }
}

#[inline(always)]
fn emit(minisock: Minisock<'_>, event: TimerEvent) {
    let Some(counters) = Counters::seen(Hook::TimeWait) else { return };
    let Some(facts) = facts(minisock) else { return counters.filtered() };
    counters.emit(|out: *mut record::Minisock| {
        write(out, minisock, &facts, event, RecordKind::Minisock, 0);
    });
}

#[inline(always)]
fn stopped(ctx: &BtfTracePointContext, addr: u64) {
    let mut copy = MinisockCopy::uninit();
    let Some(minisock) = Minisock::read(addr, &mut copy) else { return };
    let Some(counters) = Counters::seen(Hook::TimeWait) else { return };
    let Some(facts) = facts(minisock) else { return counters.filtered() };
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    if now >= minisock.expires() {
        // About to run, nearly always: no need for a stack, which costs more than all the rest.
        counters.emit(|out: *mut record::Minisock| {
            write(out, minisock, &facts, TimerEvent::Stopped, RecordKind::Minisock, FLAG_DUE);
        });
        return;
    }
    counters.emit(|out: *mut MinisockStopped| {
        write(out.cast(), minisock, &facts, TimerEvent::Stopped, RecordKind::MinisockStopped, 0);
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
fn facts(minisock: Minisock<'_>) -> Option<Facts> {
    let family = minisock.family();
    let (laddr, raddr) = minisock.addresses(family);
    let facts = Facts {
        old: TCP_TIME_WAIT,
        new: TCP_CLOSE,
        family,
        netns: minisock.netns(),
        laddr,
        raddr,
        lport: minisock.lport(),
        rport: minisock.rport(),
    };
    (verdict(&InForce, &facts) != Verdict::Drop).then_some(facts)
}

/// Writes a whole record; every byte, since the kernel does not clear it.
#[inline(always)]
fn write(
    out: *mut record::Minisock,
    minisock: Minisock<'_>,
    facts: &Facts,
    event: TimerEvent,
    kind: RecordKind,
    flags: u8,
) {
    // SAFETY: no arguments.
    let mono_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    // SAFETY: no arguments.
    let pid_tgid = unsafe { bpf_get_current_pid_tgid() };
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
    // Field by field: a whole record would be built on the stack first.
    put! {
        kind: kind as u8,
        event: event as u8,
        substate: minisock.substate(),
        family: facts.family as u8,
        flags: flags,
        unused: [0; 3],
        mono_ns: mono_ns,
        addr: minisock.addr(),
        cookie: minisock.cookie(),
        laddr: bytes(facts.laddr),
        raddr: bytes(facts.raddr),
        expires: minisock.expires(),
        jiffies: jiffies,
        netns: facts.netns,
        tgid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        lport: facts.lport,
        rport: facts.rport,
    }
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: any 16 bytes are both.
    unsafe { core::mem::transmute(words) }
}
