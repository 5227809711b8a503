//! What is counted and measured.
//!
//! Pure: time is an argument, there is no I/O, and whatever grows has a limit and says what it
//! left out. Must not format: that is the views'.

pub mod buckets;
pub mod closers;
pub mod conns;
pub mod counts;
pub mod durations;
pub mod group;
mod keyed;
pub mod measure;
pub mod named;
pub mod ports;
pub mod rows;
pub mod since_start;
pub mod steps;
pub mod stuck;
