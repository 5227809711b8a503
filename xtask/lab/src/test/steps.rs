//! The steps of `cargo xtask test` that neither load programs nor boot kernels: each proves one thing.

use std::{path::Path, process::Command};

use anyhow::Result;
use xtask::sh;

use crate::{
    build_ebpf::{self, Verdict},
    cargo::{self, Programs},
    outcome::Outcome,
    setup, targets,
    toolchain::Compiler,
};

fn run(workspace: &Path, arguments: &[&str]) -> Result<Outcome> {
    sh::run(sh::cargo().current_dir(workspace).args(arguments))?;
    Ok(Outcome::Passed)
}

/// Brings what is missing.
pub fn set_up(toolchain: &str) -> Outcome {
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

/// That the code is formatted.
pub fn format(workspace: &Path) -> Result<Outcome> {
    run(workspace, &["fmt", "--all", "--check"])
}

/// Builds all tests.
pub fn build_tests(workspace: &Path) -> Result<Programs> {
    let mut build = sh::cargo();
    build.current_dir(workspace).args(["test", "--no-run", "--locked"]);
    cargo::build(&mut build, &[])
}

/// That clippy has nothing to say.
pub fn clippy(workspace: &Path) -> Result<Outcome> {
    run(workspace, &["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])
}

/// That tcptrace compiles without a warning as people build it (tests bring features of dependencies
/// along that the program itself may lack), with each feature alone and with none, and that its unit
/// tests pass so.
pub fn features(workspace: &Path) -> Result<Outcome> {
    const PROGRAM: [&str; 5] = ["--locked", "--package", "tcptrace", "--lib", "--bins"];
    let deny = ["--", "-D", "warnings"];
    run(workspace, &[&["clippy"], &PROGRAM[..], &deny[..]].concat())?;
    let features = targets::features(workspace)?;
    for feature in [""].into_iter().chain(features.iter().map(String::as_str)) {
        let only = ["--no-default-features", "--features", feature];
        run(workspace, &[&["clippy"], &PROGRAM[..], &only[..], &deny[..]].concat())?;
        run(workspace, &[&["test", "--quiet"], &PROGRAM[..], &only[..]].concat())?;
    }
    Ok(Outcome::Passed)
}

/// That clippy has nothing to say about the kernel side.
pub fn clippy_ebpf(workspace: &Path, toolchain: &str) -> Result<Outcome> {
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

/// That the committed objects are what their sources yield.
pub fn kernel_object(workspace: &Path, toolchain: &str) -> Result<Outcome> {
    Ok(match build_ebpf::check(workspace, toolchain)? {
        Verdict::Proved => Outcome::Passed,
        Verdict::CannotProve(why) => Outcome::Skipped(format!(
            "its sources are those it was built from, but its bytes are not proved: {why}"
        )),
    })
}

/// All unit tests.
pub fn unit_tests(workspace: &Path) -> Result<Outcome> {
    run(workspace, &["test", "--quiet", "--locked", "--lib", "--bins"])
}

/// That a recording shows what was shown live, that what was written is read, and that all views of
/// one moment agree.
pub fn laws(workspace: &Path) -> Result<Outcome> {
    let packages = ["--package", "tcptrace", "--package", "tcptrace-pipeline"];
    let tests = ["--test", "laws", "--test", "recording"];
    run(workspace, &[&["test", "--quiet", "--locked"], &packages[..], &tests[..]].concat())
}

/// All unit tests, and the integration tests that need neither root nor BPF.
pub fn pure_tests(workspace: &Path) -> Result<Outcome> {
    let mut command = sh::cargo();
    command.current_dir(workspace).args(["test", "--quiet", "--locked", "--lib", "--bins"]);
    for test in targets::pure(workspace)? {
        command.args(["--test", &test]);
    }
    sh::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// The examples in the documentation.
pub fn doc_tests(workspace: &Path) -> Result<Outcome> {
    run(workspace, &["test", "--quiet", "--locked", "--doc"])
}

/// That mdbook makes the book of `docs` without a complaint. Its links are held by unit tests.
pub fn book(workspace: &Path) -> Result<Outcome> {
    if sh::which("mdbook").is_none() {
        let why = "not built: mdbook is not installed (cargo install mdbook); unit tests check its \
                   pages and links";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    sh::run(Command::new("mdbook").current_dir(workspace).arg("build"))?;
    Ok(Outcome::Passed)
}
