//! What a local port is taken for. Must not count.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use tcptrace_model::{Family, Tuple};

/// From where to where: what a local port is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Inode of the network namespace; `None`: the hook cannot tell.
    pub netns: Option<u32>,
    /// Local address, IPv4 as v4-mapped.
    pub laddr: Ipv6Addr,
    /// Peer's address, likewise.
    pub raddr: Ipv6Addr,
    /// Peer's port.
    pub rport: u16,
}

impl Hash for Path {
    /// As three numbers: byte by byte an address takes several times as long, and it is done for
    /// each connection.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.laddr.to_bits());
        state.write_u128(self.raddr.to_bits());
        let netns = self.netns.map_or(1 << 32, u64::from);
        state.write_u64(netns << 16 | u64::from(self.rport));
    }
}

impl Path {
    /// That of a connection.
    pub fn of(netns: Option<u32>, tuple: &Tuple) -> Self {
        Self { netns, laddr: tuple.laddr, raddr: tuple.raddr, rport: tuple.rport }
    }

    /// As the ends of a connection whose local port is not known.
    pub fn tuple(&self) -> Tuple {
        let v6_socket = self.laddr.to_ipv4_mapped().is_none();
        Tuple { laddr: self.laddr, raddr: self.raddr, lport: 0, rport: self.rport, v6_socket }
    }

    /// What is on the wire.
    pub fn family(&self) -> Family {
        self.tuple().family()
    }

    /// Local address as it is on the wire.
    pub fn local_ip(&self) -> IpAddr {
        self.laddr.to_canonical()
    }

    /// Peer's address as it is on the wire.
    pub fn remote_ip(&self) -> IpAddr {
        self.raddr.to_canonical()
    }
}
