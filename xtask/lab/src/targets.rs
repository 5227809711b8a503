//! Which tests the workspace has, as cargo sees it: so that a new one is run without being named
//! anywhere. It runs none.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use xtask::sh;

/// The integration tests of `tcptrace` that load programs into this kernel: `kernel_tests` runs them.
pub const KERNEL: [&str; 2] = ["kernel", "cli"];

/// What is not a default member: it compiles only for the BPF target, and `build-ebpf` does that.
const NOT_FOR_THE_HOST: [&str; 1] = ["tcptrace-ebpf"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    targets: Vec<Target>,
    #[serde(default)]
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The names of all integration tests that need neither root nor BPF, each once.
///
/// # Errors
/// If cargo does not say; if a package would be forgotten, because it is not a default member; or
/// if a test has the name of one of [`KERNEL`], by which cargo would run both.
pub fn pure(workspace: &Path) -> Result<Vec<String>> {
    select(&metadata(workspace)?)
}

/// The cargo features of `tcptrace` other than `default`.
///
/// # Errors
/// If cargo does not say, or there are none.
pub fn features(workspace: &Path) -> Result<Vec<String>> {
    let packages = metadata(workspace)?.packages;
    let tcptrace = packages.into_iter().find(|package| package.name == "tcptrace");
    let mut features: Vec<_> =
        tcptrace.context("there is no package tcptrace")?.features.into_keys().collect();
    features.retain(|feature| feature != "default");
    if features.is_empty() {
        bail!("tcptrace has no features");
    }
    Ok(features)
}

fn metadata(workspace: &Path) -> Result<Metadata> {
    let text = sh::output(sh::cargo().current_dir(workspace).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ]))?;
    serde_json::from_str(&text).context("reading what cargo metadata says")
}

fn select(metadata: &Metadata) -> Result<Vec<String>> {
    let mut pure = BTreeSet::new();
    let mut kernel = BTreeSet::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if NOT_FOR_THE_HOST.contains(&name) {
            continue;
        }
        if !metadata.workspace_default_members.contains(&package.id) {
            bail!("{name} is not among the default-members of Cargo.toml: its tests would not run");
        }
        let tests = package.targets.iter().filter(|target| target.kind == ["test"]);
        for test in tests.map(|target| target.name.as_str()) {
            match (name, KERNEL.contains(&test)) {
                ("tcptrace", true) => kernel.insert(test),
                (_, true) => bail!("{name} has a test named {test}, as tcptrace has: rename it"),
                (_, false) => pure.insert(test),
            };
        }
    }
    if let Some(missing) = KERNEL.iter().find(|test| !kernel.contains(*test)) {
        bail!("tcptrace has no test named {missing}");
    }
    Ok(pure.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, tests: &[&str]) -> Package {
        let target = |name: &&str| Target { name: (*name).into(), kind: vec!["test".into()] };
        let lib = Target { name: name.to_owned(), kind: vec!["lib".into()] };
        let targets = [lib].into_iter().chain(tests.iter().map(target)).collect();
        Package {
            id: format!("{name}#1"),
            name: name.to_owned(),
            targets,
            features: BTreeMap::new(),
        }
    }

    fn metadata(packages: Vec<Package>) -> Metadata {
        let workspace_default_members = packages
            .iter()
            .filter(|package| !["tcptrace-ebpf", "stray"].contains(&package.name.as_str()))
            .map(|package| package.id.clone())
            .collect();
        Metadata { packages, workspace_default_members }
    }

    #[test]
    fn each_test_that_is_not_for_the_kernel_is_named() {
        let found = select(&metadata(vec![
            package("tcptrace", &["kernel", "cli", "memory"]),
            package("tcptrace-pipeline", &["recording"]),
            package("tcptrace-ebpf", &["no"]),
        ]));
        assert_eq!(found.unwrap(), ["memory", "recording"]);
    }

    #[test]
    fn nothing_is_forgotten_silently() {
        let refused = |packages| select(&metadata(packages)).unwrap_err().to_string();
        let kernel = || package("tcptrace", &["kernel", "cli"]);
        assert!(refused(vec![kernel(), package("stray", &["x"])]).contains("stray is not among"));
        assert!(refused(vec![package("tcptrace", &["cli"])]).contains("no test named kernel"));
        assert!(refused(vec![kernel(), package("tcptrace-top", &["cli"])]).contains("rename it"));
    }

    /// The tests that are there today, by their files.
    #[test]
    fn cargo_names_the_tests_of_this_workspace() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let found = pure(&workspace).unwrap();
        for test in ["memory", "recording"] {
            assert!(found.iter().any(|name| name == test), "{found:?}");
        }
        let features = features(&workspace).unwrap();
        assert!(features.iter().any(|name| name == "serve"), "{features:?}");
    }
}
