//! The only loop: from a source through the tracker into a view and out.
//!
//! One task owns the tracker and the view. It never blocks on the output: a writer thread does
//! that, and while it is behind, events wait in the ring, where a loss is counted.

use std::{future::Future, io, time::Duration};

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::error::TrySendError,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{
    host::clock,
    model::{Accounts, Input},
    output::Output,
    source::{live::Live, snapshot::Round},
    track::Tracker,
    view::View,
};

/// Records handed on before the output is offered what has become of them.
const BATCH: usize = 1024;

/// The reader's tick while events come. With the early calls of a ring that fills up, at most
/// some 150 wake-ups a second.
const BUSY_TICK: Duration = Duration::from_millis(10);

/// The tick of a quiet host: the longest that a transition waits.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// The least tick.
const LEAST_TICK: Duration = Duration::from_millis(1);

/// How long programs that still run when the hooks are taken off may take.
const SETTLE_NS: u64 = 200_000_000;

/// The analysis and what it shows.
pub struct Analysis<V> {
    tracker: Tracker,
    view: V,
    out: BytesMut,
}

impl<V: View> Analysis<V> {
    /// An analysis that shows `view`.
    pub fn new(tracker: Tracker, view: V) -> Self {
        let mut out = BytesMut::new();
        let mut view = view;
        view.begin(&mut out);
        Self { tracker, view, out }
    }

    /// Takes one input in.
    pub fn feed(&mut self, input: &Input) {
        let Self { tracker, view, out } = self;
        tracker.apply(input, &mut |change| view.change(&change, out));
        if !matches!(input, Input::Event(_)) {
            view.input(input, tracker, out);
        }
    }

    /// Minisocks that the source should look at now.
    pub fn due_peeks(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.tracker.due_peeks(clock::monotonic_ns()?))
    }

    /// How long until the view is to show something by the clock.
    fn until_due(&self) -> io::Result<Duration> {
        let Some(due_ns) = self.view.due_ns() else { return Ok(Duration::MAX) };
        Ok(Duration::from_nanos(due_ns.saturating_sub(clock::monotonic_ns()?)))
    }

    /// What has been written since the last call.
    pub fn take_output(&mut self) -> BytesMut {
        self.out.split()
    }

    /// The view.
    pub fn view(&self) -> &V {
        &self.view
    }

    /// The tracker.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}

/// Runs until `stop`, until the view has enough, or until nobody reads the output any more; then
/// takes the hooks off, takes in what is still in the ring and says what became of the events.
///
/// What the view wrote last is still in `analysis`, for the caller to write: that may block for as
/// long as nobody reads, which is not to be waited for here.
pub async fn run_live<V: View>(
    live: &mut Live,
    analysis: &mut Analysis<V>,
    output: &Output,
    stop: impl Future<Output = ()>,
    mut after_drain: impl FnMut(&mut Live),
) -> Result<Accounts> {
    let ring = live.probe().ring_fd().try_clone_to_owned().context("cannot watch the ring")?;
    // SAFETY: the file descriptor is owned by the `OwnedFd` given, which gives the same one
    // each time and keeps it open as long as the `AsyncFd` lives.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .context("cannot watch the ring")?;
    analysis.feed(&live.begin().context("cannot read the clock's resolution")?);
    live.check(true, &mut |input| analysis.feed(&input))?;
    tokio::pin!(stop);
    let mut tick = BUSY_TICK;
    let mut dumps: Option<JoinHandle<Round>> = None;
    loop {
        if dumps.is_none()
            && let Some(job) = live.due_snapshots(analysis.tracker().in_doubt())?
        {
            // On a thread of its own, so that the ring is drained meanwhile.
            analysis.feed(&job.opening());
            dumps = Some(spawn_blocking(move || job.run()));
        }
        let count = drain(live, analysis, output)?;
        after_drain(live);
        if output.is_closed() || analysis.view().is_done() {
            break;
        }
        // Longer while nothing comes, so that a quiet host costs nothing.
        tick = if count > 0 { BUSY_TICK } else { (tick * 2).min(IDLE_TICK) };
        // What is due and still not shown waits for a slow reader: no reason to spin.
        let due = analysis.until_due()?.max(LEAST_TICK);
        let wake = sleep_until(Instant::now() + tick.min(due));
        tokio::select! {
            () = &mut stop => break,
            () = output.closed() => {}
            round = finished(&mut dumps) => {
                let round = round.context("the thread that takes snapshots failed")?;
                live.snapshots_taken(round, &mut |input| analysis.feed(&input));
                dumps = None;
            }
            () = wake => {}
            ready = ring.readable() => ready.context("cannot watch the ring")?.clear_ready(),
        }
    }
    live.detach()?;
    // What is held back for a look at minisocks gets one now.
    live.drain(usize::MAX, &mut |input| analysis.feed(&input));
    if analysis.tracker().awaits_look()
        && let Some(job) = live.look_now()?
    {
        analysis.feed(&job.opening());
        let round = spawn_blocking(move || job.run()).await;
        let round = round.context("the thread that takes snapshots failed")?;
        live.snapshots_taken(round, &mut |input| analysis.feed(&input));
    }
    let accounts = live.settle(SETTLE_NS, &mut |input| analysis.feed(&input))?;
    after_drain(live);
    Ok(accounts)
}

/// The result of the dumps that are being taken, if there are any; else never.
async fn finished(dumps: &mut Option<JoinHandle<Round>>) -> Result<Round, JoinError> {
    match dumps {
        Some(dumps) => dumps.await,
        None => std::future::pending().await,
    }
}

/// Hands on what is in the ring while the output takes it, and says how much that was.
fn drain<V: View>(live: &mut Live, analysis: &mut Analysis<V>, output: &Output) -> Result<usize> {
    let mut count = 0;
    loop {
        let chunk = analysis.take_output();
        if !chunk.is_empty()
            && let Err(TrySendError::Full(chunk)) = output.try_send(chunk)
        {
            // The writer is behind: what is formatted waits here, the rest in the ring.
            analysis.out.unsplit(chunk);
            return Ok(count);
        }
        let taken = live.drain(BATCH, &mut |input| analysis.feed(&input));
        count += taken;
        if taken < BATCH {
            let due = analysis.until_due()?.is_zero();
            live.check(count > 0 || due, &mut |input| analysis.feed(&input))?;
            live.look(&analysis.due_peeks()?)?;
            let rest = analysis.take_output();
            if !rest.is_empty()
                && let Err(TrySendError::Full(rest)) = output.try_send(rest)
            {
                analysis.out.unsplit(rest);
            }
            return Ok(count);
        }
        if analysis.view().is_done() {
            return Ok(count);
        }
    }
}
