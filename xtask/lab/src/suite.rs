//! `xtask-lab suite`: the tests of one binary, as root: those that do not disturb each other in
//! several processes, and then the others, one at a time. Most of them wait for the kernel: for a
//! timer of TCP, for the end of a network namespace, for a program to be attached.
//!
//! It judges nothing: it prints [`Results`], which `kernel_tests` reads.

use std::{
    collections::BTreeMap,
    env,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use xtask::sh;

use crate::vm::serial::{self, Outcome, Transcript};

/// Tests of one process, at most: so that processes end at about the same time. Some of what a test
/// needs, such as the kernel's types and symbols, is read once in a process.
const SHARE: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    /// The test binary
    binary: PathBuf,
    /// Processes at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Modules whose tests may run beside each other, the slowest first
    #[arg(long, value_delimiter = ',')]
    together: Vec<String>,
    /// Only these tests
    only: Vec<String>,
}

/// What came of the tests.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// How many passed.
    pub passed: usize,
    /// How many were marked as ignored.
    pub ignored: usize,
    /// Those that failed, and those that did not end.
    pub failed: Vec<String>,
    /// The seconds that each took.
    pub seconds: BTreeMap<String, f64>,
}

/// `xtask-lab suite`.
pub fn main(args: &Args) -> Result<ExitCode> {
    let mut plan = Plan::new(&list(&args.binary)?, &args.together)?;
    if !args.only.is_empty() {
        plan.retain(&args.only)?;
    }
    let mut results = run_together(&args.binary, &plan.together, args.jobs)?;
    for share in &plan.alone {
        results.add(run(&args.binary, share)?);
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(&results)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The names of a binary's tests.
pub fn list(binary: &Path) -> Result<Vec<String>> {
    let text = sh::output(Command::new(binary).args(["--list", "--format", "terse"]))?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// The names of those that only run when they are asked for by name.
pub fn ignored(binary: &Path) -> Result<Vec<String>> {
    let arguments = ["--list", "--ignored", "--format", "terse"];
    let text = sh::output(Command::new(binary).args(arguments))?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

/// The module that a test is in.
pub fn module(test: &str) -> &str {
    test.split_once("::").map_or("", |(module, _)| module)
}

/// What runs when: shares of the tests, each for one process.
#[derive(Debug, PartialEq)]
struct Plan {
    together: Vec<Vec<String>>,
    alone: Vec<Vec<String>>,
}

impl Plan {
    /// # Errors
    /// If there is no test in one of the modules: it has another name now, and would run alone.
    fn new(tests: &[String], together: &[String]) -> Result<Self> {
        if tests.is_empty() {
            bail!("there are no tests");
        }
        let shares = |wanted: &str| -> Vec<Vec<String>> {
            let of_it: Vec<_> =
                tests.iter().filter(|test| module(test) == wanted).cloned().collect();
            of_it.chunks(SHARE).map(<[String]>::to_vec).collect()
        };
        let mut plan = Self { together: Vec::new(), alone: Vec::new() };
        for module in together {
            let shares = shares(module);
            if shares.is_empty() {
                bail!("there is no test in a module {module}");
            }
            plan.together.extend(shares);
        }
        let mut others: Vec<&str> = tests.iter().map(|test| module(test)).collect();
        others.dedup();
        others.retain(|module| !together.iter().any(|name| name == module));
        plan.alone.extend(others.into_iter().flat_map(shares));
        Ok(plan)
    }

    /// Leaves only these tests.
    ///
    /// # Errors
    /// If one of them is not there.
    fn retain(&mut self, only: &[String]) -> Result<()> {
        for shares in [&mut self.together, &mut self.alone] {
            shares.iter_mut().for_each(|share| share.retain(|test| only.contains(test)));
            shares.retain(|share| !share.is_empty());
        }
        let left = |name: &&String| {
            self.together.iter().chain(&self.alone).flatten().any(|test| test == *name)
        };
        match only.iter().find(|name| !left(name)) {
            Some(missing) => bail!("there is no test {missing}"),
            None => Ok(()),
        }
    }
}

/// Runs the shares, `jobs` at a time, each as soon as another has ended.
fn run_together(binary: &Path, shares: &[Vec<String>], jobs: usize) -> Result<Results> {
    let next = Mutex::new(shares.iter());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let results = Mutex::new(Results::default());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some(share) = take() {
                let done = run(binary, share)?;
                results.lock().unwrap_or_else(PoisonError::into_inner).add(done);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What one process did of its share.
struct Done<'a> {
    share: &'a [String],
    transcript: Transcript,
    /// It exited with 0.
    succeeded: bool,
}

/// Runs these tests, one after the other, in a process and a mount namespace of their own, and shows
/// the lines of their results as they come, and whatever it printed once something failed.
fn run<'a>(binary: &Path, share: &'a [String]) -> Result<Done<'a>> {
    let mut child = Command::new(env::current_exe().context("cannot tell where this program is")?)
        .args(["as-root", "--"])
        .arg(binary)
        .arg("--exact")
        .args(share)
        .args(["--test-threads=1", "-Zunstable-options", "--report-time"])
        // For times libtest wants the variable, not a nightly compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the tests")?;
    let stdout = child.stdout.take().context("a piped output is not there")?;
    let lines = show(stdout)?;
    let succeeded = child.wait().context("waiting for the tests")?.success();
    let transcript = serial::read(lines.iter().map(String::as_str), "");
    if !succeeded {
        sh::say(&lines.join("\n"));
    }
    Ok(Done { share, transcript, succeeded })
}

/// Reads all lines, and shows those with results.
fn show(stdout: impl Read) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = serial::clean(&line.context("reading what the tests say")?);
        if line.starts_with("test ") && !line.starts_with("test result:") {
            sh::say(&line);
        }
        lines.push(line);
    }
    Ok(lines)
}

impl Results {
    fn add(&mut self, done: Done<'_>) {
        let tests = &done.transcript.tests;
        for test in tests {
            match test.outcome {
                Outcome::Ok | Outcome::Unavailable(_) => self.passed += 1,
                Outcome::Ignored(_) => self.ignored += 1,
                Outcome::Failed | Outcome::Unfinished => self.failed.push(test.name.clone()),
            }
            if let Some(time) = test.time {
                self.seconds.insert(test.name.clone(), time.as_secs_f64());
            }
        }
        let ran = |name: &&String| tests.iter().any(|test| test.name == **name);
        let missing: Vec<_> = done.share.iter().filter(|name| !ran(name)).cloned().collect();
        // A process that failed for no test's fault makes nothing that it ran a proof.
        let unexplained = !done.succeeded
            && missing.is_empty()
            && !done.share.iter().any(|name| self.failed.contains(name));
        self.failed.extend(missing);
        if unexplained {
            self.failed.extend(done.share.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_said_to_disturb_nobody_runs_alone() {
        let tests = names("a::x a::y::z b::x c::x c::y");
        let plan = Plan::new(&tests, &names("c a")).unwrap();
        assert_eq!(plan.together, [names("c::x c::y"), names("a::x a::y::z")]);
        assert_eq!(plan.alone, [names("b::x")]);
        let plan = Plan::new(&tests, &[]).unwrap();
        assert!(plan.together.is_empty() && plan.alone.len() == 3, "{plan:?}");
    }

    #[test]
    fn a_module_that_is_gone_is_an_error() {
        let error = Plan::new(&names("a::x"), &names("b")).unwrap_err().to_string();
        assert_eq!(error, "there is no test in a module b");
        assert!(Plan::new(&[], &[]).is_err());
    }

    #[test]
    fn some_are_chosen_by_name() {
        let tests = names("a::x a::y b::x c::x");
        let mut plan = Plan::new(&tests, &names("a c")).unwrap();
        plan.retain(&names("b::x a::y")).unwrap();
        assert_eq!(plan, Plan { together: vec![names("a::y")], alone: vec![names("b::x")] });
        let error = plan.retain(&names("a::x")).unwrap_err().to_string();
        assert_eq!(error, "there is no test a::x");
    }

    #[test]
    fn no_share_is_large() {
        let tests: Vec<_> = (0..2 * SHARE + 1).map(|n| format!("a::{n}")).collect();
        let plan = Plan::new(&tests, &names("a")).unwrap();
        assert_eq!(plan.together.iter().map(Vec::len).collect::<Vec<_>>(), [SHARE, SHARE, 1]);
    }

    fn results(share: &str, output: &str, succeeded: bool) -> Results {
        let share = names(share);
        let transcript = serial::read(output.lines(), "");
        let mut results = Results::default();
        results.add(Done { share: &share, transcript, succeeded });
        results
    }

    #[test]
    fn each_test_of_a_share_is_accounted_for() {
        let output = "test a::x ... ok <1.5s>\ntest a::y ... FAILED <0.2s>\n\
            test a::z ... ignored\n\nfailures:\n    a::y\n\ntest result: FAILED. 1 passed; 1 failed; \
            1 ignored; 0 measured; 0 filtered out\n";
        let found = results("a::x a::y a::z", output, false);
        assert_eq!((found.passed, found.ignored), (1, 1));
        assert_eq!(found.failed, ["a::y"]);
        assert_eq!(found.seconds["a::x"], 1.5);
    }

    #[test]
    fn what_a_crash_kept_from_running_failed() {
        let found = results("a::x a::y a::z", "test a::x ... ok\ntest a::y ... ", false);
        assert_eq!(found.passed, 1);
        assert_eq!(found.failed, ["a::y", "a::z"]);
        // All tests passed, and then the process did not end well.
        assert_eq!(results("a::x", "test a::x ... ok\n", false).failed, ["a::x"]);
        assert!(results("a::x", "test a::x ... ok\n", true).failed.is_empty());
    }
}
