//! What happens on one path: counted in the present interval, smoothed over those before it.
//!
//! Must not know which path it is, nor what is taken on it.

/// Smoothed rates forget to a third in so many seconds.
const SMOOTH_S: f64 = 10.0;

/// What happened on one path.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow<T> {
    /// connect() found a port.
    pub opened: T,
    /// A port came back.
    pub returned: T,
    /// connect() found none (EADDRNOTAVAIL).
    pub failed: T,
    /// A connection went into TIME_WAIT.
    pub(super) to_time_wait: T,
    /// Ports that came back without a TIME_WAIT.
    pub(super) at_once: T,
}

impl<T: Copy> Flow<T> {
    pub(super) fn map<U>(self, to: impl Fn(T) -> U) -> Flow<U> {
        Flow {
            opened: to(self.opened),
            returned: to(self.returned),
            failed: to(self.failed),
            to_time_wait: to(self.to_time_wait),
            at_once: to(self.at_once),
        }
    }

    fn join(self, other: Self, with: impl Fn(T, T) -> T) -> Self {
        Self {
            opened: with(self.opened, other.opened),
            returned: with(self.returned, other.returned),
            failed: with(self.failed, other.failed),
            to_time_wait: with(self.to_time_wait, other.to_time_wait),
            at_once: with(self.at_once, other.at_once),
        }
    }
}

/// The flow of one path, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Flows {
    /// In the present interval. Signed: a failure takes back an opening, which may have been
    /// counted in the interval before.
    pub(super) now: Flow<i64>,
    /// Apart: only the present is there for each change, and there may be many paths.
    pub(super) past: Box<Past>,
}

/// What was before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// The path's first change, if it is not among the past yet.
    first_ns: Option<u64>,
    /// The first interval, if the first connection was alone in it, and when that began.
    held: Flow<i64>,
    held_ns: Option<u64>,
    /// connect() that found no port, since the start.
    pub(super) failed: u64,
    /// Past ones, each the less the older it is, and the seconds that they stand for.
    flow: Flow<f64>,
    seconds: f64,
}

impl Flows {
    /// Those of a path whose first change is at that moment.
    pub(super) fn new(first_ns: u64) -> Self {
        let past = Box::new(Past { first_ns: Some(first_ns), ..Past::default() });
        Self { now: Flow::default(), past }
    }

    /// Ends the interval that began at `began_ns`.
    pub(super) fn roll(&mut self, began_ns: u64, now_ns: u64) {
        let now = std::mem::take(&mut self.now);
        self.past.add(now, began_ns, now_ns);
    }
}

impl Past {
    /// Takes in what happened from `began_ns` to `now_ns`.
    fn add(&mut self, now: Flow<i64>, began_ns: u64, now_ns: u64) {
        self.failed += u64::try_from(now.failed).unwrap_or(0);
        let now = now.join(self.held, |now, held| now + held);
        if now.opened == 1 && self.first_ns.is_some() && self.held_ns.is_none() {
            // One connection is no rate: the next interval has more, or it was but one.
            self.held = now;
            self.held_ns = Some(began_ns);
            return;
        }
        let whole = now_ns.saturating_sub(self.held_ns.unwrap_or(began_ns)) as f64 / 1e9;
        let seconds = match self.first_ns {
            // From the first one on, and one gap more, since it has a gap of its own.
            Some(first_ns) if now.opened > 1 => {
                let opened = now.opened as f64;
                let since = now_ns.saturating_sub(first_ns) as f64 / 1e9;
                (since * opened / (opened - 1.0)).min(whole)
            }
            _ => whole,
        };
        let fade = (-seconds / SMOOTH_S).exp();
        self.flow = self.flow.join(now.map(|n| n as f64), |past, now| past * fade + now);
        self.seconds = self.seconds * fade + seconds;
        self.held = Flow::default();
        (self.first_ns, self.held_ns) = (None, None);
    }

    /// Whether there is nothing left to remember.
    pub(super) fn is_over(&self) -> bool {
        let Flow { opened, returned, to_time_wait, .. } = self.flow;
        self.failed == 0 && self.held_ns.is_none() && opened.max(returned).max(to_time_wait) < 0.01
    }

    /// What happens a second.
    pub(super) fn smoothed(&self) -> Flow<f64> {
        let per_s = 1.0 / self.seconds.max(1e-3);
        self.flow.map(|count| (count * per_s).max(0.0))
    }

    /// By how many connections a second those that are not in TIME_WAIT become more. Their number
    /// goes up and down by chance, the more of them the more: that is no growth.
    pub(super) fn growth_per_s(&self, live: u64) -> f64 {
        let grown = self.flow.opened - self.flow.to_time_wait - self.flow.at_once;
        let by_chance = 4.0 * grown.abs().max(live as f64);
        if grown * grown > by_chance { grown / self.seconds.max(1e-3) } else { 0.0 }
    }
}
