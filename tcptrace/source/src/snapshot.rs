//! Who reads the socket tables: this process or the helper, a job at a time.
//!
//! Reading blocks, so where a ring is to be drained meanwhile a job runs on another thread.

use std::{collections::HashSet, sync::Arc};

use super::{
    dump::{Of, Order},
    helper::Link,
    tables::Tables,
};
use tcptrace_model::{Exited, Input, Snapshot};

pub use super::{dump::Round, tables::Scope};

/// Who reads the tables.
#[derive(Debug)]
pub struct Reader(By);

#[derive(Debug)]
enum By {
    /// The thread that asks.
    Here(Box<Tables>),
    /// The helper process.
    Helper(Link),
}

impl Reader {
    /// The threads that run jobs.
    pub fn here(scope: Scope) -> Arc<Self> {
        Arc::new(Self(By::Here(Box::new(Tables::new(scope)))))
    }

    pub(super) fn helper(link: Link) -> Arc<Self> {
        Arc::new(Self(By::Helper(link)))
    }

    /// Whether only one namespace is read, which was asked for.
    pub(super) fn is_of_one(&self) -> bool {
        match &self.0 {
            By::Here(tables) => tables.are_of_one(),
            By::Helper(link) => link.is_of_one(),
        }
    }

    /// Whether there is nobody any more who could.
    pub(super) fn is_gone(&self) -> bool {
        matches!(&self.0, By::Helper(link) if link.is_gone())
    }

    /// Processes that rounds have named as holders and that have ended since. The helper tells with
    /// each round alone.
    pub(super) fn ended(&self, now: u64) -> Vec<Exited> {
        match &self.0 {
            By::Here(tables) => tables.ended(now),
            By::Helper(_) => Vec::new(),
        }
    }

    /// What is to be said of a helper that has gone since this was asked last.
    pub(super) fn farewell(&self) -> Option<String> {
        match &self.0 {
            By::Here(_) => None,
            By::Helper(link) => link.farewell(),
        }
    }
}

/// Dumps to be taken.
#[derive(Debug)]
pub struct Job {
    by: Arc<Reader>,
    order: Order,
}

impl Job {
    /// Every namespace, by `reader`. Minisocks are told as other sockets are.
    pub fn all(reader: Arc<Reader>) -> Self {
        Self::of(reader, Of::All)
    }

    pub(super) fn of(reader: Arc<Reader>, of: Of) -> Self {
        let order = Order { of, minisocks_told: true, told: HashSet::new() };
        Self { by: reader, order }
    }

    /// Whether minisocks have events, or are looked at; else they are but counted.
    pub(super) fn minisocks_told(mut self, told: bool) -> Self {
        self.order.minisocks_told = told;
        self
    }

    /// There was a dump of these namespaces before.
    pub(super) fn after(mut self, told: HashSet<u32>) -> Self {
        self.order.told = told;
        self
    }

    /// What is to be fed before it runs.
    pub fn opening(&self) -> Input {
        Input::Snapshot(match self.order.is_of_minisocks() {
            false => Snapshot::Open,
            true => Snapshot::OpenMinisocks,
        })
    }

    /// Takes the dumps. Never fails: what could not be done is in the remarks.
    pub fn run(&self) -> Round {
        match &self.by.0 {
            By::Here(tables) => tables.read(&self.order),
            By::Helper(link) => link.read(&self.order),
        }
    }
}
