//! How many connections are in each state, and how many entered and left it.
//!
//! Counts by the law of [`Change`]. Must not guess: what no hook tells of (the SYN queue) is the
//! number of the last snapshot, and CLOSE is not counted at all.

use tcptrace_model::{Change, Input, Snapshot, TcpState, Unseen, hash::Map};

/// The states that are counted, in the order of a connection's life.
pub const COUNTED: [TcpState; 10] = [
    TcpState::Listen,
    TcpState::SynSent,
    TcpState::SynRecv,
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::TimeWait,
    TcpState::CloseWait,
    TcpState::LastAck,
];

/// One state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Connections in it.
    pub now: u64,
    /// Transitions into it, so far.
    pub entered: u64,
    /// Transitions out of it, so far.
    pub left: u64,
}

/// The counts of all states.
#[derive(Clone, Debug, Default)]
pub struct StateCounts {
    /// By the kernel's number. Signed: it cannot go below 0 by the law, but must not wrap if it did.
    now: [i64; SLOTS],
    entered: [u64; SLOTS],
    left: [u64; SLOTS],
    /// By namespace, as of its last snapshot.
    unseen: Map<u32, Unseen>,
    /// The namespace whose snapshot is being told, if that is of all its sockets.
    snapshot_of: Option<u32>,
    /// The snapshots that are being told are of minisocks alone.
    minisocks_alone: bool,
}

/// The kernel's numbers of states.
const SLOTS: usize = TcpState::ALL.len() + 1;

impl StateCounts {
    /// Takes in one change.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Moved(moved) => {
                if !moved.is_birth() {
                    self.now[slot(moved.old)] -= 1;
                    self.left[slot(moved.old)] += 1;
                }
                if moved.new != TcpState::Close {
                    self.now[slot(moved.new)] += 1;
                    self.entered[slot(moved.new)] += 1;
                }
            }
            Change::Found(found) => self.now[slot(found.state)] += 1,
            Change::Gone(gone) => self.now[slot(gone.state)] -= 1,
            Change::Retired(_) => {}
        }
    }

    /// Takes in what only snapshots tell.
    pub fn input(&mut self, input: &Input) {
        let Input::Snapshot(snapshot) = input else { return };
        match snapshot {
            Snapshot::Open => self.minisocks_alone = false,
            Snapshot::OpenMinisocks => self.minisocks_alone = true,
            Snapshot::Begin { netns, .. } => {
                self.snapshot_of = Some(*netns).filter(|_| !self.minisocks_alone);
            }
            Snapshot::End(end) => {
                if let Some(netns) = self.snapshot_of.take() {
                    if end.unseen == Unseen::default() {
                        self.unseen.remove(&netns);
                    } else {
                        self.unseen.insert(netns, end.unseen);
                    }
                }
            }
            Snapshot::Socket(_)
            | Snapshot::Info(_)
            | Snapshot::SynQueue(_)
            | Snapshot::Bound(_)
            | Snapshot::Over { .. } => {}
        }
    }

    /// What is known of `state`; `None` for CLOSE, which cannot be observed: a socket that is
    /// merely bound is in no table and has no event.
    pub fn get(&self, state: TcpState) -> Option<Flow> {
        if state == TcpState::Close {
            return None;
        }
        let unseen: u64 = self
            .unseen
            .values()
            .map(|unseen| match state {
                TcpState::SynRecv => u64::from(unseen.syn_queue),
                TcpState::FinWait2 => u64::from(unseen.fin_wait2),
                TcpState::TimeWait => u64::from(unseen.time_wait),
                _ => 0,
            })
            .sum();
        let slot = slot(state);
        Some(Flow {
            now: u64::try_from(self.now[slot]).unwrap_or(0) + unseen,
            entered: self.entered[slot],
            left: self.left[slot],
        })
    }

    /// Connections in all states that are counted.
    pub fn total(&self) -> u64 {
        COUNTED.into_iter().filter_map(|state| self.get(state)).map(|flow| flow.now).sum()
    }
}

/// A request sock is in SYN_RECV for everybody but the kernel.
fn slot(state: TcpState) -> usize {
    match state {
        TcpState::NewSynRecv => TcpState::SynRecv as usize,
        _ => state as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;
    use tcptrace_track::Tracker;

    fn count(text: &str) -> StateCounts {
        let (mut tracker, mut counts) = (Tracker::default(), StateCounts::default());
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| counts.change(&change));
            counts.input(&input);
        }
        counts
    }

    #[test]
    fn a_connection_is_in_one_state_at_a_time() {
        let counts = count(
            "0ms begin\n\
             1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0\n\
             5ms sk=c LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:7\n\
             5ms sk=c SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:7\n\
             6ms sk=d ESTABLISHED>CLOSE_WAIT 10.0.0.2:443 10.0.0.1:8\n\
             7ms sk=e ESTABLISHED>CLOSE 10.0.0.2:443 10.0.0.1:9\n",
        );
        let flow = |state| counts.get(state).unwrap();
        assert_eq!(flow(TcpState::Listen), Flow { now: 1, entered: 1, left: 0 });
        assert_eq!(flow(TcpState::SynRecv), Flow { now: 0, entered: 1, left: 1 });
        assert_eq!(flow(TcpState::Established), Flow { now: 1, entered: 1, left: 2 });
        assert_eq!(flow(TcpState::CloseWait), Flow { now: 1, entered: 1, left: 0 });
        assert_eq!(counts.get(TcpState::Close), None, "not observable");
        assert_eq!(counts.total(), 3);
    }

    #[test]
    fn the_syn_queue_is_that_of_the_last_snapshot_of_each_namespace() {
        let rounds = "0ms begin\n\
            1ms snapshot open\n1ms snapshot 5\n1ms snapshot end syn-queue=3\n\
            1ms snapshot 6\n1ms snapshot end syn-queue=4\n1ms snapshot over\n2ms tick\n";
        let counts = count(rounds);
        assert_eq!(counts.get(TcpState::SynRecv).unwrap().now, 7);
        let counts = count(&format!(
            "{rounds}3ms snapshot open\n3ms snapshot 6\n3ms snapshot end\n3ms snapshot over\n"
        ));
        assert_eq!(counts.get(TcpState::SynRecv).unwrap().now, 3);
        let counts = count(&format!(
            "{rounds}3ms snapshot minisocks\n3ms snapshot 6\n3ms snapshot end\n3ms snapshot over\n"
        ));
        assert_eq!(counts.get(TcpState::SynRecv).unwrap().now, 7, "a look at others");
    }

    #[test]
    fn unwatched_minisocks_are_counted_by_snapshots() {
        let counts = count(
            "0ms begin\n1ms snapshot open\n1ms snapshot 5\n\
             1ms snapshot end time-wait=9 fin-wait2=2\n1ms snapshot over\n2ms tick\n",
        );
        assert_eq!(counts.get(TcpState::TimeWait).unwrap().now, 9);
        assert_eq!(counts.get(TcpState::FinWait2).unwrap().now, 2);
    }
}
