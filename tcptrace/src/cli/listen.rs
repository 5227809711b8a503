//! What every command that listens does around its view: attach, say how, run, say what became
//! of the events, and see output and recording written. The same for what was recorded.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;

use super::{
    exit::EXIT_INTERRUPTED,
    header::header,
    log::{ToStderr, say},
    origin::{Host, Origin},
    progress::Progress,
    signals::{self, Signals},
    target::Target,
    usage::Usage,
};
use tcptrace_host::loopback;
use tcptrace_model::{Accounts, filter::Filter};
use tcptrace_pipeline::{self, Analysis, output::Output};
use tcptrace_probe::{Probe, ProbeError, TimeWaitBackend, Unobservable};
use tcptrace_record::{Header, Saved, Tap};
use tcptrace_source::{live::Live, owners::Owners, recording::Recording, self_test};
use tcptrace_track::{Counts, Tracker};
use tcptrace_view::View;

/// How often the socket tables are read beside the events.
pub(super) struct Snapshots {
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

/// What goes on beside a view while it runs, and where remarks go.
pub(super) trait Beside<V> {
    /// The hooks are in force, and it has been said how.
    fn begin(&mut self, probe: &Probe, kept: &Filter, analysis: &mut Analysis<V>) -> Result<()>;
    /// All that had come was taken in.
    fn drained(&mut self, analysis: &mut Analysis<V>);
    /// Has something said.
    fn remark(&mut self, text: &str, analysis: &mut Analysis<V>);
    /// Nothing more comes.
    fn end(&mut self);
}

/// Nothing: remarks are said on stderr.
struct Nothing;

impl<V> Beside<V> for Nothing {
    fn begin(&mut self, _: &Probe, _: &Filter, _: &mut Analysis<V>) -> Result<()> {
        Ok(())
    }

    fn drained(&mut self, _: &mut Analysis<V>) {}

    fn remark(&mut self, text: &str, _: &mut Analysis<V>) {
        say(text);
    }

