//! `cargo xtask run`: builds the release binary and becomes it, as root where that is needed.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{
    root::{Root, root},
    sh,
};

/// What tcptrace does without the kernel's help; everything else looks at the host.
const WITHOUT_ROOT: [&str; 6] = ["completions", "explain", "export", "help", "man", "report"];
/// Options with which a command reads a recording, or only speaks about itself.
const OPTIONS_WITHOUT_ROOT: [&str; 6] = ["-r", "--read", "-h", "--help", "-V", "--version"];
/// What tcptrace reads from the environment; sudo drops the rest.
const VARIABLES: &str = "--preserve-env=COLUMNS,NO_COLOR";

#[derive(clap::Args)]
pub struct Args {
    /// tcptrace's own command and options [default: live]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub fn main(args: Args) -> Result<ExitCode> {
    sh::run(sh::cargo().current_dir(sh::workspace()?).args([
        "build",
        "--release",
        "--locked",
        "--package",
        "tcptrace",
        "--bin",
        "tcptrace",
    ]))?;
    let tcptrace = sh::target_dir()?.join("release/tcptrace");

    let mut arguments = args.arguments;
    if arguments.is_empty() {
        arguments.push("live".into());
    }
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

fn needs_root(arguments: &[OsString]) -> bool {
    let first = arguments.first().and_then(|first| first.to_str());
    let offline = first.is_some_and(|first| WITHOUT_ROOT.contains(&first));
    let reads = arguments.iter().filter_map(|argument| argument.to_str()).any(|argument| {
        OPTIONS_WITHOUT_ROOT.contains(&argument) || argument.starts_with("--read=")
    });
    !offline && !reads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(arguments: &str) -> bool {
        needs_root(&arguments.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_looks_at_the_host_is_run_as_root() {
        for host in ["live", "states 1 3", "live -L 80", "record f.tct", "--wide", "check"] {
            assert!(needs(host), "{host}");
        }
        for offline in ["live -r f.tct", "--help", "-V", "explain TIME_WAIT", "hist --read=f.tct"] {
            assert!(!needs(offline), "{offline}");
        }
    }
}
