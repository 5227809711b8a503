//! Transitions to CLOSE that are hand-overs or ends, which the next scan tells.
//!
//! Must not look through them for each RST: a peer sets the rate of both.

use std::collections::{HashMap, VecDeque};

use super::super::{conn::Conn, verdict::Judgement};
use tcptrace_model::{Moved, hash::ByAddress};

/// Empty places in the queue before they are closed up.
const SPARE: usize = 1024;

/// A transition that is a hand-over or an end.
pub(super) struct Pending {
    pub(super) conn: Conn,
    pub(super) moved: Moved,
    /// What the end is, if it is one.
    pub(super) judgement: Judgement,
    /// It was here when the present look was begun.
    pub(super) before_look: bool,
}

/// Transitions that are held back, in the order in which they were reported.
#[derive(Default)]
pub(super) struct HandOvers {
    /// Nothing where one was taken out before its turn.
    queue: VecDeque<Option<Pending>>,
    /// How many have left the front of the queue.
    left: u64,
    /// Which is the last of a socket, as counted from the first that ever was in the queue.
    last_of: HashMap<u64, u64, ByAddress>,
    len: usize,
}

impl HandOvers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Pending> {
        self.queue.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.queue.iter_mut().flatten()
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.last_of.insert(pending.moved.skaddr, self.left + self.queue.len() as u64);
        self.queue.push_back(Some(pending));
        self.len += 1;
        if self.queue.len() > 2 * self.len + SPARE {
            let all = self.take();
            all.for_each(|pending| self.push(pending));
        }
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Pending> {
        while let Some(oldest) = self.queue.pop_front() {
            let at = self.left;
            self.left += 1;
            if let Some(pending) = oldest {
                if self.last_of.get(&pending.moved.skaddr) == Some(&at) {
                    self.last_of.remove(&pending.moved.skaddr);
                }
                self.len -= 1;
                return Some(pending);
            }
        }
        None
    }

    fn place(&self, skaddr: u64) -> Option<usize> {
        usize::try_from(self.last_of.get(&skaddr)?.checked_sub(self.left)?).ok()
    }

    /// The last of the full socket at this address.
    pub(super) fn last_of(&self, skaddr: u64) -> Option<&Pending> {
        self.queue.get(self.place(skaddr)?)?.as_ref()
    }

    pub(super) fn remove_last_of(&mut self, skaddr: u64) {
        if let Some(place) = self.place(skaddr)
            && self.queue.get_mut(place).and_then(Option::take).is_some()
        {
            self.last_of.remove(&skaddr);
            self.len -= 1;
        }
    }

    /// All of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Pending> + use<> {
        std::mem::take(self).queue.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Entered;
    use tcptrace_model::{Age, TcpState, Tuple, Verdict};

    fn pending(skaddr: u64, mono_ns: u64) -> Pending {
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        let tuple = Tuple { laddr: any, raddr: any, lport: 1, rport: 2, v6_socket: true };
        let moved = Moved {
            id: 1,
            mono_ns,
            skaddr,
            old: TcpState::FinWait2,
            new: TcpState::Close,
            tuple,
            netns: None,
            birth: None,
            in_old: Age::Unknown,
            before_ns: 0,
            owner: None,
            closer: None,
            sock: None,
            end_reason: None,
            verdict: Verdict::default(),
        };
        let conn = Conn::new(1, TcpState::FinWait2, 0, Entered::Seen, tuple);
        let judgement = Judgement::Settled(Verdict::default());
        Pending { conn, moved, judgement, before_look: false }
    }

    #[test]
    fn the_last_of_a_socket_is_found_wherever_it_is() {
        let mut held = HandOvers::default();
        for at in 0..9 {
            held.push(pending(at % 3, at));
        }
        let last = |held: &HandOvers, addr| held.last_of(addr).map(|held| held.moved.mono_ns);
        assert_eq!([0, 1, 2, 3].map(|addr| last(&held, addr)), [Some(6), Some(7), Some(8), None]);
        held.remove_last_of(1);
        assert_eq!((last(&held, 1), held.len()), (None, 8));
        let oldest: Vec<_> =
            std::iter::from_fn(|| held.pop_oldest()).map(|held| held.moved.mono_ns).collect();
        assert_eq!(oldest, [0, 1, 2, 3, 4, 5, 6, 8]);
        assert_eq!((last(&held, 0), held.is_empty()), (None, true));
    }

    #[test]
    fn what_was_taken_out_leaves_no_room_behind() {
        let mut held = HandOvers::default();
        held.push(pending(0, 0));
        for at in 1..100_000 {
            held.push(pending(at, at));
            held.remove_last_of(at);
        }
        assert!(held.queue.len() <= SPARE + 4, "{}", held.queue.len());
        assert_eq!(held.take().map(|held| held.moved.mono_ns).collect::<Vec<_>>(), [0]);
    }
}
