//! `cargo xtask bench`: what tracing costs the host, measured against no tracing, against the
//! least that a tracer can do (the floor), and against what others cost.
//!
//! Every process is one of its own: the load, the floor program's reader, the tracer, so that CPU
//! time is nobody else's. Runs are interleaved, each traced one between two untraced ones, and
//! only ratios within one invocation mean something. It is a report and never a test: it fails
//! only when something could not run.

mod build;
mod churn;
mod contest;
mod floor;
mod hooks;
mod latency;
mod netns;
mod proc;
mod recording;
mod report;
mod rounds;
mod scratch;
mod screen;
mod targets;
mod tracer;

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use xtask::{
    root::{self, Root, root},
    sh,
};

use contest::contest;
use report::Row;
use rounds::{Run, Setting};
use scratch::Scratch;
use targets::{Target, targets};
use tracer::Tracer;

/// Measure what tracing costs (root; some minutes on an otherwise idle host)
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Runs of each tracer
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Runs of each tracer with the kernel's statistics of BPF programs on
    #[arg(long, default_value_t = 3)]
    timed_rounds: usize,
    /// Connections of one run; at most net.ipv4.tcp_max_tw_buckets
    #[arg(long, default_value_t = 100_000)]
    connections: u64,
    /// Threads of the load
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Requests on each connection; 0 for the dearest case, connections that carry nothing
    #[arg(long, default_value_t = churn::REQUESTS)]
    requests: u32,
    /// Few and short runs, to see that it works: the figures mean little
    #[arg(long, conflicts_with_all = ["rounds", "timed_rounds", "connections"])]
    quick: bool,
    /// Measure what the hooks on accept() and on RSTs cost, each way and without, and no more
    #[arg(long, group = "one_part")]
    hooks: bool,
    /// Measure what `tcptrace top` takes beyond `tcptrace states 1`, a minute of each in a round,
    /// and no more
    #[arg(long, group = "one_part")]
    top: bool,
    /// Measure that of another tcptrace in turn, to compare
    #[arg(long, value_name = "PATH", requires = "top")]
    beside: Vec<PathBuf>,
    /// Measure what recording takes beside `tcptrace live -o json`, how large recordings are and how
    /// fast they are read, and no more
    #[arg(long, group = "one_part")]
    recording: bool,
    /// Measure how long building takes from nothing and after an edit, and how large and how quick to
    /// start the release binary is, and write that into docs/COST.md: a quarter of an hour
    #[arg(long, conflicts_with_all = ["one_part", "quick", "tcptrace", "no_build", "out", "markdown"])]
    build: bool,
    /// Measure this tcptrace instead of the one just built
    #[arg(long, value_name = "PATH")]
    tcptrace: Option<PathBuf>,
    /// Measure what was built before, in release mode
    #[arg(long)]
    no_build: bool,
    /// Write the tracers' outputs under this directory [default: /dev/shm, or the temporary
    /// directory]: half a gigabyte at a time
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Write every run and figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the report to this file as Markdown
    #[arg(long, value_name = "FILE", conflicts_with = "one_part")]
    markdown: Option<PathBuf>,
}

/// What runs as a process of its own.
#[derive(clap::Subcommand)]
enum Part {
    /// The load
    #[command(hide = true)]
    Churn(churn::Args),
    /// The floor program's reader
    #[command(hide = true)]
    Floor(floor::Args),
}

/// All that was measured.
#[derive(Serialize)]
struct Results {
    kernel: String,
    cpus: usize,
    threads: u32,
    connections: u64,
    requests: u32,
    commands: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    idle: Option<latency::Idle>,
    recorded: Option<recording::Recorded>,
    targets: Vec<Target>,
    notes: Vec<String>,
    runs: Vec<Run>,
    timed_runs: Vec<Run>,
}

