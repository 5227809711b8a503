//! The command line: arguments to options, options to a run, errors to words and exit codes.

pub mod args;
mod by;
mod check;
mod closers;
mod conns;
mod doctor;
mod duration;
mod exit;
mod explain;
#[cfg(feature = "export")]
mod export;
mod header;
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
mod rotation;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod states;
mod stuck;
mod target;
#[cfg(feature = "top")]
mod top;
mod usage;
#[cfg(any(feature = "export", feature = "report"))]
mod whole;

use std::process::ExitCode;

use clap::{FromArgMatches as _, error::ErrorKind};

use args::{Cli, Command};
use exit::{EXIT_DOCTOR, EXIT_HOST, EXIT_USAGE};
pub use usage::Usage;
use usage::misuse;

/// The command as clap has it, with examples in its help.
pub fn command() -> clap::Command {
    manual::with_examples(args::command())
}

/// Parses the arguments, runs the command and turns its end into an exit code: 0, 1 for what the
/// host refuses, 2 for misuse; `doctor` has codes of its own.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|found| Cli::from_arg_matches(&found));
    let cli = match parsed {
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
        Some(Command::Man(args)) => manual::man(&args),
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
