//! The graceful close, step by step: who is waited for, and how long.
//!
//! A close goes one way through the states, so each step of each connection is one transition,
//! and nothing has to be remembered of a connection.

use super::measure::Measure;
use tcptrace_model::{Moved, TcpState};

/// Which end sent its FIN first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This one: the active close.
    Local,
    /// The peer: the passive close.
    Peer,
}

/// One step of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which end sent its FIN first.
    pub side: Side,
    /// The state left.
    pub from: TcpState,
    /// The state entered.
    pub to: TcpState,
    /// Who or what is waited for in `from`.
    pub waits_for: &'static str,
    /// What happened, in a few words.
    pub what: &'static str,
}

const ACK: &str = "the peer's kernel, to acknowledge our FIN";
const PEER: &str = "the peer's application, to close its end";
const GUARD: &str = "nobody: late segments are to die out";
const OWN: &str = "our own application, to close its end";

const fn step(
    side: Side,
    from: TcpState,
    to: TcpState,
    waits_for: &'static str,
    what: &'static str,
) -> Step {
    Step { side, from, to, waits_for, what }
}

/// All steps, in their order.
pub const STEPS: [Step; 12] = {
    use Side::{Local, Peer};
    use TcpState::*;
    [
        step(Local, FinWait1, FinWait2, ACK, "acknowledged"),
        step(Local, FinWait1, Closing, ACK, "the peer's FIN came first"),
        step(Local, FinWait1, TimeWait, ACK, "ACK and FIN came together"),
        step(Local, FinWait1, Close, ACK, "gave up, or reset"),
        step(Local, FinWait2, TimeWait, PEER, "the peer's FIN came"),
        step(Local, FinWait2, Close, PEER, "it never came, or reset"),
        step(Local, Closing, TimeWait, ACK, "acknowledged"),
        step(Local, Closing, Close, ACK, "gave up, or reset"),
        step(Local, TimeWait, Close, GUARD, "ended"),
        step(Peer, CloseWait, LastAck, OWN, "it closed, our FIN went out"),
        step(Peer, CloseWait, Close, OWN, "reset"),
        step(Peer, LastAck, Close, ACK, "acknowledged, or reset"),
    ]
};

/// The steps of many connections.
pub struct Steps {
    measures: Vec<Measure>,
    began_local: u64,
    began_peer: u64,
    aborted: u64,
}

impl Default for Steps {
    fn default() -> Self {
        let measures =
            STEPS.iter().map(|step| Measure::new(step.from == TcpState::TimeWait)).collect();
        Self { measures, began_local: 0, began_peer: 0, aborted: 0 }
    }
}

impl Steps {
    /// Takes in a transition.
    pub fn add(&mut self, moved: &Moved) {
        use TcpState::*;
        match (moved.old, moved.new) {
            (_, FinWait1) => self.began_local += 1,
            (Established | SynRecv, CloseWait) => self.began_peer += 1,
            (Established, Close) => self.aborted += 1,
            _ => {}
        }
        let at = STEPS.iter().position(|step| (step.from, step.to) == (moved.old, moved.new));
        if let Some(measure) = at.and_then(|at| self.measures.get_mut(at)) {
            measure.add(moved.in_old, moved.end_reason);
        }
    }

    /// Each step that was taken, in order.
    pub fn taken(&self) -> impl Iterator<Item = (&'static Step, &Measure)> {
        STEPS.iter().zip(&self.measures).filter(|(_, measure)| !measure.is_empty())
    }

    /// How many closes this side began with a FIN, and how many the peer.
    pub fn began(&self, side: Side) -> u64 {
        match side {
            Side::Local => self.began_local,
            Side::Peer => self.began_peer,
        }
    }

    /// How many established connections ended without a FIN of either side: reset or timed out.
    pub fn aborted(&self) -> u64 {
        self.aborted
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Change, script};
    use tcptrace_track::Tracker;

    #[test]
    fn each_step_of_each_connection_is_timed() {
        let (mut tracker, mut steps) = (Tracker::default(), Steps::default());
        let script = "0ms begin\n\
            0ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
            5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443\n\
            6ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
            9ms tw=b started TIME_WAIT 10.0.0.1:7 10.0.0.2:443 expires=60008ms\n\
            9ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443\n\
            5ms sk=c ESTABLISHED>CLOSE_WAIT 10.0.0.2:443 10.0.0.1:7\n\
            8ms sk=c CLOSE_WAIT>LAST_ACK 10.0.0.2:443 10.0.0.1:7\n\
            8.5ms sk=c LAST_ACK>CLOSE 10.0.0.2:443 10.0.0.1:7\n\
            9ms sk=d ESTABLISHED>CLOSE 10.0.0.2:443 10.0.0.1:9\n";
        for input in script::inputs(script).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    steps.add(&moved);
                }
            });
        }
        let taken: Vec<_> = steps
            .taken()
            .map(|(step, measure)| (step.from.name(), step.to.name(), measure.max_ns()))
            .collect();
        assert_eq!(
            taken,
            [
                ("FIN_WAIT1", "FIN_WAIT2", Some(1_000_000)),
                ("FIN_WAIT2", "TIME_WAIT", Some(3_000_000)),
                ("CLOSE_WAIT", "LAST_ACK", Some(3_000_000)),
                ("LAST_ACK", "CLOSE", Some(500_000)),
            ]
        );
        assert_eq!((steps.began(Side::Local), steps.began(Side::Peer)), (1, 1));
        assert_eq!(steps.aborted(), 1);
    }

    #[test]
    fn no_step_is_listed_twice_and_each_can_be() {
        for (at, step) in STEPS.iter().enumerate() {
            assert!(step.from.may_become(step.to), "{step:?}");
            let same = |other: &&Step| (other.from, other.to) == (step.from, step.to);
            assert_eq!(STEPS.iter().position(|other| same(&other)), Some(at));
        }
    }
}
