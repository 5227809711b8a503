//! The same metrics, pushed: by OTLP over HTTP, as protobuf, to a collector.
//!
//! A thread of its own, as that which answers. What is counted is cumulative, so a push that came
//! to nothing is made up for by the next: nothing is queued, and a collector that is down, slow or
//! refuses costs one push at a time and nothing else.

mod encode;
mod endpoint;
mod headers;
mod pace;
mod push;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

pub use endpoint::Endpoint;
pub use headers::{Headers, HeadersError};
pub use push::Push;

use self::{
    encode::Origin,
    pace::{News, Pace},
    push::{Refusal, push},
};
use super::{families::Moment, shelf::Shelf};
use tcptrace_host::clock;

/// The longest that a push may take, if the interval is not shorter.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest that the last one may take.
const LAST: Duration = Duration::from_secs(2);

/// How soon to look again while nothing is known yet.
const SOON: Duration = Duration::from_secs(1);

/// The thread.
pub struct Pusher {
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Pusher {
    /// Pushes what is on the shelf from now on. `tell` is told when that begins or ceases to work.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        push: Push,
        shelf: Arc<Shelf>,
        prepare: impl FnOnce() + Send + 'static,
        tell: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        // From now on they are counted, even if there is none yet.
        shelf.pushing();
        let thread = thread::Builder::new().name("otlp".into()).spawn(move || {
            prepare();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let pace = Pace::new(push.interval);
            let rounds = Rounds { push, shelf, origin: Origin::read(), pace, tell };
            runtime.block_on(rounds.run(stopped));
            // A name that is still being looked up is not waited for.
            runtime.shutdown_background();
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    /// Has it end, with a last push, which takes no more than two seconds.
    pub fn stop(&self) {
        // Fails only when the thread has ended.
        let _ = self.stop.send(true);
    }

    /// Waits for its end, which [`Pusher::stop`] begins.
    ///
    /// # Errors
    /// Why it had ended before.
    pub fn finish(self) -> io::Result<()> {
        self.stop();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the OTLP thread panicked")))
    }
}

/// One push after the other.
struct Rounds<T> {
    push: Push,
    shelf: Arc<Shelf>,
    origin: Origin,
    pace: Pace,
    tell: T,
}

impl<T: Fn(&str)> Rounds<T> {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let limit = LIMIT.min(self.push.interval);
        loop {
            let begun = Instant::now();
            let wait = tokio::select! {
                biased;
                // Fails when nobody can say stop any more: a reason to.
                _ = stopped.wait_for(|stop| *stop) => break,
                wait = self.round(limit) => wait,
            };
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                () = sleep_until(begun + wait) => {}
            }
        }
        self.round(LAST).await;
    }

    /// Pushes once; says how long after its beginning to push again.
    async fn round(&mut self, limit: Duration) -> Duration {
        let Some(figures) = self.shelf.take() else { return SOON };
        let time_ns = clock::sample()
            .map_or(0, |clock| figures.mono_ns.saturating_add_signed(clock.realtime_offset_ns));
        let body = encode::request(&Moment::of(&self.shelf, figures), &self.origin, time_ns);
        let pushed = match timeout(limit, push(&self.push, body)).await {
            Ok(pushed) => pushed,
            Err(_) => Err(Refusal::failed(format!("no answer within {limit:?}"))),
        };
        let answered = pushed.as_ref().is_err_and(|refusal| refusal.answered);
        self.shelf.pushing().count(pushed.is_ok(), answered);
        let (wait, news) = self.pace.after(pushed.as_ref().err());
        let endpoint = &self.push.endpoint;
        match (news, pushed) {
            (Some(News::Works), _) => (self.tell)(&format!("metrics are pushed to {endpoint}")),
            (Some(News::Fails), Err(refusal)) => (self.tell)(&format!(
                "metrics are not pushed to {endpoint}: {}{}; tried again and again, and said when \
                 it works",
                refusal.why,
                endpoint.hint(refusal.answered)
            )),
            _ => {}
        }
        wait
    }
}
