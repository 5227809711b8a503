//! The tests of `tcptrace` that load programs into this kernel, as root and in mount namespaces of
//! their own.
//!
//! They watch a host in real time, against deadlines, and the host may be a shared machine that stops
//! for a second. So what fails is tried again, alone, twice at most: what fails then is a failure, and what
//! does not is named, with what it printed above. Must not let more than [`TRIED_AGAIN`] pass for
//! chance.

use std::{
    path::Path,
    process::{Command, Stdio},
    thread::available_parallelism,
};

use anyhow::{Context as _, Result, bail};
use xtask::{root::Root, sh};

use crate::{
    outcome::{Outcome, TRIED_AGAIN},
    suite::{self, Results},
};

/// One binary of them.
#[derive(Debug)]
pub struct Tests {
    /// As cargo calls it.
    pub name: &'static str,
    /// Modules whose tests look at nothing but connections of their own, which they tell by their
    /// network namespace or their port: they may run beside each other, the slowest first. All others
    /// (of whatever is new, that is true) count what happens on the whole host, and run alone.
    together: &'static [&'static str],
}

/// One scenario after the other, in namespaces of their own.
pub const KERNEL: Tests = Tests {
    name: "kernel",
    together: &[
        "verdicts",
        "time_wait",
        "doctor",
        "checks",
        "live",
        "ports",
        "sysctls",
        "conns",
        "remedies",
    ],
};

/// The command as people meet it.
pub const CLI: Tests = Tests {
    name: "cli",
    together: &[
        "recipes",
        "otlp",
        "serve",
        "export_dir",
        "output",
        "top",
        "conns",
        "programs",
        "report",
        "live_page",
        "ending",
        "host",
        "misuse",
        "peers",
        "backends",
        "tutorials",
    ],
};

/// For [`of_each_kind`]: a test of each module, one of the fastest that goes all the way.
const QUICK: [&str; 21] = [
    "accepts::a_thread_by_accept",
    "account::completeness_tp_btf",
    "checks::scenario_active_close",
    "closers::every_close_is_counted_once_and_for_who_closed",
    "conns::bytes_and_times_are_those_of_the_programs",
    "doctor::ports_that_ran_out_are_found",
    "filters::one_namespace_of_two",
    "sysctls::tcp_abort_on_overflow_sends_a_rst",
    "live::tp_btf::active_close",
    "owners::who_held_a_socket_before_is_its_owner_to_the_end",
    "ports::what_was_bound_is_taken_for_all_and_what_was_accepted_for_none",
    "resets::of_linger_zero",
    "seeding::what_was_there_before_is_seeded_and_followed_to_its_end",
    "self_test::nothing_of_it_is_told_or_counted",
    "stuck::what_was_not_accepted_has_no_owner_yet",
    "time_wait::timers::active_close",
    "totals::of_a_close_in_order",
    "unfinished::what_a_cpu_has_not_finished_is_waited_for",
    "verdicts::tp_btf::fin_by_the_client",
    "verifier::instructions_of_set_state",
    "witnesses::every_birth_and_reuse_is_one_that_the_kernel_counted",
];

/// Tells a kernel test that BPF works here: what it cannot do then is a failure, not a skip.
const BPF_WORKS: &str = "TCPTRACE_TEST_BPF_WORKS";

/// How many of the slowest tests are named at the end.
const SLOWEST: usize = 8;

/// Runs all of `tests`, which were built as `binary`.
///
/// # Errors
/// The tests fail, or do not run.
pub fn run(tests: &Tests, binary: &Path) -> Result<Outcome> {
    prove(tests, binary, &[])
}

/// Runs those of [`of_each_kind`].
///
/// # Errors
/// The tests fail, or do not run; one of [`QUICK`] is not there.
pub fn run_quick(tests: &Tests, binary: &Path) -> Result<Outcome> {
    prove(tests, binary, &of_each_kind(binary)?)
}

/// Of [`KERNEL`], built as `binary`: what is in [`QUICK`], the first test of each module that has none
/// there, and all that show the verifier a program.
///
/// # Errors
/// One of [`QUICK`] is not there, or a test is ignored: a run of all would fail for that.
pub fn of_each_kind(binary: &Path) -> Result<Vec<String>> {
    let ignored = suite::ignored(binary)?;
    if !ignored.is_empty() {
        bail!("no kernel test may be ignored: {}", ignored.join(", "));
    }
    one_of_each(&suite::list(binary)?)
}

/// Runs these tests, or all if none is named.
fn prove(tests: &Tests, binary: &Path, only: &[String]) -> Result<Outcome> {
    // They wait more than they compute.
    let jobs = available_parallelism().map_or(2, usize::from) + 1;
    let mut command = command(binary)?;
    command.args(["--jobs", &jobs.to_string(), "--together", &tests.together.join(",")]);
    let results = ask(command.args(only))?;
    say_slowest(&results);
    judge(&results, |failed| {
        sh::say(&format!("{}: once more, alone: {}", tests.name, failed.join(", ")));
        ask(self::command(binary)?.args(failed))
    })
}

