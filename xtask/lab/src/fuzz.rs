//! `cargo xtask fuzz`: builds the fuzz targets of `fuzz/` with cargo-fuzz and runs them, each with a limit
//! on memory, and on time for one input.
//!
//! Without a sanitizer, so that the limit on memory is one of the product's own memory, and stable Rust is
//! enough: what C and `unsafe` there is does not see raw input unchecked. `--address` is for that, with
//! nightly.

mod outcome;
mod target;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use xtask::sh;

use self::{
    outcome::{Ended, Outcome},
    target::Target,
};
use crate::toolchain::NIGHTLY;

/// Memory that a target may use, MiB.
const MEMORY_MIB: u32 = 256;

/// The same with AddressSanitizer, whose shadow and quarantine count too.
const MEMORY_ADDRESS_MIB: u32 = 2048;

/// Time that one input may take, seconds. Most take microseconds; the machine may be busy.
const INPUT_SECONDS: u32 = 20;

/// How long each target runs unless told otherwise, seconds.
const SECONDS: u64 = 60;

#[derive(clap::Args)]
pub struct Args {
    /// Fuzz targets to run; all of them if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Inputs for each target
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Seconds for each target [default: 60, without --runs]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Targets that run at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Run this input once: reproduces a failure
    #[arg(long, value_name = "FILE", conflicts_with_all = ["runs", "seconds", "merge"])]
    input: Option<PathBuf>,
    /// Replace the corpus in the tree by the smallest set of inputs that reaches as much code
    #[arg(long, conflicts_with_all = ["runs", "seconds"])]
    merge: bool,
    /// With AddressSanitizer (needs nightly), for C code and unsafe Rust; memory is limited to 2 GiB
    #[arg(long)]
    address: bool,
    /// List the targets
    #[arg(long)]
    list: bool,
}

impl Args {
    /// The limits that libFuzzer is to hold.
    fn limits(&self) -> [String; 3] {
        let memory = if self.address { MEMORY_ADDRESS_MIB } else { MEMORY_MIB };
        [
            format!("-rss_limit_mb={memory}"),
            format!("-malloc_limit_mb={memory}"),
            format!("-timeout={INPUT_SECONDS}"),
        ]
    }

