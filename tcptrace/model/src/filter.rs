//! The filter as the user gave it.

use std::net::{IpAddr, Ipv6Addr};

use tcptrace_common::{
    filter::{Facts, Rules, Verdict, verdict},
    globals::{
        FILTER_LPORT, FILTER_NET, FILTER_NETNS, FILTER_RPORT, FILTER_V4, FILTER_V6, PORT_WORDS,
    },
};
use thiserror::Error;

use super::{event::Transition, state::TcpState, tuple::Tuple};

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet(Box<[u64]>);

impl Default for PortSet {
    fn default() -> Self {
        Self(vec![0; PORT_WORDS as usize].into_boxed_slice())
    }
}

impl std::fmt::Debug for PortSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..=u16::MAX).filter(|&port| self.contains(port))).finish()
    }
}

/// A port list that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a port: give 1 to 65535, ranges as 8000-8100, several with commas")]
pub struct BadPort(String);

impl PortSet {
    /// One port.
    pub fn of(port: u16) -> Self {
        let mut set = Self::default();
        set.0[usize::from(port >> 6)] = 1 << (port & 63);
        set
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] & (1 << (port & 63)) != 0
    }

    /// Adds the ports of `list`: `443,8000-8100`.
    pub fn add(&mut self, list: &str) -> Result<(), BadPort> {
        for item in list.split(',') {
            let bad = || BadPort(item.escape_default().to_string());
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let first: u16 = first.trim().parse().map_err(|_| bad())?;
            let last: u16 = last.trim().parse().map_err(|_| bad())?;
            if first == 0 || first > last {
                return Err(bad());
            }
            for port in first..=last {
                self.0[usize::from(port >> 6)] |= 1 << (port & 63);
            }
        }
        Ok(())
    }

    /// Its ports as [`Self::add`] takes them.
    pub fn list(&self) -> String {
        let mut list = String::new();
        let mut ports = (1..=u16::MAX).filter(|&port| self.contains(port)).peekable();
        while let Some(first) = ports.next() {
            let mut last = first;
            while let Some(next) = ports.next_if(|&port| port == last.wrapping_add(1)) {
                last = next;
            }
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(&first.to_string());
            if last > first {
                list.push_str(&format!("-{last}"));
            }
        }
        list
    }

    /// 64 ports a word, port 0 in the lowest bit of the first.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// A prefix of addresses, IPv4 as v4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The address.
    pub addr: Ipv6Addr,
    /// How many of its leading bits count: 0 to 128, 96 more than written for IPv4.
    pub bits: u8,
}

/// A prefix that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not an address or prefix: give 10.0.0.0/8, 2001:db8::/32 or a single address")]
pub struct BadNet(String);

impl std::str::FromStr for Net {
    type Err = BadNet;

    fn from_str(text: &str) -> Result<Self, BadNet> {
        let bad = || BadNet(text.escape_default().to_string());
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let (addr, width, shift) = match addr.parse().map_err(|_| bad())? {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 32, 96),
            IpAddr::V6(v6) => (v6, 128, 0),
        };
        let bits = bits.unwrap_or(width);
        if bits > width {
            return Err(bad());
        }
        Ok(Self { addr, bits: bits + shift })
    }
}

impl Net {
    /// Whether `addr` is in it.
    pub fn contains(&self, addr: Ipv6Addr) -> bool {
        let differing = self.addr.to_bits() ^ addr.to_bits();
        self.bits == 0 || differing.leading_zeros() >= u32::from(self.bits)
    }
}

/// What to keep. Conditions of different kinds must all hold; within one kind, any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Keep IPv4 only, v4-mapped included.
    pub v4: bool,
    /// Keep IPv6 only.
    pub v6: bool,
    /// Local ports to keep.
    pub lports: Option<PortSet>,
    /// Peer's ports to keep.
    pub rports: Option<PortSet>,
    /// Inode of the network namespace to keep.
    pub netns: Option<u32>,
    /// Its cookie (`SO_NETNS_COOKIE`), where that is known: the inode is the next namespace's as soon as
    /// this one is gone, and the cookie never is. Events are kept by it in the kernel alone.
    pub netns_cookie: Option<u64>,
    /// Keep connections with either end in one of these; empty keeps all.
    pub nets: Vec<Net>,
}

impl Filter {
    /// Its conditions in words, each as its option is called.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |on: bool, word: &str| {
            if on {
                words.push(word.to_owned());
            }
        };
        say(self.v4, "ipv4");
        say(self.v6, "ipv6");
        for (name, ports) in [("localport", &self.lports), ("remoteport", &self.rports)] {
            if let Some(ports) = ports {
                say(true, &format!("{name} {}", ports.list()));
            }
        }
        if let Some(netns) = self.netns {
            say(true, &format!("netns {netns}"));
        }
        for Net { addr, bits } in &self.nets {
            say(true, &format!("net {addr}/{bits}"));
        }
        words
    }

    /// The verdict on a transition, as the kernel side would give it.
    pub fn verdict(&self, event: &Transition) -> Verdict {
        let netns = event.sock.map_or(0, |sock| sock.netns);
        verdict(self, &facts(event.old, event.new, &event.tuple, netns))
    }

    /// Whether it keeps a socket that is there already: the verdict on a transition of it.
    pub fn keeps(&self, tuple: &Tuple, netns: u32) -> bool {
        // A connection's way to CLOSE: whatever it is asked for is set by then.
        let facts = facts(TcpState::Established, TcpState::Close, tuple, netns);
        verdict(self, &facts) == Verdict::Pass
    }
}

/// What the rule looks at.
fn facts(old: TcpState, new: TcpState, tuple: &Tuple, netns: u32) -> Facts {
    let words = |addr: Ipv6Addr| {
        let octets = addr.octets();
        std::array::from_fn(|i| {
            let mut word = [0; 4];
            word.copy_from_slice(&octets[4 * i..4 * i + 4]);
            u32::from_ne_bytes(word)
        })
    };
    Facts {
        old: old as u8,
        new: new as u8,
        family: if tuple.v6_socket { 10 } else { 2 },
        netns: netns.into(),
        laddr: words(tuple.laddr),
        raddr: words(tuple.raddr),
        lport: tuple.lport,
        rport: tuple.rport,
    }
}

impl Rules for Filter {
    fn conditions(&self) -> u32 {
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        bit(self.v4, FILTER_V4)
            | bit(self.v6, FILTER_V6)
            | bit(self.lports.is_some(), FILTER_LPORT)
            | bit(self.rports.is_some(), FILTER_RPORT)
            | bit(self.netns.is_some(), FILTER_NETNS)
            | bit(!self.nets.is_empty(), FILTER_NET)
    }

    fn netns(&self) -> u64 {
        self.netns.unwrap_or(0).into()
    }

    fn keeps_lport(&self, port: u16) -> bool {
        self.lports.as_ref().is_none_or(|ports| ports.contains(port))
    }

    fn keeps_rport(&self, port: u16) -> bool {
        self.rports.as_ref().is_none_or(|ports| ports.contains(port))
    }

    fn in_nets(&self, addr: &[u32; 4]) -> bool {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_exact_mut(4).zip(addr) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let addr = Ipv6Addr::from(octets);
        self.nets.iter().any(|net| net.contains(addr))
    }
}
