//! The subcommands of `cargo xtask` that need more than `run` does: kernels, packages, measuring.
//!
//! Each subcommand is a module of its name; this file only says which there are. What several of
//! them need is in [`toolchain`] (what compiles the kernel object), [`as_root`] (where root's steps
//! run), [`outcome`] (how a step of a test ended), and in the crate `xtask`, which starts this
//! program. Nothing of the product lives here.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "it tells the person who runs it what it does")]

#[cfg(test)]
mod arrows;
mod as_root;
mod bench;
mod build_ebpf;
mod cargo;
mod child;
mod deny;
mod deploy_test;
mod dist;
mod fuzz;
mod kernel_tests;
#[cfg(test)]
mod limits;
mod markers;
mod outcome;
#[cfg(test)]
mod profiles;
mod provenance;
mod setup;
mod sources;
mod suite;
mod targets;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::subcommands::about;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs and tests tcptrace",
    version
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(about = about("setup"))]
    Setup(setup::Args),
    #[command(about = about("build-ebpf"))]
    BuildEbpf(build_ebpf::Args),
    #[command(about = about("test"))]
    Test(test::Args),
    #[command(about = about("vm-test"))]
    VmTest(Box<vm::VmTestArgs>),
    #[command(about = about("fuzz"))]
    Fuzz(fuzz::Args),
    #[command(about = about("bench"))]
    Bench(bench::Args),
    #[command(about = about("dist"))]
    Dist(dist::Args),
    #[command(about = about("deploy-test"))]
    DeployTest(deploy_test::Args),
    /// Run PROGRAM as root in a mount namespace of its own, with tracefs mounted
    #[command(hide = true)]
    AsRoot(as_root::Args),
    /// Run the tests of a binary, several processes at a time, and print what came of them
    #[command(hide = true)]
    Suite(suite::Args),
    /// Exit with 0 if this process may create a ring buffer
    #[command(hide = true)]
    ProbeBpf,
}

fn main() -> ExitCode {
    let outcome = dispatch(Cli::parse().command);
    outcome.unwrap_or_else(|error| {
        // `{:#}` joins the causes on one line.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup(args) => setup::main(&args),
        Command::BuildEbpf(args) => build_ebpf::main(&args),
        Command::Test(args) => test::main(&args),
        Command::VmTest(args) => vm::run(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Bench(args) => bench::main(args),
        Command::Dist(args) => dist::main(&args),
        Command::DeployTest(args) => deploy_test::main(&args),
        Command::AsRoot(args) => as_root::main(args),
        Command::Suite(args) => suite::main(&args),
        Command::ProbeBpf => as_root::probe_bpf(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use xtask::subcommands::LAB;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    /// What `cargo xtask --help` lists without this program is what this program has.
    #[test]
    fn the_list_of_subcommands_is_complete() {
        let command = Cli::command();
        let shown: Vec<_> = command
            .get_subcommands()
            .filter(|subcommand| !subcommand.is_hide_set())
            .map(|subcommand| {
                (subcommand.get_name(), subcommand.get_about().unwrap_or_default().to_string())
            })
            .collect();
        let listed: Vec<_> =
            LAB.iter().map(|listed| (listed.name, listed.about.to_owned())).collect();
        assert_eq!(shown, listed);
    }
}
