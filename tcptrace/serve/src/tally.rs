//! How often something was tried that is done beside answering, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Pushes of metrics.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    accepted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Pushes {
    /// One was accepted; or not, and then there was an answer that said so (`answered`) or none.
    pub(super) fn count(&self, accepted: bool, answered: bool) {
        let of = match (accepted, answered) {
            (true, _) => &self.accepted,
            (false, true) => &self.refused,
            (false, false) => &self.failed,
        };
        // Each stands for itself.
        of.fetch_add(1, Ordering::Relaxed);
    }

    /// By outcome, as it is called in a label.
    pub(super) fn outcomes(&self) -> [(&'static str, u64); 3] {
        [("accepted", &self.accepted), ("refused", &self.refused), ("failed", &self.failed)]
            .map(|(name, of)| (name, of.load(Ordering::Relaxed)))
    }
}
