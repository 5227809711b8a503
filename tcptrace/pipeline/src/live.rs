//! A host, for as long as it is listened to.
//!
//! The ring may have more to read whenever it is looked at: a host may be busier than one CPU can
//! read. So reading is done in turns of bounded length, and between two of them everything else gets
//! its turn too: signals, what is due by the clock, losses, snapshots, minisocks to be polled.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::error::TrySendError,
    task::{JoinError, JoinHandle, spawn_blocking, yield_now},
    time::{Instant, sleep_until},
};

use super::{analysis::Analysis, output::Output, source::Source};
use tcptrace_model::Accounts;
use tcptrace_source::snapshot::Round;
use tcptrace_view::View;

/// Records handed on before the output is offered what has become of them.
const BATCH: usize = 1024;

/// Batches in one turn: some ten milliseconds, as long as the ring is left alone where events are
/// few. A larger ring than this holds two million.
const BATCHES: usize = 16;

/// The least tick.
const LEAST_TICK: Duration = Duration::from_millis(1);

/// How long programs that still run when the hooks are taken off may take.
const SETTLE_NS: u64 = 200_000_000;

/// Runs until `stop`, until the view has enough, or until nobody reads the output any more; then
/// takes the hooks off, takes in what is still in the ring and says what became of the events.
///
/// What the view wrote last is still in `analysis`, for the caller to write: that may block for as
/// long as nobody reads, which is not to be waited for here.
pub async fn run_live<S: Source, V: View>(
    source: &mut S,
    analysis: &mut Analysis<V>,
    output: &Output,
    stop: impl Future<Output = ()>,
    mut after_turn: impl FnMut(&mut S, &mut Analysis<V>),
) -> Result<Accounts> {
    let ring = source.ring().context("cannot watch the ring")?;
    // SAFETY: the file descriptor is owned by the `OwnedFd` given, which gives the same one
    // each time and keeps it open as long as the `AsyncFd` lives.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .context("cannot watch the ring")?;
    analysis.feed(&source.begin()?);
    source.check(true, &mut |input| analysis.feed(input))?;
    tokio::pin!(stop);
    let busy = analysis.view().haste();
    let mut tick = busy;
    let mut dumps: Option<JoinHandle<Round>> = None;
    loop {
        if dumps.is_none()
            && let Some(job) = source.due_snapshots(analysis.in_doubt())?
        {
            // On a thread of its own, so that the ring is drained meanwhile.
            analysis.feed(&job.opening());
            dumps = Some(spawn_blocking(move || job.run()));
        }
        let turn = turn(source, analysis, output)?;
        after_turn(source, analysis);
        if output.is_closed() || analysis.is_done() {
            break;
        }
        // Longer while nothing comes, so that a quiet host costs nothing.
        tick = if turn.count > 0 { busy } else { (tick * 2).min(analysis.patience()) };
        // What is due and still not shown waits for a slow reader: no reason to spin.
        let due = analysis.until_due()?.max(LEAST_TICK);
        let wake = async {
            if turn.more {
                // Signals, timers and the ring's readiness are looked at meanwhile.
                yield_now().await;
            } else {
                sleep_until(Instant::now() + tick.min(due)).await;
            }
        };
        tokio::select! {
            // In this order: a turn of the ring comes again anyway.
            biased;
            () = &mut stop => break,
            () = output.closed() => {}
            round = finished(&mut dumps) => {
                let round = round.context("the thread that takes snapshots failed")?;
                source.snapshots_taken(round, &mut |input| analysis.feed(input));
                dumps = None;
            }
            () = wake => {}
            ready = ring.readable() => ready.context("cannot watch the ring")?.clear_ready(),
        }
    }
    source.detach()?;
    // What is held back for a look at minisocks gets one now.
    source.drain(usize::MAX, &mut |input| analysis.feed(input));
    if analysis.tracker().awaits_look()
        && let Some(job) = source.scan_now()?
    {
        analysis.feed(&job.opening());
        let round = spawn_blocking(move || job.run()).await;
        let round = round.context("the thread that takes snapshots failed")?;
        source.snapshots_taken(round, &mut |input| analysis.feed(input));
    }
    let accounts = source.settle(SETTLE_NS, &mut |input| analysis.feed(input))?;
    after_turn(source, analysis);
    Ok(accounts)
}

/// The result of the dumps that are being taken, if there are any; else never.
async fn finished(dumps: &mut Option<JoinHandle<Round>>) -> Result<Round, JoinError> {
    match dumps {
        Some(dumps) => dumps.await,
        None => std::future::pending().await,
    }
}

/// What came of a turn.
struct Turn {
    /// Records handed on.
    count: usize,
    /// There is more in the ring, and nothing is in the way of reading it.
    more: bool,
}

/// Hands on what is in the ring while the output takes it, for as long as a turn may last, and then
/// what is no record.
fn turn<V: View>(
    source: &mut impl Source,
    analysis: &mut Analysis<V>,
    output: &Output,
) -> Result<Turn> {
    let mut turn = Turn { count: 0, more: true };
    for _ in 0..BATCHES {
        if !offer(analysis, output) {
            // The writer is behind: what is formatted waits, the rest in the ring.
            return Ok(Turn { more: false, ..turn });
        }
        let taken = source.drain(BATCH, &mut |input| analysis.feed(input));
        turn.count += taken;
        turn.more = taken == BATCH;
        if !turn.more || analysis.is_done() {
            break;
        }
    }
    let due = analysis.until_due()?.is_zero();
    source.check(turn.count > 0 || due, &mut |input| analysis.feed(input))?;
    source.poll_minisocks(&analysis.due_peeks()?)?;
    offer(analysis, output);
    Ok(turn)
}

/// Offers what is formatted to the writer. Says whether it took it.
fn offer<V: View>(analysis: &mut Analysis<V>, output: &Output) -> bool {
    let chunk = analysis.take_output();
    if !chunk.is_empty()
        && let Err(TrySendError::Full(chunk)) = output.try_send(chunk)
    {
        analysis.put_back(chunk);
        return false;
    }
    true
}

#[cfg(test)]
mod tests;
