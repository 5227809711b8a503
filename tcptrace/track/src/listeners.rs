//! Whose listeners there are, for the connections that they take.
//!
//! A child of a listener is born in softirq: nothing there says whose it is. Until a hook tells
//! who accepted it, it is its listener's owner's, and said so. Must not choose among several: where
//! listeners of different processes share a port (`SO_REUSEPORT`), it is nobody's for now. Nor look
//! through them one by one, since this is asked for each connection that is accepted.

use std::{
    collections::{BTreeMap, btree_map},
    net::Ipv6Addr,
};

use tcptrace_model::{Owner, Tuple, hash::Map};

/// Listeners kept. Where there are more, nothing is said of whose any child is.
const LIMIT: usize = 65_536;

/// Where a listener listens: the namespace, if that is known, the port and the address.
type Place = (Option<u32>, u16, Ipv6Addr);

/// `::`, and `0.0.0.0` as v4-mapped.
const ANY: [Ipv6Addr; 2] = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)];

/// Listeners at one place.
#[derive(Default)]
struct Sharing {
    /// By the address of the socket, or its cookie where it is known from a snapshot.
    owners: BTreeMap<u64, Owner>,
    /// How many are of each process.
    processes: BTreeMap<u32, usize>,
}

impl Sharing {
    fn remove(&mut self, id: u64) -> bool {
        let Some(owner) = self.owners.remove(&id) else { return false };
        if let btree_map::Entry::Occupied(mut count) = self.processes.entry(owner.task.tgid) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        true
    }

    /// The owner of them all, if they are of one process.
    fn owner(&self) -> Option<Owner> {
        (self.processes.len() == 1).then(|| self.owners.values().next().copied()).flatten()
    }
}

/// Listeners by where they listen.
#[derive(Default)]
pub(super) struct Listeners {
    by_place: Map<Place, Sharing>,
    count: usize,
    /// Those that there was no room for: who shares a port is not known any more.
    left_out: u64,
}

impl Listeners {
    /// There is one. `id` tells it from others at the same place.
    pub(super) fn insert(&mut self, id: u64, netns: Option<u32>, tuple: &Tuple, owner: Owner) {
        self.remove(id, netns, tuple);
        if self.count >= LIMIT {
            self.left_out += 1;
            return;
        }
        let sharing = self.by_place.entry((netns, tuple.lport, tuple.laddr)).or_default();
        sharing.owners.insert(id, owner);
        *sharing.processes.entry(owner.task.tgid).or_default() += 1;
        self.count += 1;
    }

    /// It is gone.
    pub(super) fn remove(&mut self, id: u64, netns: Option<u32>, tuple: &Tuple) {
        let place = (netns, tuple.lport, tuple.laddr);
        let Some(sharing) = self.by_place.get_mut(&place) else { return };
        if sharing.remove(id) {
            self.count -= 1;
        }
        if sharing.owners.is_empty() {
            self.by_place.remove(&place);
        }
    }

    /// Whose the listener is that took a connection with this local end.
    pub(super) fn owner(&self, netns: Option<u32>, tuple: &Tuple) -> Option<Owner> {
        if self.left_out > 0 {
            return None;
        }
        let at = |laddr| self.by_place.get(&(netns, tuple.lport, laddr));
        // Up to 6.12 a child has its listener's address at this moment, which is found as well.
        if let Some(sharing) = at(tuple.laddr) {
            return sharing.owner();
        }
        let mut any = ANY.into_iter().filter_map(at);
        let owner = any.next()?.owner()?;
        let same = |sharing: &Sharing| {
            sharing.owner().is_some_and(|other| other.task.tgid == owner.task.tgid)
        };
        any.all(same).then_some(owner)
    }

    /// How many there was no room for.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }
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

    #[test]
    fn where_there_are_too_many_nothing_is_said() {
        let mut listeners = Listeners::default();
        for id in 0..LIMIT as u64 {
            listeners.insert(id, Some(5), &at("::", 80), owner(1));
        }
        let found = listeners.owner(Some(5), &at("::1", 80));
        assert_eq!(found.map(|owner| owner.task.tgid), Some(1));
        // This one shares the port, and is not kept.
        listeners.insert(LIMIT as u64, Some(5), &at("::", 80), owner(2));
        assert_eq!(listeners.owner(Some(5), &at("::1", 80)), None);
        assert_eq!(listeners.left_out(), 1);
    }
}
