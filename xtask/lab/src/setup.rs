//! `cargo xtask setup`: brings what a fresh Debian machine lacks for building the kernel object
//! and for running every test. It changes nothing that is already there, so it may run each time.
//!
//! Where the network or the rights for a thing are missing it says so, says what that costs, and
//! goes on with the rest: the committed kernel object keeps the agent itself buildable.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use xtask::{root, sh};

use crate::toolchain::{self, Compiler, Linker, NIGHTLY};

/// The linker that the committed objects are built with.
const BPF_LINKER: &str = "0.13.0";

/// Programs that tests start, the Debian package of each, and what is lost without it.
const PROGRAMS: [(&str, &str, &str); 17] = [
    ("ip", "iproute2", "no kernel test can make its network namespace"),
    ("ss", "iproute2", "nothing that is not ours says what state connections are in"),
    ("nft", "nftables", "no test makes a peer vanish for the command"),
    ("psql", "postgresql", "no test has a server whose connections are in other processes"),
    ("perf", "linux-perf", "no independent witness counts the transitions"),
    ("qemu-system-x86_64", "qemu-system-x86", "no other kernel can be booted for the tests"),
    ("busybox", "busybox-static", "no other kernel can be booted for the tests"),
    ("xz", "xz-utils", "kernels that are booted for the tests have no modules"),
    ("chromium", "chromium", "no browser opens the page of `tcptrace report`"),
    ("prometheus", "prometheus", "no real Prometheus scrapes serve, nor checks its rules"),
    ("tmux", "tmux", "no test looks at the screens of tcptrace top"),
    ("tcpstates", "libbpf-tools", "the benchmark has no other tracer to compare with"),
    ("valgrind", "valgrind", "no test counts what an input costs in full tables"),
    ("c++", "g++", "no fuzz target can be built: libFuzzer is C++"),
    ("mandoc", "mandoc", "only groff, where it is installed, checks the manual pages"),
    ("rpm2cpio", "rpm", "`cargo xtask dist` does not verify the RPM package by unpacking it"),
    ("cpio", "cpio", "`cargo xtask dist` does not verify the RPM package by unpacking it"),
];

