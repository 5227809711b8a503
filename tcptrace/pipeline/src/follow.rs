//! A recording that comes through a pipe, as it comes, for who looks at it meanwhile.
//!
//! Must not decide the pace: what has come is taken in, and nothing waits in this process for longer
//! than a turn. What the reader is too slow for waits at the writer, which counts what it drops.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{analysis::Analysis, replay::PATIENCE};
use tcptrace_model::{Accounts, Input};
use tcptrace_source::recording::{Cue, Recording};
use tcptrace_view::View;

/// Inputs that are taken in between two turns.
const BATCH: usize = 4096;

/// Between two turns while nothing comes.
const TICK: Duration = Duration::from_millis(20);

/// Where a stream is.
pub struct Followed<'a, V> {
    /// The recording.
    pub recording: &'a mut Recording,
    /// What it is told to.
    pub analysis: &'a mut Analysis<V>,
    /// Something has come since the last turn.
    pub moved: bool,
    /// Its totals: it has ended.
    pub accounts: Option<Accounts>,
}

/// Takes in what comes, and calls `turn` meanwhile, until that has enough (`false`). After `stop` the
/// end of the stream is waited for, since Ctrl-C reaches both ends of a pipe and what the writer still
/// sends is its end, but not for long. Gives the totals: those of the writer if its end has come, else
/// a count of what came.
pub async fn follow<V: View>(
    recording: &mut Recording,
    analysis: &mut Analysis<V>,
    stop: impl Future<Output = ()>,
    mut turn: impl FnMut(Followed<'_, V>) -> bool,
) -> Accounts {
    tokio::pin!(stop);
    let mut accounts = None;
    let mut deadline = None;
    loop {
        let mut moved = false;
        tokio::select! {
            biased;
            () = &mut stop, if deadline.is_none() => deadline = Some(Instant::now() + PATIENCE),
            () = overdue(deadline) => recording.stop(),
            () = recording.ready(), if accounts.is_none() => moved = true,
            () = sleep(TICK) => {}
        }
        if accounts.is_none() {
            take(recording, analysis, &mut accounts);
        }
        let enough = !turn(Followed { recording, analysis, moved, accounts });
        if let Some(accounts) = accounts
            && (enough || deadline.is_some())
        {
            return accounts;
        }
        if enough {
            // The next batch is its end.
            recording.stop();
        }
        // A stream that never runs dry must not keep signals from being heard.
        tokio::task::yield_now().await;
    }
}

async fn overdue(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn take<V: View>(
    recording: &mut Recording,
    analysis: &mut Analysis<V>,
    accounts: &mut Option<Accounts>,
) {
    recording.feed(BATCH, &mut |cue| {
        // A stream begins at its beginning: nothing of it is early.
        let (Cue::Early(input) | Cue::Input(input)) = cue;
        if let Input::End(end) = &input {
            *accounts = Some(*end);
        }
        analysis.feed(&input);
        analysis.forget_peeks(&input);
    });
}
