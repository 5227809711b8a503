//! `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`, the two ways to attach to each.
//!
//! Only of full sockets: a RST for no socket at all, a minisock or a request is nobody's end.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_tracepoint,
    programs::{BtfTracePointContext, TracePointContext},
};
use tcptrace_common::{
    counters::Hook,
    filter::Facts,
    globals::{ABSENT, FEATURE_RESET_REASON},
    record::{NO_REASON, RESET_RECEIVED, RESET_SENT, RecordKind, Reset},
};

use super::PASS_ON;
use crate::{
    emit::Counters,
    filter::passes,
    globals::global,
    peek::peek,
    sock::{AF_INET, IPPROTO_TCP, Sock, full},
};

const AF_INET6: u16 = 10;

/// `TP_PROTO(const struct sock *sk, const struct sk_buff *skb)`, with
/// `const enum sk_rst_reason reason` behind them since 6.10
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn reset_sent_btf(ctx: BtfTracePointContext) -> i32 {
    // Since 6.10 it also fires for no socket. From 6.6 on, until it was mended in 6.13, the
    // verifier held that no argument is NULL, left out a test for it and made plain loads, which
    // would fault. So the test is of a copy that it takes for a number.
    if peek::<u64>(ctx.as_ptr() as u64, 0) == 0 {
        return 0;
    }
    let reason = if global!(features) & FEATURE_RESET_REASON != 0 {
        ctx.arg::<u64>(2) as u32
    } else {
        NO_REASON
    };
    tell(ctx.arg(0), RESET_SENT, reason);
    0
}

/// `TP_PROTO(struct sock *sk)`
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn reset_received_btf(ctx: BtfTracePointContext) -> i32 {
    tell(ctx.arg(0), RESET_RECEIVED, NO_REASON);
    0
}

/// The counters of one direction: a softirq that receives a RST may interrupt a process that sends
/// one.
#[inline(always)]
fn counters(direction: u8) -> Option<Counters> {
    Counters::seen_by(Hook::Reset, u32::from(direction == RESET_RECEIVED))
}

#[inline(always)]
fn tell(sk: *const c_void, direction: u8, reason: u32) {
    if sk.is_null() {
        return; // what the verifier asks for since 6.13
    }
    let sk = Sock::new(sk);
    let Some(state) = sk.full_state() else { return };
    if sk.protocol() != IPPROTO_TCP {
        return;
    }
    let Some(counters) = counters(direction) else { return };
    if !passes(|| sk.facts()) {
        return counters.filtered();
    }
    emit(counters, direction, state, reason, sk.addr());
}

/// Tells of a classic record with the layout `resets.$layout`. A macro, since a field of a global
/// is read by its name.
macro_rules! classic {
    ($ctx:expr, $layout:ident, $direction:expr) => {{
        let record = TracePointContext::new($ctx).as_ptr() as u64;
        let skaddr: u64 = peek(record, global!(resets.$layout.skaddr));
        if skaddr == 0 {
            return PASS_ON;
        }
        let state = if global!(resets.$layout.state) != ABSENT {
            peek::<u32>(record, global!(resets.$layout.state)) as u8
        } else if global!(sock.skc_state) != ABSENT {
            peek::<u8>(skaddr, global!(sock.skc_state))
        } else {
            0
        };
        // 0 is not told: tcp_receive_reset has full sockets only.
        if state != 0 && full(state).is_none() {
            return PASS_ON;
        }
        let Some(counters) = counters($direction) else { return PASS_ON };
        let facts = || {
            let (saddr, daddr) = (global!(resets.$layout.saddr), global!(resets.$layout.daddr));
            if global!(resets.$layout.sport) == ABSENT {
                let ((laddr, lport), (raddr, rport)) = (end(record, saddr), end(record, daddr));
                return ends(laddr, raddr, lport, rport);
            }
            ends(
                peek(record, saddr),
                peek(record, daddr),
                peek(record, global!(resets.$layout.sport)),
                peek(record, global!(resets.$layout.dport)),
            )
        };
        if !passes(facts) {
            counters.filtered();
            return PASS_ON;
        }
        let reason = if global!(resets.$layout.reason) != ABSENT {
            peek(record, global!(resets.$layout.reason))
        } else {
            NO_REASON
        };
        emit(counters, $direction, state, reason, skaddr);
    }};
}
/// The record that `/sys/kernel/tracing/events/tcp/tcp_send_reset/format` describes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint/tcp/tcp_send_reset")]
pub extern "C" fn reset_sent_classic(ctx: *mut c_void) -> u32 {
    classic!(ctx, sent, RESET_SENT);
    PASS_ON
}

/// The record that `/sys/kernel/tracing/events/tcp/tcp_receive_reset/format` describes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint/tcp/tcp_receive_reset")]
pub extern "C" fn reset_received_classic(ctx: *mut c_void) -> u32 {
    classic!(ctx, received, RESET_RECEIVED);
    PASS_ON
}

/// Address, IPv4 as v4-mapped, and port of the `struct sockaddr` at `offset` in the record.
#[inline(always)]
fn end(record: u64, offset: u32) -> ([u32; 4], u16) {
    let family: u16 = peek(record, offset);
    let port = u16::from_be(peek(record, offset + 2));
    if family == AF_INET {
        return ([0, 0, 0xffff_u32.to_be(), peek(record, offset + 4)], port);
    }
    (peek(record, offset + 8), port)
}

/// The filter takes mapped addresses for IPv4, whatever the family.
#[inline(always)]
fn ends(laddr: [u32; 4], raddr: [u32; 4], lport: u16, rport: u16) -> Facts {
    Facts { old: 0, new: 0, family: AF_INET6, netns: 0, laddr, raddr, lport, rport }
}

#[inline(always)]
fn emit(counters: Counters, direction: u8, state: u8, reason: u32, skaddr: u64) {
    counters.emit(|record: *mut Reset| {
        // SAFETY: no arguments.
        let mono_ns = unsafe { bpf_ktime_get_ns() };
        let kind = RecordKind::Reset as u8;
        let whole = Reset { kind, direction, state, unused: 0, reason, mono_ns, skaddr };
        // SAFETY: the record was reserved, is aligned to eight bytes and not shared yet.
        unsafe { record.write(whole) };
    });
}
