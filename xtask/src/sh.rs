//! Running other programs: each is echoed before it runs, and an error says what was run and what
//! it answered. It decides nothing about what to run.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::aside;

/// The workspace's root, wherever xtask was started from.
///
/// # Errors
/// If it was not started by cargo, which says where a package of it is.
pub fn workspace() -> Result<PathBuf> {
    // Cargo sets it at run time too; the path of compile time would be wrong after a move.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start it as `cargo xtask`")?;
    let is_root = |dir: &&Path| {
        fs::read_to_string(dir.join("Cargo.toml")).is_ok_and(|text| text.contains("[workspace]"))
    };
    let root = Path::new(&manifest).ancestors().find(is_root);
    let root =
        root.with_context(|| format!("no workspace around {}", manifest.to_string_lossy()))?;
    Ok(root.to_owned())
}

/// Cargo's target directory, wherever it is configured to be: cargo put xtask into
/// `<target>/<profile>`, and puts the others beside it.
///
/// # Errors
/// If this program's own place is not known.
pub fn target_dir() -> Result<PathBuf> {
    let xtask = env::current_exe().context("cannot tell where xtask is")?;
    let target = xtask.ancestors().nth(2).context("xtask is not in a target directory")?;
    Ok(target.to_owned())
}

/// A command free of what cargo set for xtask itself: with it, a child cargo would use xtask's
/// tool chain and flags instead of those that the step means.
///
/// What says how to reach a registry (`CARGO_HOME`, `CARGO_HTTP_*`, ...) and where to build stays.
#[must_use]
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    const SCRUBBED: [&str; 10] = [
        "CARGO",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    const SCRUBBED_PREFIXES: [&str; 6] = [
        "CARGO_BUILD_RUST",
        "CARGO_CFG_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "DEP_",
    ];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if SCRUBBED.contains(&text.as_ref())
            || SCRUBBED_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// The cargo that runs xtask, for what is built with the stable tool chain.
#[must_use]
pub fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = clean(cargo);
    // Kept, unlike for the kernel object: it is the tool chain that the caller chose.
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
}

/// Prints a line, or several, to standard error.
pub fn say(text: &str) {
    // Whoever has closed it does not want to know; the work goes on.
    let _ = writeln!(io::stderr(), "{}", aside::named(text));
}

/// Runs it with this terminal as its own; beside other work its lines are shown with a name.
///
/// # Errors
/// If it does not start or does not exit with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    say(&format!("+ {line}"));
    let status = if aside::is_aside() {
        aside::run(command, say).with_context(|| format!("cannot run `{line}`"))?
    } else {
        command.status().with_context(|| format!("cannot start `{line}`"))?
    };
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs it quietly and returns its standard output, trimmed.
///
/// # Errors
/// If it does not start or does not exit with 0; with the last line of what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let said = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
        bail!("`{line}` failed: {}; it said: {said}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs it, shows what it prints as it comes, and returns whether it exited with 0, and its
/// standard output.
///
/// # Errors
/// If it does not start, or what it says cannot be read.
pub fn listen(command: &mut Command) -> Result<(bool, String)> {
    let line = line(command);
    say(&format!("+ {line}"));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    let mut text = String::new();
    let stdout = child.stdout.take().context("a piped output is not there")?;
    for said in BufReader::new(stdout).lines() {
        let said = said.with_context(|| format!("reading what `{line}` says"))?;
        say(&said);
        text.push_str(&said);
        text.push('\n');
    }
    Ok((child.wait()?.success(), text))
}

/// Where cargo keeps what it downloads and installs.
#[must_use]
pub fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Where `program` is, by `PATH` and by the directories that a user's `PATH` often lacks.
#[must_use]
pub fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = cargo_home().map(|home| home.join("bin"));
    env::split_paths(&path)
        .chain(installed)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The command as one would type it: variables that it sets, program, arguments.
fn line(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!("{}={} ", name.to_string_lossy(), quoted(value)));
        }
    }
    line.push_str(&quoted(command.get_program()));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

fn quoted(text: &OsStr) -> String {
    // The separator of CARGO_ENCODED_RUSTFLAGS.
    let text = text.to_string_lossy().replace('\x1f', " ");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_command_and_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c 'echo no such thing >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3; it said: no such thing"), "{error}");
    }

    #[test]
    fn programs_are_found_by_their_name() {
        assert!(which("sh").is_some());
        assert_eq!(which("no-such-program-anywhere"), None);
    }
}
