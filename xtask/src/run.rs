//! `cargo xtask run`: builds tcptrace with what the command needs and becomes it, as root where that
//! is needed.
//!
//! It is built quickly rather than optimized, with tests' artifacts: somebody waits. `--release`
//! builds what a package has.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{
    build::{Build, Profile},
    root::{Root, root},
};

/// What tcptrace does without the kernel's help; everything else looks at the host.
const WITHOUT_ROOT: [&str; 6] = ["completions", "explain", "export", "help", "man", "report"];
/// Options with which a command reads a recording, or only speaks about itself.
const OPTIONS_WITHOUT_ROOT: [&str; 6] = ["-r", "--read", "-h", "--help", "-V", "--version"];
/// What tcptrace reads from the environment; sudo drops the rest.
const VARIABLES: &str = "--preserve-env=COLUMNS,NO_COLOR";

/// The commands that are features of the package `tcptrace` of the same name.
const FEATURES: [&str; 4] = ["export", "report", "serve", "top"];
/// Commands that speak about all others.
const ABOUT_ALL: [&str; 2] = ["completions", "man"];

/// `cargo xtask run`
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Build as packages are: optimized, with every feature; takes minutes
    #[arg(long)]
    release: bool,
    /// tcptrace's own command and options, such as `stuck --older 1` [default: live]; `-- --help` lists
    /// them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Builds and runs it.
///
/// # Errors
/// If it does not build or does not start; otherwise this process has become tcptrace.
pub fn main(args: Args) -> Result<ExitCode> {
    let mut arguments = args.arguments;
    if arguments.is_empty() {
        arguments.push("live".into());
    }
    let needed = features(&arguments);
    let tcptrace = Build {
        package: "tcptrace",
        features: if args.release { None } else { needed.as_deref() },
        profile: if args.release { Profile::Release } else { Profile::Dev },
        // The one in the usual place is what tests start, which may be running.
        apart: Some("run"),
    }
    .run()?;

    let mut command = if needs_root(&arguments) && root() == Root::Sudo {
        let mut sudo = Command::new("sudo");
        sudo.args([VARIABLES, "--"]).arg(&tcptrace);
        sudo
    } else {
        // Neither root nor sudo: tcptrace says what it lacks, and may have its capabilities.
        Command::new(&tcptrace)
    };
    let error = command.args(&arguments).exec();
    bail!("cannot start {}: {error}", tcptrace.display())
}

/// What tcptrace is to be built with for these arguments; `None`: with everything.
fn features(arguments: &[OsString]) -> Option<Vec<&'static str>> {
    let mut words = arguments.iter().filter_map(|argument| argument.to_str());
    let first = words.next().unwrap_or_default();
    // `help report` is about report, and `help` alone about all.
    let command = if first == "help" { words.next()? } else { first };
    if ABOUT_ALL.contains(&command) {
        return None;
    }
    Some(FEATURES.into_iter().filter(|feature| *feature == command).collect())
}

fn needs_root(arguments: &[OsString]) -> bool {
    let first = arguments.first().and_then(|first| first.to_str());
    let offline = first.is_some_and(|first| WITHOUT_ROOT.contains(&first));
    let reads = arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        OPTIONS_WITHOUT_ROOT.contains(&argument)
            || argument.starts_with("--read=")
            || argument.starts_with("-r")
    });
    !offline && !reads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(arguments: &str) -> Vec<OsString> {
        arguments.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn only_what_looks_at_the_host_is_run_as_root() {
        let needs = |arguments| needs_root(&words(arguments));
        for host in ["live", "states 1 3", "live -L 80", "record f.tct", "--wide", "check"] {
            assert!(needs(host), "{host}");
        }
        for offline in [
            "live -r f.tct",
            "--help",
            "-V",
            "explain TIME_WAIT",
            "hist --read=f.tct",
            "hist -rf.tct",
        ] {
            assert!(!needs(offline), "{offline}");
        }
    }

    #[test]
    fn a_command_is_built_with_what_it_needs() {
        for command in ["live -D 443", "", "--wide", "doctor", "help live", "record top"] {
            assert_eq!(features(&words(command)), Some(vec![]), "{command}");
        }
        for command in FEATURES {
            assert_eq!(features(&words(&format!("{command} --help"))), Some(vec![command]));
            assert_eq!(features(&words(&format!("help {command}"))), Some(vec![command]));
        }
        for command in ["man", "completions bash", "help"] {
            assert_eq!(features(&words(command)), None, "{command}");
        }
    }

    /// Each feature of the package is the command of its name: a new one must be known here.
    #[test]
    fn the_features_are_those_of_the_package() {
        let manifest = include_str!("../../tcptrace/Cargo.toml");
        let (_, section) = manifest.split_once("[features]\n").unwrap();
        let section = section.split_once("\n[").unwrap().0;
        let mut names: Vec<_> = section
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
            .filter(|name| *name != "default")
            .collect();
        names.sort_unstable();
        assert_eq!(names, FEATURES);
    }

    #[test]
    fn the_release_build_is_asked_for_before_the_command() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let parse = |line: &str| <Cli as clap::Parser>::try_parse_from(words(line)).unwrap().args;
        let args = parse("run --release live --wide");
        assert!(args.release);
        assert_eq!(args.arguments, ["live", "--wide"]);
        let args = parse("run live --release");
        assert!(!args.release, "behind the command it is tcptrace's");
        assert_eq!(args.arguments, ["live", "--release"]);
    }
}
