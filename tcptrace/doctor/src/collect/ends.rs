//! How connections ended, by network namespace, service and peer, a window at a time.
//!
//! Each end is counted once, where `tcptrace_stats::closers` counts it.

use std::net::{Ipv6Addr, SocketAddr};

use tcptrace_model::{
    How, Initiator, Moved, Opened, TcpState,
    hash::{Map, Set},
};
use tcptrace_stats::{
    closers::{Told, told},
    group::{self, Key},
};

use crate::facts::Ended;

/// Rows that are told apart in a window. Beyond that peers are not, and then services neither.
const ROWS: usize = 1 << 15;
/// Network namespaces that are told apart.
pub(super) const SPACES: usize = 4096;

/// What ends have in common that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End {
    netns: u32,
    service: Key,
    how: How,
    /// Its port is 0 where this end did not connect.
    peer: Option<(Ipv6Addr, u16)>,
    opened: Option<Opened>,
    initiator: Option<Initiator>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    count: u64,
    shortest_ms: u64,
    longest_ms: u64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.shortest_ms = self.shortest_ms.min(other.shortest_ms);
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

/// Ends in a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    rows: Map<End, Count>,
    spaces: Set<u32>,
    /// There was no room for what happened in some namespace.
    pub(super) crowded: bool,
    /// There was a connection whose namespace is not known.
    pub(super) unplaced: bool,
}

impl Ends {
    pub(super) fn add(&mut self, moved: &Moved) {
        let Some(told) = told(moved) else { return };
        let Some(netns) = moved.netns else {
            self.unplaced = true;
            return;
        };
        let (how, initiator) = match told {
            Told::Closed(ending) => (ending.how, ending.initiator),
            Told::Failed(how) => (how, moved.verdict.initiator),
        };
        let opened = match moved.old {
            TcpState::SynSent => Some(Opened::Connect),
            _ => moved.birth.map(|birth| birth.opened),
        };
        let port = if opened == Some(Opened::Connect) { moved.tuple.rport } else { 0 };
        let end = End {
            netns,
            service: group::service(moved),
            how,
            peer: Some((moved.tuple.raddr, port)),
            opened,
            initiator,
        };
        let lived_ms = moved.lived().least_ns() / 1_000_000;
        self.count(end, &Count { count: 1, shortest_ms: lived_ms, longest_ms: lived_ms });
    }

    fn count(&mut self, end: End, count: &Count) {
        if !self.spaces.contains(&end.netns) {
            if self.spaces.len() >= SPACES {
                self.crowded = true;
                return;
            }
            self.spaces.insert(end.netns);
        }
        let mut end = end;
        if !self.rows.contains_key(&end) && self.rows.len() >= ROWS {
            end.peer = None;
            if !self.rows.contains_key(&end) && self.rows.len() >= 2 * ROWS {
                end.service = Key::Other;
            }
        }
        self.rows.entry(end).and_modify(|sum| sum.add(count)).or_insert(*count);
    }

    /// Adds those of another window.
    pub(super) fn join(&mut self, other: &Self) {
        other.rows.iter().for_each(|(end, count)| self.count(*end, count));
        self.crowded |= other.crowded;
        self.unplaced |= other.unplaced;
    }

    /// As facts, by namespace, the most first.
    pub(super) fn facts(&self) -> Map<u32, Vec<Ended>> {
        let mut facts: Map<u32, Vec<Ended>> = Map::default();
        for (end, count) in &self.rows {
            let address =
                |(address, port): (Ipv6Addr, u16)| SocketAddr::new(address.to_canonical(), port);
            facts.entry(end.netns).or_default().push(Ended {
                who: end.service.to_string(),
                how: end.how,
                count: count.count,
                peer: end.peer.map(address),
                opened: end.opened,
                initiator: end.initiator,
                lived_ms: (count.shortest_ms, count.longest_ms),
            });
        }
        for ends in facts.values_mut() {
            ends.sort_by(|a, b| {
                b.count.cmp(&a.count).then_with(|| (&a.who, a.peer).cmp(&(&b.who, b.peer)))
            });
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_model::{Change, script};
    use tcptrace_track::Tracker;

    use super::*;

    fn ends(text: &str) -> Ends {
        let (mut ends, mut tracker) = (Ends::default(), Tracker::default());
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = &change {
                    ends.add(moved);
                }
            });
        }
        ends
    }

    fn reset(n: usize, netns: usize) -> String {
        let of = format!("10.0.0.1:7 10.0.{}.{}:443 cookie={n:x} netns={netns}", n >> 8, n & 255);
        format!(
            "1ms sk={n:x} SYN_SENT>ESTABLISHED {of}\n2ms sk={n:x} ESTABLISHED>CLOSE {of} err=104\n"
        )
    }

    #[test]
    fn more_peers_and_namespaces_than_there_is_room_for_are_still_counted_or_said_not_to_be() {
        let text: String = (1..=SPACES).map(|netns| reset(netns, netns)).collect();
        let mut all = ends(&("0ms begin\n".to_owned() + &text));
        assert!(!all.crowded);
        let one: Map<u32, Vec<Ended>> = all.facts();
        assert_eq!(one.len(), SPACES);
        all.join(&ends(&("0ms begin\n".to_owned() + &reset(1, SPACES + 1))));
        assert!(all.crowded);

        // The same service with more peers than there are rows: no end is lost, only whose it was.
        let text: String = (1..=ROWS + 10).map(|n| reset(n, 1)).collect();
        let many = ends(&("0ms begin\n".to_owned() + &text));
        let facts = many.facts().remove(&1).unwrap();
        assert_eq!(facts.iter().map(|ended| ended.count).sum::<u64>(), ROWS as u64 + 10);
        assert!(facts.iter().any(|ended| ended.peer.is_none() && ended.count == 10));
    }
}
