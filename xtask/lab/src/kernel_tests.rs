//! The tests of `tcptrace` that load programs into this kernel, as root and in a mount namespace of
//! their own.
//!
//! They watch a whole host in real time, against deadlines, and the host may be a shared machine
//! that stops for a second. So what fails is tried once more, alone: what fails again is a failure,
//! and what does not is said by name, with what it printed above. Must not let more than
//! [`TRIED_AGAIN`] pass for chance.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use crate::outcome::{Outcome, TRIED_AGAIN};

/// Tells a kernel test that BPF works here: what it cannot do then is a failure, not a skip.
const BPF_WORKS: &str = "TCPTRACE_TEST_BPF_WORKS";

/// One of [`ALL`]; `refusal` is why BPF does not work here.
///
/// # Errors
/// The tests fail, or do not run.
pub fn run(workspace: &Path, test: &str, refusal: Option<&anyhow::Error>) -> Result<Outcome> {
    if let Some(refusal) = refusal {
        return Ok(Outcome::Skipped(format!("BPF does not work here: {refusal:#}")));
    }
    let (passed, output) = sh::listen(&mut command(workspace, test, &[])?)?;
    let skipped = ignored(&output)?;
    if skipped > 0 {
        bail!("{skipped} of its tests were skipped, though BPF works here");
    }
    let failed = failures(&output);
    match failed.len() {
        0 if passed => Ok(Outcome::Passed),
        0 => bail!("it failed, and named no test"),
        1..=TRIED_AGAIN => {
            eprintln!("{test}: once more, alone: {}", failed.join(", "));
            let (passed, again) = sh::listen(&mut command(workspace, test, &failed)?)?;
            if !passed || !failures(&again).is_empty() {
                bail!("failed twice: {}", failures(&again).join(", "));
            }
            let names = failed.join(", ");
            Ok(Outcome::NotProved(format!("passed at the second attempt only: {names}")))
        }
        count => bail!("{count} failed: {}", failed.join(", ")),
    }
}

/// Runs all, or these alone.
fn command(workspace: &Path, test: &str, only: &[String]) -> Result<Command> {
    let mut command = sh::cargo();
    command
        .current_dir(workspace)
        .args(["test", "--locked", "--package", "tcptrace", "--test", test])
        .arg("--config")
        .arg(format!("target.'cfg(unix)'.runner={:?}", runner()?))
        // They count what happens on the whole host, so they go one by one.
        .args(["--", "--test-threads=1"])
        .env(BPF_WORKS, "1");
    if !only.is_empty() {
        command.arg("--exact").args(only);
    }
    Ok(command)
}

fn runner() -> Result<Vec<PathBuf>> {
    let xtask = std::env::current_exe().context("cannot tell where xtask is")?;
    Ok(vec![xtask, "as-root".into(), "--".into()])
}

/// How many tests libtest says that it ignored.
fn ignored(output: &str) -> Result<u32> {
    let result = output
        .lines()
        .rfind(|line| line.starts_with("test result:"))
        .context("it ended without a result")?;
    let count = result.split("; ").find_map(|part| part.strip_suffix(" ignored"));
    count.and_then(|count| count.parse().ok()).with_context(|| format!("not a result: {result}"))
}

/// The names in libtest's last list of failures.
fn failures(output: &str) -> Vec<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    let names = list.lines().map_while(|line| line.strip_prefix("    "));
    names.map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_counted() {
        let output = "running 3 tests\n\
            test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(ignored(output).unwrap(), 2);
        ignored("running 3 tests\n").unwrap_err();
    }

    #[test]
    fn failures_are_those_of_the_last_list() {
        let output = "running 3 tests\ntest a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\n    \
            indented, but no name\n\n\nfailures:\n    a::b\n    c\n\ntest result: FAILED. 1 passed; 2 \
            failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(failures(output), ["a::b", "c"]);
        assert!(failures("test result: ok. 1 passed; 0 failed; 0 ignored\n").is_empty());
    }
}
