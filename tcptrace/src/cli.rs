//! The command line: arguments to options, options to a run, errors to words and exit codes.

pub mod args;
mod check;
mod closers;
mod conns;
mod doctor;
mod duration;
mod explain;
#[cfg(feature = "export")]
mod export;
mod hist;
mod listen;
mod live;
mod log;
mod manual;
mod options;
mod origin;
mod ports;
mod progress;
mod record;
#[cfg(feature = "report")]
mod report;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod states;
mod stuck;
mod target;
#[cfg(feature = "top")]
mod top;
#[cfg(any(feature = "export", feature = "report"))]
mod whole;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use args::{Cli, Command};

/// What the host refuses.
const EXIT_HOST: u8 = 1;
/// What the user mistyped.
const EXIT_USAGE: u8 = 2;
/// What `doctor` exits with instead of either: 1 and 2 are its findings.
const EXIT_DOCTOR: u8 = 3;
/// A second Ctrl-C while the output is not taken, or one before a file was whole: 128 and SIGINT's
/// number, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// An error that is the user's, with exit code 2: which word, and what would have been right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Parses the arguments, runs the command and turns its end into an exit code: 0, 1 for what the
/// host refuses, 2 for misuse; `doctor` has codes of its own.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A subcommand is the first word or none.
            let is_doctor = std::env::args_os().nth(1).is_some_and(|word| word == "doctor");
            return not_parsed(&error, if is_doctor { EXIT_DOCTOR } else { EXIT_USAGE });
        }
    };
    let is_doctor = matches!(cli.command, Some(Command::Doctor(_)));
    let result = match cli.command {
        None => live::run(&cli.live),
        Some(Command::Live(args)) => live::run(&args),
        Some(Command::Hist(args)) => hist::run(&args),
        Some(Command::Conns(args)) => conns::run(&args),
        Some(Command::States(args)) => states::run(&args),
        Some(Command::Closers(args)) => closers::run(&args),
        Some(Command::Ports(args)) => ports::run(&args),
        Some(Command::Stuck(args)) => stuck::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        #[cfg(feature = "top")]
        Some(Command::Top(args)) => top::run(&args),
        #[cfg(not(feature = "top"))]
        Some(Command::Top(_)) => Err(args::not_built("top")),
        Some(Command::Record(args)) => record::run(&args),
        #[cfg(feature = "export")]
        Some(Command::Export(args)) => export::run(&args),
        #[cfg(not(feature = "export"))]
        Some(Command::Export(_)) => Err(args::not_built("export")),
        #[cfg(feature = "report")]
        Some(Command::Report(args)) => report::run(&args),
        #[cfg(not(feature = "report"))]
        Some(Command::Report(_)) => Err(args::not_built("report")),
        #[cfg(feature = "serve")]
        Some(Command::Serve(args)) => serve::run(&args),
        #[cfg(not(feature = "serve"))]
        Some(Command::Serve(_)) => Err(args::not_built("serve")),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Man) => manual::man(),
        Some(Command::Completions(args)) => manual::completions(args.shell),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            log::say(&format!("{error:#}"));
            ExitCode::from(match error.is::<Usage>() {
                _ if is_doctor => EXIT_DOCTOR,
                true => EXIT_USAGE,
                false => EXIT_HOST,
            })
        }
    }
}

/// Prints what clap has to say: help as it is, an error as one line.
fn not_parsed(error: &clap::Error, misused: u8) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // To a closed pipe, `--help` ends as quietly as anything else.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    log::say(&misuse(&error.render().to_string()));
    ExitCode::from(misused)
}

/// clap's several paragraphs about an error (what, possible values, a tip, the usage) in one line.
fn misuse(rendered: &str) -> String {
    let mut parts: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect();
    parts.push("see tcptrace --help");
    // What ends in a colon has its list below it.
    parts.join("; ").replace(":; ", ": ")
}

/// The command as clap has it, for what is made from it: completions, a man page.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let words = [&["tcptrace"], arguments].concat();
        misuse(&Cli::try_parse_from(words).unwrap_err().render().to_string())
    }

    #[test]
    fn misuse_is_one_line_that_says_what_would_be_right() {
        for (arguments, says) in [
            (&["--state", "x"][..], "unknown state 'x': ESTABLISHED, "),
            (
                &["-o", "yaml"],
                "'yaml' for '--output <FORMAT>'; [possible values: table, json, csv]",
            ),
            (&["--colour", "auto"], "unexpected argument '--colour' found; tip: "),
            (&["hist", "--by", "pid"], "unknown key 'pid': reason, owner, port, peer, netns"),
            (&["frobnicate"], "unrecognized subcommand 'frobnicate'; see tcptrace --help"),
            (&["-4", "-6"], "cannot be used with"),
        ] {
            let line = refusal(arguments);
            assert!(line.contains(says) && line.ends_with("; see tcptrace --help"), "{line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
    }

    #[test]
    fn the_arguments_are_well_formed() {
        command().debug_assert();
    }
}
