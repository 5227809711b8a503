//! Compiling the program so that its bytes tell neither where it was built nor when.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use super::place::Place;

/// What is built for: this host, linked statically, so that it runs whatever the C library.
pub(super) fn host() -> Result<String> {
    let host = sh::output(sh::clean("rustc").args(["--print", "host-tuple"]))?;
    Ok(host.trim().to_owned())
}

/// Builds it and returns where it is.
pub(super) fn program(place: &Place) -> Result<PathBuf> {
    let host = host()?;
    let build = ["build", "--release", "--locked", "--package", "tcptrace", "--target", &host];
    let paths = paths(place)?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // Of several that match, rustc takes the last.
    flags.extend(paths.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
    let c_flags: Vec<String> =
        paths.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let mut cargo = sh::cargo();
    cargo
        .current_dir(&place.workspace)
        .env("CARGO_TARGET_DIR", &place.target_dir)
        // For the target only: build scripts and macros are not touched, as there is a `--target`.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CFLAGS", c_flags.join(" "))
        .env("SOURCE_DATE_EPOCH", place.epoch.to_string());
    sh::run(cargo.args(build))?;
    let program = place.target_dir.join(host).join("release/tcptrace");
    let bytes = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    for (path, _) in &paths {
        if contains(&bytes, path.as_bytes()) {
            bail!("{} names the directory {path}, in which it was built", program.display());
        }
    }
    Ok(program)
}

/// Directories of this machine that the compiler sees, and what it is to call them.
fn paths(place: &Place) -> Result<Vec<(String, String)>> {
    let sysroot = sh::output(sh::clean("rustc").args(["--print", "sysroot"]))?;
    let version = sh::output(sh::clean("rustc").arg("-vV"))?;
    let commit = version
        .lines()
        .find_map(|line| line.strip_prefix("commit-hash: "))
        .context("rustc does not say from which commit it is")?;
    let text = |path: PathBuf| {
        path.into_os_string()
            .into_string()
            .map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.to_string_lossy()))
    };
    let registry = sh::cargo_home().context("there is no home directory")?;
    let mut paths = vec![
        (text(registry)?, "/cargo".to_owned()),
        (format!("{sysroot}/lib/rustlib/src/rust"), format!("/rustc/{commit}")),
        (text(place.workspace.clone())?, "/tcptrace".to_owned()),
    ];
    if !place.target_dir.starts_with(&place.workspace) {
        paths.push((text(place.target_dir.clone())?, "/tcptrace/target".to_owned()));
    }
    Ok(paths)
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
