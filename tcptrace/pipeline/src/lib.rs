//! The only loops: from a source through the tracker into a view and out.
//!
//! One task owns the tracker and the view. It never blocks on the output: a writer thread does
//! that, and while it is behind, events wait in the ring, where a loss is counted.

mod analysis;
mod early;
mod follow;
mod live;
pub mod output;
mod play;
mod replay;
mod source;

pub use analysis::Analysis;
pub use follow::{Followed, follow};
pub use live::run_live;
pub use play::{At, Turn, play};
pub use replay::run_recording;
pub use source::Source;
