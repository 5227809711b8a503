//! `cargo xtask`: does `run` itself and hands every other subcommand to `xtask-lab`, which is built
//! when one of them is asked for: it takes what `run` need not wait for.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "it tells the person who runs it what it does")]

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};
use clap::{Arg, ArgMatches, FromArgMatches as _, value_parser};

use xtask::{
    build::{Build, Profile},
    run,
    subcommands::LAB,
};

fn main() -> ExitCode {
    let matches = command().get_matches_from(spelled_out(env::args_os().collect()));
    dispatch(&matches).unwrap_or_else(|error| {
        // `{:#}` joins the causes on one line.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The name of the arguments that are not looked at here.
const REST: &str = "arguments";

fn command() -> clap::Command {
    let run = <run::Args as clap::Args>::augment_args(clap::Command::new("run"))
        .about("Build tcptrace and run it, as root where the command needs it");
    let lab = LAB.iter().map(|subcommand| {
        clap::Command::new(subcommand.name)
            .about(subcommand.about)
            // Its own help, which only it knows, is one of the arguments.
            .disable_help_flag(true)
            .arg(
                Arg::new(REST)
                    .value_parser(value_parser!(OsString))
                    .num_args(0..)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true),
            )
    });
    clap::Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("Builds, runs and tests tcptrace")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
        .subcommands(lab)
}

/// `help SUBCOMMAND` as `SUBCOMMAND --help`, which is the same, where the subcommand is elsewhere.
fn spelled_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let is_lab = |name: &OsString| LAB.iter().any(|subcommand| name == subcommand.name);
    if arguments.get(1).is_some_and(|word| word == "help") && arguments.get(2).is_some_and(is_lab) {
        arguments.remove(1);
        arguments.insert(2, "--help".into());
    }
    arguments
}

fn dispatch(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("run", matches)) => run::main(run::Args::from_arg_matches(matches)?),
        Some((name, matches)) => lab(name, matches.get_many(REST).unwrap_or_default()),
        // clap asked for one.
        None => bail!("no subcommand"),
    }
}

/// Builds `xtask-lab` and becomes it.
fn lab<'a>(name: &str, arguments: impl Iterator<Item = &'a OsString>) -> Result<ExitCode> {
    let lab =
        Build { package: "xtask-lab", features: None, profile: Profile::Dev, apart: None }.run()?;
    // The environment stays: cargo's variables say where the workspace is.
    let error = Command::new(&lab).arg(name).args(arguments).exec();
    bail!("cannot start {}: {error}", lab.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> (String, Vec<String>) {
        let words = line.split_whitespace().map(OsString::from).collect();
        let matches = command().try_get_matches_from(spelled_out(words)).unwrap();
        let (name, matches) = matches.subcommand().unwrap();
        let rest = matches.get_many::<OsString>(REST).unwrap_or_default();
        (name.to_owned(), rest.map(|word| word.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn the_arguments_are_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn what_is_not_for_run_is_handed_on_as_it_is() {
        for (line, name, rest) in [
            ("xtask test", "test", &[][..]),
            ("xtask test --kernels", "test", &["--kernels"]),
            (
                "xtask vm-test 6.1 --tests live -- --exact",
                "vm-test",
                &["6.1", "--tests", "live", "--", "--exact"],
            ),
            ("xtask bench --help", "bench", &["--help"]),
            ("xtask bench -h", "bench", &["-h"]),
            ("xtask help dist", "dist", &["--help"]),
        ] {
            assert_eq!(
                parse(line),
                (name.to_owned(), rest.iter().map(|w| (*w).to_owned()).collect())
            );
        }
    }

    #[test]
    fn help_has_a_line_for_each_subcommand() {
        let help = command().render_help().to_string();
        for subcommand in LAB {
            let line = help.lines().find(|line| line.trim().starts_with(subcommand.name)).unwrap();
            assert!(line.contains(&subcommand.about[..40]), "{line}");
            assert_eq!(xtask::subcommands::about(subcommand.name), subcommand.about);
        }
        assert!(help.lines().any(|line| line.trim().starts_with("run ")), "{help}");
    }
}
