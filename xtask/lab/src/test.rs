//! `cargo xtask test`: every test there is, in one go, with a table at the end that says what
//! passed, what failed, and what could not run and why; and `cargo xtask test quick`, for every commit.
//!
//! A step that fails does not stop the others. Where BPF works, no kernel test may be skipped. The
//! tests that load programs mostly wait, so all that only computes goes on beside them, at the lowest
//! priority: what they wait for has deadlines.

mod steps;

use std::{
    cell::OnceCell,
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use xtask::{aside, sh};

use crate::{
    as_root,
    cargo::Programs,
    deny,
    kernel_tests::{self, CLI, KERNEL, Tests},
    outcome::Outcome,
    toolchain::NIGHTLY,
    vm::{self, Proof},
};

/// The kernels that are not required are booted if the required ones had ended by then, so that all
/// is over in 35 minutes.
const TIME_FOR_MORE: Duration = Duration::from_mins(27);

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Install nothing; skip what that leaves out
    #[arg(long)]
    no_setup: bool,
    /// The rustup toolchain for the kernel object
    #[arg(long, default_value = NIGHTLY)]
    toolchain: String,
    /// Boot Debian's kernels too: all tests on those that are required, and then, if there is time, one
    /// of each kind on the others
    #[arg(long)]
    kernels: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// For every commit: formatting, clippy, unit tests, the laws of consistency and replay, and one
    /// kernel test of each kind
    Quick,
}

impl From<Proof> for Outcome {
    fn from(proof: Proof) -> Self {
        match proof {
            Proof::Passed => Self::Passed,
            Proof::Partly(why) => Self::NotProved(why),
            Proof::Failed(why) => Self::Failed(why),
        }
    }
}

/// A step that has ended.
struct Step {
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
    /// What its programs printed, where that is mixed with others' lines above.
    said: String,
}

