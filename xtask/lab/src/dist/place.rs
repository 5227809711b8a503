//! Where packages are made, and the time that their files get.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use xtask::sh;

/// From where and to where.
pub(super) struct Place {
    /// The root of the workspace.
    pub(super) workspace: PathBuf,
    /// What is made. Below it, `stage` has the files of the packages: tcptrace/Cargo.toml names them
    /// there.
    pub(super) out: PathBuf,
    /// Where it is compiled.
    pub(super) target_dir: PathBuf,
    /// The time of all files, seconds since 1970.
    pub(super) epoch: u64,
}

impl Place {
    /// This workspace.
    pub(super) fn here() -> Result<Self> {
        let workspace = sh::workspace()?;
        let epoch = epoch(&workspace)?;
        Ok(Self {
            out: workspace.join("target/dist"),
            target_dir: sh::target_dir()?,
            workspace,
            epoch,
        })
    }

    /// Where the files of the packages are put together.
    pub(super) fn stage(&self) -> PathBuf {
        self.out.join("stage")
    }
}

/// The files in `directory`, by name.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("listing {}", directory.display()))? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether the name of `file` ends in `.extension`.
pub(super) fn is(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|of_file| of_file == extension)
}

/// The time that all files get: `SOURCE_DATE_EPOCH`, else that of the last commit.
fn epoch(workspace: &Path) -> Result<u64> {
    if let Some(given) = env::var_os("SOURCE_DATE_EPOCH") {
        let given = given.to_string_lossy();
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH is '{given}'"));
    }
    let mut git = sh::clean("git");
    git.current_dir(workspace).args(["log", "-1", "--format=%ct"]);
    match sh::output(&mut git) {
        Ok(seconds) => seconds.parse().with_context(|| format!("git says '{seconds}'")),
        Err(error) => {
            sh::say(&format!("dist: files are dated 1970, since no commit says when: {error:#}"));
            Ok(0)
        }
    }
}
