//! What the panes show, as lists: each pane a pure function of the statistics.
//!
//! Numbers and words are written as the views of these names write them.

pub(super) mod closers;
pub(super) mod connection;
pub(super) mod conns;
pub(super) mod doctor;
pub(super) mod lifetimes;
pub(super) mod live;
pub(super) mod ports;
pub(super) mod states;
pub(super) mod stuck;

use super::{data::Data, shown::Shown};
use tcptrace_track::Tracker;
use tcptrace_view::time::WallClock;

/// What a pane is made from.
pub(super) struct Look<'a> {
    pub(super) data: &'a mut Data,
    pub(super) tracker: &'a Tracker,
    pub(super) shown: &'a Shown,
    pub(super) wall: &'a mut WallClock,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) now_ns: u64,
    /// Columns that there are.
    pub(super) width: usize,
    /// Which of the pane's orders.
    pub(super) sort: usize,
}

/// A number of the kind that goes up and down, with its sign; a dot is none.
fn signed(change: i64, per: &str) -> String {
    if change == 0 { ".".to_owned() } else { format!("{change:+}{per}") }
}
