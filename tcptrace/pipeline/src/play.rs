//! A recording at a pace of one's own: on, held, on by a step, from elsewhere.
//!
//! Must not decide the pace: at each turn it asks what to do next.

use std::{collections::VecDeque, future::Future, time::Duration};

use anyhow::Result;

use super::{analysis::Analysis, early::Early};
use tcptrace_model::{Accounts, Input};
use tcptrace_source::recording::{Cue, Recording};
use tcptrace_view::View;

/// Inputs that are read at once.
const READ: usize = 64;

/// What to do next.
pub enum Turn {
    /// Take in what came up to a moment, but not more than so many inputs.
    On {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        until_ns: u64,
        /// How many inputs.
        most: usize,
    },
    /// Take in what comes up to the next event, and that.
    Step,
    /// Nothing, for so long.
    Wait(Duration),
    /// Go on with this recording, and forget what was told.
    From(Box<Recording>),
    /// It is enough.
    Enough,
}

/// Where it is.
pub struct At<'a, V> {
    /// The recording.
    pub recording: &'a mut Recording,
    /// What it is told to.
    pub analysis: &'a mut Analysis<V>,
    /// Of the last input that was taken in; `None`: there was none. `CLOCK_MONOTONIC`, nanoseconds.
    pub at_ns: Option<u64>,
    /// From when on there is something to take in; `None`: there is nothing more.
    pub next_ns: Option<u64>,
}

/// What was read and not taken in.
struct Ahead {
    cues: VecDeque<Cue>,
    early: Option<Early>,
    at_ns: Option<u64>,
    read_all: bool,
    accounts: Option<Accounts>,
}

impl Ahead {
    fn new() -> Self {
        let early = Some(Early::default());
        Self { cues: VecDeque::new(), early, at_ns: None, read_all: false, accounts: None }
    }

    /// From when on the next one is to be taken in; 0 for what is of no moment, or is early.
    fn next_ns(&mut self, recording: &mut Recording) -> Option<u64> {
        while self.cues.is_empty() && !self.read_all {
            self.read_all = !recording.feed(READ, &mut |cue| self.cues.push_back(cue));
        }
        Some(match self.cues.front()? {
            Cue::Early(_) => 0,
            Cue::Input(input) => input.mono_ns().unwrap_or(0),
        })
    }

    /// Takes in the next one. Whether that was an event.
    fn take<V: View>(&mut self, analysis: &mut Analysis<V>) -> bool {
        let input = match self.cues.pop_front() {
            None => return false,
            Some(Cue::Early(input)) => {
                if let Some(early) = &mut self.early {
                    analysis.feed_early(&input, early);
                }
                return false;
            }
            Some(Cue::Input(input)) => input,
        };
        if let Some(early) = self.early.take()
            && early.any
        {
            analysis.begin_view(early, input.mono_ns().unwrap_or(0));
        }
        self.at_ns = self.at_ns.max(input.mono_ns());
        if let Input::End(end) = &input {
            self.accounts = Some(*end);
        }
        analysis.feed(&input);
        analysis.forget_peeks(&input);
        matches!(input, Input::Event(_))
    }
}

/// Plays `recording` as `next` says, until that has enough or until `stop`. The account, if the end
/// was reached.
///
/// # Errors
/// That of `next`.
pub async fn play<V: View>(
    recording: &mut Recording,
    analysis: &mut Analysis<V>,
    stop: impl Future<Output = ()>,
    mut next: impl FnMut(At<'_, V>) -> Result<Turn>,
) -> Result<Option<Accounts>> {
    tokio::pin!(stop);
    let mut ahead = Ahead::new();
    loop {
        let (at_ns, next_ns) = (ahead.at_ns, ahead.next_ns(recording));
        let mut wait = Duration::ZERO;
        match next(At { recording, analysis, at_ns, next_ns })? {
            Turn::Enough => return Ok(ahead.accounts),
            Turn::Wait(time) => wait = time,
            Turn::From(other) => {
                *recording = *other;
                analysis.forget_all();
                ahead = Ahead::new();
            }
            Turn::On { until_ns, most } => {
                for _ in 0..most {
                    if ahead.next_ns(recording).is_none_or(|next_ns| next_ns > until_ns) {
                        break;
                    }
                    ahead.take(analysis);
                }
            }
            Turn::Step => while ahead.next_ns(recording).is_some() && !ahead.take(analysis) {},
        }
        tokio::select! {
            biased;
            () = &mut stop => return Ok(None),
            () = tokio::time::sleep(wait), if !wait.is_zero() => {}
            () = tokio::task::yield_now(), if wait.is_zero() => {}
        }
    }
}
