//! Building a program of this workspace: with a word each few seconds, and one clear line if what is
//! wrong is the machine rather than the code.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{failure::Failure, progress, sh};

/// How it is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// Quickly, as tests are.
    Dev,
    /// As packages are.
    Release,
}

/// What is built: a package's program of the same name.
#[derive(Debug)]
pub struct Build<'a> {
    /// The package.
    pub package: &'a str,
    /// Its features; `None` for the default.
    pub features: Option<&'a [&'a str]>,
    /// How it is compiled.
    pub profile: Profile,
    /// The directory below cargo's target directory that it is put into, if not that itself: where
    /// another build of the same program, with other features, must stay.
    pub apart: Option<&'a str>,
}

impl Build<'_> {
    /// Builds it and returns where it is.
    ///
    /// # Errors
    /// If it does not build. What cargo says of an error in the code is shown; where the machine
    /// lacks something, the error says what and how to get it.
    pub fn run(&self) -> Result<PathBuf> {
        let target_dir = sh::target_dir()?;
        let place = self.apart.map_or_else(|| target_dir.clone(), |apart| target_dir.join(apart));
        let mut command = self.command()?;
        command.env("CARGO_TARGET_DIR", &place);
        if self.apart.is_some() {
            // Only the program: what it is built from is shared.
            command.env("CARGO_BUILD_BUILD_DIR", &target_dir);
        }
        let mut cargo = command
            .envs(progress::environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let said = cargo.stderr.take().context("a piped output is not there")?;
        let mut messages = cargo.stdout.take().context("a piped output is not there")?;
        let messages = thread::spawn(move || {
            let mut text = String::new();
            messages.read_to_string(&mut text).map(|_| text)
        });
        let held = progress::watch(said)?;
        let status = cargo.wait().context("waiting for cargo")?;
        if !status.success() {
            let text: String = held.iter().map(|line| progress::plain(line) + "\n").collect();
            match Failure::of(&text, &target_dir) {
                Some(failure) => bail!("{failure}"),
                None => {
                    sh::say(&held.join("\n"));
                    bail!("cannot build {}: see above ({status})", self.package);
                }
            }
        }
        // Such as a download that worked at the second attempt.
        if !held.is_empty() {
            sh::say(&held.join("\n"));
        }
        let messages = match messages.join() {
            Ok(read) => read.context("reading what cargo built")?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // Cargo alone knows: a target that is configured is part of the path.
        let program = messages.lines().find_map(|line| executable(line, self.package));
        program.with_context(|| format!("cargo does not say where it put {}", self.package))
    }

    fn command(&self) -> Result<Command> {
        let mut command = sh::cargo();
        command.current_dir(sh::workspace()?).args(["build", "--locked"]);
        command.args(["--package", self.package, "--bin", self.package]);
        command.args(["--message-format", "json-render-diagnostics"]);
        if self.profile == Profile::Release {
            command.arg("--release");
        }
        if let Some(features) = self.features {
            command.arg("--no-default-features");
            if !features.is_empty() {
                command.args(["--features", &features.join(",")]);
            }
        }
        Ok(command)
    }
}

/// The program in one of cargo's messages, if it is that of `package`.
///
/// The one string that is needed of all messages is no reason to compile a JSON parser, for which
/// whoever types `cargo xtask` the first time would wait.
fn executable(message: &str, package: &str) -> Option<PathBuf> {
    if !message.contains(&format!(r#""name":"{package}""#)) {
        return None;
    }
    let (_, rest) = message.split_once(r#""executable":""#)?;
    let mut path = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(path.into()),
            // In a path on Linux serde_json escapes only these and control characters.
            '\\' => match chars.next()? {
                c @ ('"' | '\\') => path.push(c),
                _ => return None,
            },
            c => path.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_the_program_is() {
        let message = |name, executable| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["bin"],"name":"{name}"}},"executable":{executable},"fresh":true}}"#
            )
        };
        let path = r#""/a \"b\" \\c/x/debug/tcptrace""#;
        let found = executable(&message("tcptrace", path), "tcptrace");
        assert_eq!(found.unwrap().to_str(), Some(r#"/a "b" \c/x/debug/tcptrace"#));
        assert_eq!(executable(&message("tcptrace-view", path), "tcptrace"), None);
        assert_eq!(executable(&message("tcptrace", "null"), "tcptrace"), None);
    }
}
