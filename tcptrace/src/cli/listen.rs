//! What every command that listens does around its view: attach, say how, run, say what became
//! of the events, and see the output written.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;

use super::{
    EXIT_INTERRUPTED,
    log::{ToStderr, say},
    signals::Signals,
    target::Target,
};
use crate::{
    host::{loopback, netns::Netns},
    model::Accounts,
    pipeline::{self, Analysis},
    probe::{Options, Probe, ProbeError, TimeWaitBackend, Unobservable},
    source::{live::Live, owners::Owners, self_test},
    track::{Counts, Tracker},
    view::View,
};

/// Which socket tables are read beside the events, and how often.
pub(super) struct Snapshots {
    /// This namespace's; `None`: those of all that can be reached.
    pub(super) only: Option<Netns>,
    /// Between two rounds.
    pub(super) every: Duration,
    /// Who holds the sockets is looked up.
    pub(super) owners: bool,
}

impl Snapshots {
    /// For views that show what changes: the snapshot at the start tells of the connections that
    /// are there, later ones are but a safeguard against what was lost.
    pub(super) const SELDOM: Duration = Duration::from_secs(30);
    /// For views that show what there is.
    pub(super) const OFTEN: Duration = Duration::from_secs(10);
}

/// How to listen, and whether to try that out first.
pub(super) struct Listening<'a> {
    pub(super) options: &'a Options,
    pub(super) self_test: bool,
}

impl Listening<'_> {
    /// Attaches the hooks, and says how, and what that costs in truth.
    fn start(&self) -> Result<Live, ProbeError> {
        if !self.self_test {
            return Live::start(self.options);
        }
        let (mut live, proof) = self_test::start(self.options, loopback::live_a_life)?;
        if let Err(why) = proof.outcome {
            say(&format!("self-test not run: {why}"));
        }
        // Where no hook is left, it is said as any other refusal.
        if live.probe().time_wait().is_some_and(TimeWaitBackend::has_hooks) {
            for (backend, reason) in proof.ruled_out.time_wait {
                say(&format!("TIME_WAIT not by {backend}: {reason}"));
            }
        }
        Ok(live)
    }
}

/// Listens as `listening` says and shows `view` on `target`, until a signal, until `duration` is
/// over, until the view has enough or until nobody reads any more. `tell` says on stderr what the
/// view alone knows.
pub(super) fn run<V: View>(
    listening: Listening<'_>,
    snapshots: Snapshots,
    target: Target,
    duration: Option<Duration>,
    view: V,
    tell: impl FnOnce(&V),
) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before the hooks: a Ctrl-C at any moment from here on ends in order.
        let mut signals = Signals::install().context("cannot catch signals")?;
        let options = listening.options;
        let mut live = listening.start()?;
        let mut kernel_log = options
            .kernel_log
            .then(|| EbpfLogger::init_with_logger(live.probe().ebpf(), ToStderr))
            .transpose()
            .context("cannot open the kernel side's log")?;
        let (output, name) = target.start()?;
        announce(live.probe(), options.backend.is_none());
        let every_ns = u64::try_from(snapshots.every.as_nanos())?;
        let owners = snapshots.owners.then(Owners::default);
        live.take_snapshots(snapshots.only, options.filter.clone(), owners, every_ns);
        let mut analysis = Analysis::new(Tracker::default(), view);
        let stop = async {
            match duration {
                Some(duration) => tokio::select! {
                    () = signals.any() => {}
                    () = tokio::time::sleep(duration) => {}
                },
                None => signals.any().await,
            }
        };
        let ended = pipeline::run_live(&mut live, &mut analysis, &output, stop, |live| {
            live.take_remarks().iter().for_each(|remark| say(remark));
            if let Some(log) = &mut kernel_log {
                log.flush();
            }
        })
        .await;
        if let Ok(accounts) = &ended {
            summary(accounts, analysis.tracker().counts());
            tell(analysis.view());
        }
        // Also after an error: what was seen until then is not to be lost with it. Whoever reads
        // our output may have stopped reading; a second signal leaves all the same.
        let rest = analysis.take_output();
        let finish = tokio::task::spawn_blocking(move || output.finish(rest));
        tokio::select! {
            biased;
            written = finish => {
                ended?;
                written
                    .context("the writer failed")?
                    .with_context(|| format!("cannot write to {name}"))?;
                Ok(ExitCode::SUCCESS)
            }
            () = signals.any() => {
                say(&format!("interrupted again: what {name} did not take yet is not written"));
                // The runtime would wait for the blocked writer. The hooks are off since run_live().
                drop(live);
                std::process::exit(EXIT_INTERRUPTED.into())
            }
        }
    })
}

/// Says how it listens, and what that costs in truth when it is not the best way.
fn announce(probe: &Probe, fell_back: bool) {
    if fell_back {
        for refusal in probe.refusals() {
            say(&format!("not by {refusal}"));
        }
    }
    let time_wait = probe.time_wait();
    if time_wait.is_none_or(|backend| !backend.has_hooks()) {
        for (backend, reason) in probe.time_wait_refusals() {
            say(&format!("TIME_WAIT is not observable by {backend}: {reason}"));
        }
    }
    let by = match time_wait {
        Some(TimeWaitBackend::Sampling) => {
            say("TIME_WAIT is looked for each second: what comes and goes between two looks is \
                 not seen, ends are dated to that, and reasons but expired are unknown");
            ", TIME_WAIT by sampling".to_owned()
        }
        Some(backend) => format!(", TIME_WAIT by {backend}"),
        None => String::new(),
    };
    let lacking = match probe.unobservable().as_slice() {
        [] => String::new(),
        lacking => format!("; not observable: {}", Unobservable::names(lacking)),
    };
    say(&format!("listening by {}{by}{lacking}; Ctrl-C ends", probe.backend()));
}

fn summary(accounts: &Accounts, counts: Counts) {
    let Accounts { seconds, seen, delivered, filtered, lost, .. } = accounts;
    let missed = match accounts.missed {
        Some(missed) => format!("{missed} missed"),
        None => "missed not observable (before 5.12)".to_owned(),
    };
    say(&format!(
        "{seconds:.1} s: {seen} events seen, {delivered} delivered, {filtered} filtered, \
         {lost} lost, {missed}"
    ));
    if accounts.balance() != 0 {
        say(&format!("the account is open by {}: please report it", accounts.balance()));
    }
    if accounts.malformed > 0 {
        say(&format!("{} records could not be understood", accounts.malformed));
    }
    if *lost > 0 {
        say("lost to a full ring: take a larger --ring-size, or filter");
    }
    if counts.anomalies > 0 {
        say(&format!("{} transitions did not follow from what was known", counts.anomalies));
    }
    if counts.drifted > 0 {
        say(&format!(
            "{} connections were otherwise in the kernel's tables than their events told",
            counts.drifted
        ));
    }
    if counts.evicted > 0 {
        say(&format!("{} sockets forgotten to bound memory", counts.evicted));
    }
}
