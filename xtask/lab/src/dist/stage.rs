//! The files of the packages, as they lie below `/usr`, made by the program and from the tree.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};

use xtask::sh;

use super::place::{Place, files};

/// Shells, and the file in which each looks for what completes a command.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/tcptrace"),
    ("zsh", "share/zsh/site-functions/_tcptrace"),
    ("fish", "share/fish/vendor_completions.d/tcptrace.fish"),
];

/// Makes all that goes into the packages besides what they take from the tree.
pub(super) fn fill(place: &Place, program: &[u8]) -> Result<()> {
    let stage = place.stage();
    let staged = stage.join("bin/tcptrace");
    put(&staged, program)?;
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o755))?;
    // The program itself: another of that name may not even run here.
    let pages = stage.join("share/man/man1");
    sh::output(sh::clean(&staged).args(["man", "--out"]).arg(&pages))?;
    for (shell, file) in COMPLETIONS {
        let script = sh::output(sh::clean(&staged).args(["completions", shell]))?;
        put(&stage.join(file), format!("{script}\n").as_bytes())?;
    }
    // Whatever the umask.
    for directory in [pages]
        .into_iter()
        .chain(COMPLETIONS.iter().filter_map(|(_, file)| Some(stage.join(file).parent()?.into())))
    {
        for file in files(&directory)? {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

fn put(file: &PathBuf, bytes: &[u8]) -> Result<()> {
    let failed = || format!("cannot write {}", file.display());
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    fs::write(file, bytes).with_context(failed)
}
