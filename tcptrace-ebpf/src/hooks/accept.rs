//! Who takes a connection from a listener: the task on the CPU when accept() returns.
//!
//! By the function that hands it out, or, where function hooks are refused, by the exit of the
//! system calls, which says only a file descriptor. What io_uring and the kernel itself accept
//! shows in the former alone.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_ktime_get_ns,
    macros::fexit,
    programs::{FExitContext, TracePointContext},
};
use tcptrace_common::{
    counters::Hook,
    record::{Accept, RecordKind},
};

use super::PASS_ON;
use crate::{
    emit::Counters,
    filter::passes,
    globals::global,
    peek::peek,
    sock::{
        AF_INET, IPPROTO_TCP, Netns, Sock,
        plain::{Common, MinisockCopy, first_subflow, socket_of_fd},
    },
    task::Current,
};

const AF_INET6: u16 = 10;

/// `struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)`, up to 6.9
#[fexit(function = "inet_csk_accept")]
pub fn accept_exit_of_4(ctx: FExitContext) -> i32 {
    tell(ctx.arg(4));
    0
}

/// `struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)`, since 6.10
#[fexit(function = "inet_csk_accept")]
pub fn accept_exit_of_2(ctx: FExitContext) -> i32 {
    tell(ctx.arg(2));
    0
}

/// Tells of the socket that was handed out, if one was.
#[inline(always)]
fn tell(sk: *const c_void) {
    if sk.is_null() {
        return;
    }
    let sk = Sock::new(sk);
    if sk.protocol() != IPPROTO_TCP {
        return;
    }
    let Some(counters) = Counters::seen(Hook::Accept) else { return };
    if !passes(|| sk.facts()) {
        return counters.filtered();
    }
    emit(counters, sk.addr(), sk.netns());
}

/// The record that the `format` files of `syscalls:sys_exit_accept` and `sys_exit_accept4`
/// describe; on both.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tracepoint/syscalls/sys_exit_accept4")]
pub extern "C" fn accept_syscall(ctx: *mut c_void) -> u32 {
    let record = TracePointContext::new(ctx).as_ptr() as u64;
    let returned = peek::<u64>(record, global!(files.record_ret)) as i64;
    if returned < 0 || returned > i64::from(i32::MAX) {
        return PASS_ON;
    }
    let addr = first_subflow(socket_of_fd(returned as u32));
    let mut copy = MinisockCopy::uninit();
    let Some(sk) = Common::read(addr, &mut copy) else { return PASS_ON };
    let family = sk.family();
    let is_tcp = (family == AF_INET || family == AF_INET6) && sk.protocol() == IPPROTO_TCP;
    if !is_tcp || sk.full_state().is_none() {
        return PASS_ON;
    }
    let Some(counters) = Counters::seen(Hook::Accept) else { return PASS_ON };
    if passes(|| sk.facts()) {
        emit(counters, addr, sk.netns());
    } else {
        counters.filtered();
    }
    PASS_ON
}

#[inline(always)]
fn emit(counters: Counters, skaddr: u64, netns: Netns) {
    let task = Current::ask();
    counters.emit(|record: *mut Accept| {
        // SAFETY: no arguments.
        let mono_ns = unsafe { bpf_ktime_get_ns() };
        macro_rules! put {
            ($($field:ident: $value:expr),* $(,)?) => {
                $({
                    let value = $value;
                    // SAFETY: the record was reserved, is aligned to eight bytes and not shared yet.
                    let field = unsafe { &raw mut (*record).$field };
                    // SAFETY: as above.
                    unsafe { field.write(value) };
                })*
            };
        }
        put! {
            kind: RecordKind::Accept as u8,
            unused: [0; 3],
            netns: netns.inode,
            mono_ns: mono_ns,
            skaddr: skaddr,
            netns_cookie: netns.cookie,
            unused2: 0,
        }
        // SAFETY: as above.
        task.write(unsafe { &raw mut (*record).task });
    });
}