/// Runs the bench, or the part of it that is asked for.
///
/// # Errors
/// Without root, or if the load or a build does not run. A tracer that does not run is part of
/// the report and of the exit code.
pub fn main(args: Args) -> Result<ExitCode> {
    match &args.part {
        Some(Part::Churn(args)) => churn::main(args).map(|()| ExitCode::SUCCESS),
        Some(Part::Floor(args)) => floor::main(args).map(|()| ExitCode::SUCCESS),
        None if args.build => build::main(),
        None => measure(&args),
    }
}

fn measure(args: &Args) -> Result<ExitCode> {
    let release = sh::target_dir()?.join("release");
    let xtask = release.join("xtask-lab");
    let tcptrace = args.tcptrace.clone().unwrap_or_else(|| release.join("tcptrace"));
    if !args.no_build {
        build_release()?;
    }
    if root() != Root::Already {
        return again_as_root(&xtask, args);
    }
    let (rounds, timed_rounds, connections) = if args.quick {
        (1, 1, 20_000)
    } else {
        (args.rounds, args.timed_rounds, args.connections)
    };
    let scratch = Scratch::new(args.scratch.as_deref())?;
    let setting = Setting {
        xtask: xtask.clone(),
        load: [
            ("--threads", u64::from(args.threads)),
            ("--connections", connections),
            ("--requests", u64::from(args.requests)),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.into(), value.to_string().into()])
        .collect(),
        scratch: scratch.path().to_owned(),
    };
    if let Some(part) = one_part(args, &setting, &tcptrace, rounds, timed_rounds)? {
        if let Some(path) = &args.out {
            save(path, &format!("{}\n", serde_json::to_string_pretty(&part)?))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut notes = Vec::new();
    let (tracers, names) = contest(&xtask, &tcptrace, &mut notes);

    let mut broken = 0;
    let mut failed = |tracer: &Tracer, error: anyhow::Error| {
        broken += 1;
        notes.push(format!("{} could not be measured: {error:#}", tracer.name));
        eprintln!("bench: {} could not be measured: {error:#}", tracer.name);
    };
    let runs = rounds::interleave(&setting, &tracers, rounds, rounds::progress, &mut failed)?;
    let mut timed_runs = Vec::new();
    for _ in 0..timed_rounds {
        for tracer in tracers.iter().filter(|tracer| rounds::ran(&runs, tracer)) {
            match setting.traced(tracer, true) {
                Ok(run) => timed_runs.push(run),
                Err(error) => failed(tracer, error),
            }
        }
    }
    let mut idle = None;
    if let Some(tracer) =
        tracers.iter().find(|tracer| tracer.name == names.json && rounds::ran(&runs, tracer))
    {
        eprintln!("bench: {}, idle", tracer.name);
        let connections = if args.quick { 20 } else { 200 };
        match latency::measure(tracer, &xtask, scratch.path(), connections) {
            Ok(measured) => idle = Some(measured),
            Err(error) => failed(tracer, error.context("when idle")),
        }
    }

    eprintln!("bench: recordings");
    let recorded = match recording::measure(&tcptrace, &setting, rounds) {
        Ok(recorded) => Some(recorded),
        Err(error) => {
            broken += 1;
            notes.push(format!("recordings could not be measured: {error:#}"));
            None
        }
    };

    let unquiet = runs.iter().filter(|run| !run.quiet).count();
    if unquiet > 0 {
        notes.push(format!(
            "{unquiet} of {} runs began while something else kept the CPUs busy: noise",
            runs.len()
        ));
    }
    let measured = tracers.iter().filter(|tracer| rounds::ran(&runs, tracer));
    let rows: Vec<Row> = [None]
        .into_iter()
        .chain(measured.map(|tracer| Some(tracer.name)))
        .map(|name| Row::new(name, &runs, &timed_runs))
        .collect();
    notes.extend(rows.iter().filter(|row| row.overflowed > 0).map(|row| {
        let name = row.tracer.unwrap_or("untraced");
        format!("{name}: {} runs left out for TCPTimeWaitOverflow", row.overflowed)
    }));
    if recorded.as_ref().is_some_and(|recorded| !recorded.quiet) {
        notes.push("something else was busy while recordings were measured: noise".to_owned());
    }
    let mut targets = targets(&rows, idle, &names);
    targets.extend(recording::targets(recorded.as_ref()));
    let results = Results {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        cpus: std::thread::available_parallelism()?.get(),
        threads: args.threads,
        connections,
        requests: args.requests,
        commands: tracers.iter().map(|tracer| (tracer.name, tracer.shown())).collect(),
        rows,
        idle,
        recorded,
        targets,
        notes,
        runs,
        timed_runs,
    };
    write(&results, args)?;
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was measured of the one part that was asked for, printed; `None`: all are.
fn one_part(
    args: &Args,
    setting: &Setting,
    tcptrace: &Path,
    rounds: usize,
    timed_rounds: usize,
) -> Result<Option<serde_json::Value>> {
    Ok(Some(if args.hooks {
        serde_json::to_value(hooks::measure(setting, tcptrace, rounds, timed_rounds)?)?
    } else if args.top {
        let builds: Vec<_> =
            [tcptrace].into_iter().chain(args.beside.iter().map(PathBuf::as_path)).collect();
        serde_json::to_value(screen::measure(setting, &builds, rounds, args.quick)?)?
    } else if args.recording {
        let recorded = recording::measure(tcptrace, setting, rounds)?;
        let mut stdout = io::stdout().lock();
        for target in recording::targets(Some(&recorded)) {
            writeln!(stdout, "- {target}")?;
        }
        serde_json::to_value(recorded)?
    } else {
        return Ok(None);
    }))
}

/// Builds what is measured, and what measures it: an unoptimised reader would be a higher floor.
fn build_release() -> Result<()> {
    sh::run(sh::cargo().current_dir(sh::workspace()?).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "tcptrace",
        "--package",
        "xtask-lab",
    ]))
}

