//! What the reader of a block knows of a socket by now: what an event has to say is the rest.
//!
//! A block has thousands of sockets, each with few events, so most of what this costs is bringing it
//! into the cache. Must stay one line of it.

use std::net::Ipv6Addr;

use super::super::layout::{DEAD, LINGERS, OWN_PORTS, PEER_FIN, UNACCEPTED};
use tcptrace_model::{Linger, SockFacts, Tuple};

/// Of [`Known::has`].
const TUPLE: u8 = 1 << 0;
const COOKIE: u8 = 1 << 1;
const SOCK: u8 = 1 << 2;

/// No place in a list: there are [fewer](super::super::scene::LIMIT).
const NOWHERE: u32 = u32::MAX;

/// Stands where no ends are known.
const NOBODY: Tuple = Tuple {
    laddr: Ipv6Addr::UNSPECIFIED,
    raddr: Ipv6Addr::UNSPECIFIED,
    lport: 0,
    rport: 0,
    v6_socket: false,
};

/// A socket or minisock, as the last event had it.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Known {
    cookie: u64,
    /// Index of the task.
    pub(super) task: u32,
    /// Index of the place.
    place: u32,
    linger_jiffies: u32,
    err: u16,
    shutdown: u8,
    facts: u8,
    tuple: Tuple,
    has: u8,
}

const _: () = assert!(size_of::<Known>() == 64);

/// What is one bit each.
pub(super) fn facts(sock: &SockFacts) -> u8 {
    let bit = |on: bool, bit: u8| if on { bit } else { 0 };
    bit(sock.dead, DEAD)
        | bit(sock.unaccepted, UNACCEPTED)
        | bit(sock.peer_fin, PEER_FIN)
        | bit(sock.own_ports, OWN_PORTS)
        | bit(sock.linger != Linger::Off, LINGERS)
}

fn jiffies(linger: Linger) -> u32 {
    match linger {
        Linger::Off => 0,
        Linger::Jiffies(jiffies) => jiffies,
    }
}

impl Known {
    /// One of which nothing is known.
    pub(super) const NEW: Self = Self {
        cookie: 0,
        task: NOWHERE,
        place: NOWHERE,
        linger_jiffies: 0,
        err: 0,
        shutdown: 0,
        facts: 0,
        tuple: NOBODY,
        has: 0,
    };

    pub(super) fn is_between(&self, tuple: &Tuple) -> bool {
        self.has & TUPLE != 0 && self.tuple == *tuple
    }

    pub(super) fn set_tuple(&mut self, tuple: &Tuple) {
        self.tuple = *tuple;
        self.has |= TUPLE;
    }

    pub(super) fn has_cookie(&self, cookie: Option<u64>) -> bool {
        match cookie {
            Some(cookie) => self.has & COOKIE != 0 && self.cookie == cookie,
            None => self.has & COOKIE == 0,
        }
    }

    /// Index of its place, which may be none.
    pub(super) fn place(&self) -> usize {
        self.place as usize
    }

    /// What an event says of who it is. Facts that were told with another cookie or place are not
    /// known any more: the reader keeps the three as one.
    pub(super) fn set_identity(&mut self, cookie: Option<u64>, place: u32) {
        if !self.has_cookie(cookie) || self.place != place {
            self.has &= !SOCK;
        }
        self.has = self.has & !COOKIE | if cookie.is_some() { COOKIE } else { 0 };
        (self.cookie, self.place) = (cookie.unwrap_or(0), place);
    }

    /// Whether these are its facts; of its place, whether it is the same.
    pub(super) fn is_as(&self, sock: &SockFacts, same_place: bool) -> bool {
        self.has & SOCK != 0
            && same_place
            && self.has_cookie(sock.cookie)
            && (self.err, self.shutdown) == (sock.err, sock.shutdown)
            && (self.facts, self.linger_jiffies) == (facts(sock), jiffies(sock.linger))
    }

    /// Its facts, but for its identity.
    pub(super) fn set_facts(&mut self, sock: &SockFacts) {
        (self.err, self.shutdown) = (sock.err, sock.shutdown);
        (self.facts, self.linger_jiffies) = (facts(sock), jiffies(sock.linger));
        self.has |= SOCK;
    }
}
