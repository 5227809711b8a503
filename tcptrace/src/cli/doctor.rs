//! `tcptrace doctor`.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    args::{DoctorArgs, FilterArgs, ReportFormat},
    listen::{self, Snapshots},
    log::say,
    origin::Origin,
    target::Target,
    usage::Usage,
};
use tcptrace_doctor::{
    collect::Setup,
    facts::Setting,
    finding::Severity,
    sysctl_file::{self, Judged, Kernel, Line},
};
use tcptrace_host::{
    clock,
    netns::{self, Netns, NetnsId},
    sysctl, sysctl_files,
};
use tcptrace_model::{Input, MinisocksBy, Snapshot, Sysctls, filter::Filter, task::escape};
use tcptrace_pipeline::Analysis;
use tcptrace_probe::{ProbeError, TimeWaitChoice};
use tcptrace_source::{
    owners::Owners,
    recording::RecordingError,
    snapshot::{Job, Reader, Scope},
};
use tcptrace_track::Tracker;
use tcptrace_view::doctor::{DoctorView, Format, Watches, sysctl_file as shown};

/// So often it scans the sockets: what is there for less is seen by its events alone.
const STEP: Duration = Duration::from_secs(5);

/// The least that it watches: rounds of snapshots are a second apart.
const LEAST: Duration = Duration::from_secs(1);

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode> {
    if let Some(path) = &args.sysctl_file {
        return judge_file(path, args.output);
    }
    if args.duration < LEAST {
        return Err(Usage("--duration: at least 1s".to_owned()).into());
    }
    if args.probe.time_wait_hook == TimeWaitChoice::Off {
        let misuse = "--time-wait-hook off: TIME_WAIT is what it looks at; leave it out";
        return Err(Usage(misuse.to_owned()).into());
    }
    let filter = FilterArgs { netns: args.netns.clone(), ..FilterArgs::default() };
    let origin = Origin::new(&args.probe, &filter, &args.recording)?;
    let target = Target::stdout();
    let format = match args.output {
        ReportFormat::Table => {
            Format::Text { color: target.colored(args.color), sysctls: args.sysctls }
        }
        ReportFormat::Json => Format::Json,
    };
    let looks = match &origin {
        Origin::Host(host) => Some((host.only.clone(), host.options.filter.clone())),
        Origin::Recording(_) => None,
    };
    // Of a recording all is judged.
    let (mut setup, watch) = match looks {
        Some(_) => (host_setup(), Watches::For(args.duration)),
        None => (Setup::recorded(), Watches::All),
    };
    let snapshots = Snapshots { every: args.duration.min(STEP), owners: true };
    let view = DoctorView::new(setup.clone(), format, watch);
    let mut found = None;
    let ended = listen::run(origin, snapshots, target, None, view, |view| {
        found = view.severity();
    });
    match ended {
        Ok(_) => {}
        // What was found is found, but that all is well cannot be said.
        Err(error)
            if error.is::<RecordingError>() && found.is_some_and(|it| it > Severity::Info) =>
        {
            say(&format!("{error:#}"));
        }
        // A hook that was asked for has to be had; else there is much to be said without any.
        Err(error) if error.is::<ProbeError>() && args.probe.hook.0.is_none() => {
            let Some((only, filter)) = looks else { return Err(error) };
            say(&format!("{error:#}"));
            say("goes on without events: sysctls, counters and sockets alone");
            // The first clause of the refusal says what; the line above says all.
            let why = format!("{error:#}");
            setup.events = Err(why.split(['\n', ';']).next().unwrap_or_default().to_owned());
            let view = DoctorView::new(setup, format, watch);
            found = without_events(only, filter, args.duration, view)?;
        }
        Err(error) => return Err(error),
    }
    let found = found.context("it ended before the sockets were read twice: nothing is known")?;
    Ok(code(found))
}

fn code(severity: Severity) -> ExitCode {
    ExitCode::from(match severity {
        Severity::Ok | Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Critical => 2,
    })
}

