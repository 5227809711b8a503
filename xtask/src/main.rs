//! The one door for automation: `cargo xtask --help`.
//!
//! Each subcommand is a module of its name; this file only says which there are. What several of
//! them need is in [`sh`] (running other programs), [`toolchain`] (what compiles the kernel
//! object) and [`root`] (becoming root where a step needs it). Nothing of the product lives here.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "what it does is told to the person who runs it")]

mod bench;
mod build_ebpf;
mod deploy_test;
mod dist;
mod kernel_tests;
mod provenance;
mod root;
mod run;
mod setup;
mod sh;
mod sources;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs and tests tcptrace", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring what this machine lacks for building the kernel object and running every test
    Setup(setup::Args),
    /// Build the kernel objects and write down what built them
    BuildEbpf(build_ebpf::Args),
    /// Build tcptrace and run it, as root where the command needs it
    Run(run::Args),
    /// Run every test that this machine can run, and say what it could not
    Test(test::Args),
    VmTest(Box<vm::VmTestArgs>),
    /// Measure what tracing costs, against no tracing, the least possible, and others
    Bench(bench::Args),
    /// Make what is handed on: a static binary in a tarball, and a Debian package
    Dist(dist::Args),
    DeployTest(deploy_test::Args),
    /// Run PROGRAM as root in a mount namespace of its own, with tracefs mounted
    #[command(hide = true)]
    AsRoot(root::Args),
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
        Command::Run(args) => run::main(args),
        Command::Test(args) => test::main(&args),
        Command::VmTest(args) => vm::run(&args),
        Command::Bench(args) => bench::main(args),
        Command::Dist(args) => dist::main(&args),
        Command::DeployTest(args) => deploy_test::main(&args),
        Command::AsRoot(args) => root::main(args),
        Command::ProbeBpf => root::probe_bpf(),
    }
}
