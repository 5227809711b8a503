//! Building a program of this workspace: with a word each few seconds, and one clear line if what is
//! wrong is the machine rather than the code.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
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
        if self.apart.is_some() {
            // Only the program: what it is built from is shared.
            command.env("CARGO_TARGET_DIR", &place).env("CARGO_BUILD_BUILD_DIR", &target_dir);
        }
        let mut cargo = command
            .envs(progress::environment())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let said = cargo.stderr.take().context("a piped output is not there")?;
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
        let profile = match self.profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        Ok(place.join(profile).join(self.package))
    }

    fn command(&self) -> Result<Command> {
        let mut command = sh::cargo();
        command.current_dir(sh::workspace()?).args(["build", "--locked"]);
        command.args(["--package", self.package, "--bin", self.package]);
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