/// Scans of the sockets and the counters, at the beginning and the end of `watch`.
fn without_events(
    only: Option<Netns>,
    filter: Filter,
    watch: Duration,
    view: DoctorView,
) -> Result<Option<Severity>> {
    let owners = Some(Owners::default());
    let reader = Reader::here(Scope { only, filter, owners, infos_of_all: false });
    let clocks = clock::sample().context("cannot read the clock")?;
    let hz = clock::hz().context("cannot read the clock's resolution")?;
    let mut analysis = Analysis::new(Tracker::default(), view);
    // The dump has minisocks as any socket.
    let minisocks = MinisocksBy::Looks;
    analysis.feed(&Input::Begin { mono_ns: clocks.mono_ns, hz, minisocks, resets: false });
    analysis.feed(&Input::Clock(clocks));
    for wait in [Duration::ZERO, watch] {
        thread::sleep(wait);
        analysis.feed(&Input::Snapshot(Snapshot::Open));
        let scan = Job::all(Arc::clone(&reader)).run().with_names();
        if wait.is_zero() {
            scan.remarks().iter().for_each(|remark| say(remark));
        }
        scan.feed(&mut |input| analysis.feed(&input));
        let mono_ns = clock::monotonic_ns().context("cannot read the clock")?;
        analysis.feed(&Input::Tick { mono_ns });
    }
    write(&analysis.take_output())?;
    Ok(analysis.view().severity())
}

fn write(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        // The answer is in the exit code too.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// What of this host the doctor does not learn from inputs.
pub(super) fn host_setup() -> Setup {
    let defaults = sysctl::defaults().map_err(|error| error.to_string());
    let own_netns = NetnsId::own().ok().map(|own| own.inode);
    Setup { defaults, files: files(), events: Ok(()), own_netns }
}

/// What the host's files set. One that cannot be read is said, and no more.
fn files() -> Vec<Setting> {
    let mut settings = Vec::new();
    for (path, text) in sysctl_files::all() {
        match text {
            Ok(text) => {
                let (lines, _) = sysctl_file::lines(&text);
                settings.extend(sysctl_file::settings(&path.to_string_lossy(), &lines));
            }
            Err(error) => say(&format!("cannot read {path:?}: {error}")),
        }
    }
    settings
}

/// `--sysctl-file`.
fn judge_file(path: &Path, output: ReportFormat) -> Result<ExitCode> {
    let (text, longer) =
        sysctl_files::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (lines, more) = sysctl_file::lines(&text);
    let file = path.to_string_lossy();
    let settings = sysctl_file::settings(&file, &lines);
    let kernel = ask(&settings);
    let defaults = sysctl::defaults().map_err(|error| error.to_string());
    let now = own_sysctls();
    let mut asked = settings.iter().zip(&kernel);
    let judged: Vec<Judged> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| match line {
            Line::Blank => None,
            Line::Bad(why) => Some(sysctl_file::judge_bad(index + 1, why)),
            Line::Set { .. } => asked
                .next()
                .map(|(set, kernel)| sysctl_file::judge(set, kernel, &defaults, now.as_ref())),
        })
        .collect();
    let (name, cut) = (escape(file.as_bytes()), longer || more);
    let text = match output {
        ReportFormat::Table => shown::text(&name, &judged, cut),
        ReportFormat::Json => shown::json(&name, &judged, cut),
    };
    write(text.as_bytes())?;
    Ok(code(shown::severity(&judged)))
}

/// What the kernel says to each of `settings`: those that this command knows are tried, in order, in
/// an empty namespace.
fn ask(settings: &[Setting]) -> Vec<Kernel> {
    let path = |key: &str| key.replace('.', "/");
    let files: Vec<Option<String>> =
        settings.iter().map(|set| sysctl_file::spec(&set.key).map(|spec| spec.file())).collect();
    let tried: Vec<_> = settings
        .iter()
        .zip(&files)
        .filter_map(|(set, file)| Some((file.as_deref()?, set.value.as_str())))
        .collect();
    let answers = sysctl::try_out(&tried).map_err(|error| error.to_string());
    let mut next = 0;
    settings
        .iter()
        .zip(&files)
        .map(|(set, file)| {
            let there = set.key.contains('*') || sysctl::exists(&path(&set.key));
            let answer = file.as_ref().map(|_| {
                next += 1;
                answers.as_ref().map(|answers| answers.get(next - 1))
            });
            match answer {
                _ if !there => Kernel::Lacks,
                None => Kernel::NotAsked(String::new()),
                Some(Err(why)) => Kernel::NotAsked(why.clone()),
                Some(Ok(Some(sysctl::Tried::Took(value)))) => Kernel::Takes(value.clone()),
                Some(Ok(Some(sysctl::Tried::Refused(answer)))) => Kernel::Refuses(answer.clone()),
                // Of the host's first namespace only, so an empty one has none.
                Some(Ok(Some(sysctl::Tried::Lacks) | None)) => {
                    Kernel::NotAsked("an empty network namespace has none".to_owned())
                }
            }
        })
        .collect()
}

fn own_sysctls() -> Option<Sysctls> {
    let own = netns::namespaces().ok()?.found.into_iter().next()?;
    sysctl::sysctls(&own).ok()
}