    /// How long a target is to run.
    fn length(&self) -> Vec<String> {
        let seconds = self.seconds.or_else(|| self.runs.is_none().then_some(SECONDS));
        let runs = self.runs.map(|runs| format!("-runs={runs}"));
        let seconds = seconds.map(|seconds| format!("-max_total_time={seconds}"));
        runs.into_iter().chain(seconds).collect()
    }
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = sh::workspace()?;
    let all = target::all(&workspace)?;
    if args.list {
        all.iter().for_each(|target| sh::say(&format!("{:<12}{}", target.name, target.about)));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = chosen(all, &args.targets)?;
    let lacking = lacking(args.address);
    if !lacking.is_empty() {
        bail!("cannot fuzz here: {} (`cargo xtask setup` installs them)", lacking.join("; "));
    }
    let programs = build(&workspace, &chosen, args.address)?;
    let program = |target: &Target| programs.join(&target.name);
    if let Some(input) = &args.input {
        let [target] = chosen.as_slice() else { bail!("--input: name one target") };
        sh::run(sh::clean(program(target)).args(args.limits()).arg(input))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.merge {
        for target in &chosen {
            target.merge(&program(target), &args.limits())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let alone = chosen.len() == 1;
    let waiting = Mutex::new(VecDeque::from(chosen));
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(target) = next else { return };
                    let arguments = [&args.limits()[..], &args.length()].concat();
                    let one = target.run(&program(&target), &arguments, alone);
                    if !alone {
                        sh::say(&format!("fuzz: {one}"));
                    }
                    ended.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by(|one, other| one.target.cmp(&other.target));
    Ok(summarize(&ended, &workspace))
}

fn chosen(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    let known = |name: &String| all.iter().any(|target| target.name == *name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        bail!("no fuzz target {unknown}: there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|one| names.is_empty() || names.contains(&one.name)).collect())
}

/// What this machine lacks to build the targets.
fn lacking(address: bool) -> Vec<String> {
    let mut lacking = Vec::new();
    if sh::which("cargo-fuzz").is_none() {
        lacking.push("there is no cargo-fuzz".to_owned());
    }
    if sh::which("c++").is_none() {
        lacking.push("there is no C++ compiler, which libFuzzer needs".to_owned());
    }
    if address {
        let mut rustc = sh::clean("rustup");
        rustc.args(["run", NIGHTLY, "rustc", "--version"]);
        if let Err(error) = sh::output(&mut rustc) {
            lacking.push(format!("--address needs a nightly Rust ({error:#})"));
        }
    }
    lacking
}

/// Builds the targets and returns the folder that they are in.
fn build(workspace: &Path, targets: &[Target], address: bool) -> Result<PathBuf> {
    // What is fuzzed is what is shipped: the same versions.
    fs::copy(workspace.join("Cargo.lock"), workspace.join("fuzz/Cargo.lock"))
        .context("cannot copy Cargo.lock to fuzz/")?;
    let (mut cargo, sanitizer) = if address {
        let mut rustup = sh::clean("rustup");
        rustup.args(["run", NIGHTLY, "cargo"]);
        (rustup, "address")
    } else {
        (sh::cargo(), "none")
    };
    let place = sh::target_dir()?.join("fuzz").join(sanitizer);
    let triple = triple()?;
    cargo.current_dir(workspace);
    cargo.args(["fuzz", "build", "--sanitizer", sanitizer, "--target", &triple, "--target-dir"]);
    cargo.arg(&place);
    // cargo-fuzz builds all of them or one.
    if let [target] = targets {
        cargo.arg(&target.name);
    }
    sh::run(&mut cargo)?;
    Ok(place.join(triple).join("release"))
}

/// This machine's, as rustc calls it: cargo-fuzz's default is what it was itself built for.
fn triple() -> Result<String> {
    let said = sh::output(sh::clean("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn summarize(ended: &[Ended], workspace: &Path) -> ExitCode {
    sh::say(&format!(
        "\n{:<12}{:<9}{:>12}{:>10}{:>9}",
        "target", "result", "inputs", "peak MiB", "time"
    ));
    for one in ended {
        let result = if one.outcome == Outcome::Clean { "clean" } else { "FAILED" };
        let shown =
            |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |it| it.to_string());
        let time = format!("{:.0?}", Duration::from_secs(one.seconds));
        sh::say(&format!(
            "{:<12}{result:<9}{:>12}{:>10}{time:>9}",
            one.target,
            shown(one.inputs),
            shown(one.peak_mib),
        ));
    }
    let mut code = ExitCode::SUCCESS;
    for one in ended {
        if let Outcome::Failed { said, input } = &one.outcome {
            code = ExitCode::FAILURE;
            sh::say(&format!("\n== fuzz target {}, which failed:\n{said}", one.target));
            if let Some(input) = input {
                let shown = input.strip_prefix(workspace).unwrap_or(input).display();
                sh::say(&format!(
                    "\nThe input is {shown}. To reproduce it:\n  cargo xtask fuzz {} --input {shown}",
                    one.target
                ));
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[Target]) -> Vec<&str> {
        chosen.iter().map(|target| target.name.as_str()).collect()
    }

    #[test]
    fn every_target_has_a_source_a_corpus_and_a_line_in_the_documentation() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let all = target::all(workspace).unwrap();
        let documented = fs::read_to_string(workspace.join("docs/FUZZING.md")).unwrap();
        assert!(!all.is_empty());
        for Target { name, about, .. } in &all {
            let source = workspace.join(format!("fuzz/fuzz_targets/{name}.rs"));
            assert!(source.exists(), "{name}");
            let corpus = fs::read_dir(workspace.join("fuzz/corpus").join(name)).unwrap();
            assert!(corpus.count() > 0, "{name}");
            assert!(documented.contains(&format!("| `{name}` |")), "{name}");
            assert!(!about.is_empty(), "{name}");
        }
        let sources = fs::read_dir(workspace.join("fuzz/fuzz_targets")).unwrap();
        assert_eq!(sources.count(), all.len(), "each source is a target");
        let some = chosen(target::all(workspace).unwrap(), &["recording".to_owned()]).unwrap();
        assert_eq!(names(&some), ["recording"]);
        let error = chosen(all, &["recordings".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("recordings: there are "), "{error}");
    }
}
