//! How long connections stay in a state, and how long they live.
//!
//! Must not invent a time: what the tracker knows as a lower bound or not at all is counted as
//! that.

use std::collections::hash_map::Entry;

use super::{
    group::{By, Key},
    measure::Measure,
};
use tcptrace_model::{Age, Moved, StateSet, TcpState, hash::Map};

/// Histograms that are kept at a time unless told otherwise: some 60 MiB at the worst.
pub const DEFAULT_LIMIT: usize = 512;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Span {
    /// The time in a state.
    In(TcpState),
    /// The whole life: from connect(), or from the end of the handshake of a connection that was
    /// accepted, to the end, TIME_WAIT included where that is observed.
    Life,
}

impl Span {
    /// All, in the order of a connection's life.
    pub const ALL: [Self; 11] = [
        Self::In(TcpState::Listen),
        Self::In(TcpState::SynSent),
        Self::In(TcpState::SynRecv),
        Self::In(TcpState::Established),
        Self::In(TcpState::FinWait1),
        Self::In(TcpState::FinWait2),
        Self::In(TcpState::Closing),
        Self::In(TcpState::TimeWait),
        Self::In(TcpState::CloseWait),
        Self::In(TcpState::LastAck),
        Self::Life,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In(state) => state.name(),
            Self::Life => "life",
        }
    }
}

/// Which spans to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The time in each of these.
    pub states: StateSet,
    /// The whole life.
    pub life: bool,
}

impl Spans {
    /// The states in which a connection lingers that is being closed.
    pub fn lingering() -> Self {
        use TcpState::*;
        let states = [FinWait1, FinWait2, TimeWait, Closing, CloseWait, LastAck];
        Self { states: states.into_iter().collect(), life: false }
    }

    /// Whether `span` is among them.
    pub fn contains(&self, span: Span) -> bool {
        match span {
            Span::In(state) => self.states.contains(state),
            Span::Life => self.life,
        }
    }
}

/// The kernel's numbers of states, and one for the whole life.
const SLOTS: usize = TcpState::ALL.len() + 1;

fn slot(span: Span) -> usize {
    match span {
        Span::In(state) => state as usize,
        Span::Life => 0,
    }
}

/// Histograms by span and group.
#[derive(Clone)]
pub struct Durations {
    spans: Spans,
    by: Option<By>,
    limit: usize,
    measures: Vec<((Span, Key), Measure)>,
    /// Where each is.
    places: Map<(Span, Key), usize>,
    /// By [`slot`], where the last one is that was added to: mostly that of the next one too, which
    /// is then not hashed.
    last: [usize; SLOTS],
}

impl Durations {
    /// Measures `spans`, told apart by `by`. Not told otherwise, TIME_WAIT is told apart by why
    /// it ended and SYN_SENT by whether it came to a connection: together they would be the time
    /// of nothing in particular. From the `limit`th histogram on, new groups are counted under
    /// [`Key::Other`] of their span.
    pub fn new(spans: Spans, by: Option<By>, limit: usize) -> Self {
        let (measures, places) = (Vec::new(), Map::default());
        Self { spans, by, limit, measures, places, last: [0; SLOTS] }
    }

    /// What is measured.
    pub fn spans(&self) -> Spans {
        self.spans
    }

    /// Takes in a transition.
    pub fn add(&mut self, moved: &Moved) {
        // The LISTEN that a child of a listener leaves is its listener's.
        if !moved.is_birth() && self.spans.states.contains(moved.old) {
            self.record(Span::In(moved.old), moved, moved.in_old);
        }
        if self.spans.life && moved.new == TcpState::Close && moved.old != TcpState::Listen {
            self.record(Span::Life, moved, moved.lived());
        }
    }

    /// What tells the groups of `span` apart, if it is one of the words of `--by`.
    pub fn split(&self, span: Span) -> Option<By> {
        self.by.or((span == Span::In(TcpState::TimeWait)).then_some(By::Reason))
    }

    fn record(&mut self, span: Span, moved: &Moved, age: Age) {
        let key = match (self.split(span), span) {
            (Some(by), _) => by.key(moved),
            (None, Span::In(TcpState::SynSent)) => Key::Connected(moved.new != TcpState::Close),
            (None, _) => Key::All,
        };
        let at = self.last[slot(span)];
        let at = match self.measures.get(at) {
            // Not as a pair, for which the key would be copied.
            Some(((of, group), _)) if *of == span && *group == key => at,
            _ => self.find(span, &key),
        };
        self.last[slot(span)] = at;
        self.measures[at].1.add(age, moved.end_reason);
    }

    /// Where the histogram of that group is, or of the others if there is no room for one more.
    #[inline(never)]
    fn find(&mut self, span: Span, key: &Key) -> usize {
        let full = self.measures.len() >= self.limit && !self.places.contains_key(&(span, *key));
        let name = (span, if full { Key::Other } else { *key });
        self.place(name, || Measure::new(span == Span::In(TcpState::TimeWait))).0
    }

    /// Where the histogram of that name is, which is made if there is none; and whether it was.
    fn place(&mut self, name: (Span, Key), new: impl FnOnce() -> Measure) -> (usize, bool) {
        match self.places.entry(name) {
            Entry::Occupied(known) => (*known.get(), false),
            Entry::Vacant(place) => {
                let at = *place.insert(self.measures.len());
                self.measures.push((name, new()));
                (at, true)
            }
        }
    }

