//! The part of the filter that the kernel side can decide: on facts that stay the same for the
//! whole life of a connection, so that either all of its transitions pass or none.

use aya_ebpf::maps::lpm_trie::Key;
use tcptrace_common::globals::{
    FILTER_LPORT, FILTER_NET, FILTER_NETNS, FILTER_RPORT, FILTER_V4, FILTER_V6, PORT_WORDS,
};

use crate::{
    globals::global,
    maps::{NETS, PORTS},
    sock::AF_INET,
};

const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// What the filter may look at.
pub(crate) struct Facts {
    pub(crate) old: u8,
    pub(crate) new: u8,
    pub(crate) family: u16,
    pub(crate) netns: u32,
    pub(crate) laddr: [u32; 4],
    pub(crate) raddr: [u32; 4],
    pub(crate) lport: u16,
    pub(crate) rport: u16,
}

/// The filter's word on one event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Hold,
    /// A field that a condition needs is not set yet: user space waits for the next event.
    Unknown,
}

#[inline(always)]
pub(crate) fn verdict(facts: &Facts) -> Verdict {
    let conditions = global!(filter.conditions);
    if conditions == 0 {
        return Verdict::Pass;
    }
    if conditions & FILTER_NETNS != 0 && facts.netns != global!(filter.netns) {
        return Verdict::Hold;
    }
    // The listener's port is the child's, and it is set before listen() changes the state.
    let lport_unset = facts.old == TCP_CLOSE && facts.new == TCP_SYN_SENT && facts.lport == 0;
    if conditions & FILTER_LPORT != 0 && !lport_unset && !port_marked(0, facts.lport) {
        return Verdict::Hold;
    }
    // Up to 6.12 inet_csk_clone_lock() moves the child's state before it sets the peer, and the
    // addresses are still the listener's.
    let peer_unset = facts.old == TCP_LISTEN && facts.new == TCP_SYN_RECV && facts.rport == 0;
    if !peer_unset {
        if conditions & FILTER_RPORT != 0 && !port_marked(PORT_WORDS, facts.rport) {
            return Verdict::Hold;
        }
        if conditions & (FILTER_V4 | FILTER_V6) != 0 && !family_kept(conditions, facts) {
            return Verdict::Hold;
        }
        if conditions & FILTER_NET != 0 && !in_nets(&facts.laddr) && !in_nets(&facts.raddr) {
            return Verdict::Hold;
        }
    }
    let by_peer = FILTER_RPORT | FILTER_V4 | FILTER_V6 | FILTER_NET;
    if (lport_unset && conditions & FILTER_LPORT != 0)
        || (peer_unset && conditions & by_peer != 0)
    {
        return Verdict::Unknown;
    }
    Verdict::Pass
}

/// One bit of the `PORTS` map; `base` is the first word of the side.
#[inline(always)]
fn port_marked(base: u32, port: u16) -> bool {
    match PORTS.get(base + u32::from(port >> 6)) {
        Some(word) => word & (1 << (port & 63)) != 0,
        None => false,
    }
}

#[inline(always)]
fn family_kept(conditions: u32, facts: &Facts) -> bool {
    let v4 = facts.family == AF_INET || is_mapped(&facts.laddr) || is_mapped(&facts.raddr);
    let wanted = if v4 { FILTER_V4 } else { FILTER_V6 };
    conditions & wanted != 0
}

#[inline(always)]
fn is_mapped(addr: &[u32; 4]) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be()
}

#[inline(always)]
fn in_nets(addr: &[u32; 4]) -> bool {
    // SAFETY: any 16 bytes are both.
    let bytes = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(*addr) };
    NETS.get(Key::new(128, bytes)).is_some()
}
