//! The host's own tools: naming the package of the missing ones, running them quietly with errors
//! fit for a row of a table (those of [`xtask::sh`] quote the whole command line).
//!
//! Must not know what the tools are for.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use xtask::sh::which;

/// Fails with one line that names the Debian package of every tool in `tools` (pairs of tool and
/// package) that is not there.
pub fn require(tools: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|(tool, _)| which(tool).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    bail!(
        "not found in PATH: {}; install the Debian package{} {}",
        names.join(", "),
        if packages.len() == 1 { "" } else { "s" },
        packages.join(" ")
    );
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
///
/// One line: the command's name and the last line it wrote to standard error.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_owned();
    let name = name.to_string_lossy();
    let out = command
        .stdin(Stdio::null())
        // Messages are shown to the user, but some are also looked at.
        .env("LC_ALL", "C.UTF-8")
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !out.status.success() {
        bail!("{name}: {}", complaint(&out.stderr).unwrap_or_else(|| out.status.to_string()));
    }
    Ok(out.stdout)
}

/// The line of a tool's standard error that says most: that the disk is full, which tools mention
/// on their way to an error, else the first that calls itself an error, else the last.
fn complaint(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines
        .clone()
        .find(|line| line.contains("No space left"))
        .or_else(|| lines.clone().find(|line| line.starts_with("E: ")))
        .or_else(|| lines.next_back())?;
    Some(line.trim_start_matches("E: ").to_owned())
}

/// Where fetched kernels stay: `$VM_CACHE`, else `$XDG_CACHE_HOME/tcptrace-vm`, which `cargo clean`
/// does not touch.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("VM_CACHE").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir));
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("tcptrace-vm"));
    }
    match std::env::var_os("HOME").filter(|dir| !dir.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".cache/tcptrace-vm")),
        None => bail!("neither XDG_CACHE_HOME nor HOME is set; say where with --cache DIR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let tools = [("sh", "dash"), ("no-such-tool", "no-such-package"), ("nor-this", "other")];
        let error = require(&tools).unwrap_err().to_string();
        assert_eq!(
            error,
            "not found in PATH: no-such-tool, nor-this; \
             install the Debian packages no-such-package other"
        );
    }

    #[test]
    fn an_error_is_one_line_with_the_tools_own_words() {
        let script = "echo first >&2; echo 'E: the reason' >&2; echo last >&2; exit 3";
        let error = output(Command::new("sh").args(["-c", script])).unwrap_err().to_string();
        assert_eq!(error, "sh: the reason");
        let script = "echo 'tar: x: No space left on device' >&2; echo 'E: tar failed' >&2; exit 1";
        let error = output(Command::new("sh").args(["-c", script])).unwrap_err().to_string();
        assert_eq!(error, "sh: tar: x: No space left on device");
        let error = output(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "sh: exit status: 3");
    }
}
