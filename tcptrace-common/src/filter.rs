//! What passes the filter: one rule, run by the kernel side on live events and by user space on
//! recorded ones.
//!
//! It looks only at facts that stay the same for the whole life of a connection, so that either
//! all of its transitions pass or none. A fact that the kernel has not set yet is no reason to
//! drop an event: the verdict is then [`Verdict::Unknown`] and the next event of that socket
//! decides.

use crate::globals::{FILTER_LPORT, FILTER_NET, FILTER_NETNS, FILTER_RPORT, FILTER_V4, FILTER_V6};

const AF_INET: u16 = 2;
const TCP_SYN_SENT: u8 = 2;
const TCP_SYN_RECV: u8 = 3;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// State left, as `enum tcp_state`.
    pub old: u8,
    /// State entered.
    pub new: u8,
    /// The socket's address family.
    pub family: u16,
    /// The network namespace, as [`Rules::netns`] has it.
    pub netns: u64,
    /// Local address, IPv4 as v4-mapped, its bytes in memory order.
    pub laddr: [u32; 4],
    /// Peer's address, likewise.
    pub raddr: [u32; 4],
    /// Local port in host order; 0 while not known.
    pub lport: u16,
    /// Peer's port in host order; 0 while not known.
    pub rport: u16,
}

/// The sets that a condition asks, which live in maps on one side and in memory on the other.
pub trait Rules {
    /// The `FILTER_*` bits in force.
    fn conditions(&self) -> u32;
    /// The namespace to keep, with [`FILTER_NETNS`]: the kernel side compares cookies where there are
    /// any, else inodes, and user space its own numbers.
    fn netns(&self) -> u64;
    /// Whether a local port is in the set.
    fn keeps_lport(&self, port: u16) -> bool;
    /// Whether a peer's port is in the set.
    fn keeps_rport(&self, port: u16) -> bool;
    /// Whether an address is in one of the prefixes.
    fn in_nets(&self, addr: &[u32; 4]) -> bool;
}

/// The filter's word on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is asked for.
    Pass,
    /// It is not.
    Drop,
    /// A fact that a condition needs is not set yet.
    Unknown,
}

/// Applies `rules` to one event.
#[inline(always)]
pub fn verdict(rules: &impl Rules, facts: &Facts) -> Verdict {
    let conditions = rules.conditions();
    if conditions == 0 {
        return Verdict::Pass;
    }
    if conditions & FILTER_NETNS != 0 && facts.netns != rules.netns() {
        return Verdict::Drop;
    }
    // Autobind comes after the state in tcp_v4_connect(). A listener's port is set before, and
    // is its children's.
    let lport_unset = facts.old == TCP_CLOSE && facts.new == TCP_SYN_SENT && facts.lport == 0;
    if conditions & FILTER_LPORT != 0 && !lport_unset && !rules.keeps_lport(facts.lport) {
        return Verdict::Drop;
    }
    // Up to 6.12 inet_csk_clone_lock() moves the child's state before it sets the peer's port,
    // and the addresses are still the listener's.
    let peer_unset = facts.old == TCP_LISTEN && facts.new == TCP_SYN_RECV && facts.rport == 0;
    if !peer_unset {
        if conditions & FILTER_RPORT != 0 && !rules.keeps_rport(facts.rport) {
            return Verdict::Drop;
        }
        if conditions & (FILTER_V4 | FILTER_V6) != 0 && conditions & version(facts) == 0 {
            return Verdict::Drop;
        }
        if conditions & FILTER_NET != 0
            && !rules.in_nets(&facts.laddr)
            && !rules.in_nets(&facts.raddr)
        {
            return Verdict::Drop;
        }
    }
    let by_peer = FILTER_RPORT | FILTER_V4 | FILTER_V6 | FILTER_NET;
    if (lport_unset && conditions & FILTER_LPORT != 0) || (peer_unset && conditions & by_peer != 0)
    {
        return Verdict::Unknown;
    }
    Verdict::Pass
}

/// The condition that keeps this connection: what is on the wire, so v4-mapped is IPv4.
#[inline(always)]
fn version(facts: &Facts) -> u32 {
    if facts.family == AF_INET || is_mapped(&facts.laddr) || is_mapped(&facts.raddr) {
        FILTER_V4
    } else {
        FILTER_V6
    }
}

#[inline(always)]
fn is_mapped(addr: &[u32; 4]) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be()
}
