//! The only loop: from a source through the tracker into a view and out.
//!
//! One task owns the tracker and the view. It never blocks on the output: a writer thread does
//! that, and while it is behind, events wait in the ring, where a loss is counted.

pub mod output;
mod play;

use std::{collections::BTreeMap, future::Future, io, time::Duration};

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::error::TrySendError,
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::output::Output;
use tcptrace_host::clock;
use tcptrace_model::{Accounts, Change, Found, Input, Snapshot, SnapshotEnd, SynQueue, Unseen};
use tcptrace_record::{Context, Tap};
use tcptrace_source::{
    live::Live,
    recording::{Cue, Recording},
    snapshot::Round,
};
use tcptrace_track::{Tracker, Watch};
use tcptrace_view::View;

pub use play::{At, Turn, play};

/// Records handed on before the output is offered what has become of them.
const BATCH: usize = 1024;

/// The longest tick while minisocks are to be looked at: what that tells should not be long past.
const LOOKING_TICK: Duration = Duration::from_millis(250);

/// The least tick.
const LEAST_TICK: Duration = Duration::from_millis(1);

/// How long programs that still run when the hooks are taken off may take.
const SETTLE_NS: u64 = 200_000_000;

/// The analysis and what it shows.
pub struct Analysis<V> {
    tracker: Tracker,
    /// In place of tracker and view, where nothing is shown.
    watch: Option<Watch>,
    view: V,
    out: BytesMut,
    tap: Option<Tap>,
    /// The run is over when nothing can be recorded any more.
    tap_decides: bool,
}

impl<V: View> Analysis<V> {
    /// An analysis that shows `view`.
    pub fn new(tracker: Tracker, view: V) -> Self {
        let mut out = BytesMut::new();
        let mut view = view;
        view.begin(&mut out);
        Self { tracker, watch: None, view, out, tap: None, tap_decides: false }
    }

    /// Has every input recorded before it is taken in. With `decides`, the run ends where that
    /// cannot go on.
    pub fn record(&mut self, tap: Tap, decides: bool) {
        (self.tap, self.tap_decides) = (Some(tap), decides);
    }

    /// Has nothing concluded from the inputs, which are only recorded: the tracker learns nothing,
    /// and the view is told nothing. Not where minisocks are [sampled](Live::is_sampled), of which
    /// only the tracker knows when to look.
    pub fn only_record(&mut self) {
        self.watch = Some(Watch::default());
    }

    /// The recording, for its end.
    pub fn take_tap(&mut self) -> Option<Tap> {
        self.tap.take()
    }

    /// Whether the recording has ended before its time.
    pub fn tap_failed(&self) -> bool {
        self.tap.as_ref().is_some_and(Tap::has_failed)
    }

    /// Takes one input in.
    pub fn feed(&mut self, input: &Input) {
        let Self { tracker, watch, view, out, tap, .. } = self;
        if let Some(tap) = tap {
            tap.put(input);
        }
        if let Some(watch) = watch {
            watch.take(input);
            return;
        }
        tracker.apply(input, &mut |change| view.change(&change, out));
        if !matches!(input, Input::Event(_)) {
            view.input(input, tracker, out);
        }
    }

    /// Minisocks that the source should look at now.
    pub fn due_peeks(&mut self) -> io::Result<Vec<u64>> {
        let now = clock::monotonic_ns()?;
        Ok(match &mut self.watch {
            Some(watch) => watch.due_peeks(now),
            None => self.tracker.due_peeks(now),
        })
    }

    /// Whether another snapshot soon would settle something.
    fn in_doubt(&self) -> bool {
        self.watch.as_ref().map_or_else(|| self.tracker.in_doubt(), Watch::in_doubt)
    }

    /// The longest tick on a quiet host.
    fn patience(&self) -> Duration {
        let awaits_peeks = match &self.watch {
            Some(watch) => watch.awaits_peeks(),
            None => self.tracker.awaits_peeks(),
        };
        let longest = if awaits_peeks { LOOKING_TICK } else { Duration::MAX };
        self.view.patience().min(longest)
    }

    /// Takes one input in that is from before what is shown.
    fn feed_early(&mut self, input: &Input, early: &mut Early) {
        early.take(input);
        self.tracker.apply(input, &mut |_| {});
        self.forget_peeks(input);
    }

    /// Forgets which minisocks are to be looked at: those of a recording are gone.
    fn forget_peeks(&mut self, input: &Input) {
        if let Input::Tick { mono_ns } = input {
            self.tracker.due_peeks(*mono_ns);
        }
    }

