//! A recording as fast as it can be read.

use std::{future::Future, time::Duration};

use super::{analysis::Analysis, early::Early, output::Output};
use tcptrace_model::{Accounts, Input};
use tcptrace_source::recording::{Cue, Recording};
use tcptrace_view::View;
use tokio::time::Instant;

/// Inputs handed on before anything else gets its turn.
const BATCH: usize = 1024;

/// How long the end of a stream is waited for, once its reader was asked to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

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
    // When a stream is to have ended whose reader was asked to end: Ctrl-C reaches both ends of a pipe,
    // and what the writer still sends is its end.
    let mut deadline = None;
    loop {
        if recording.is_stream() {
            let overdue = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = overdue => recording.stop(),
                () = recording.ready() => {}
                () = output.closed() => return None,
                () = &mut stop, if deadline.is_none() => deadline = Some(Instant::now() + PATIENCE),
            }
        }
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
        tokio::pin!(send);
        tokio::select! {
            biased;
            () = &mut stop, if deadline.is_none() => {
                if !recording.is_stream() {
                    return None;
                }
                deadline = Some(Instant::now() + PATIENCE);
                if tokio::time::timeout(PATIENCE, send).await.is_err() {
                    return None;
                }
            }
            () = &mut send => {}
        }
        if output.is_closed() {
            return None;
        }
    }
}
