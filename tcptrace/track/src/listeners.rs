//! Whose listeners there are, for the connections that they take.
//!
//! A child of a listener is born in softirq: nothing there says whose it is. Until a hook tells
//! who accepted it, it is its listener's owner's, and said so. Must not choose among several: where
//! listeners of different processes share a port (`SO_REUSEPORT`), it is nobody's for now.

use std::net::Ipv6Addr;

use tcptrace_model::{Owner, Tuple, hash::Map};

/// Listeners kept; later ones are not asked for.
const LIMIT: usize = 65_536;

/// Where listeners listen: the namespace, if that is known, and the port.
type Place = (Option<u32>, u16);

struct Listener {
    /// Address of its socket, or its cookie where it is known from a snapshot.
    id: u64,
    laddr: Ipv6Addr,
    owner: Owner,
}

/// Listeners by where they listen.
#[derive(Default)]
pub(super) struct Listeners {
    by_place: Map<Place, Vec<Listener>>,
    count: usize,
}

impl Listeners {
    /// There is one. `id` tells it from others at the same place.
    pub(super) fn insert(&mut self, id: u64, netns: Option<u32>, tuple: &Tuple, owner: Owner) {
        self.remove(id, netns, tuple);
        if self.count < LIMIT {
            let listeners = self.by_place.entry((netns, tuple.lport)).or_default();
            listeners.push(Listener { id, laddr: tuple.laddr, owner });
            self.count += 1;
        }
    }

    /// It is gone.
    pub(super) fn remove(&mut self, id: u64, netns: Option<u32>, tuple: &Tuple) {
        let place = (netns, tuple.lport);
        let Some(listeners) = self.by_place.get_mut(&place) else { return };
        let before = listeners.len();
        listeners.retain(|listener| listener.id != id);
        self.count -= before - listeners.len();
        if listeners.is_empty() {
            self.by_place.remove(&place);
        }
    }

    /// Whose the listener is that took a connection with this local end.
    pub(super) fn owner(&self, netns: Option<u32>, tuple: &Tuple) -> Option<Owner> {
        let listeners = self.by_place.get(&(netns, tuple.lport))?;
        let bound = |laddr: Ipv6Addr| listeners.iter().filter(move |l| l.laddr == laddr);
        // Up to 6.12 a child has its listener's address at this moment, which is found as well.
        let any = |l: &&Listener| is_any(l.laddr);
        let mut fitting = bound(tuple.laddr).peekable();
        if fitting.peek().is_some() {
            return the_same(fitting);
        }
        the_same(listeners.iter().filter(any))
    }
}

/// `::`, and `0.0.0.0` as v4-mapped.
fn is_any(addr: Ipv6Addr) -> bool {
    addr.is_unspecified() || addr.to_ipv4_mapped().is_some_and(|v4| v4.is_unspecified())
}

/// The owner of them all, if they are of one process.
fn the_same<'a>(mut listeners: impl Iterator<Item = &'a Listener>) -> Option<Owner> {
    let first = listeners.next()?.owner;
    listeners.all(|other| other.owner.task.tgid == first.task.tgid).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Comm, OwnerFrom, Task};

    fn owner(tgid: u32) -> Owner {
        let task = Task::process(tgid, 0, 0, Comm::from("srv"));
        Owner { task, from: OwnerFrom::Listener }
    }

    fn at(laddr: &str, lport: u16) -> Tuple {
        let laddr = laddr.parse().unwrap();
        Tuple { laddr, raddr: Ipv6Addr::LOCALHOST, lport, rport: 7, v6_socket: true }
    }

    #[test]
    fn the_bound_address_wins_and_sharing_processes_are_nobody() {
        let mut listeners = Listeners::default();
        let found = |listeners: &Listeners, laddr| {
            listeners.owner(Some(5), &at(laddr, 80)).map(|owner| owner.task.tgid)
        };
        listeners.insert(1, Some(5), &at("::", 80), owner(1));
        listeners.insert(2, Some(5), &at("::ffff:10.0.0.1", 80), owner(2));
        listeners.insert(3, Some(6), &at("::", 80), owner(3));
        assert_eq!(found(&listeners, "::ffff:10.0.0.1"), Some(2));
        assert_eq!(found(&listeners, "::ffff:10.0.0.2"), Some(1));
        listeners.insert(4, Some(5), &at("::", 80), owner(1));
        assert_eq!(found(&listeners, "::1"), Some(1), "two sockets of one process");
        listeners.insert(4, Some(5), &at("::", 80), owner(4));
        assert_eq!(found(&listeners, "::1"), None);
        listeners.remove(1, Some(5), &at("::", 80));
        assert_eq!(found(&listeners, "::1"), Some(4));
        assert_eq!(listeners.owner(Some(5), &at("::1", 81)).map(|o| o.task.tgid), None);
    }
}
