//! From what the kernel reported to what is true.
//!
//! Pure: time is an argument, there is no I/O, and no input makes it panic. What cannot be is
//! counted as an anomaly and the tracker goes on from what the kernel says now.

pub mod gate;
mod table;
mod tracker;

pub use tracker::{Counts, Tracker};
