//! How things went over time, in a bounded number of pieces however long that was: all of it, in
//! pieces that become longer, or the last of it.

use std::collections::VecDeque;

use super::facts::Moment;
use tcptrace_model::{Change, Input, TcpState};
use tcptrace_stats::counts::{COUNTED, StateCounts};

/// Pieces at the most. When there would be more, each two become one.
const MOST: usize = 480;

/// The shortest piece, nanoseconds.
const SHORTEST_NS: u64 = 250_000_000;

/// A timeline that grows.
pub(super) struct Timeline {
    counts: StateCounts,
    step_ns: u64,
    keeps: Keeps,
    /// The end of the present piece; `None` before the first.
    end_ns: Option<u64>,
    now: Moment,
    done: VecDeque<Moment>,
}

/// What is done when there are too many pieces.
enum Keeps {
    /// Each two become one.
    All,
    /// The oldest goes. There are so many.
    Last(usize),
}

impl Timeline {
    /// Of everything.
    pub(super) fn new() -> Self {
        Self::with(SHORTEST_NS, Keeps::All)
    }

    /// Of the last `most` pieces, each of `step_ns` nanoseconds.
    pub(super) fn of_the_last(most: usize, step_ns: u64) -> Self {
        Self::with(step_ns.max(1), Keeps::Last(most))
    }

    fn with(step_ns: u64, keeps: Keeps) -> Self {
        Self {
            counts: StateCounts::default(),
            step_ns,
            keeps,
            end_ns: None,
            now: Moment::default(),
            done: VecDeque::new(),
        }
    }

    /// Takes in an input that is no event.
    pub(super) fn input(&mut self, input: &Input) {
        if let Some(now) = input.mono_ns() {
            self.reach(now);
        }
        self.counts.input(input);
        match input {
            Input::Lost(lost) => self.now.lost += lost.count,
            Input::Missed { count, .. } => self.now.lost += count,
            _ => {}
        }
    }

    /// Takes in a change.
    pub(super) fn change(&mut self, change: &Change) {
        if let Change::Moved(moved) = change {
            self.reach(moved.mono_ns);
            let listens = moved.new == TcpState::Listen || moved.old == TcpState::Listen;
            self.now.transitions += 1;
            self.now.opened += u64::from(moved.is_birth() && moved.new != TcpState::Listen);
            let closes = match moved.new {
                TcpState::TimeWait => true,
                TcpState::Close => moved.old != TcpState::TimeWait && !listens,
                _ => false,
            };
            self.now.closed += u64::from(closes);
        }
        self.counts.change(change);
    }

    /// It is `now`: pieces that are over are done.
    fn reach(&mut self, now: u64) {
        let Some(mut end) = self.end_ns else {
            self.end_ns = Some(now.saturating_add(self.step_ns));
            return;
        };
        while end <= now {
            self.close(end, self.step_ns);
            match self.keeps {
                Keeps::All if self.done.len() >= MOST => self.halve(),
                Keeps::Last(most) if self.done.len() > most => drop(self.done.pop_front()),
                Keeps::All | Keeps::Last(_) => {}
            }
            end = end.saturating_add(self.step_ns);
            if end == u64::MAX {
                break;
            }
        }
        self.end_ns = Some(end);
    }

    fn close(&mut self, end_ns: u64, length_ns: u64) {
        let states = COUNTED.map(|state| self.counts.get(state).map_or(0, |flow| flow.now));
        let now = std::mem::take(&mut self.now);
        self.done.push_back(Moment { end_ns, length_ns, states, ..now });
    }

    /// Makes one of each two.
    fn halve(&mut self) {
        let pairs = self.done.make_contiguous().chunks(2).map(|pair| match pair {
            [a, b] => joined(a, b),
            rest => rest.first().cloned().unwrap_or_default(),
        });
        self.done = pairs.collect();
        self.step_ns = self.step_ns.saturating_mul(2);
    }

    /// All of it, up to `now`.
    pub(super) fn finish(&mut self, now: u64) -> Vec<Moment> {
        self.reach(now);
        let begin = self.end_ns.map(|end| end.saturating_sub(self.step_ns));
        self.close(now, now.saturating_sub(begin.unwrap_or(now)));
        // What was told of the very end is no piece of its own.
        if let [.., before, last] = self.done.make_contiguous()
            && last.length_ns == 0
        {
            *before = joined(before, last);
            self.done.pop_back();
        }
        std::mem::take(&mut self.done).into()
    }

    /// The pieces that are over.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Moment> {
        self.done.iter()
    }
}

/// Two pieces, the second right after the first, as one.
fn joined(a: &Moment, b: &Moment) -> Moment {
    Moment {
        end_ns: b.end_ns,
        length_ns: a.length_ns + b.length_ns,
        states: b.states,
        transitions: a.transitions + b.transitions,
        opened: a.opened + b.opened,
        closed: a.closed + b.closed,
        lost: a.lost + b.lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;
    use tcptrace_track::Tracker;

    #[test]
    fn a_long_time_is_as_many_pieces_and_loses_nothing() {
        let mut script = "0ms begin\n1ms tick\n".to_owned();
        for i in 0..1000 {
            script += &format!(
                "{t}ms sk={i:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=x\n\
                 {t}.5ms sk={i:x} SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n",
                t = 1 + i * 1000
            );
        }
        script += "1000000ms lost 3\n1000000ms tick\n";
        let (mut tracker, mut timeline) = (Tracker::default(), Timeline::new());
        for input in script::inputs(&script).unwrap() {
            tracker.apply(&input, &mut |change| timeline.change(&change));
            timeline.input(&input);
        }
        let moments = timeline.finish(1_000_000_000_000);
        assert!(moments.len() <= MOST && moments.len() > MOST / 3, "{}", moments.len());
        let sum = |of: fn(&Moment) -> u64| moments.iter().map(of).sum::<u64>();
        assert_eq!((sum(|m| m.transitions), sum(|m| m.opened), sum(|m| m.lost)), (2000, 1000, 3));
        assert_eq!(sum(|m| m.length_ns), 1_000_000_000_000);
        let established = COUNTED.iter().position(|&s| s == TcpState::Established).unwrap();
        assert_eq!(moments.last().unwrap().states[established], 1000);
        assert!(
            moments.windows(2).all(|pair| pair[0].end_ns + pair[1].length_ns == pair[1].end_ns)
        );
    }
}
