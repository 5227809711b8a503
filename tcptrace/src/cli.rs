//! The command line: arguments to options, options to a run, errors to words and exit codes.

pub mod args;
mod duration;
mod live;
mod log;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use args::{Cli, Command};

/// What the host refuses.
const EXIT_HOST: u8 = 1;
/// What the user mistyped.
const EXIT_USAGE: u8 = 2;

/// An error that is the user's, with exit code 2 and the word to look at.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Parses the arguments, runs the command and turns its end into an exit code: 0, 1 for what the
/// host refuses, 2 for misuse.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // To a closed pipe, `--help` ends as quietly as anything else.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(EXIT_USAGE),
            };
        }
    };
    let result = match cli.command {
        None => live::run(cli.live),
        Some(Command::Live(args)) => live::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            log::say(&format!("{error:#}"));
            if error.is::<Usage>() {
                log::say("see tcptrace --help");
                return ExitCode::from(EXIT_USAGE);
            }
            ExitCode::from(EXIT_HOST)
        }
    }
}

/// The command as clap has it, for what is made from it: completions, a man page.
pub fn command() -> clap::Command {
    Cli::command()
}