    fn end(&mut self) {}
}

/// Shows `view` on `target`, of what `origin` tells: of this host until a signal, until `duration`
/// is over, until the view has enough or until nobody reads any more. `tell` says on stderr what
/// the view alone knows.
pub(super) fn run<V: View>(
    origin: Origin,
    snapshots: Snapshots,
    target: Target,
    duration: Option<Duration>,
    view: V,
    tell: impl FnOnce(&V),
) -> Result<ExitCode> {
    if duration.is_some() && matches!(origin, Origin::Recording(_)) {
        let misuse = "--duration is for what is going on: of a recording give --since and --until";
        return Err(Usage(misuse.to_owned()).into());
    }
    if let Origin::Recording(recording) = &origin {
        target.refuse(&recording.files())?;
    }
    signals::catching(async |signals| match origin {
        Origin::Host(mut host) => {
            if let Some(work) = host.on_hangup.take() {
                signals.on_hangup(work).context("cannot catch SIGHUP")?;
            }
            let run = Run { snapshots, duration };
            listen(*host, run, signals, target, view, &mut Nothing, tell).await
        }
        Origin::Recording(recording) => read(*recording, signals, target, view, tell).await,
    })
}

/// What else a command asks for.
pub(super) struct Run {
    pub(super) snapshots: Snapshots,
    pub(super) duration: Option<Duration>,
}

impl Host {
    /// Attaches the hooks, and says how, and what that costs in truth.
    fn start(&self) -> Result<Live, ProbeError> {
        if !self.self_test {
            return Live::start(&self.options);
        }
        let (mut live, proof) = self_test::start(&self.options, loopback::live_a_life)?;
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

/// Listens to this host, with `beside`.
pub(super) async fn listen<V: View>(
    host: Host,
    run: Run,
    signals: &mut Signals,
    target: Target,
    view: V,
    beside: &mut impl Beside<V>,
    tell: impl FnOnce(&V),
) -> Result<ExitCode> {
    let mut live = host.start()?;
    let Host { options, only, save, helper, attached, .. } = host;
    let Run { snapshots, duration } = run;
    // Before other threads are started: what is given up here is given up in these too.
    if let Some(attached) = attached {
        attached(live.probe())?;
    }
    // Where nothing is shown, there is nothing to do once nothing can be recorded.
    let decides = target.is_none();
    let mut kernel_log = options
        .kernel_log
        .then(|| EbpfLogger::init_with_logger(live.probe().ebpf(), ToStderr))
        .transpose()
        .context("cannot open the kernel side's log")?;
    let (output, name) = target.start()?;
    let mut analysis = Analysis::new(Tracker::default(), view);
    if !analysis.view().shows() && !live.is_sampled() {
        analysis.only_record();
    }
    // Before the header of a recording: whoever reads that through a pipe may then take the terminal
    // that both write on.
    announce(live.probe(), options.backend.is_none());
    if let Some(file) = save {
        let files = file.begin(header(live.probe(), &options.filter)?)?;
        let tap = Tap::start(files).context("cannot start the recording's thread")?;
        analysis.record(tap, decides);
    }
    beside.begin(live.probe(), &options.filter, &mut analysis)?;
    let every_ns = u64::try_from(snapshots.every.as_nanos())?;
    match helper {
        Some(helper) => live.take_snapshots_by(helper, every_ns),
        None => {
            let owners = snapshots.owners.then(Owners::default);
            live.take_snapshots(only, options.filter.clone(), owners, every_ns);
        }
    }
    let stop = async {
        match duration {
            Some(duration) => tokio::select! {
                () = signals.any() => {}
                () = tokio::time::sleep(duration) => {}
            },
            None => signals.any().await,
        }
    };
    let mut told_failure = false;
    let ended =
        tcptrace_pipeline::run_live(&mut live, &mut analysis, &output, stop, |live, analysis| {
            live.take_remarks().iter().for_each(|remark| beside.remark(remark, analysis));
            if analysis.tap_failed() && !std::mem::replace(&mut told_failure, true) {
                beside.remark("nothing more is recorded: the recording has failed", analysis);
            }
            if let Some(log) = &mut kernel_log {
                log.flush();
            }
            beside.drained(analysis);
        })
        .await;
    beside.end();
    if let Ok(accounts) = &ended {
        summary(accounts, analysis.tracker().counts(), LOST_HERE);
        tell(analysis.view());
    }
    // The hooks are off since run_live(); a helper process ends here.
    drop(live);
    finish(analysis, output, &name, signals, ended.map(|_| ())).await
}

/// Shows what was recorded.
async fn read<V: View>(
    mut recording: Recording,
    signals: &mut Signals,
    target: Target,
    view: V,
    tell: impl FnOnce(&V),
) -> Result<ExitCode> {
    let mut progress = Progress::new(!target.is_terminal());
    let (output, name) = target.start()?;
    announce_recording(recording.header());
    let mut analysis = Analysis::new(Tracker::default(), view);
    let stop = signals.any();
    let along = |recording: &Recording| {
        if let Some((bytes, of)) = recording.progress() {
            progress.at(bytes, of);
        }
    };
    let accounts =
        tcptrace_pipeline::run_recording(&mut recording, &mut analysis, &output, stop, along).await;
    drop(progress);
    recording.take_remarks().iter().for_each(|remark| say(remark));
    if let Some(accounts) = &accounts {
        summary(accounts, analysis.tracker().counts(), LOST_THEN);
        tell(analysis.view());
    }
    let ended = recording.take_failure().map_or(Ok(()), |failure| Err(failure.into()));
    finish(analysis, output, &name, signals, ended).await
}

/// Has written what is left of the output and the recording.
pub(super) async fn finish<V: View>(
    mut analysis: Analysis<V>,
    output: Output,
    name: &str,
    signals: &mut Signals,
    ended: Result<()>,
) -> Result<ExitCode> {
    // Also after an error: what was seen until then is not to be lost with it. Whoever reads
    // our output may have stopped reading; a second signal leaves all the same.
    let rest = analysis.take_output();
    let tap = analysis.take_tap();
    let of = tap.as_ref().map(|tap| tap.name().to_owned());
    let finish = tokio::task::spawn_blocking(move || {
        // Nobody reads that one: it does not wait.
        let saved = tap.map(Tap::finish).transpose();
        (output.finish(rest), saved)
    });
    tokio::select! {
        biased;
        done = finish => {
            let (written, saved) = done.context("the writer failed")?;
            if let (Ok(Some(saved)), Some(of)) = (&saved, of) {
                tell_saved(saved, &of);
            }
            ended?;
            saved?;
            written.with_context(|| format!("cannot write to {name}"))?;
            Ok(ExitCode::SUCCESS)
        }
        () = signals.any() => {
            say(&format!("interrupted again: what {name} did not take yet is not written"));
            // The runtime would wait for the blocked writer.
            std::process::exit(EXIT_INTERRUPTED.into())
        }
    }
}

fn tell_saved(saved: &Saved, name: &str) {
    say(&format!("recorded {} inputs in {} bytes to {name}", saved.inputs, saved.bytes));
    if saved.gap > 0 {
        say(&format!(
            "{} events were not recorded, since the disk was too slow: in the recording they \
             count as lost",
            saved.gap
        ));
    }
}

/// Says what is read: whose recording it is, and what could not be observed there.
pub(super) fn announce_recording(header: &Header) {
    let by: Vec<_> = header
        .hooks
        .iter()
        .filter_map(|hook| Some(format!("{} by {}", hook.of, hook.by.as_ref()?)))
        .collect();
    let kept = match header.filter.as_slice() {
        [] => String::new(),
        filter => format!("; kept was {}", filter.join(", ")),
    };
    let lacking = match header.not_observable.as_slice() {
        [] => String::new(),
        lacking => format!("; not observable: {}", lacking.join(", ")),
    };
    say(&format!(
        "recorded on {} ({}) by tcptrace {}: {}{kept}{lacking}",
        header.host,
        header.kernel,
        header.tcptrace,
        by.join(", ")
    ));
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
    if time_wait.is_some_and(TimeWaitBackend::has_hooks) && !probe.tells_who() {
        say(
            "why TIME_WAITs end is not known, but for those that expire: /proc/kallsyms is hidden \
             (systemd's ProtectKernelTunables= does that) or hides addresses (CAP_SYSLOG shows them)",
        );
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

/// What to do about events that are lost.
const LOST_HERE: &str = "lost to a full ring: take a larger --ring-size, or filter";

/// The same of a recording, where nothing can be done any more.
pub(super) const LOST_THEN: &str = "lost to a full ring when it was recorded: the next is to have a larger --ring-size, or a filter";

/// Says what became of the events, with `lost_says` if some were lost, and what the tracker counts of
/// itself.
pub(super) fn summary(accounts: &Accounts, counts: Counts, lost_says: &str) {
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
        say(lost_says);
    }
    if accounts.gaps.count > 0 {
        say(&format!(
            "{} gaps, {:.3} s in all: events in them are lost too, and are counted only where the \
             recording has its end",
            accounts.gaps.count,
            accounts.gaps.ns as f64 / 1e9
        ));
    }
    if counts.anomalies > 0 {
        say(&format!("{} transitions did not follow from what was known", counts.anomalies));
    }
    if counts.corrected > 0 {
        say(&format!(
            "{} connections were otherwise in the kernel's tables than their events told",
            counts.corrected
        ));
    }
    if counts.unobserved_expiries > 0 {
        say(&format!(
            "{} TIME_WAITs ended without an event: their timers were due, and the kernel's tables had \
             them no more",
            counts.unobserved_expiries
        ));
    }
    if counts.evicted > 0 {
        say(&format!("{} sockets forgotten to bound memory", counts.evicted));
    }
}
