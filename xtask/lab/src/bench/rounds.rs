//! The runs: every tracer in turn, between untraced ones.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use aya::{programs::loaded_programs, sys};
use nix::unistd::Pid;
use serde::Serialize;

use crate::child::bound;

use super::{
    churn, proc,
    tracer::{Delivery, Tracer},
};

/// What every run shares.
#[derive(Clone)]
pub struct Setting {
    /// The release build of this program.
    pub xtask: PathBuf,
    /// Arguments of the load.
    pub load: Vec<OsString>,
    /// Where outputs go while they are measured.
    pub scratch: PathBuf,
}

/// One run of the load.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The tracer's name; `None`: untraced.
    pub tracer: Option<&'static str>,
    /// What the load did.
    pub load: churn::Report,
    /// Whether the host was quiet when the run began.
    pub quiet: bool,
    /// What the tracer did.
    pub traced: Option<Traced>,
}

/// What a tracer did in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Traced {
    /// CPU time from before the load to its end, what was left in the ring included.
    pub cpu_seconds: f64,
    /// Peak resident memory.
    pub rss_bytes: u64,
    /// How often it was woken, while the load ran.
    pub wakeups_per_second: f64,
    /// What became of the transitions.
    pub delivery: Delivery,
    /// Size of its output.
    pub output_bytes: u64,
    /// Time in its BPF programs, in a run with `kernel.bpf_stats_enabled`.
    pub kernel_ns: Option<u64>,
    /// The same of each of them that ran.
    pub programs: Vec<Program>,
}

/// What the kernel measured of a BPF program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// For how long in all, with what measuring takes itself: some 30 to 75 ns a run.
    pub ns: u64,
}

impl Setting {
    /// Runs the load alone.
    pub fn untraced(&self) -> Result<Run> {
        let quiet = proc::settle()?;
        Ok(Run { tracer: None, load: self.load()?, quiet, traced: None })
    }

    /// Runs the load under `tracer`. With `timed`, the kernel measures the tracer's programs,
    /// which costs them about 75 ns an event: a rate so measured says nothing.
    pub fn traced(&self, tracer: &Tracer, timed: bool) -> Result<Run> {
        let context = || format!("under {}", tracer.name);
        let _stats = timed
            .then(|| sys::enable_stats(sys::Stats::RunTime))
            .transpose()
            .context("cannot enable the kernel's statistics of BPF programs")?;
        let mut running = tracer.start(&self.scratch).with_context(context)?;
        let quiet = proc::settle()?;
        running.must_run().with_context(context)?;
        let programs_before = programs(running.pid())?;
        let before = running.usage()?;
        let load = self.load().with_context(context)?;
        let after = running.usage().with_context(context)?;
        let programs = ran_since(&programs_before, &programs(running.pid())?);
        let rss_bytes = proc::peak_rss(running.pid())?;
        let cpu = running.stop().with_context(context)?.saturating_sub(before.cpu());
        let delivery = running.delivery(tracer.says).with_context(context)?;
        let traced = Traced {
            cpu_seconds: cpu.as_secs_f64(),
            rss_bytes,
            wakeups_per_second: after.wakeups_per_second(&before),
            delivery,
            output_bytes: running.output_bytes()?,
            kernel_ns: timed.then(|| programs.iter().map(|program| program.ns).sum()),
            programs,
        };
        Ok(Run { tracer: Some(tracer.name), load, quiet, traced: Some(traced) })
    }

    fn load(&self) -> Result<churn::Report> {
        run_load(&self.xtask, &self.load)
    }
}

/// Runs the load as a process of its own.
pub fn run_load(xtask: &Path, args: &[OsString]) -> Result<churn::Report> {
    let output = bound(xtask, "KILL")
        .args(["bench", "churn"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", xtask.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the load failed: {}", said.trim().trim_start_matches("error: "));
    }
    serde_json::from_slice(&output.stdout).context("the load did not report")
}

/// The programs that a process holds, by their ids.
fn programs(pid: Pid) -> Result<BTreeMap<u32, Program>> {
    let held = proc::programs(pid)?;
    let mut programs = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.context("cannot list the kernel's BPF programs")?;
        if held.ids.contains(&program.id()) {
            let told = Program {
                name: program.name_as_str().unwrap_or("?").to_owned(),
                runs: program.run_count(),
                ns: program.run_time().as_nanos() as u64,
            };
            programs.insert(program.id(), told);
        }
    }
    Ok(programs)
}

/// Whether `tracer` had a run.
pub(super) fn ran(runs: &[Run], tracer: &Tracer) -> bool {
    runs.iter().any(|run| run.tracer == Some(tracer.name))
}

/// Says how a run went.
pub(super) fn progress(run: &Run) {
    let name = run.tracer.unwrap_or("untraced");
    eprintln!("bench: {name}: {:.0} connections/s", run.load.rate());
}

/// What those that ran did meanwhile.
fn ran_since(before: &BTreeMap<u32, Program>, after: &BTreeMap<u32, Program>) -> Vec<Program> {
    let since = |(id, program): (&u32, &Program)| {
        let (runs, ns) = before.get(id).map_or((0, 0), |before| (before.runs, before.ns));
        let name = program.name.clone();
        Program { name, runs: program.runs - runs, ns: program.ns - ns }
    };
    after.iter().map(since).filter(|program| program.runs > 0).collect()
}

/// Runs every tracer `rounds` times, each between two untraced runs, in an order that turns by
/// one each round. A tracer that fails is reported by `failed` and left out from then on.
///
/// # Errors
/// Only if the load itself does not run.
pub fn interleave(
    setting: &Setting,
    tracers: &[Tracer],
    rounds: usize,
    progress: impl Fn(&Run),
    mut failed: impl FnMut(&Tracer, anyhow::Error),
) -> Result<Vec<Run>> {
    let mut out = vec![false; tracers.len()];
    let mut runs = Vec::new();
    let mut keep = |run: Run| {
        progress(&run);
        runs.push(run);
    };
    setting.untraced()?; // fills the kernel's caches; not counted
    keep(setting.untraced()?);
    for round in 0..rounds {
        for turn in 0..tracers.len() {
            let index = (round + turn) % tracers.len();
            if out[index] {
                continue;
            }
            match setting.traced(&tracers[index], false) {
                Ok(run) => keep(run),
                Err(error) => {
                    out[index] = true;
                    failed(&tracers[index], error);
                }
            }
            keep(setting.untraced()?);
        }
    }
    Ok(runs)
}
