//! What the loop needs of a source that goes on for as long as it likes.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use tcptrace_model::{Accounts, Input};
use tcptrace_source::{
    live::Live,
    snapshot::{Job, Round},
};

/// A host, or what stands for one in a test. See [`Live`] for what each is to do.
pub trait Source {
    /// Becomes readable when there is something to drain, at the latest when a reader is overdue.
    fn ring(&mut self) -> io::Result<OwnedFd>;

    /// The first input.
    fn begin(&mut self) -> Result<Input>;

    /// Whether minisocks are sampled, and a scan at the end may settle what is pending.
    fn scan_now(&mut self) -> Result<Option<Job>>;

    /// The dumps that are to be taken now, if any.
    fn due_snapshots(&mut self, in_doubt: bool) -> Result<Option<Job>>;

    /// Hands out what was dumped.
    fn snapshots_taken(&mut self, round: Round, sink: &mut dyn FnMut(&Input));

    /// Hands out at most `limit` records, and says how many. Fewer than that: there are no more.
    fn drain(&mut self, limit: usize, sink: &mut dyn FnMut(&Input)) -> usize;

    /// Hands out what is no record: up to when everything has been reported, losses, the clock.
    fn check(&mut self, had_events: bool, sink: &mut dyn FnMut(&Input)) -> Result<()>;

    /// Has these minisocks polled.
    fn poll_minisocks(&mut self, addrs: &[u64]) -> Result<()>;

    /// No more records are begun after this.
    fn detach(&mut self) -> Result<()>;

    /// Hands out the rest, for at most so many nanoseconds, and the accounts.
    fn settle(&mut self, patience_ns: u64, sink: &mut dyn FnMut(&Input)) -> Result<Accounts>;
}

impl Source for Live {
    fn ring(&mut self) -> io::Result<OwnedFd> {
        self.probe().ring_fd().try_clone_to_owned()
    }

    fn begin(&mut self) -> Result<Input> {
        Self::begin(self).context("cannot read the clock's resolution")
    }

    fn scan_now(&mut self) -> Result<Option<Job>> {
        Ok(self.look_now()?)
    }

    fn due_snapshots(&mut self, in_doubt: bool) -> Result<Option<Job>> {
        Ok(Self::due_snapshots(self, in_doubt)?)
    }

    fn snapshots_taken(&mut self, round: Round, sink: &mut dyn FnMut(&Input)) {
        Self::snapshots_taken(self, round, sink);
    }

    fn drain(&mut self, limit: usize, sink: &mut dyn FnMut(&Input)) -> usize {
        Self::drain(self, limit, sink)
    }

    fn check(&mut self, had_events: bool, sink: &mut dyn FnMut(&Input)) -> Result<()> {
        Ok(Self::check(self, had_events, sink)?)
    }

    fn poll_minisocks(&mut self, addrs: &[u64]) -> Result<()> {
        Ok(self.look(addrs)?)
    }

    fn detach(&mut self) -> Result<()> {
        Ok(Self::detach(self)?)
    }

    fn settle(&mut self, patience_ns: u64, sink: &mut dyn FnMut(&Input)) -> Result<Accounts> {
        Ok(Self::settle(self, patience_ns, sink)?)
    }
}
