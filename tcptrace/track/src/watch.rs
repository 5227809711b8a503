//! What a run that only records must know all the same: which minisocks are to be looked at, and
//! when the socket tables are worth reading again soon.
//!
//! Stands in for the tracker where nothing is concluded from the inputs, so that recording does not
//! cost what analysis does. Must have the host look at every minisock that the tracker would: what is
//! not in a recording, no later analysis can conclude. Of the socket tables it asks for less: where
//! they differ from the events with nothing lost, the next round, when it is due, settles that.

use std::collections::{HashMap, hash_map::Entry};

use super::peek::Peeks;
use tcptrace_model::{Event, Input, Minisock, MinisockEvent, Snapshot, TcpState, hash::ByAddress};

/// Minisocks in FIN_WAIT2 that are looked at; others tell of themselves when they end.
const LIMIT: usize = 1 << 20;

/// Knows of minisocks in FIN_WAIT2 and of losses.
#[derive(Default)]
pub struct Watch {
    /// Each that waits for a look, and whether that is still wanted.
    minis: HashMap<u64, bool, ByAddress>,
    peeks: Peeks,
    /// Events were lost since the last time that everything was dumped.
    lossy: bool,
    /// And before that time, since the one before it.
    in_doubt: bool,
}

impl Watch {
    /// Takes in one input.
    pub fn take(&mut self, input: &Input) {
        match input {
            Input::Event(Event::Minisock(event)) => self.minisock(event),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => self.lossy = true,
            Input::Snapshot(Snapshot::Over { all: true, .. }) => {
                self.in_doubt = std::mem::take(&mut self.lossy);
            }
            _ => {}
        }
    }

    fn minisock(&mut self, event: &Minisock) {
        use MinisockEvent::{Ended, Expired, Peeked, Restarted, Started, Stopped};
        let waits = event.substate == TcpState::FinWait2
            && match event.event {
                Started | Restarted => true,
                // It stays where it is, or a start follows.
                Peeked | Stopped { .. } | Expired | Ended { .. } => false,
            };
        if !waits {
            // Its turn comes, and is passed over then.
            if let Some(wanted) = self.minis.get_mut(&event.addr) {
                *wanted = false;
            }
            return;
        }
        let room = self.minis.len() < LIMIT;
        match self.minis.entry(event.addr) {
            Entry::Occupied(mut waiting) => *waiting.get_mut() = true,
            Entry::Vacant(new) if room => {
                new.insert(true);
                // One entry for each address: what is there when its turn comes is looked at.
                self.peeks.add(event.addr, 0, event.mono_ns);
            }
            Entry::Vacant(_) => {}
        }
    }

    /// Addresses of minisocks in FIN_WAIT2 that the source should look at, at `now`.
    pub fn due_peeks(&mut self, now: u64) -> Vec<u64> {
        let minis = &mut self.minis;
        self.peeks.due(now, |addr, _| {
            let wanted = minis.get(&addr).is_some_and(|wanted| *wanted);
            if !wanted {
                minis.remove(&addr);
            }
            wanted
        })
    }

    /// Whether there are any that will be due.
    pub fn awaits_peeks(&self) -> bool {
        !self.peeks.is_empty()
    }

    /// Whether another snapshot soon would tell more: the first after a loss may differ from what is
    /// known, and only a second one that says the same settles that.
    pub fn in_doubt(&self) -> bool {
        self.in_doubt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tracker;
    use tcptrace_model::script;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_looks_where_the_tracker_does() {
        let inputs = script::inputs(
            "0ms begin\n\
             1ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 cookie=1\n\
             2ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 cookie=1\n\
             3ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 expires=60003ms cookie=1\n\
             3ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443 cookie=1\n\
             4ms tw=c started TIME_WAIT 10.0.0.1:8 10.0.0.2:443 expires=60004ms cookie=2\n\
             50ms tick\n\
             60ms tw=b peeked TIME_WAIT 10.0.0.1:7 10.0.0.2:443 expires=60003ms cookie=1\n\
             70ms tw=d started FIN_WAIT2 10.0.0.1:9 10.0.0.2:443 expires=60070ms cookie=3\n\
             150ms tick\n\
             200ms tw=d expired FIN_WAIT2 10.0.0.1:9 10.0.0.2:443 expires=60070ms cookie=3\n",
        )
        .unwrap();
        let (mut watch, mut tracker) = (Watch::default(), Tracker::default());
        let (mut looks, mut trackers) = (Vec::new(), Vec::new());
        for input in inputs {
            watch.take(&input);
            tracker.apply(&input, &mut |_| {});
            let now = input.mono_ns().unwrap() + 20 * MS;
            looks.extend(watch.due_peeks(now).into_iter().map(|addr| (now / MS, addr)));
            trackers.extend(tracker.due_peeks(now).into_iter().map(|addr| (now / MS, addr)));
        }
        // It waits for no full socket: of d there is none.
        assert_eq!(trackers, [(23, 0xb), (70, 0xb), (170, 0xd)]);
        assert_eq!(looks, [(23, 0xb), (70, 0xb), (90, 0xd), (170, 0xd)]);
        assert_eq!(watch.due_peeks(9_000 * MS), [0; 0]);
        assert!(watch.minis.is_empty());
    }

    #[test]
    fn a_loss_calls_for_a_second_snapshot() {
        let mut watch = Watch::default();
        let over = |watch: &mut Watch| {
            watch.take(&Input::Snapshot(Snapshot::Over { mono_ns: 1, all: true }));
            watch.in_doubt()
        };
        assert!(!over(&mut watch));
        watch.take(&Input::Missed { count: 1, mono_ns: 2 });
        assert!(!watch.in_doubt(), "the first comes when it is due");
        watch.take(&Input::Snapshot(Snapshot::Over { mono_ns: 3, all: false }));
        assert!(!watch.in_doubt());
        assert!(over(&mut watch));
        assert!(!over(&mut watch));
    }
}
