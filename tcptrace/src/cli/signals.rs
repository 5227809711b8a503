//! The signals that ask for an end, caught so that the end is an orderly one.

use std::io;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use tcptrace_host::signals::Ignored;

/// Does `work` on a runtime of this thread, with the signals caught: before any hook is on, so that
/// a Ctrl-C at any moment from here on ends in order.
///
/// # Errors
/// There is no runtime or no catching to be had; else what `work` ends with.
pub(super) fn catching<T>(work: impl AsyncFnOnce(&mut Signals) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::install().context("cannot catch signals")?;
        work(&mut signals).await
    })
}

/// SIGINT, SIGTERM and SIGHUP, from the moment of [`Signals::install`] on.
pub(super) struct Signals {
    caught: [Option<Signal>; 3],
    on_hangup: Option<OnHangup>,
}

/// What SIGHUP has done, where it is not to end the run.
pub(super) type OnHangup = Box<dyn Fn()>;

impl Signals {
    /// Catches them, but not SIGHUP where the parent had us ignore it: that is what `nohup` asks
    /// for. A SIGINT that a shell has its background jobs ignore is caught all the same, as
    /// tcpdump does: a script that sends it means it.
    pub(super) fn install() -> io::Result<Self> {
        let ignored = Ignored::read()?;
        let catch = |kind: SignalKind| {
            let asked = kind == SignalKind::hangup() && ignored.contains(kind.as_raw_value());
            (!asked).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            caught: [
                catch(SignalKind::interrupt())?,
                catch(SignalKind::terminate())?,
                catch(SignalKind::hangup())?,
            ],
            on_hangup: None,
        })
    }

    /// Has SIGHUP do `work` from now on, and end nothing. It is caught even where the parent had us
    /// ignore it, which asks for no end either.
    pub(super) fn on_hangup(&mut self, work: OnHangup) -> io::Result<()> {
        let [.., hangup] = &mut self.caught;
        if hangup.is_none() {
            *hangup = Some(signal(SignalKind::hangup())?);
        }
        self.on_hangup = Some(work);
        Ok(())
    }

    /// Waits for the next of them that asks for an end.
    pub(super) async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.caught;
        loop {
            tokio::select! {
                () = next(interrupt) => return,
                () = next(terminate) => return,
                () = next(hangup) => match &self.on_hangup {
                    Some(work) => work(),
                    None => return,
                },
            }
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
