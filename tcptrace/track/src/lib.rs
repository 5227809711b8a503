//! From what the kernel reported to what is true.
//!
//! Pure: time is an argument, there is no I/O, and no input makes it panic. What cannot be is
//! counted as an anomaly and the tracker goes on from what the kernel says now.

mod births;
mod bounded;
pub mod cgroups;
mod compare;
mod conn;
mod deadlines;
mod ends;
pub mod gate;
mod known;
mod listeners;
mod minisock;
pub mod namespaces;
mod peek;
mod pending;
mod processes;
mod rows;
mod sampling;
mod scans;
mod seed;
mod slab;
mod strays;
mod table;
mod tracker;
mod verdict;
mod watch;

pub use scans::Scan;
pub use table::Table;
pub use tracker::{Counts, DEFAULT_LIMIT, Standing, Tracker};
pub use watch::Watch;
