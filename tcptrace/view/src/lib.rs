//! What people and programs get to see.
//!
//! A view turns changes into bytes. It must not read a clock, a file or the kernel: what it shows
//! of a live host and of a recording is the same.

pub mod closers;
pub mod conns;
pub mod csv;
pub mod doctor;
pub mod hist;
pub mod json;
pub mod lines;
pub mod live;
mod loss;
pub mod number;
pub mod ports;
pub mod states;
pub mod states_by;
pub mod stuck;
pub mod table;
pub mod time;
pub mod who;
pub mod wrap;

use std::time::Duration;

use bytes::BytesMut;

use tcptrace_model::{Change, Input};
use tcptrace_track::Tracker;

/// The [haste](View::haste) of lines that come as things happen.
pub const AT_ONCE: Duration = Duration::from_millis(10);

/// A consumer of the analysis.
pub trait View {
    /// What is printed before anything happens.
    fn begin(&mut self, out: &mut BytesMut);
    /// An input that is not an event: clocks, losses, the end.
    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut);
    /// A change.
    fn change(&mut self, change: &Change, out: &mut BytesMut);
    /// The time of its next line, where those come by the clock (`CLOCK_MONOTONIC`, nanoseconds):
    /// the first tick after it should come soon.
    fn due_ns(&self) -> Option<u64> {
        None
    }
    /// How long a transition may wait on a quiet host before it is taken in. What this saves is
    /// the reader's wake-ups: some 90 µs of CPU each.
    fn patience(&self) -> Duration {
        Duration::from_millis(50)
    }
    /// How long one may wait while they come; no longer than [`Self::patience`]. Where each is seen
    /// at once, that is to be less. More would save no more: the kernel side calls when the ring is a
    /// quarter full.
    fn haste(&self) -> Duration {
        Duration::from_millis(40)
    }
    /// Whether it has shown all that it was asked for.
    fn is_done(&self) -> bool;
    /// Whether it shows anything at all.
    fn shows(&self) -> bool {
        true
    }
}

/// A view, and perhaps another that goes along: the first says when it is enough.
impl<V: View, W: View> View for (V, Option<W>) {
    fn begin(&mut self, out: &mut BytesMut) {
        self.0.begin(out);
        self.1.iter_mut().for_each(|along| along.begin(out));
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.0.input(input, tracker, out);
        self.1.iter_mut().for_each(|along| along.input(input, tracker, out));
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        self.0.change(change, out);
        self.1.iter_mut().for_each(|along| along.change(change, out));
    }

    fn due_ns(&self) -> Option<u64> {
        self.0.due_ns().into_iter().chain(self.1.as_ref().and_then(View::due_ns)).min()
    }

    fn patience(&self) -> Duration {
        self.1.as_ref().map_or(Duration::MAX, View::patience).min(self.0.patience())
    }

    fn haste(&self) -> Duration {
        self.1.as_ref().map_or(Duration::MAX, View::haste).min(self.0.haste())
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }

    fn shows(&self) -> bool {
        self.0.shows() || self.1.as_ref().is_some_and(View::shows)
    }
}

/// Shows nothing, for ever: where inputs are only recorded.
pub struct Nothing;

impl View for Nothing {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, _input: &Input, _tracker: &Tracker, _out: &mut BytesMut) {}

    fn change(&mut self, _change: &Change, _out: &mut BytesMut) {}

    /// A block of a recording is closed at a tick, before it is a second old.
    fn patience(&self) -> Duration {
        Duration::from_millis(250)
    }

    fn is_done(&self) -> bool {
        false
    }

    fn shows(&self) -> bool {
        false
    }
}
