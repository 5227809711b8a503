//! Whether the same tree gives the same bytes: it is built twice, in directories of different names,
//! from nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use super::{
    build,
    pack::{CHECKSUMS, Format},
    packages::make,
    place::Place,
};

/// Of different lengths, so that a path that is padded or counted shows too.
const DIRECTORIES: [&str; 2] = ["first", "second-of-another-length"];

pub(super) fn run(place: &Place, formats: &[Format]) -> Result<ExitCode> {
    let below = place.target_dir.join("dist-check");
    if below.exists() {
        fs::remove_dir_all(&below).with_context(|| format!("cannot empty {}", below.display()))?;
    }
    let mut sums = Vec::new();
    for name in DIRECTORIES {
        let workspace = below.join(name);
        copy(&place.workspace, &workspace)?;
        let place = Place {
            out: workspace.join("target/dist"),
            target_dir: workspace.join("target"),
            workspace,
            epoch: place.epoch,
        };
        let program = build::program(&place)?;
        let missing = make(&place, &program, formats)?;
        if !missing.is_empty() {
            bail!("not made: {}", missing.join("; "));
        }
        sums.push(fs::read_to_string(place.out.join(CHECKSUMS))?);
    }
    let [first, second] = &sums[..] else { bail!("{} runs, not two", sums.len()) };
    if first != second {
        bail!(
            "the same tree gives different bytes; both are kept below {}:\n{first}and\n{second}",
            below.display()
        );
    }
    sh::say(&format!("dist: built twice, in two directories, with equal bytes:\n{first}"));
    fs::remove_dir_all(&below).with_context(|| format!("cannot empty {}", below.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Copies what git knows of, as it is now, changed or not.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let listed = sh::output(sh::clean("git").current_dir(from).args(["ls-files", "-z"]))?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (source, copy): (PathBuf, PathBuf) = (from.join(name), to.join(name));
        if !source.exists() {
            continue;
        }
        let failed = || format!("copying {}", source.display());
        if let Some(directory) = copy.parent() {
            fs::create_dir_all(directory).with_context(failed)?;
        }
        fs::copy(&source, &copy).with_context(failed)?;
    }
    Ok(())
}
