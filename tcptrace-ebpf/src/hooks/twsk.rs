//! What becomes of minisocks, told by the functions that do it (fentry).
//!
//! Four functions tell all: the timer is set, it has run, it is taken away, and the minisock is
//! freed. The last is certain, whatever the compiler has inlined of the others; who did it is
//! on the stack, as for the timers. No function is hooked that is called for anything but
//! minisocks, and none that the compiler may inline into all its callers: `tw_timer_handler()`
//! and `tcp_twsk_destructor()` are called through pointers or from other files, as is
//! `__inet_twsk_schedule()`. `inet_twsk_deschedule_put()` is inlined into `inet_twsk_purge()`
//! up to 6.1: then the end alone tells.

use aya_ebpf::{helpers::generated::bpf_jiffies64, macros::fentry, programs::FEntryContext};
use tcptrace_common::record::{FLAG_MAY_RUN, TimerEvent};

use super::minisock::{emit_expiring, emit_with_stack, tell};
use crate::sock::{
    plain::{Minisock, MinisockCopy},
    timers_minisock,
};

/// `void __inet_twsk_schedule(struct inet_timewait_sock *tw, int timeo, bool rearm)`
///
/// It gives a running timer a new time, or starts the one of a minisock that is born, which is
/// complete but for its place in the tables. Where the timer is not running any more, there is
/// nothing to give a new time to (`mod_timer_pending()`).
#[fentry(function = "__inet_twsk_schedule")]
pub fn twsk_schedule(ctx: FEntryContext) -> i32 {
    let rearm = ctx.arg::<u64>(2) as u8 != 0;
    let mut copy = MinisockCopy::uninit();
    let Some(minisock) = Minisock::read(ctx.arg(0), &mut copy) else { return 0 };
    let event = match (rearm, minisock.timer_is_pending()) {
        (false, _) => TimerEvent::Started,
        (true, true) => TimerEvent::Restarted,
        (true, false) => return 0,
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_jiffies64() };
    emit_expiring(minisock, event, 0, now.wrapping_add(ctx.arg::<u64>(1) as u32 as u64));
    0
}

/// `static void tw_timer_handler(struct timer_list *t)`
#[fentry(function = "tw_timer_handler")]
pub fn twsk_expire(ctx: FEntryContext) -> i32 {
    tell(timers_minisock(ctx.arg(0)), TimerEvent::Expired);
    0
}

/// `void inet_twsk_deschedule_put(struct inet_timewait_sock *tw)`
///
/// It ends the minisock if it is faster than the timer.
#[fentry(function = "inet_twsk_deschedule_put")]
pub fn twsk_deschedule(ctx: FEntryContext) -> i32 {
    let mut copy = MinisockCopy::uninit();
    if let Some(minisock) = Minisock::read(ctx.arg(0), &mut copy)
        && minisock.timer_is_pending()
    {
        emit_with_stack(&ctx, minisock, TimerEvent::Stopped, FLAG_MAY_RUN);
    }
    0
}

/// `void tcp_twsk_destructor(struct sock *sk)`, where `sk` is a minisock
///
/// Whoever gave back the last reference; nearly always who ended it.
#[fentry(function = "tcp_twsk_destructor")]
pub fn twsk_destroy(ctx: FEntryContext) -> i32 {
    let mut copy = MinisockCopy::uninit();
    if let Some(minisock) = Minisock::read(ctx.arg(0), &mut copy) {
        emit_with_stack(&ctx, minisock, TimerEvent::Ended, 0);
    }
    0
}
