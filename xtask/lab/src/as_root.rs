//! The place that root's steps run in, and whether BPF works there.
//!
//! Tests run in a mount namespace of their own: what they mount (tracefs, network namespaces, BPF
//! pins) is gone with them, and a bare machine on which tracefs is not mounted will do.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use aya::{maps::MapType, sys::is_map_supported};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use xtask::{
    root::{Root, root},
    sh,
};

#[derive(clap::Args)]
pub struct Args {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Whether a ring buffer can be created as root, and if not, why.
pub fn bpf_works() -> Result<()> {
    let xtask = env::current_exe().context("cannot tell where xtask is")?;
    let mut probe = Command::new(xtask);
    sh::output(probe.args(["as-root", "--"]).arg(env::current_exe()?).arg("probe-bpf")).map(drop)
}

/// `xtask probe-bpf`.
pub fn probe_bpf() -> Result<ExitCode> {
    if !is_map_supported(MapType::RingBuf).context("the bpf system call is refused")? {
        bail!(
            "this kernel has no BPF ring buffer (5.8 has), or does not let this process have one"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `xtask as-root PROGRAM ARGS`: cargo's runner for the tests that need root.
pub fn main(args: Args) -> Result<ExitCode> {
    match root() {
        Root::Already => {}
        Root::Sudo => {
            let xtask = env::current_exe().context("cannot tell where xtask is")?;
            // -E: the tests find their fixtures by variables that cargo set.
            let error = Command::new("sudo")
                .arg("-E")
                .arg(xtask)
                .args(["as-root", "--"])
                .args(args.command)
                .exec();
            bail!("cannot start sudo: {error}");
        }
        Root::No => bail!("this needs root: this user is not, and there is no sudo"),
    }
    if let Err(error) = own_mounts() {
        // A container without CAP_SYS_ADMIN: what needs a mount will say so itself.
        eprintln!("note: going on in the mount namespace of the machine: {error:#}");
    }
    let (program, rest) = args.command.split_first().context("no program named")?;
    let error = Command::new(program).args(rest).exec();
    bail!("cannot start {}: {error}", program.display());
}

/// Moves this process into a mount namespace of its own and mounts there what tracing reads.
fn own_mounts() -> Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("making / private")?;
    let tracefs = Path::new("/sys/kernel/tracing");
    if !tracefs.join("events").exists() {
        mount(Some("tracefs"), tracefs, Some("tracefs"), MsFlags::empty(), NONE)
            .context("mounting tracefs")?;
    }
    Ok(())
}
