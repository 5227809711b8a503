//! Births of minisocks that await their full socket, by namespace and ends.
//!
//! The full socket follows within microseconds, so there are as many as there are CPUs, seldom
//! more. Must stay fast when there are thousands all the same: the new start of a timer that is
//! not known looks like a birth.

use std::collections::BTreeMap;

use tcptrace_model::Tuple;

/// As many are looked through one by one, the last first.
const FEW: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Birth {
    netns: u32,
    tuple: Tuple,
    addr: u64,
}

/// The births by namespace and ends; each is in one of the two.
#[derive(Default)]
pub(super) struct Births {
    few: Vec<Birth>,
    /// Those that found `few` full; in order, so that one is found without its namespace too.
    more: BTreeMap<(Tuple, u32), u64>,
}

impl Births {
    /// The minisock at `addr` was born. One before it with the same ends does not count any more.
    pub(super) fn insert(&mut self, netns: u32, tuple: Tuple, addr: u64) {
        if let Some(at) = self.find(Some(netns), &tuple) {
            self.few[at].addr = addr;
        } else if self.few.len() < FEW && !self.more.contains_key(&(tuple, netns)) {
            self.few.push(Birth { netns, tuple, addr });
        } else {
            self.more.insert((tuple, netns), addr);
        }
    }

    /// Takes out the address of the minisock with these ends, in any namespace unless told.
    pub(super) fn take(&mut self, netns: Option<u32>, tuple: &Tuple) -> Option<u64> {
        if let Some(at) = self.find(netns, tuple) {
            return Some(self.few.swap_remove(at).addr);
        }
        let (least, most) = netns.map_or((0, u32::MAX), |netns| (netns, netns));
        let (&key, _) = self.more.range((*tuple, least)..=(*tuple, most)).next()?;
        self.more.remove(&key)
    }

    /// The minisock at `addr` does not await its full socket any more.
    pub(super) fn forget(&mut self, netns: u32, tuple: &Tuple, addr: u64) {
        if let Some(at) = self.find(Some(netns), tuple) {
            if self.few[at].addr == addr {
                self.few.swap_remove(at);
            }
        } else if self.more.get(&(*tuple, netns)) == Some(&addr) {
            self.more.remove(&(*tuple, netns));
        }
    }

    fn find(&self, netns: Option<u32>, tuple: &Tuple) -> Option<usize> {
        self.few.iter().rposition(|birth| {
            birth.tuple == *tuple && netns.is_none_or(|netns| netns == birth.netns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(number: u16) -> Tuple {
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        Tuple { laddr: any, raddr: any, lport: number, rport: 443, v6_socket: true }
    }

    #[test]
    fn each_is_found_once_however_many_there_are() {
        for many in [1, FEW as u16, 1000] {
            let mut births = Births::default();
            for number in 0..many {
                births.insert(5, tuple(number), number.into());
            }
            assert_eq!(births.take(Some(6), &tuple(0)), None, "in another namespace");
            for number in 0..many {
                let netns = (number % 2 == 0).then_some(5);
                assert_eq!(births.take(netns, &tuple(number)), Some(number.into()));
                assert_eq!(births.take(netns, &tuple(number)), None);
            }
        }
    }

    #[test]
    fn a_forgotten_birth_is_not_found() {
        let mut births = Births::default();
        for number in 0..100 {
            births.insert(5, tuple(number), number.into());
        }
        for number in 0..100 {
            births.forget(5, &tuple(number), number.into());
            assert_eq!(births.take(Some(5), &tuple(number)), None);
        }
    }

    #[test]
    fn the_last_with_the_same_ends_counts() {
        let mut births = Births::default();
        for addr in [1, 2] {
            for number in 0..100 {
                births.insert(5, tuple(number), addr);
            }
            // Room among the few: who is among the many must not come in twice.
            births.take(Some(5), &tuple(0));
        }
        for number in 1..100 {
            births.forget(5, &tuple(number), 1);
            assert_eq!(births.take(Some(5), &tuple(number)), Some(2));
            assert_eq!(births.take(Some(5), &tuple(number)), None);
        }
    }
}
