//! What the dependencies are held to (`deny.toml`): licenses, sources, versions, known vulnerabilities.
//!
//! The list of vulnerabilities is fetched each time; where it cannot be, the rest is proved all the
//! same, and the result says what is not.

use std::path::Path;

use anyhow::{Result, bail};

use xtask::sh;

use crate::outcome::Outcome;

/// What cargo-deny says of a list that it cannot fetch.
const NO_LIST: &str = "failed to fetch advisory database";

/// Checks them with cargo-deny.
pub fn check(workspace: &Path) -> Result<Outcome> {
    if sh::which("cargo-deny").is_none() {
        return Ok(Outcome::Skipped("cargo-deny is not installed".to_owned()));
    }
    let deny = || {
        let mut cargo = sh::cargo();
        cargo.current_dir(workspace).args(["deny", "--locked", "check"]);
        cargo
    };
    sh::run(deny().args(["bans", "licenses", "sources"]))?;
    let advisories = deny().arg("advisories").output()?;
    if advisories.status.success() {
        return Ok(Outcome::Passed);
    }
    let said = String::from_utf8_lossy(&advisories.stderr);
    if said.contains(NO_LIST) {
        return Ok(Outcome::Skipped(
            "known vulnerabilities: their list (RustSec's advisory-db) cannot be fetched here; the \
             rest passed"
                .to_owned(),
        ));
    }
    bail!("cargo deny check advisories:\n{said}")
}
