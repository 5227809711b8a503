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
    helpers::generated::bpf_jiffies64,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use tcptrace_common::record::{FLAG_MAY_RUN, TimerEvent};

use super::minisock::{TCP_TIME_WAIT, emit, emit_with_stack, tell};
use crate::sock::{
    Timer,
    plain::{Minisock, MinisockCopy},
};

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
        emit(minisock, TimerEvent::Peeked, 0);
    }
}

#[inline(always)]
fn stopped(ctx: &BtfTracePointContext, addr: u64) {
    let mut copy = MinisockCopy::uninit();
    let Some(minisock) = Minisock::read(addr, &mut copy) else { return };
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    if now >= minisock.expires() {
        // About to run, nearly always: no need for a stack, which costs more than all the rest.
        emit(minisock, TimerEvent::Stopped, FLAG_MAY_RUN);
    } else {
        emit_with_stack(ctx, minisock, TimerEvent::Stopped, 0);
    }
}
