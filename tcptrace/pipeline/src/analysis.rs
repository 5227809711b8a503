//! The tracker and a view, and what they are fed with.

use std::{io, time::Duration};

use bytes::BytesMut;

use super::early::Early;
use tcptrace_host::clock;
use tcptrace_model::{Change, Found, Input};
use tcptrace_record::Tap;
use tcptrace_track::{Tracker, Watch};
use tcptrace_view::View;

/// The longest tick while minisocks are to be looked at: what that tells should not be long past.
const LOOKING_TICK: Duration = Duration::from_millis(250);

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
    pub(super) fn in_doubt(&self) -> bool {
        self.watch.as_ref().map_or_else(|| self.tracker.in_doubt(), Watch::in_doubt)
    }

    /// The longest tick on a quiet host.
    pub(super) fn patience(&self) -> Duration {
        let awaits_peeks = match &self.watch {
            Some(watch) => watch.awaits_peeks(),
            None => self.tracker.awaits_peeks(),
        };
        let longest = if awaits_peeks { LOOKING_TICK } else { Duration::MAX };
        self.view.patience().min(longest)
    }

    /// Takes one input in that is from before what is shown.
    pub(super) fn feed_early(&mut self, input: &Input, early: &mut Early) {
        early.take(input);
        self.tracker.apply(input, &mut |_| {});
        self.forget_peeks(input);
    }

    /// Forgets which minisocks are to be looked at: those of a recording are gone.
    pub(super) fn forget_peeks(&mut self, input: &Input) {
        if let Input::Tick { mono_ns } = input {
            self.tracker.due_peeks(*mono_ns);
        }
    }

    /// Shows the view what there is by now, as if it had listened from `mono_ns` on: what holds,
    /// the connections that are known, and the last snapshot.
    pub(super) fn begin_view(&mut self, early: Early, mono_ns: u64) {
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

    /// Forgets every connection.
    pub(super) fn forget_all(&mut self) {
        self.tracker = Tracker::default();
    }

    /// Whether there is nothing more to listen for.
    pub(super) fn is_done(&self) -> bool {
        self.view.is_done() || (self.tap_decides && self.tap_failed())
    }

    /// How long until the view is to show something by the clock.
    pub(super) fn until_due(&self) -> io::Result<Duration> {
        let Some(due_ns) = self.view.due_ns() else { return Ok(Duration::MAX) };
        Ok(Duration::from_nanos(due_ns.saturating_sub(clock::monotonic_ns()?)))
    }

    /// What has been written since the last call.
    pub fn take_output(&mut self) -> BytesMut {
        self.out.split()
    }

    /// Takes back what could not be handed on.
    pub(super) fn put_back(&mut self, output: BytesMut) {
        let later = std::mem::replace(&mut self.out, output);
        self.out.unsplit(later);
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