/// A subcommand of cargo, its version, and what is lost without it.
type CargoTool = (&'static str, &'static str, &'static str);

/// What the tests use.
const FOR_TESTS: &[CargoTool] = &[
    ("cargo-deny", "0.20.2", "licenses, sources and duplicates of dependencies are not checked"),
    ("cargo-fuzz", "0.13.2", "no fuzz target is run"),
];

/// What only `cargo xtask dist` uses: a minute each to build.
const FOR_PACKAGES: &[CargoTool] = &[
    (
        "cargo-deb",
        "3.8.0",
        "`cargo xtask dist` makes no Debian package, and deploy-test cannot run",
    ),
    ("cargo-generate-rpm", "0.21.1", "`cargo xtask dist` makes no RPM package"),
];

#[derive(clap::Args)]
pub struct Args {
    /// The rustup toolchain to prepare
    #[arg(long, default_value = NIGHTLY)]
    toolchain: String,
    /// Also bring what makes packages: cargo-deb and cargo-generate-rpm
    #[arg(long)]
    dist: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let mut lacking = bring(&args.toolchain);
    if args.dist {
        lacking.extend(cargo_tools(FOR_PACKAGES));
    }
    if lacking.is_empty() {
        eprintln!("setup: everything is here");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nsetup could not bring:");
    for lack in &lacking {
        eprintln!("  {}: {}\n    so {}", lack.what, lack.why, lack.cost);
    }
    let essential = lacking.iter().any(|lack| lack.essential);
    Ok(if essential { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Something that setup could not bring.
pub struct Lack {
    /// What it is.
    pub what: String,
    /// What was tried and what it answered.
    pub why: String,
    /// What cannot be done without it.
    pub cost: &'static str,
    /// Whether the kernel object cannot be built without it.
    pub essential: bool,
}

/// Brings everything, and returns what could not be brought.
pub fn bring(toolchain: &str) -> Vec<Lack> {
    let mut lacking = Vec::new();
    let mut lack = |what: &str, error: anyhow::Error, cost, essential| {
        let why = format!("{error:#}");
        say(what, &format!("LACKING: {why}"));
        lacking.push(Lack { what: what.to_owned(), why, cost, essential });
    };

    if let Err(error) = stable_components() {
        lack("rustfmt and clippy", error, "formatting and lints cannot be checked", false);
    }
    let no_object = "the kernel object cannot be built here (the committed one still can be used)";
    match compiler(toolchain) {
        Err(error) => lack("a Rust compiler for BPF", error, no_object, true),
        Ok(compiler) => {
            if let Err(error) = linker(&compiler) {
                lack("bpf-linker", error, no_object, true);
            }
        }
    }
    for (program, package, cost) in PROGRAMS {
        if let Some(path) = sh::which(program) {
            say(program, &format!("found {}", path.display()));
        } else {
            match apt_install(&[package]) {
                Ok(()) => say(program, &format!("installed {package}")),
                Err(error) => lack(program, error, cost, false),
            }
        }
    }
    if let Err(error) = python() {
        let cost = "the recipes of docs/RECIPES.md are not run by the engines that they are for";
        lack("Python's venv", error, cost, false);
    }
    lacking.extend(cargo_tools(FOR_TESTS));
    lacking
}

/// Builds and installs those that are not here, and returns what could not be.
fn cargo_tools(tools: &[CargoTool]) -> Vec<Lack> {
    let mut lacking = Vec::new();
    for (tool, version, cost) in tools {
        if let Some(path) = sh::which(tool) {
            say(tool, &format!("found {}", path.display()));
            continue;
        }
        match cargo_install(tool, version) {
            Ok(()) => say(tool, &format!("installed {version}")),
            Err(error) => {
                let why = format!("{error:#}");
                say(tool, &format!("LACKING: {why}"));
                lacking.push(Lack { what: (*tool).to_owned(), why, cost, essential: false });
            }
        }
    }
    lacking
}

/// Python with what makes environments: a test has one, with packages from PyPI, below `target`.
fn python() -> Result<()> {
    let found = || sh::output(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    if found().is_ok() {
        say("Python's venv", "found");
        return Ok(());
    }
    apt_install(&["python3-venv"])?;
    found().context("python3-venv was installed, but python3 still has no venv")?;
    say("Python's venv", "installed python3-venv");
    Ok(())
}

/// Installs a subcommand of cargo from the registry. It runs for seconds and is compiled for minutes,
/// so it is not optimized; what several of them need is compiled once.
fn cargo_install(tool: &str, version: &str) -> Result<()> {
    say(tool, "building it takes a minute or more");
    sh::run(
        sh::cargo()
            .args(["install", tool, "--version", version, "--locked", "--debug", "--target-dir"])
            .arg(sh::target_dir()?.join("tools"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0"),
    )
}

fn say(what: &str, text: &str) {
    eprintln!("setup: {what}: {text}");
}

/// Rustfmt and clippy of the tool chain that runs xtask.
fn stable_components() -> Result<()> {
    let lacks = |subcommand| sh::output(sh::cargo().args([subcommand, "--version"])).is_err();
    if lacks("fmt") || lacks("clippy") {
        sh::run(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
        say("rustfmt and clippy", "installed");
    } else {
        say("rustfmt and clippy", "found");
    }
    Ok(())
}

/// A compiler for BPF: rustup's, or else Debian's.
fn compiler(name: &str) -> Result<Compiler> {
    let found = |compiler: &Compiler, how: &str| {
        say("compiler", &format!("{how} {} with LLVM {}", compiler.version, compiler.llvm));
    };
    if let Ok(compiler) = Compiler::rustup(name) {
        found(&compiler, "found");
        return Ok(compiler);
    }
    let refusal = match install_rust_src(name).and_then(|()| Compiler::rustup(name)) {
        Ok(compiler) => {
            found(&compiler, "installed rust-src for");
            return Ok(compiler);
        }
        Err(refusal) => refusal,
    };
    say("compiler", &format!("rustup gives none: {refusal:#}; trying Debian's rustc-web"));
    let dir = toolchain::debian_dir()?;
    if let Ok(compiler) = Compiler::debian(&dir) {
        found(&compiler, "found");
        return Ok(compiler);
    }
    let compiler = unpack_debian(&dir)
        .and_then(|()| Compiler::debian(&dir))
        .with_context(|| format!("neither by rustup ({refusal:#}) nor by apt"))?;
    found(&compiler, "unpacked");
    Ok(compiler)
}

fn install_rust_src(name: &str) -> Result<()> {
    if sh::which("rustup").is_none() {
        bail!("there is no rustup");
    }
    let mut rustup = Command::new("rustup");
    if sh::output(Command::new("rustup").args(["run", name, "rustc", "--version"])).is_ok() {
        rustup.args(["component", "add", "rust-src", "--toolchain", name]);
    } else {
        rustup.args(["toolchain", "install", name, "--profile", "minimal"]);
        rustup.args(["--no-self-update", "--component", "rust-src", "--component", "clippy"]);
    }
    sh::run(&mut rustup)
}

/// Unpacks Debian's rustc, with `core` for BPF, into `dir`. Not installed: it conflicts with
/// rustup, and nobody else on the machine asked for it.
fn unpack_debian(dir: &Path) -> Result<()> {
    let find_library = || -> Result<String> {
        let mut depends = depends("libstd-rust-web-dev")?.into_iter();
        depends
            .find(|package| package.starts_with("libstd-rust-web-"))
            .context("apt knows no library that belongs to rustc-web")
    };
    let library = find_library().or_else(|_| {
        apt_update()?;
        find_library()
    })?;
    let shared = depends(&library)?;
    let shared: Vec<&str> =
        shared.iter().map(String::as_str).filter(|package| !package.contains("rust")).collect();
    let missing =
        |package: &&str| sh::output(Command::new("dpkg-query").args(["--show", package])).is_err();
    let shared: Vec<&str> = shared.into_iter().filter(missing).collect();
    if !shared.is_empty() {
        apt_install(&shared)?;
    }

    let partial = dir.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    sh::run(Command::new("apt-get").current_dir(&partial).args([
        "download",
        "rustc-web",
        &library,
        "libstd-rust-web-dev",
        "libstd-rust-web-dev-bpf",
    ]))?;
    for entry in fs::read_dir(&partial)? {
        let package = entry?.path();
        sh::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&partial))?;
        fs::remove_file(&package)?;
    }
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&partial, dir).with_context(|| format!("renaming to {}", dir.display()))
}

/// The packages that `package` directly depends on.
fn depends(package: &str) -> Result<Vec<String>> {
    let listed = sh::output(Command::new("apt-cache").args(["depends", package]))?;
    let names = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.filter(|name| !name.starts_with('<')).map(str::to_owned).collect())
}

/// A bpf-linker that reads what the compiler writes.
fn linker(compiler: &Compiler) -> Result<()> {
    let major = compiler.llvm_major()?;
    let fits = |linker: &Linker| linker.version == BPF_LINKER && linker.reads(major);
    match Linker::find() {
        Ok(linker) if fits(&linker) => {
            say("bpf-linker", &format!("found {} with LLVM {}", linker.version, linker.llvm));
            return Ok(());
        }
        Ok(linker) => say(
            "bpf-linker",
            &format!("found {} with LLVM {}: replacing it", linker.version, linker.llvm),
        ),
        Err(error) => say("bpf-linker", &format!("{error:#}: building it takes minutes")),
    }
    llvm(major)?;
    sh::run(
        sh::cargo()
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
            .args(["--no-default-features", "--features", &format!("llvm-{major}")])
            .env("LLVM_PREFIX", toolchain::llvm_dir(major)),
    )?;
    let linker = Linker::find()?;
    if !fits(&linker) {
        bail!(
            "installed {BPF_LINKER} for LLVM {major}, but the one on the PATH, {}, is {} with LLVM {}",
            linker.path.display(),
            linker.version,
            linker.llvm
        );
    }
    say("bpf-linker", &format!("installed {} with LLVM {}", linker.version, linker.llvm));
    Ok(())
}

/// The headers and the library of an LLVM of that major version.
fn llvm(major: u32) -> Result<()> {
    let dir = toolchain::llvm_dir(major);
    if ["bin/llvm-config", "include/llvm-c/Core.h", "lib/libPolly.a"]
        .iter()
        .all(|part| dir.join(part).exists())
    {
        say("LLVM", &format!("found {}", dir.display()));
        return Ok(());
    }
    apt_install(&[&format!("llvm-{major}-dev"), &format!("libpolly-{major}-dev")]).with_context(
        || {
            format!(
                "LLVM {major}, which bpf-linker needs, is not to be had from this machine's apt"
            )
        },
    )?;
    say("LLVM", &format!("installed {}", dir.display()));
    Ok(())
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let install = || -> Result<()> {
        sh::run(apt_get()?.args(["install", "--yes", "--no-install-recommends"]).args(packages))
    };
    // The lists of a fresh machine are missing or old.
    install().or_else(|_| {
        apt_update()?;
        install()
    })
}

fn apt_update() -> Result<()> {
    sh::run(apt_get()?.arg("update"))
}

fn apt_get() -> Result<Command> {
    if sh::which("apt-get").is_none() {
        bail!("there is no apt-get: this is not a Debian machine, so it must be installed by hand");
    }
    let mut command = root::command("env")?;
    // A machine that has just started may be updating itself: wait for its lock.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    Ok(command)
}
