//! Building a program with cargo and being told where it is.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What cargo built, in its own messages.
#[derive(Debug)]
pub struct Programs(String);

/// Runs a cargo command that builds. Arguments for rustc, behind `--`, come in `rustc`.
///
/// # Errors
/// If something does not build; what the compiler says was shown.
pub fn build(cargo: &mut Command, rustc: &[&str]) -> Result<Programs> {
    cargo.args(["--message-format", "json-render-diagnostics"]);
    if !rustc.is_empty() {
        cargo.arg("--").args(rustc);
    }
    let built =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !built.status.success() {
        bail!("it does not build: see above");
    }
    Ok(Programs(String::from_utf8_lossy(&built.stdout).into_owned()))
}

impl Programs {
    /// Where the program of the target `name` is, of a kind such as `bin` or `test`.
    ///
    /// # Errors
    /// If it was not built.
    pub fn find(&self, kind: &str, name: &str) -> Result<PathBuf> {
        let targets = self.0.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        targets
            .filter(|said| said["target"]["name"] == name && said["target"]["kind"][0] == kind)
            .find_map(|said| Some(PathBuf::from(said["executable"].as_str()?)))
            .with_context(|| format!("cargo built no {kind} `{name}`"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn cargo_says_where_the_programs_are() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"tcptrace"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"tcptrace"},"executable":"/t/tcptrace"}
{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}"#;
        let programs = Programs(messages.to_owned());
        assert_eq!(programs.find("test", "kernel").unwrap(), Path::new("/t/kernel-1"));
        assert_eq!(programs.find("bin", "tcptrace").unwrap(), Path::new("/t/tcptrace"));
        programs.find("bin", "kernel").unwrap_err();
        programs.find("lib", "tcptrace").unwrap_err();
    }
}
