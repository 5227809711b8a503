//! `cargo xtask test`: every test there is, in one go, with a table at the end that says what
//! passed, what failed, and what could not run and why.
//!
//! A step that fails does not stop the others. Where BPF works, no kernel test may be skipped.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use xtask::sh;

use crate::{
    as_root,
    build_ebpf::{self, Verdict},
    kernel_tests,
    outcome::Outcome,
    setup, targets,
    toolchain::{Compiler, NIGHTLY},
    vm::{self, Proof},
};

/// The kernels that are not required are tested if all the rest was over by then. They take a
/// quarter of an hour on two cores, and if guests hang almost an hour; CI has an hour and a half.
const TIME_FOR_MORE: Duration = Duration::from_mins(35);

#[derive(clap::Args)]
pub struct Args {
    /// Install nothing; skip what that leaves out
    #[arg(long)]
    no_setup: bool,
    /// The rustup tool chain for the kernel object
    #[arg(long, default_value = NIGHTLY)]
    toolchain: String,
    /// Boot the kernels of the matrix too, the required ones first: a quarter of an hour, or half of one
    #[arg(long)]
    kernels: bool,
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

struct Step {
    name: String,
    outcome: Outcome,
    seconds: f64,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = sh::workspace()?;
    let begin = Instant::now();
    let mut steps = Vec::new();
    let mut step = |name: &str, work: &mut dyn FnMut() -> Result<Outcome>| {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = work().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let Outcome::Failed(why) | Outcome::Skipped(why) | Outcome::NotProved(why) = &outcome {
            eprintln!("{name}: {why}");
        }
        let seconds = start.elapsed().as_secs_f64();
        steps.push(Step { name: name.to_owned(), outcome, seconds });
    };

    if !args.no_setup {
        step("setup", &mut || Ok(set_up(&args.toolchain)));
    }
    step("format", &mut || cargo(&workspace, &["fmt", "--all", "--check"]));
    step("clippy", &mut || {
        cargo(&workspace, &["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])
    });
    // Tests bring features of dependencies along that the program itself may lack.
    step("build as people do", &mut || {
        cargo(&workspace, &["check", "--locked", "--package", "tcptrace"])
    });
    step("clippy of the kernel side", &mut || clippy_ebpf(&workspace, &args.toolchain));
    step("kernel object", &mut || {
        Ok(match build_ebpf::check(&workspace, &args.toolchain)? {
            Verdict::Proved => Outcome::Passed,
            Verdict::CannotProve(why) => Outcome::Skipped(format!(
                "its sources are those it was built from, but its bytes are not proved: {why}"
            )),
        })
    });
    step("pure tests", &mut || pure_tests(&workspace));
    step("documentation tests", &mut || cargo(&workspace, &["test", "--locked", "--doc"]));
    let bpf = as_root::bpf_works();
    for test in targets::KERNEL {
        step(&format!("{test} tests"), &mut || {
            kernel_tests::run(&workspace, test, bpf.as_ref().err())
        });
    }

    if args.kernels {
        step("required kernels", &mut || Ok(vm::prove_required()?.into()));
        step("wanted kernels", &mut || {
            if begin.elapsed() > TIME_FOR_MORE {
                return Ok(Outcome::NotProved("there was no time left for them".to_owned()));
            }
            Ok(vm::prove_wanted()?.into())
        });
    }

    summarise(&steps);
    let failed = steps.iter().any(|step| matches!(step.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn cargo(workspace: &Path, arguments: &[&str]) -> Result<Outcome> {
    sh::run(sh::cargo().current_dir(workspace).args(arguments))?;
    Ok(Outcome::Passed)
}

fn set_up(toolchain: &str) -> Outcome {
    let lacking = setup::bring(toolchain);
    if lacking.is_empty() {
        return Outcome::Passed;
    }
    let reasons: Vec<String> = lacking
        .iter()
        .map(|lack| format!("{}: {}; so {}", lack.what, lack.why, lack.cost))
        .collect();
    Outcome::Skipped(format!("incomplete: {}", reasons.join("; ")))
}

fn clippy_ebpf(workspace: &Path, toolchain: &str) -> Result<Outcome> {
    let compiler = match Compiler::find(toolchain) {
        Ok(compiler) => compiler,
        Err(lacking) => return Ok(Outcome::Skipped(format!("{lacking:#}"))),
    };
    if !compiler.has_clippy() {
        return Ok(Outcome::Skipped(format!("there is no clippy for {}", compiler.version)));
    }
    build_ebpf::clippy(workspace, &compiler)?;
    Ok(Outcome::Passed)
}

/// All unit tests, and the integration tests that need neither root nor BPF.
fn pure_tests(workspace: &Path) -> Result<Outcome> {
    let mut command = sh::cargo();
    command.current_dir(workspace).args(["test", "--locked", "--lib", "--bins"]);
    for test in targets::pure(workspace)? {
        command.args(["--test", &test]);
    }
    sh::run(&mut command)?;
    Ok(Outcome::Passed)
}

fn summarise(steps: &[Step]) {
    eprintln!("\n{:<28}{:<12}{:>8}", "step", "result", "seconds");
    for Step { name, outcome, seconds } in steps {
        let (result, why) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
            Outcome::NotProved(why) => ("NOT PROVED", why.as_str()),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
        };
        eprintln!("{name:<28}{result:<12}{seconds:>8.1}");
        for line in why.lines() {
            eprintln!("    {line}");
        }
    }
}