    /// Shows the view what there is by now, as if it had listened from `mono_ns` on: what holds,
    /// the connections that are known, and the last snapshot.
    fn begin_view(&mut self, early: Early, mono_ns: u64) {
        let Self { tracker, view, out, .. } = self;
        let snapshot = early.snapshot(mono_ns);
        let (over, pieces) = snapshot.split_last().map_or((None, &[][..]), |(o, p)| (Some(o), p));
        for input in early.context.inputs(mono_ns).chain(pieces.iter().cloned()) {
            view.input(&input, tracker, out);
        }
        for found in tracker.census() {
            view.change(&Change::Found(Found { mono_ns, ..found }), out);
        }
        if let Some(over) = over {
            view.input(over, tracker, out);
        }
    }

    /// Whether there is nothing more to listen for.
    fn is_done(&self) -> bool {
        self.view.is_done() || (self.tap_decides && self.tap_failed())
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

    /// The view, to be told more than inputs, and the tracker beside it.
    pub fn parts(&mut self) -> (&mut V, &Tracker) {
        (&mut self.view, &self.tracker)
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
    mut after_drain: impl FnMut(&mut Live, &mut Analysis<V>),
) -> Result<Accounts> {
    let ring = live.probe().ring_fd().try_clone_to_owned().context("cannot watch the ring")?;
    // SAFETY: the file descriptor is owned by the `OwnedFd` given, which gives the same one
    // each time and keeps it open as long as the `AsyncFd` lives.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .context("cannot watch the ring")?;
    analysis.feed(&live.begin().context("cannot read the clock's resolution")?);
    live.check(true, &mut |input| analysis.feed(input))?;
    tokio::pin!(stop);
    let busy = analysis.view().haste();
    let mut tick = busy;
    let mut dumps: Option<JoinHandle<Round>> = None;
    loop {
        if dumps.is_none()
            && let Some(job) = live.due_snapshots(analysis.in_doubt())?
        {
            // On a thread of its own, so that the ring is drained meanwhile.
            analysis.feed(&job.opening());
            dumps = Some(spawn_blocking(move || job.run()));
        }
        let count = drain(live, analysis, output)?;
        after_drain(live, analysis);
        if output.is_closed() || analysis.is_done() {
            break;
        }
        // Longer while nothing comes, so that a quiet host costs nothing.
        tick = if count > 0 { busy } else { (tick * 2).min(analysis.patience()) };
        // What is due and still not shown waits for a slow reader: no reason to spin.
        let due = analysis.until_due()?.max(LEAST_TICK);
        let wake = sleep_until(Instant::now() + tick.min(due));
        tokio::select! {
            () = &mut stop => break,
            () = output.closed() => {}
            round = finished(&mut dumps) => {
                let round = round.context("the thread that takes snapshots failed")?;
                live.snapshots_taken(round, &mut |input| analysis.feed(input));
                dumps = None;
            }
            () = wake => {}
            ready = ring.readable() => ready.context("cannot watch the ring")?.clear_ready(),
        }
    }
    live.detach()?;
    // What is held back for a look at minisocks gets one now.
    live.drain(usize::MAX, &mut |input| analysis.feed(input));
    if analysis.tracker().awaits_look()
        && let Some(job) = live.look_now()?
    {
        analysis.feed(&job.opening());
        let round = spawn_blocking(move || job.run()).await;
        let round = round.context("the thread that takes snapshots failed")?;
        live.snapshots_taken(round, &mut |input| analysis.feed(input));
    }
    let accounts = live.settle(SETTLE_NS, &mut |input| analysis.feed(input))?;
    after_drain(live, analysis);
    Ok(accounts)
}

/// Shows what `recording` has, until its end, until `stop`, or until nobody reads the output any
/// more. Gives the account of it; none if it was stopped. `along` is called on the way.
///
/// A view that has enough still gets the rest: it may tell of losses and of the account, as it
/// would have of a live host.
pub async fn run_recording<V: View>(
    recording: &mut Recording,
    analysis: &mut Analysis<V>,
    output: &Output,
    stop: impl Future<Output = ()>,
    mut along: impl FnMut(&Recording),
) -> Option<Accounts> {
    tokio::pin!(stop);
    let mut early = Some(Early::default());
    let mut accounts = None;
    loop {
        let more = recording.feed(BATCH, &mut |cue| {
            let input = match cue {
                Cue::Early(input) => {
                    if let Some(early) = &mut early {
                        analysis.feed_early(&input, early);
                    }
                    return;
                }
                Cue::Input(input) => input,
            };
            if let Some(early) = early.take()
                && early.any
            {
                analysis.begin_view(early, input.mono_ns().unwrap_or(0));
            }
            if let Input::End(end) = &input {
                accounts = Some(*end);
            }
            analysis.feed(&input);
            analysis.forget_peeks(&input);
        });
        if !more {
            return accounts;
        }
        along(recording);
        let chunk = analysis.take_output();
        let send = async {
            if chunk.is_empty() {
                // So that a signal is heard.
                tokio::task::yield_now().await;
            } else {
                output.send(chunk).await;
            }
        };
        tokio::select! {
            biased;
            () = &mut stop => return None,
            () = send => {}
        }
        if output.is_closed() {
            return None;
        }
    }
}

/// Network namespaces of a recording of which a view is told how their last dump ended.
const SPACES: usize = 1 << 16;

/// What a view must know of the time before it begins.
#[derive(Default)]
struct Early {
    any: bool,
    context: Context,
    /// By namespace, how its last dump ended, where that tells of what no event does.
    spaces: BTreeMap<u32, (Vec<SynQueue>, SnapshotEnd)>,
    /// The SYN queues of the dump that is being told.
    syn_queues: Vec<SynQueue>,
    /// The namespace whose dump is being told, if that is of all its sockets.
    netns: Option<u32>,
    minisocks_alone: bool,
    /// All have been dumped.
    whole: bool,
}

impl Early {
    fn take(&mut self, input: &Input) {
        self.any = true;
        match input {
            Input::Snapshot(Snapshot::Open) => self.minisocks_alone = false,
            Input::Snapshot(Snapshot::OpenMinisocks) => self.minisocks_alone = true,
            Input::Snapshot(Snapshot::Begin { netns, .. }) => {
                self.netns = Some(*netns).filter(|_| !self.minisocks_alone);
                self.syn_queues.clear();
            }
            // There is at most one for each port.
            Input::Snapshot(Snapshot::SynQueue(queue))
                if self.syn_queues.len() < usize::from(u16::MAX) =>
            {
                self.syn_queues.push(*queue);
            }
            Input::Snapshot(Snapshot::End(end)) => {
                let queues = std::mem::take(&mut self.syn_queues);
                let Some(netns) = self.netns.take() else { return };
                if end.unseen == Unseen::default() && queues.is_empty() {
                    self.spaces.remove(&netns);
                } else if self.spaces.len() < SPACES {
                    self.spaces.insert(netns, (queues, *end));
                }
            }
            Input::Snapshot(Snapshot::Over { all: true, .. }) => self.whole = true,
            lasting if tcptrace_record::lasts(lasting) => self.context.take(lasting.clone()),
            _ => {}
        }
    }

    /// The last dumps as one round at `mono_ns`, without sockets; its last piece says that it is
    /// over. Nothing, if there was none of everything.
    fn snapshot(&self, mono_ns: u64) -> Vec<Input> {
        if !self.whole {
            return Vec::new();
        }
        let dumps = self.spaces.iter().flat_map(|(&netns, (queues, end))| {
            let begin = Snapshot::Begin { mono_ns, netns };
            let end = Snapshot::End(SnapshotEnd { mono_ns, ..*end });
            let queues = queues.iter().copied().map(Snapshot::SynQueue);
            [begin].into_iter().chain(queues).chain([end])
        });
        let over = Snapshot::Over { mono_ns, all: true };
        [Snapshot::Open].into_iter().chain(dumps).chain([over]).map(Input::Snapshot).collect()
    }
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
        let taken = live.drain(BATCH, &mut |input| analysis.feed(input));
        count += taken;
        if taken < BATCH {
            let due = analysis.until_due()?.is_zero();
            live.check(count > 0 || due, &mut |input| analysis.feed(input))?;
            live.look(&analysis.due_peeks()?)?;
            let rest = analysis.take_output();
            if !rest.is_empty()
                && let Err(TrySendError::Full(rest)) = output.try_send(rest)
            {
                analysis.out.unsplit(rest);
            }
            return Ok(count);
        }
        if analysis.is_done() {
            return Ok(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;
    use tcptrace_view::Nothing;

    /// A view that can wait for long.
    struct Calm;

    impl View for Calm {
        fn begin(&mut self, _out: &mut BytesMut) {}

        fn input(&mut self, _input: &Input, _tracker: &Tracker, _out: &mut BytesMut) {}

        fn change(&mut self, _change: &Change, _out: &mut BytesMut) {}

        fn patience(&self) -> Duration {
            Duration::from_secs(9)
        }

        fn is_done(&self) -> bool {
            false
        }
    }

    #[test]
    fn ticks_are_long_only_while_no_minisock_is_to_be_looked_at() {
        for only_record in [false, true] {
            let mut analysis = Analysis::new(Tracker::default(), Calm);
            if only_record {
                analysis.only_record();
            }
            let mut feed = |lines: &str| {
                script::inputs(lines).unwrap().iter().for_each(|input| analysis.feed(input));
                analysis.patience()
            };
            assert_eq!(
                feed("1ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n"),
                Calm.patience()
            );
            let born = "2ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
                        2ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443\n";
            assert_eq!(feed(born), LOOKING_TICK, "{only_record}");
        }
    }

    #[test]
    fn who_goes_along_is_waited_for() {
        assert_eq!((Calm, Some(Nothing)).patience(), Nothing.patience());
        assert_eq!((Nothing, None::<Calm>).haste(), Nothing.haste());
        assert_eq!((Nothing, Some(Calm)).haste(), Calm.haste());
    }
}
