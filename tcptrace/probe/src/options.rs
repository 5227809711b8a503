//! What to attach, as it was asked for.

use super::backend::{AcceptChoice, Backend, TimeWaitChoice};
use tcptrace_model::filter::Filter;

/// What to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// The only way to try; `None` tries all from best to worst.
    pub backend: Option<Backend>,
    /// Bytes of the ring, a size that [`crate::parse_ring_size`] lets pass.
    pub ring_bytes: u32,
    /// What to keep.
    pub filter: Filter,
    /// Whether the kernel side's error paths may speak (aya-log).
    pub kernel_log: bool,
    /// How to learn what becomes of minisocks.
    pub time_wait: TimeWaitChoice,
    /// How to learn which task takes a connection from a listener.
    pub accept: AcceptChoice,
    /// Only what a self-test can hear: without RSTs, and without what runs where the socket's
    /// program is interrupted or when a minisock's minute is over. Each program costs the kernel
    /// some 5 ms to load.
    pub trial: bool,
}
