//! Where the tracing thread leaves what is known, and others take it from.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};

use super::figures::{Attached, Figures};

/// The place between.
#[derive(Debug, Default)]
pub struct Shelf {
    attached: OnceLock<Attached>,
    latest: Mutex<Option<Arc<Figures>>>,
}

impl Shelf {
    /// Nothing is known yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The hooks are on. Said once; what is said again is not heard.
    pub fn attach(&self, attached: Attached) {
        let _ = self.attached.set(attached);
    }

    /// How the hooks are on, if they are.
    pub(super) fn attached(&self) -> Option<&Attached> {
        self.attached.get()
    }

    /// Leaves what is known now. Never waits: if somebody is just taking the last, this one is
    /// given back, for the next attempt.
    pub(super) fn leave(&self, figures: Arc<Figures>) -> Result<(), Arc<Figures>> {
        let before = match self.latest.try_lock() {
            Ok(mut latest) => latest.replace(figures),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().replace(figures),
            Err(TryLockError::WouldBlock) => return Err(figures),
        };
        // Outside of the lock: it may be the last owner of much.
        drop(before);
        Ok(())
    }

    /// What was known last.
    pub(super) fn take(&self) -> Option<Arc<Figures>> {
        // Whoever panicked while holding it had nothing half done: a pointer is all there is.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
