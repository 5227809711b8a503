//! Children that do not outlive this process, whichever way it ends.

use std::{ffi::OsStr, process::Command};

/// A command that gets `signal` (by its name without `SIG`) when the thread that starts it ends, by
/// `PR_SET_PDEATHSIG`: by util-linux's setpriv, which becomes the program.
#[must_use]
pub fn bound(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}
