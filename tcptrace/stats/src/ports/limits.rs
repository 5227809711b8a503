//! Which local ports connect() may choose, and when it may take one from a TIME_WAIT: what the
//! sysctls of a namespace say.

use std::net::Ipv6Addr;

use tcptrace_model::{PortRange, Sysctls};

/// `tcp_tw_reuse_delay` before 6.14, where `tcp_twsk_unique()` compared seconds.
const OLD_DELAY_NS: u64 = 1_000_000_000;

/// When connect() may take the port of a TIME_WAIT to the same peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Never: `tcp_tw_reuse` is 0.
    No,
    /// On loopback.
    Loopback {
        /// Of a TIME_WAIT of this age, nanoseconds.
        after_ns: u64,
    },
    /// Anywhere.
    Yes {
        /// Likewise.
        after_ns: u64,
    },
}

impl Reuse {
    fn of(sysctls: &Sysctls) -> Result<Self, String> {
        let known = |name: &str, sysctl: Result<&i64, &str>| match sysctl {
            Ok(value) => Ok(*value),
            Err(why) => Err(format!("{name} is not known: {why}")),
        };
        let reuse = known("tcp_tw_reuse", sysctls.tcp_tw_reuse.known())?;
        let after_ns = match sysctls.tcp_tw_reuse_delay.value() {
            Some(&ms) => u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000),
            None => OLD_DELAY_NS,
        };
        // Not by tcp_timestamps: what counts is whether the connection had them, whatever the sysctl
        // is by now.
        Ok(match reuse {
            0 => Self::No,
            2 => Self::Loopback { after_ns },
            _ => Self::Yes { after_ns },
        })
    }

    /// From which age on, in nanoseconds, a TIME_WAIT between these whose peer has sent timestamps does
    /// not keep its port.
    pub fn after_ns(self, laddr: Ipv6Addr, raddr: Ipv6Addr) -> Option<u64> {
        // As tcp_twsk_unique() has it. A socket that is bound to `lo` counts as well; no hook
        // tells of that.
        let loopback = |addr: Ipv6Addr| addr.to_canonical().is_loopback();
        match self {
            Self::No => None,
            Self::Loopback { after_ns } => (loopback(laddr) || loopback(raddr)).then_some(after_ns),
            Self::Yes { after_ns } => Some(after_ns),
        }
    }
}

/// What a namespace allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `ip_local_port_range`.
    pub range: PortRange,
    /// Of those, the ones in `ip_local_reserved_ports`.
    pub reserved: u32,
    /// When a TIME_WAIT may be taken over.
    pub reuse: Reuse,
    reserved_ports: Vec<PortRange>,
}

impl Limits {
    /// The limits by `sysctls`.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn of(sysctls: &Sysctls) -> Result<Self, String> {
        let known = sysctls.ip_local_port_range.known();
        let range = *known.map_err(|why| format!("ip_local_port_range is not known: {why}"))?;
        let reserved_ports = match sysctls.ip_local_reserved_ports.known() {
            Ok(ports) => ports.clone(),
            Err(why) => return Err(format!("ip_local_reserved_ports is not known: {why}")),
        };
        let reserved = reserved_ports
            .iter()
            .map(|ports| {
                let (low, high) = (ports.low.max(range.low), ports.high.min(range.high));
                if low <= high { u32::from(high - low) + 1 } else { 0 }
            })
            .sum();
        let reuse = Reuse::of(sysctls)?;
        Ok(Self { range, reserved, reuse, reserved_ports })
    }

    /// Whether connect() may choose `port`.
    pub fn offers(&self, port: u16) -> bool {
        self.range.contains(port) && !self.reserved_ports.iter().any(|ports| ports.contains(port))
    }

    /// How many ports connect() may choose from. It tries those of one parity and then the others,
    /// as many of each, so of an odd number it leaves one out, each time another
    /// (`__inet_hash_connect()`): it may then fail while one is free.
    pub fn offered(&self) -> u32 {
        u32::from(self.range.high - self.range.low) + 1 - self.reserved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Sysctl, sysctls};

    fn with(range: &str, reserved: &str) -> Sysctls {
        Sysctls {
            ip_local_port_range: Sysctl::Is(sysctls::range(range).unwrap()),
            ip_local_reserved_ports: Sysctl::Is(sysctls::ports(reserved).unwrap()),
            tcp_tw_reuse: Sysctl::Is(2),
            tcp_timestamps: Sysctl::Is(1),
            ..Sysctls::default()
        }
    }

    #[test]
    fn the_range_is_offered_less_the_reserved_ports() {
        for (range, reserved, offered) in [
            ("40000 40099", "", 100),
            ("40000 40100", "", 101),
            ("40000 40000", "", 1),
            ("40000 40001", "", 2),
            ("40000 40002", "40002", 2),
            ("40000 40099", "1-40000,40050-40051,40099-50000", 96),
            ("40000 40099", "1-65535", 0),
            ("1 65535", "", 65535),
        ] {
            let limits = Limits::of(&with(range, reserved)).unwrap();
            assert_eq!(limits.offered(), offered, "{range} less {reserved}");
            let counted = (0..=u16::MAX).filter(|&port| limits.offers(port)).count();
            assert_eq!(counted, offered as usize, "{range} less {reserved}");
        }
    }

    #[test]
    fn a_time_wait_may_be_taken_over_where_the_sysctls_say_so() {
        let v4 = |addr: &str| addr.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped();
        let (near, far) = (v4("10.0.0.1"), v4("10.0.0.2"));
        let after = |sysctls: &Sysctls, laddr, raddr| {
            Limits::of(sysctls).unwrap().reuse.after_ns(laddr, raddr)
        };
        let mut sysctls = with("1 2", "");
        assert_eq!(after(&sysctls, near, far), None);
        for (laddr, raddr) in [
            (v4("127.0.0.1"), far),
            (near, v4("127.9.9.9")),
            (Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        ] {
            assert_eq!(after(&sysctls, laddr, raddr), Some(OLD_DELAY_NS));
        }
        sysctls.tcp_tw_reuse = Sysctl::Is(1);
        sysctls.tcp_tw_reuse_delay = Sysctl::Is(250);
        assert_eq!(after(&sysctls, near, far), Some(250_000_000));
        sysctls.tcp_timestamps = Sysctl::Is(0);
        assert_eq!(
            after(&sysctls, near, far),
            Some(250_000_000),
            "the connection may have had them"
        );
        sysctls.tcp_tw_reuse = Sysctl::Is(0);
        assert_eq!(after(&sysctls, near, far), None);
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut sysctls = with("1 2", "");
        sysctls.tcp_tw_reuse = Sysctl::Unreadable("no".into());
        assert_eq!(Limits::of(&sysctls), Err("tcp_tw_reuse is not known: no".to_owned()));
        let none = Limits::of(&Sysctls::default()).unwrap_err();
        assert_eq!(none, "ip_local_port_range is not known: there is no such sysctl");
    }
}
