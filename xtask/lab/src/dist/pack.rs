//! Packing what is staged: a tarball, a Debian package, an RPM package, and the checksums of all.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use super::{
    build,
    place::{Place, files, is},
};
use crate::sources;

/// The name of the file with the checksums, which `sha256sum --check` reads.
pub(super) const CHECKSUMS: &str = "SHA256SUMS";

/// What goes beside the program in the tarball, as it is in the tree.
const BESIDE: [&str; 6] =
    ["README.md", "CHANGELOG.md", "docs", "deploy", "LICENSE-APACHE", "LICENSE-MIT"];

/// A way to hand it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For any Linux of this architecture
    Tarball,
    /// For Debian and its relatives
    Deb,
    /// For Fedora, RHEL, SUSE and their relatives
    Rpm,
}

impl Format {
    /// What cannot be made for lack of a tool, and how to get that; `None` if it can.
    pub(super) fn missing(self) -> Option<String> {
        let (tool, what) = match self {
            Self::Tarball => return None,
            Self::Deb => ("cargo-deb", "the Debian package"),
            Self::Rpm => ("cargo-generate-rpm", "the RPM package"),
        };
        sh::which(tool).is_none().then(|| {
            format!("{what}: {tool} is not installed (`cargo xtask setup --dist` brings it)")
        })
    }

    /// Packs what is staged, and returns the file.
    pub(super) fn pack(self, place: &Place) -> Result<PathBuf> {
        match self {
            Self::Tarball => tarball(place),
            Self::Deb => {
                // What it packs is staged already, and stripped.
                let deb = [
                    "deb",
                    "--quiet",
                    "--no-build",
                    "--no-strip",
                    "--package",
                    "tcptrace",
                    "--output",
                ];
                let mut cargo = sh::cargo();
                cargo.args(deb).arg(&place.out);
                by_cargo(place, cargo, "deb")
            }
            Self::Rpm => {
                let rpm = ["generate-rpm", "--package", "tcptrace", "--auto-req", "disabled"];
                let mut cargo = sh::cargo();
                cargo.args(rpm).arg("--output").arg(&place.out);
                by_cargo(place, cargo, "rpm")
            }
        }
    }
}

/// Packs it by a subcommand of cargo, whose file ends in `extension`.
fn by_cargo(place: &Place, mut cargo: std::process::Command, extension: &str) -> Result<PathBuf> {
    cargo
        .current_dir(&place.workspace)
        .env("CARGO_TARGET_DIR", place.workspace.join("target"))
        .env("SOURCE_DATE_EPOCH", place.epoch.to_string());
    sh::say(&format!("dist: packing the .{extension} takes up to half a minute"));
    sh::run(&mut cargo)?;
    let file = files(&place.out)?.into_iter().find(|file| is(file, extension));
    file.with_context(|| format!("no .{extension} came of it in {}", place.out.display()))
}

fn tarball(place: &Place) -> Result<PathBuf> {
    let name = format!("tcptrace-{}-{}", env!("CARGO_PKG_VERSION"), build::host()?);
    let file = place.out.join(format!("{name}.tar.gz"));
    let same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
    let mut tar = sh::clean("tar");
    tar.args(["--create", "--use-compress-program=gzip -9n", "--file"])
        .arg(&file)
        .args(same)
        .arg(format!("--mtime=@{}", place.epoch))
        // Whatever the umask of the clone.
        .arg("--mode=u=rwX,go=rX")
        .arg(format!("--transform=s,^,{name}/,"))
        .arg("--directory")
        .arg(place.stage())
        .args(["bin", "share", "--directory"])
        .arg(&place.workspace)
        .args(BESIDE);
    sh::run(&mut tar)?;
    Ok(file)
}

/// Writes the SHA-256 of each package in `out` beside them.
pub(super) fn checksums(out: &Path) -> Result<()> {
    let mut text = String::new();
    for file in files(out)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        // Two blanks, as sha256sum has it; writing to a String cannot fail.
        let _ = writeln!(text, "{}  {name}", sources::sha256(&bytes));
    }
    if text.is_empty() {
        bail!("no package was made");
    }
    fs::write(out.join(CHECKSUMS), text).context("cannot write the checksums")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Where each file goes, with its mode; the same whatever the package.
    fn normal(source: &str, dest: &str, mode: &str) -> (String, String, String) {
        let source = source.trim_start_matches("../").to_owned();
        let dest = dest.trim_start_matches('/');
        let dest = dest.replace("zsh/vendor-completions", "zsh/site-functions");
        (source, dest, mode.to_owned())
    }

    #[test]
    fn both_packages_have_the_same_files() {
        let manifest: toml::Table =
            toml::from_str(include_str!("../../../../tcptrace/Cargo.toml")).unwrap();
        let metadata = &manifest["package"]["metadata"];
        let assets = |package: &str| metadata[package]["assets"].as_array().unwrap().clone();
        let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
        let deb: BTreeSet<_> = assets("deb")
            .iter()
            .map(|asset| normal(&text(&asset[0]), &text(&asset[1]), &text(&asset[2])))
            .collect();
        let mut rpm: BTreeSet<_> = assets("generate-rpm")
            .iter()
            .map(|a| normal(&text(&a["source"]), &text(&a["dest"]), &text(&a["mode"])))
            .collect();
        // Debian has one file of copyright, which cargo-deb writes.
        rpm.retain(|(_, dest, _)| !dest.contains("usr/share/licenses/"));
        assert_eq!(deb, rpm);
        assert_eq!(metadata["deb"]["name"], metadata["generate-rpm"]["name"]);
        for (source, _, _) in deb {
            if !source.starts_with("target/") && !source.contains('*') {
                let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
                assert!(workspace.join(&source).is_file(), "{source}");
            }
        }
    }
}