type Work<'a> = Box<dyn Fn() -> Result<Outcome> + Send + Sync + 'a>;

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = sh::workspace()?;
    let steps = match args.what {
        Some(What::Quick) => quick(&workspace),
        None => everything(&workspace, args),
    };
    summarise(&steps);
    let failed = steps.iter().any(|step| matches!(step.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn everything(workspace: &Path, args: &Args) -> Vec<Step> {
    let begin = Instant::now();
    let toolchain = args.toolchain.as_str();
    let mut steps = Vec::new();
    if !args.no_setup {
        steps.push(step("setup", &|| Ok(steps::set_up(toolchain))));
    }
    steps.push(step("format", &|| steps::format(workspace)));
    let built = OnceCell::new();
    steps.push(step("build the tests", &|| build(workspace, &built)));
    let built = built.into_inner();

    let mut beside: Vec<(&str, Work<'_>)> = vec![
        ("clippy", Box::new(|| steps::clippy(workspace))),
        ("features", Box::new(|| steps::features(workspace))),
        ("dependencies", Box::new(|| deny::check(workspace))),
        ("clippy of the kernel side", Box::new(|| steps::clippy_ebpf(workspace, toolchain))),
        ("kernel object", Box::new(|| steps::kernel_object(workspace, toolchain))),
        ("pure tests", Box::new(|| steps::pure_tests(workspace))),
        ("documentation tests", Box::new(|| steps::doc_tests(workspace))),
        ("book", Box::new(|| steps::book(workspace))),
    ];
    if args.kernels {
        beside.push(("required kernels", Box::new(|| Ok(vm::prove_required()?.into()))));
        beside.push((
            "wanted kernels, in short",
            Box::new(|| {
                if begin.elapsed() > TIME_FOR_MORE {
                    let why = "not booted: no time left (cargo xtask vm-test boots them)";
                    return Ok(Outcome::NotProved(why.to_owned()));
                }
                let programs = built.as_ref().context("the tests were not built")?;
                let tests = kernel_tests::of_each_kind(&programs.find("test", KERNEL.name)?)?;
                Ok(vm::prove_wanted(&tests)?.into())
            }),
        ));
    }
    let host: Vec<(&str, Work<'_>)> = vec![
        ("kernel tests", Box::new(|| prove_here(&KERNEL, built.as_ref(), kernel_tests::run))),
        ("cli tests", Box::new(|| prove_here(&CLI, built.as_ref(), kernel_tests::run))),
    ];
    steps.extend(beside_each_other(&host, &beside));
    steps
}

fn quick(workspace: &Path) -> Vec<Step> {
    let built = OnceCell::new();
    let mut steps = vec![
        step("format", &|| steps::format(workspace)),
        step("build the tests", &|| build(workspace, &built)),
    ];
    let built = built.into_inner();
    let host: Vec<(&str, Work<'_>)> = vec![(
        "one kernel test of each kind",
        Box::new(|| prove_here(&KERNEL, built.as_ref(), kernel_tests::run_quick)),
    )];
    let beside: Vec<(&str, Work<'_>)> = vec![
        ("clippy", Box::new(|| steps::clippy(workspace))),
        ("unit tests", Box::new(|| steps::unit_tests(workspace))),
        ("consistency and replay laws", Box::new(|| steps::laws(workspace))),
    ];
    steps.extend(beside_each_other(&host, &beside));
    steps
}

/// Builds all tests, so that those of `host` need not wait for a cargo that builds something else.
fn build(workspace: &Path, built: &OnceCell<Programs>) -> Result<Outcome> {
    let programs = steps::build_tests(workspace)?;
    // It is empty: a step is done once.
    let _ = built.set(programs);
    Ok(Outcome::Passed)
}

/// Runs tests that need root and BPF, if both are here.
fn prove_here(
    tests: &Tests,
    built: Option<&Programs>,
    run: impl Fn(&Tests, &Path) -> Result<Outcome>,
) -> Result<Outcome> {
    if let Err(refusal) = as_root::bpf_works() {
        return Ok(Outcome::Skipped(format!("BPF does not work here: {refusal:#}")));
    }
    let programs = built.context("they were not built")?;
    run(tests, &programs.find("test", tests.name)?)
}

/// Does the steps of `host` one after the other, and meanwhile those of `beside` likewise, as far as
/// the host has CPU time left for them.
fn beside_each_other(
    host: &[(&'static str, Work<'_>)],
    beside: &[(&'static str, Work<'_>)],
) -> Vec<Step> {
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            yield_to_others();
            beside.iter().map(|(name, work)| step_aside(name, work)).collect::<Vec<_>>()
        });
        let host: Vec<_> = host.iter().map(|(name, work)| step(name, work)).collect();
        match beside.join() {
            Ok(beside) => beside.into_iter().chain(host).collect(),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The lowest priority for this thread and for the processes that it starts (on Linux it is a
/// thread's).
fn yield_to_others() {
    let thread = nix::unistd::gettid().to_string();
    // Without it they only get in each other's way more.
    let _ = sh::output(Command::new("renice").args(["-n", "19", "-p", &thread]));
}

fn step(name: &'static str, work: &dyn Fn() -> Result<Outcome>) -> Step {
    sh::say(&format!("\n== {name}"));
    let start = Instant::now();
    let outcome = work().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    if let Outcome::Failed(why) | Outcome::Skipped(why) | Outcome::NotProved(why) = &outcome {
        sh::say(&format!("{name}: {why}"));
    }
    Step { name, outcome, seconds: start.elapsed().as_secs_f64(), said: String::new() }
}

fn step_aside(name: &'static str, work: &dyn Fn() -> Result<Outcome>) -> Step {
    let (step, said) = aside::aside(name, || step(name, work));
    Step { said, ..step }
}

/// How much is shown once more of a step that failed beside others.
const SHOWN_AGAIN: usize = 60;

fn summarise(steps: &[Step]) {
    for Step { name, outcome, said, .. } in steps {
        if matches!(outcome, Outcome::Failed(_)) && !said.is_empty() {
            let lines: Vec<_> = said.lines().collect();
            let end = &lines[lines.len().saturating_sub(SHOWN_AGAIN)..];
            sh::say(&format!("\n== {name}, which failed:\n{}", end.join("\n")));
        }
    }
    sh::say(&format!("\n{:<30}{:<12}{:>8}", "step", "result", "seconds"));
    for Step { name, outcome, seconds, .. } in steps {
        let (result, why) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
            Outcome::NotProved(why) => ("NOT PROVED", why.as_str()),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
        };
        sh::say(&format!("{name:<30}{result:<12}{seconds:>8.1}"));
        for line in why.lines() {
            sh::say(&format!("    {line}"));
        }
    }
}