    /// The groups of `span`: the largest first, the rest last.
    pub fn of(&self, span: Span) -> Vec<(Key, &Measure)> {
        let mut groups: Vec<_> = self
            .measures
            .iter()
            .filter(|((of, _), _)| *of == span)
            .map(|((_, key), measure)| (*key, measure))
            .collect();
        groups.sort_by_key(|(key, measure)| {
            (*key == Key::Other, std::cmp::Reverse(measure.added()), *key)
        });
        groups
    }

    /// What `other` measured is added, each histogram to the one of the same name.
    pub fn join(&mut self, other: &Self) {
        for (name, measure) in &other.measures {
            let (at, is_new) = self.place(*name, || measure.clone());
            if !is_new {
                self.measures[at].1.join(measure);
            }
        }
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.measures.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{
        Change, EndReason,
        script::{self, ACTIVE},
    };
    use tcptrace_track::Tracker;

    fn measure(durations: &mut Durations, script: &str) {
        let mut tracker = Tracker::default();
        for input in script::inputs(script).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change {
                    durations.add(&moved);
                }
            });
        }
    }

    fn spans(states: &str, life: bool) -> Spans {
        Spans { states: states.parse().unwrap(), life }
    }

    #[test]
    fn a_life_goes_on_through_the_hand_over() {
        let mut durations = Durations::new(spans("time-wait", true), None, 9);
        measure(&mut durations, ACTIVE);
        let life = durations.of(Span::Life);
        assert_eq!(life.len(), 1);
        assert_eq!(life[0].1.max_ns(), Some(60_008_000_000));
        let time_wait = durations.of(Span::In(TcpState::TimeWait));
        assert_eq!(time_wait[0].0, Key::Reason(Some(EndReason::Expired)));
        assert_eq!(time_wait[0].1.max_ns(), Some(60_000_000_000));
    }

    #[test]
    fn a_life_whose_beginning_was_not_seen_is_a_lower_bound() {
        let mut durations = Durations::new(spans("listen", true), None, 9);
        measure(
            &mut durations,
            "0ms begin\n\
             1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0 comm=nginx\n\
             5ms sk=2 ESTABLISHED>CLOSE 10.0.0.2:443 10.0.0.1:7\n\
             6ms sk=3 LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:8\n\
             6ms sk=3 SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:8\n\
             8ms lost 1\n\
             9ms sk=3 ESTABLISHED>CLOSE 10.0.0.2:443 10.0.0.1:8\n\
             9ms sk=1 LISTEN>CLOSE 10.0.0.2:443 0.0.0.0:0 comm=nginx\n",
        );
        let life = durations.of(Span::Life);
        assert_eq!((life[0].1.count(), life[0].1.at_least()), (0, (2, 5_000_000)));
        let listen = durations.of(Span::In(TcpState::Listen));
        assert_eq!(listen.len(), 1);
        assert_eq!(listen[0].1.count() + listen[0].1.at_least().0, 1, "not of the child");
    }

    /// All of the time in which it is known to have been there, as in `conns`, and not that in its last
    /// state alone.
    #[test]
    fn a_life_from_before_is_as_long_as_all_that_was_seen_of_it() {
        let mut durations = Durations::new(spans("listen", true), None, 9);
        measure(
            &mut durations,
            "0ms begin\n\
             1ms snapshot open\n1ms snapshot 5\n\
             1ms socket ESTABLISHED 1 10.0.0.1:7 10.0.0.2:443\n\
             1ms snapshot end\n1ms snapshot over\n2ms tick\n\
             2568ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
             2568ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
             2569ms sk=a LAST_ACK>CLOSE 10.0.0.1:7 10.0.0.2:443 cookie=1 netns=5\n\
             3000ms sk=b ESTABLISHED>CLOSE_WAIT 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=6\n\
             3001ms sk=b CLOSE_WAIT>LAST_ACK 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=6\n\
             3002ms sk=b LAST_ACK>CLOSE 10.0.0.1:8 10.0.0.2:443 cookie=2 netns=6\n",
        );
        let life = durations.of(Span::Life);
        assert_eq!((life[0].1.count(), life[0].1.at_least()), (0, (2, 3_002_000_000)));
    }

    #[test]
    fn past_the_limit_groups_are_counted_together() {
        let mut durations = Durations::new(spans("syn-sent", false), Some(By::Peer), 3);
        let script: String = (1..=9)
            .map(|i| {
                format!(
                    "1ms sk={i:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.1.{i}:443 comm=x\n\
                     2ms sk={i:x} SYN_SENT>CLOSE 10.0.0.1:7 10.0.1.{i}:443\n"
                )
            })
            .collect();
        measure(&mut durations, &format!("0ms begin\n{script}"));
        let groups = durations.of(Span::In(TcpState::SynSent));
        assert_eq!(groups.iter().map(|(_, m)| m.count()).collect::<Vec<_>>(), [1, 1, 1, 6]);
        assert_eq!(groups[3].0, Key::Other);
    }

    #[test]
    fn connecting_is_told_from_failing_to() {
        let mut durations = Durations::new(spans("syn-sent", false), None, 9);
        measure(&mut durations, ACTIVE);
        measure(
            &mut durations,
            "0ms begin\n\
             1ms sk=1 CLOSE>SYN_SENT 10.0.0.1:0 10.0.1.1:443 comm=x\n\
             9ms sk=1 SYN_SENT>CLOSE 10.0.0.1:7 10.0.1.1:443\n",
        );
        let groups = durations.of(Span::In(TcpState::SynSent));
        let times: Vec<_> = groups.iter().map(|(key, m)| (*key, m.max_ns())).collect();
        assert_eq!(
            times,
            [(Key::Connected(false), Some(8_000_000)), (Key::Connected(true), Some(2_000_000))]
        );
    }
}
