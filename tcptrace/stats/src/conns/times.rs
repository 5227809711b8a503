//! The time in each state that a connection was in, small: a million connections hold one each.

use tcptrace_model::{Age, TcpState};

/// States in the life of one connection at the most: SYN_SENT, SYN_RECV (a connection to itself),
/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2 or CLOSING, TIME_WAIT.
const MOST: usize = 6;

/// The longest time that is told apart, nanoseconds: nine years.
const LONGEST_NS: u64 = (1 << 58) - 1;

/// The time in each state, in the order in which they were left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    slots: [Slot; MOST],
    /// How far off those may be that a timer dates, the worst of them.
    within_ns: u32,
}

/// A state in 4 bits (0 is none, to the kernel too), how sure its time is in 2, nanoseconds in 58.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot(u64);

impl Slot {
    fn new(state: TcpState, age: Age) -> Self {
        let (kind, ns) = match age {
            Age::Unknown => (0, 0),
            Age::AtLeast(ns) => (1, ns),
            Age::About { ns, .. } => (2, ns),
            Age::Exactly(ns) => (3, ns),
        };
        Self(ns.min(LONGEST_NS) << 6 | kind << 4 | u64::from(state as u8))
    }

    fn is_free(self) -> bool {
        self.0 & 15 == 0
    }

    fn is_of(self, state: TcpState) -> bool {
        self.0 & 15 == u64::from(state as u8)
    }

    fn state(self) -> Option<TcpState> {
        TcpState::from_kernel((self.0 & 15) as u8)
    }

    fn age(self, within_ns: u64) -> Age {
        let ns = self.0 >> 6;
        match self.0 >> 4 & 3 {
            0 => Age::Unknown,
            1 => Age::AtLeast(ns),
            2 => Age::About { ns, within_ns },
            _ => Age::Exactly(ns),
        }
    }
}

impl Times {
    /// It was in `state` for `age`, or for that much longer. What is one state too many for any
    /// connection is not kept.
    pub fn add(&mut self, state: TcpState, age: Age) {
        let worst_ns = u64::from(self.within_ns);
        // Those that are taken come first, so what is found first is its own or a free one.
        let is_it = |slot: &&mut Slot| slot.is_of(state) || slot.is_free();
        let slot = self.slots.iter_mut().find(is_it);
        let age = match &slot {
            Some(slot) if slot.is_of(state) => sum(slot.age(worst_ns), age),
            _ => age,
        };
        if let Some(slot) = slot {
            *slot = Slot::new(state, age);
        }
        if let Age::About { within_ns, .. } = age {
            self.within_ns = self.within_ns.max(u32::try_from(within_ns).unwrap_or(u32::MAX));
        }
    }

    /// Each state that it is known to have been in, and for how long.
    pub fn iter(&self) -> impl Iterator<Item = (TcpState, Age)> {
        let within_ns = u64::from(self.within_ns);
        self.slots.iter().map_while(move |slot| Some((slot.state()?, slot.age(within_ns))))
    }

    /// The time in `state`; `None` if it is not known to have been in that.
    pub fn of(&self, state: TcpState) -> Option<Age> {
        self.iter().find(|(of, _)| *of == state).map(|(_, age)| age)
    }
}

/// The time in two stretches together. One whose length is not known may have been short, not
/// less than nothing.
pub fn sum(a: Age, b: Age) -> Age {
    let ns = least_ns(a).saturating_add(least_ns(b));
    match (a, b) {
        (Age::Unknown, Age::Unknown) => Age::Unknown,
        (Age::Exactly(_), Age::Exactly(_)) => Age::Exactly(ns),
        (Age::Exactly(one), Age::About { ns, within_ns })
        | (Age::About { ns, within_ns }, Age::Exactly(one)) => {
            Age::About { ns: one.saturating_add(ns), within_ns }
        }
        (Age::About { ns: one, within_ns: a }, Age::About { ns: other, within_ns: b }) => {
            Age::About { ns: one.saturating_add(other), within_ns: a.saturating_add(b) }
        }
        _ => Age::AtLeast(ns),
    }
}

/// The nanoseconds that are certain.
pub fn least_ns(age: Age) -> u64 {
    age.least_ns()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        use TcpState::*;
        let ages = [
            (SynSent, Age::Exactly(0)),
            (SynRecv, Age::Unknown),
            (Established, Age::AtLeast(LONGEST_NS)),
            (FinWait1, Age::Exactly(123_456_789)),
            (FinWait2, Age::About { ns: 7, within_ns: 4_000_000 }),
            (TimeWait, Age::Exactly(u64::MAX)),
        ];
        let mut times = Times::default();
        ages.into_iter().for_each(|(state, age)| times.add(state, age));
        let mut kept: Vec<_> = times.iter().collect();
        assert_eq!(kept.pop(), Some((TimeWait, Age::Exactly(LONGEST_NS))), "nine years");
        assert_eq!(kept, ages[..5]);
        times.add(CloseWait, Age::Exactly(1));
        assert_eq!(times.of(CloseWait), None, "one too many");
        assert_eq!(size_of::<Times>(), 56, "a million connections hold one each");
    }

    #[test]
    fn a_sum_with_a_lower_bound_in_it_is_one() {
        let about = Age::About { ns: 10, within_ns: 4 };
        for (a, b, expected) in [
            (Age::Exactly(1), Age::Exactly(2), Age::Exactly(3)),
            (Age::Exactly(1), Age::AtLeast(2), Age::AtLeast(3)),
            (Age::Exactly(1), about, Age::About { ns: 11, within_ns: 4 }),
            (about, about, Age::About { ns: 20, within_ns: 8 }),
            (about, Age::AtLeast(1), Age::AtLeast(7)),
            (Age::Exactly(1), Age::Unknown, Age::AtLeast(1)),
            (Age::Unknown, Age::Unknown, Age::Unknown),
            (Age::Exactly(u64::MAX), Age::Exactly(2), Age::Exactly(u64::MAX)),
        ] {
            assert_eq!((sum(a, b), sum(b, a)), (expected, expected));
            let mut times = Times::default();
            times.add(TcpState::SynSent, a);
            times.add(TcpState::SynSent, b);
            assert_eq!(times.iter().count(), 1);
        }
    }
}
