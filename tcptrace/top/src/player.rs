//! The controls of a recording: where it is, how fast it goes, and where it is to go.
//!
//! Must not read: who reads asks it what to do.

use tcptrace_model::moment::Moment;

/// How many times as fast as it was.
const SPEEDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0];

/// The place of 1 among them.
const NORMAL: usize = 3;

/// Somewhere else to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// On to the next transition.
    Step,
    /// By so many seconds.
    By(i64),
    /// To a moment.
    To(Moment),
}

/// The controls.
#[derive(Clone, Debug)]
pub struct Player {
    /// The whole of it: `CLOCK_MONOTONIC`, nanoseconds.
    extent_ns: (u64, u64),
    at_ns: u64,
    playing: bool,
    speed: usize,
    order: Option<Order>,
    over: bool,
    /// On its way to there.
    to_ns: Option<u64>,
}

impl Player {
    /// One of a recording that goes from one to the other, `CLOCK_MONOTONIC` nanoseconds; it plays.
    pub fn new(extent_ns: (u64, u64)) -> Self {
        Self {
            extent_ns,
            at_ns: extent_ns.0,
            playing: true,
            speed: NORMAL,
            order: None,
            over: false,
            to_ns: None,
        }
    }

    /// Whether it goes on by itself.
    pub fn is_playing(&self) -> bool {
        self.playing && !self.over
    }

    /// How many times as fast as it was.
    pub fn speed(&self) -> f64 {
        SPEEDS[self.speed]
    }

    /// What the user asked for since the last call.
    pub fn take_order(&mut self) -> Option<Order> {
        self.order.take()
    }

    /// It has come to there. `over`: that is its end.
    pub fn reached(&mut self, at_ns: u64, over: bool) {
        self.at_ns = at_ns;
        self.over = over;
    }

    /// Where it has come to.
    pub(super) fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// It is on its way to there, or has come.
    pub fn heads_for(&mut self, to_ns: Option<u64>) {
        self.to_ns = to_ns;
    }

    /// Where it is on its way to.
    pub fn is_heading_for(&self) -> Option<u64> {
        self.to_ns
    }

    /// Its beginning and end.
    pub fn extent_ns(&self) -> (u64, u64) {
        self.extent_ns
    }

    /// Stops, as it does for each step.
    pub fn pause(&mut self) {
        self.playing = false;
    }

    pub(super) fn toggle(&mut self) {
        // At its end there is nothing to go on with: from the beginning.
        if self.over {
            self.order(Order::To(Moment::After(std::time::Duration::ZERO)));
            self.playing = true;
        } else {
            self.playing = !self.playing;
        }
    }

    pub(super) fn faster(&mut self, by: isize) {
        self.speed = self.speed.saturating_add_signed(by).min(SPEEDS.len() - 1);
    }

    pub(super) fn order(&mut self, order: Order) {
        if order == Order::Step {
            self.playing = false;
        }
        self.order = Some(order);
    }

    /// In words: whether it plays, how fast, and where in the whole it is.
    pub(super) fn words(&self) -> String {
        let seconds = |ns: u64| ns.saturating_sub(self.extent_ns.0) as f64 / 1e9;
        let does = match () {
            () if self.to_ns.is_some() => "seeking".to_owned(),
            () if self.over => "end".to_owned(),
            () if self.playing => format!("playing x{}", self.speed()),
            () => "paused".to_owned(),
        };
        format!("{does}  {:.1} of {:.1} s", seconds(self.at_ns), seconds(self.extent_ns.1))
    }
}
