//! `cargo xtask dist`: what is handed on: a static binary with all that belongs beside it, as a
//! tarball, and as a Debian package where cargo-deb is installed.
//!
//! Everything is made from the tree and from the binary itself; nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

/// Shells, and the file in which each looks for what completes a command.
const COMPLETIONS: [(&str, &str); 3] =
    [("bash", "tcptrace.bash"), ("zsh", "_tcptrace"), ("fish", "tcptrace.fish")];

const NO_CARGO_DEB: &str = "cargo-deb is not installed (cargo install cargo-deb --locked)";

/// What goes beside the binary as it is in the tree.
const BESIDE: [&str; 5] = ["README.md", "docs", "deploy", "LICENSE-APACHE", "LICENSE-MIT"];

#[derive(clap::Args)]
pub struct Args {
    /// Only the tarball
    #[arg(long)]
    no_deb: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let workspace = sh::workspace()?;
    let target = sh::target_dir()?;
    let host = host()?;
    stage(&workspace, &target, &host)?;
    let tarball = tarball(&workspace, &target, &host)?;
    eprintln!("dist: {}", tarball.display());
    if args.no_deb {
        return Ok(ExitCode::SUCCESS);
    }
    if sh::which("cargo-deb").is_none() {
        eprintln!("dist: no Debian package: {NO_CARGO_DEB}");
        return Ok(ExitCode::FAILURE);
    }
    deb(&workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the Debian package alone, and says where it is.
///
/// # Errors
/// If cargo-deb is not installed, or the binary does not build.
pub fn debian_package() -> Result<PathBuf> {
    let workspace = sh::workspace()?;
    if sh::which("cargo-deb").is_none() {
        bail!("{NO_CARGO_DEB}");
    }
    stage(&workspace, &sh::target_dir()?, &host()?)?;
    deb(&workspace)
}

/// Makes all that goes into the tarball and the package besides what is in the tree.
fn stage(workspace: &Path, target: &Path, host: &str) -> Result<()> {
    let binary = build(workspace, host)?;

    // cargo-deb takes its files from here: see tcptrace/Cargo.toml.
    let stage = target.join("dist");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot empty {}", stage.display()))?;
    }
    fs::create_dir_all(stage.join("completions")).context("cannot make target/dist")?;
    fs::copy(&binary, stage.join("tcptrace")).context("cannot copy the binary")?;
    let made_by = |arguments: &[&str], file: PathBuf| -> Result<()> {
        let text = sh::output(sh::clean(&binary).args(arguments))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    made_by(&["man"], stage.join("tcptrace.1"))?;
    for (shell, file) in COMPLETIONS {
        made_by(&["completions", shell], stage.join("completions").join(file))?;
    }
    Ok(())
}

/// Packs what is staged as a Debian package.
fn deb(workspace: &Path) -> Result<PathBuf> {
    // What it packs is staged already: the binary is the static one.
    let deb = ["deb", "--no-build", "--no-strip", "--package", "tcptrace"];
    let (made, said) = sh::listen(sh::cargo().current_dir(workspace).args(deb))?;
    if !made {
        bail!("cargo deb made no package: its words are above");
    }
    said.lines()
        .next_back()
        .map(PathBuf::from)
        .context("cargo deb did not say where the package is")
}

/// What this tool chain builds for.
fn host() -> Result<String> {
    let host = sh::output(sh::clean("rustc").args(["--print", "host-tuple"]))?;
    Ok(host.trim().to_owned())
}

/// Builds the binary, linked statically, so that it runs on any host, whatever its C library.
fn build(workspace: &Path, host: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "tcptrace", "--target", host];
    // For the target only: build scripts and macros are not touched, as there is a `--target`.
    let flags = "-C target-feature=+crt-static";
    sh::run(sh::cargo().current_dir(workspace).env("RUSTFLAGS", flags).args(build))?;
    Ok(sh::target_dir()?.join(host).join("release/tcptrace"))
}

/// Packs what is staged. The same tree gives the same bytes.
fn tarball(workspace: &Path, target: &Path, host: &str) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("tcptrace-{version}-{host}");
    let file = target.join(format!("{name}.tar.gz"));
    let same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
    let mut tar = sh::clean("tar");
    tar.args(["--create", "--use-compress-program=gzip -n", "--file"])
        .arg(&file)
        .args(same)
        .arg(format!("--transform=s,^,{name}/,"))
        .arg("--directory")
        .arg(target.join("dist"))
        .args(["tcptrace", "tcptrace.1", "completions", "--directory"])
        .arg(workspace)
        .args(BESIDE);
    sh::run(&mut tar)?;
    Ok(file)
}