fn one_of_each(tests: &[String]) -> Result<Vec<String>> {
    let mut chosen: Vec<String> = Vec::new();
    for name in QUICK {
        if !tests.iter().any(|test| test == name) {
            bail!("there is no test {name} any more: name another of its module in QUICK");
        }
        chosen.push(name.to_owned());
    }
    for test in tests {
        let is_new = !chosen.iter().any(|name| suite::module(name) == suite::module(test));
        if is_new || (suite::module(test) == "verifier" && !chosen.contains(test)) {
            chosen.push(test.clone());
        }
    }
    Ok(chosen)
}

fn judge(results: &Results, again: impl Fn(&[String]) -> Result<Results>) -> Result<Outcome> {
    if results.ignored > 0 {
        bail!("{} of its tests were skipped, though BPF works here", results.ignored);
    }
    let failed = &results.failed;
    match failed.len() {
        0 => Ok(Outcome::Passed),
        1..=TRIED_AGAIN => {
            let mut left = again(failed)?.failed;
            if !left.is_empty() {
                left = again(&left)?.failed;
            }
            if !left.is_empty() {
                bail!("failed three times: {}", left.join(", "));
            }
            let names = failed.join(", ");
            Ok(Outcome::NotProved(format!("passed at the second or third attempt only: {names}")))
        }
        count => bail!("{count} failed: {}", failed.join(", ")),
    }
}

/// `xtask-lab suite`, as root, in a mount namespace of its own.
fn command(binary: &Path) -> Result<Command> {
    let package = sh::workspace()?.join("tcptrace");
    let lab = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = sh::clean(&lab);
    command
        .args(["as-root", "--"])
        .arg(&lab)
        .arg("suite")
        .arg(binary)
        // As `cargo test` starts a test.
        .current_dir(&package)
        .env("CARGO_MANIFEST_DIR", &package)
        .env(BPF_WORKS, "1");
    Ok(command)
}

/// What `xtask-lab suite` found.
fn ask(command: &mut Command) -> Result<Results> {
    let output = command
        .stdin(if xtask::root::root() == Root::Sudo { Stdio::inherit() } else { Stdio::null() })
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the tests")?;
    if !output.status.success() {
        bail!("the tests did not run to their end ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("reading what came of the tests")
}

fn say_slowest(results: &Results) {
    let mut times: Vec<_> = results.seconds.iter().collect();
    times.sort_by(|a, b| b.1.total_cmp(a.1));
    let slowest: Vec<_> =
        times.iter().take(SLOWEST).map(|(name, time)| format!("{name} {time:.1} s")).collect();
    sh::say(&format!("{} passed; the slowest: {}", results.passed, slowest.join(", ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(failed: &[&str], ignored: usize) -> Results {
        let failed = failed.iter().map(|name| (*name).to_owned()).collect();
        Results { passed: 5, ignored, failed, ..Results::default() }
    }

    #[test]
    fn the_quick_tests_are_of_every_module() {
        let mut tests: Vec<String> = QUICK.iter().map(|name| (*name).to_owned()).collect();
        tests.extend(["live::tp_btf::x", "new::a", "new::b", "verifier::a"].map(str::to_owned));
        let chosen = one_of_each(&tests).unwrap();
        assert_eq!(chosen[QUICK.len()..], ["new::a", "verifier::a"]);
        tests.retain(|name| name != "resets::of_linger_zero");
        let error = one_of_each(&tests).unwrap_err().to_string();
        assert!(error.starts_with("there is no test resets::of_linger_zero any more"), "{error}");
    }

    #[test]
    fn a_few_that_fail_are_tried_once_more() {
        let never = |_: &[String]| panic!("nothing to try again");
        assert_eq!(judge(&results(&[], 0), never).unwrap(), Outcome::Passed);
        judge(&results(&[], 1), never).unwrap_err();
        judge(&results(&["a"; TRIED_AGAIN + 1], 0), never).unwrap_err();

        let second = judge(&results(&["a", "b"], 0), |failed| {
            assert_eq!(failed, ["a", "b"]);
            Ok(results(&[], 0))
        });
        let Outcome::NotProved(why) = second.unwrap() else { panic!("it was not the first") };
        assert_eq!(why, "passed at the second or third attempt only: a, b");
        let third = judge(&results(&["a", "b"], 0), |failed| {
            Ok(results(if failed.len() == 2 { &["b"] } else { &[] }, 0))
        });
        assert!(matches!(third.unwrap(), Outcome::NotProved(_)));
        let thrice = judge(&results(&["a", "b"], 0), |_| Ok(results(&["b"], 0)));
        assert_eq!(thrice.unwrap_err().to_string(), "failed three times: b");
    }
}