/// Starts the same bench over as root, now that what it needs is built.
fn again_as_root(xtask: &Path, args: &Args) -> Result<ExitCode> {
    let mut command = root::command("env")?;
    command.arg(xtask).args(env::args_os().skip(1));
    if !args.no_build {
        command.arg("--no-build");
    }
    bail!("cannot start sudo: {}", command.exec())
}

fn write(results: &Results, args: &Args) -> Result<()> {
    let report = results.report();
    io::stdout().write_all(report.as_bytes())?;
    if let Some(path) = &args.markdown {
        save(path, &report)?;
    }
    if let Some(path) = &args.out {
        save(path, &format!("{}\n", serde_json::to_string_pretty(results)?))?;
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl Results {
    /// Markdown that reads well as text.
    fn report(&self) -> String {
        let Self { kernel, cpus, threads, connections, requests, .. } = self;
        let mut text = format!(
            "\nKernel {kernel}, {cpus} CPUs; load: {threads} threads, {connections} connections \
             of {requests} requests a run, over loopback. Medians (least–greatest). By CPU \
             time: the rate that the CPU time of load and tracer together allows, of untraced.\n\n\
             {}\n",
            report::table(&self.rows)
        );
        if let Some(idle) = self.idle {
            text += &format!(
                "`tcptrace live` when idle: {:.1} ms from a transition to its line at the median, {:.1} at \
                 p99, {:.1} at most ({} lines); {:.0} wake-ups and {:.2} ms of CPU a second while \
                 nothing happens.\n\n",
                idle.p50_ms,
                idle.p99_ms,
                idle.max_ms,
                idle.lines,
                idle.wakeups_per_second,
                idle.cpu_ms_per_second,
            );
        }
        text.extend(self.targets.iter().map(|target| format!("- {target}\n")));
        text.push('\n');
        text.extend(self.notes.iter().map(|note| format!("Note: {note}.\n")));
        text
    }
}
