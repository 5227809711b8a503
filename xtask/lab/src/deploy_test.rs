//! `cargo xtask deploy-test`: the Debian package, installed in a small Debian and started by the
//! systemd of that, on real Debian kernels under qemu.
//!
//! This module decides what runs and when. What is checked is `xtask/lab/deploy-guest/check.py`, in the
//! guest; booting and reading what the guest says are [`crate::vm`]'s.

mod debian;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use crate::{
    dist,
    vm::{
        boot::Machine,
        cache::{self, Cache},
        guest::{Guest, Program},
        host,
        line::Line,
        report::{self, Report},
        session::{Session, Wanted},
    },
};
use debian::Root;

/// Debian's stable kernels.
const LINES: [Line; 2] = [Line::new(6, 1), Line::new(6, 12)];

/// Sockets by netlink, which a host loads by itself: the guest has no modules on its disk.
const MODULES: [&str; 2] = ["inet_diag", "tcp_diag"];

/// The root is there twice while it is unpacked.
const MEMORY_MIB: u32 = 2048;

/// Install the Debian package in a small Debian, start it by systemd as PID 1 under qemu, and check
///
/// Takes root (by sudo, where this user is not root), to make the root file system; qemu runs as
/// this user. Debian's packages and kernels come from the mirror of the host's apt sources
/// (VM_MIRROR=URI names another) and are kept in the cache. Nothing is installed on this host.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel lines, such as 6.1 [default: 6.1 6.12]
    versions: Vec<Line>,
    /// This package, rather than one that is built now
    #[arg(long, value_name = "FILE")]
    deb: Option<PathBuf>,
    /// A drop-in of the unit to install too: with one that takes something away, checks must fail
    #[arg(long, value_name = "FILE")]
    drop_in: Option<PathBuf>,
    /// Only packages and kernels that are in the cache
    #[arg(long)]
    offline: bool,
    /// Wall time of a boot in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Show what the guest prints as it prints it
    #[arg(long, short)]
    verbose: bool,
    /// Keep image, initramfs and a script that boots them again, beside the log
    #[arg(long)]
    keep: bool,
    /// Where packages and kernels are kept [default: $VM_CACHE, $XDG_CACHE_HOME/tcptrace-vm, ~/.cache/tcptrace-vm]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    Machine::require()?;
    debian::require()?;
    let out = sh::target_dir()?.join("deploy-test");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    // One run at a time writes these logs.
    let _lock = cache::lock(&out.join("lock"))?;
    let dir = match &args.cache {
        Some(dir) => dir.clone(),
        None => host::cache_dir()?,
    };
    let mut lines = args.versions.clone();
    if lines.is_empty() {
        lines.extend(LINES);
    }
    lines.sort_unstable();
    lines.dedup();

    let mirror = std::env::var("VM_MIRROR").ok().filter(|uri| !uri.is_empty());
    let cache = Cache::open(&dir, mirror.as_deref(), &lines, args.offline)?;
    // Said before a package is built, which takes minutes.
    let there = cache.lines()?;
    if let Some(missing) = lines.iter().find(|line| !there.contains(line)) {
        let there: Vec<_> = there.iter().map(ToString::to_string).collect();
        bail!("no kernel {missing} is to be had; there are {}", there.join(", "));
    }

    let package = match &args.deb {
        Some(file) if file.is_file() => file.clone(),
        Some(file) => bail!("--deb {}: no such file", file.display()),
        None => dist::debian_package()?,
    };
    let base = debian::base(&dir, mirror.as_deref(), args.offline)?;
    let root = Root::unpack(&base)?;
    root.install(&package)?;
    root.put_checks(args.drop_in.as_deref())?;
    let packed = root.pack(&out.join("root.tar"))?;

    let session = Session {
        machine: machine(args),
        // Each guest has the root in its memory, and the cores are better used by one.
        jobs: Some(1),
        modules: MODULES.map(str::to_owned).to_vec(),
        cache: Some(cache),
        guest: Guest::new(&program(&packed)?)?,
        out,
        keep: args.keep,
    };
    let wanted: Vec<_> = lines.into_iter().map(Wanted::Line).collect();
    let reports = session.run_all(&wanted);
    write!(io::stdout(), "{}", report::terminal(&reports))?;
    // Unlike tests on many kernels, this has nothing to show if one that was asked for is missing.
    let passed = reports.iter().all(Report::passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn machine(args: &Args) -> Machine {
    Machine {
        cpus: 1,
        memory_mib: MEMORY_MIB,
        timeout: Duration::from_secs(args.timeout),
        // The last `rdinit=` counts: what runs first hands over to systemd, rather than waits.
        append: format!("rdinit=/vm/bin/{INIT} systemd.show_status=no"),
        echo: args.verbose,
    }
}

/// The first process of the guest, in `xtask/lab/deploy-guest`.
const INIT: &str = "init";

/// What is booted: the root, and what unpacks it.
fn program(root: &Path) -> Result<Program> {
    Ok(Program {
        binary: debian::guest_file(INIT)?,
        files: vec![(root.to_owned(), "/vm/root.tar".to_owned())],
        ..Program::default()
    })
}
