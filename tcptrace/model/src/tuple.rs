//! The two ends of a connection.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// What is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, from an `AF_INET` socket or a v4-mapped one.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// Addresses and ports of a connection as its own host sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tuple {
    /// Local address; IPv4 as v4-mapped.
    pub laddr: Ipv6Addr,
    /// Peer's address, likewise; unspecified for a listener.
    pub raddr: Ipv6Addr,
    /// Local port, host order; 0 while not known.
    pub lport: u16,
    /// Peer's port, host order; 0 for a listener or while not known.
    pub rport: u16,
    /// Whether the socket itself is `AF_INET6`.
    pub v6_socket: bool,
}

impl Tuple {
    /// What is on the wire.
    pub fn family(&self) -> Family {
        if !self.v6_socket || self.mapped() { Family::Ipv4 } else { Family::Ipv6 }
    }

    /// Whether an `AF_INET6` socket speaks IPv4.
    pub fn mapped(&self) -> bool {
        self.v6_socket && (is_mapped(self.laddr) || is_mapped(self.raddr))
    }

    /// Local address as it is on the wire.
    pub fn local_ip(&self) -> IpAddr {
        self.laddr.to_canonical()
    }

    /// Peer's address as it is on the wire.
    pub fn remote_ip(&self) -> IpAddr {
        self.raddr.to_canonical()
    }

    /// `self` with what is missing in it taken from `earlier`, an event of the same connection.
    ///
    /// The kernel sets the ports late (autobind) and clears them early (`inet_put_port()`,
    /// `tcp_disconnect()`).
    #[must_use]
    #[inline]
    pub fn completed_by(mut self, earlier: &Self) -> Self {
        if self.lport == 0 {
            self.lport = earlier.lport;
        }
        if self.rport == 0 {
            self.rport = earlier.rport;
        }
        if is_unspecified(self.laddr) {
            self.laddr = earlier.laddr;
        }
        if is_unspecified(self.raddr) {
            self.raddr = earlier.raddr;
        }
        self
    }
}

fn is_mapped(addr: Ipv6Addr) -> bool {
    addr.to_ipv4_mapped().is_some()
}

/// `::` or `::ffff:0.0.0.0`.
#[inline]
fn is_unspecified(addr: Ipv6Addr) -> bool {
    matches!(addr.to_bits(), 0 | 0xffff_0000_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(v6_socket: bool, laddr: &str, raddr: &str) -> Tuple {
        Tuple {
            laddr: laddr.parse().unwrap(),
            raddr: raddr.parse().unwrap(),
            lport: 1,
            rport: 2,
            v6_socket,
        }
    }

    #[test]
    fn a_mapped_connection_is_ipv4() {
        let mapped = tuple(true, "::ffff:10.0.0.1", "::ffff:10.0.0.2");
        assert_eq!((mapped.family(), mapped.mapped()), (Family::Ipv4, true));
        assert_eq!(mapped.local_ip().to_string(), "10.0.0.1");
        let v4 = tuple(false, "::ffff:10.0.0.1", "::ffff:10.0.0.2");
        assert_eq!((v4.family(), v4.mapped()), (Family::Ipv4, false));
        let v6 = tuple(true, "fe80::1", "fe80::2");
        assert_eq!((v6.family(), v6.mapped()), (Family::Ipv6, false));
    }

    #[test]
    fn what_the_kernel_cleared_comes_from_earlier() {
        let earlier = tuple(false, "::ffff:10.0.0.1", "::ffff:10.0.0.2");
        let mut late = tuple(false, "::ffff:0.0.0.0", "::ffff:10.0.0.9");
        late.lport = 0;
        let whole = late.completed_by(&earlier);
        assert_eq!((whole.lport, whole.laddr), (1, earlier.laddr));
        assert_eq!(whole.raddr, late.raddr, "what is there stays");
    }
}
