//! Where the tracing thread leaves what is known, and others take it from.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, TryLockError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    figures::{Attached, Figures},
    tally::Pushes,
};
use tcptrace_export::Tally;
use tcptrace_source::helper;

/// The place between.
#[derive(Debug, Default)]
pub struct Shelf {
    attached: OnceLock<Attached>,
    latest: Mutex<Option<Arc<Figures>>>,
    /// Somebody has looked at the page.
    watched: AtomicBool,
    pushes: OnceLock<Pushes>,
    export: OnceLock<Arc<Tally>>,
    helper: OnceLock<Arc<helper::Tally>>,
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

    /// How pushes went, if there are any; from the first call of this on, there are.
    pub(super) fn pushing(&self) -> &Pushes {
        self.pushes.get_or_init(Pushes::default)
    }

    /// How pushes went, if there are any.
    pub(super) fn pushes(&self) -> Option<&Pushes> {
        self.pushes.get()
    }

    /// Files are written, and `tally` counts them. Said once; what is said again is not heard.
    pub fn export(&self, tally: Arc<Tally>) {
        let _ = self.export.set(tally);
    }

    /// What is counted of files, if they are written.
    pub(super) fn exported(&self) -> Option<&Arc<Tally>> {
        self.export.get()
    }

    /// There is a helper process, and `tally` says how it does. Said once.
    pub fn help(&self, tally: Arc<helper::Tally>) {
        let _ = self.helper.set(tally);
    }

    /// How the helper process does, if there is one.
    pub(super) fn helper(&self) -> Option<&Arc<helper::Tally>> {
        self.helper.get()
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

    /// Somebody looks at the page: what it is made of is worth its while.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether anybody has since this was asked last.
    pub(super) fn was_watched(&self) -> bool {
        self.watched.swap(false, Ordering::Relaxed)
    }

    /// What was known last.
    pub(super) fn take(&self) -> Option<Arc<Figures>> {
        // Whoever panicked while holding it had nothing half done: a pointer is all there is.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
