//! The hash of everything in this repository that decides the bytes of the kernel objects, so that
//! a stale object is found without a BPF tool chain. It builds nothing.
//!
//! SHA-256 over these parts, each as `name NUL length-in-decimal NUL content`:
//!
//! 1. every `Cargo.toml` and `*.rs` file of [`CRATES`], in byte order of their paths from the
//!    workspace's root, which are the names;
//! 2. `Cargo.lock`: the packages that [`CRATES`] depend on, in order, one a line as
//!    `name version checksum`;
//! 3. `Cargo.toml`: what the root manifest says about them, as canonical TOML: `[profile.bpf]`,
//!    `[workspace.package]`, and those packages' lines of `[workspace.dependencies]`;
//! 4. `flags`: the compiler's flags, one a line.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The crates of this workspace that are compiled into an object.
const CRATES: [&str; 2] = ["tcptrace-common", "tcptrace-ebpf"];

/// The hash of the sources under `workspace`, built with `flags`; in hexadecimal.
///
/// # Errors
/// If a file cannot be read, or `Cargo.lock` lacks one of the crates.
pub fn hash(workspace: &Path, flags: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for name in CRATES {
        list(&workspace.join(name), &mut files)?;
    }
    let mut parts = Vec::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(workspace)?.to_string_lossy().into_owned();
        parts.push((name, content));
    }
    parts.sort();

    let lock: Lock = parse(&workspace.join("Cargo.lock"))?;
    let packages = closure(&lock)?;
    let lines: String = packages.iter().map(|package| package.line()).collect();
    parts.push(("Cargo.lock".to_owned(), lines.into_bytes()));

    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let manifest = relevant(parse(&workspace.join("Cargo.toml"))?, &names);
    parts.push(("Cargo.toml".to_owned(), toml::to_string(&manifest)?.into_bytes()));

    parts.push(("flags".to_owned(), flags.join("\n").into_bytes()));
    Ok(hash_parts(&parts))
}

/// SHA-256 of `bytes` in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hash_parts(parts: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, content) in parts {
        hash.update(name);
        hash.update([0]);
        hash.update(content.len().to_string());
        hash.update([0]);
        hash.update(content);
    }
    hexadecimal(&hash.finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Adds the manifests and the Rust files under `dir`, leaving out build directories.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                list(&path, files)?;
            }
        } else if path.ends_with("Cargo.toml") || path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Package {
    fn line(&self) -> String {
        let checksum = self.checksum.as_deref().unwrap_or("-");
        format!("{} {} {checksum}\n", self.name, self.version)
    }

    /// Whether a `dependencies` entry, `name` or `name version` or `name version (source)`, is it.
    fn is(&self, entry: &str) -> bool {
        let mut words = entry.split(' ');
        words.next() == Some(&self.name)
            && words.next().is_none_or(|version| version == self.version)
    }
}

/// [`CRATES`] and all that they depend on.
fn closure(lock: &Lock) -> Result<BTreeSet<&Package>> {
    let mut found = BTreeSet::new();
    let mut wanted: Vec<&str> = CRATES.to_vec();
    while let Some(entry) = wanted.pop() {
        let package = lock
            .package
            .iter()
            .find(|package| package.is(entry))
            .with_context(|| format!("Cargo.lock has no package {entry}"))?;
        if found.insert(package) {
            wanted.extend(package.dependencies.iter().map(String::as_str));
        }
    }
    Ok(found)
}

/// What the root manifest says about the packages named.
fn relevant(mut manifest: toml::Table, names: &BTreeSet<&str>) -> toml::Table {
    let mut take = |table: &str, key: &str| -> toml::Table {
        let table = manifest.get_mut(table).and_then(toml::Value::as_table_mut);
        match table.and_then(|table| table.remove(key)) {
            Some(toml::Value::Table(table)) => table,
            _ => toml::Table::new(),
        }
    };
    let mut dependencies = take("workspace", "dependencies");
    dependencies.retain(|name, _| names.contains::<str>(name));
    toml::Table::from_iter([
        ("dependencies".to_owned(), toml::Value::Table(dependencies)),
        ("package".to_owned(), toml::Value::Table(take("workspace", "package"))),
        ("profile".to_owned(), toml::Value::Table(take("profile", "bpf"))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_is_that_of_the_standard() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn moving_bytes_between_files_changes_the_hash() {
        let parts = |a: &str, b: &str| {
            hash_parts(&[("a".to_owned(), a.into()), ("b".to_owned(), b.into())])
        };
        assert_ne!(parts("xy", "z"), parts("x", "yz"));
        assert_eq!(parts("xy", "z"), parts("xy", "z"));
    }

    #[test]
    fn only_what_the_object_depends_on_counts() {
        let lock: Lock = toml::from_str(
            r#"
            [[package]]
            name = "tcptrace-common"
            version = "0.1.0"
            [[package]]
            name = "tcptrace-ebpf"
            version = "0.1.0"
            dependencies = ["tcptrace-common", "twice 2.0.0"]
            [[package]]
            name = "tokio"
            version = "1.0.0"
            checksum = "aa"
            [[package]]
            name = "twice"
            version = "1.0.0"
            checksum = "bb"
            [[package]]
            name = "twice"
            version = "2.0.0"
            checksum = "cc"
            "#,
        )
        .unwrap();
        let lines: Vec<String> = closure(&lock).unwrap().iter().map(|p| p.line()).collect();
        assert_eq!(
            lines,
            ["tcptrace-common 0.1.0 -\n", "tcptrace-ebpf 0.1.0 -\n", "twice 2.0.0 cc\n"]
        );

        let manifest = toml::toml! {
            [workspace.dependencies]
            tokio = "1"
            twice = "2"
            [profile.release]
            lto = true
            [profile.bpf]
            opt-level = 3
        };
        let kept = relevant(manifest, &BTreeSet::from(["twice"])).to_string();
        assert!(kept.contains("twice = \"2\"") && kept.contains("opt-level = 3"), "{kept}");
        assert!(!kept.contains("tokio") && !kept.contains("lto"), "{kept}");
    }
}
