//! A small Debian with systemd, as a directory: made once by debootstrap and kept in the cache, then
//! unpacked, given the package and the checks, and packed for the guest.
//!
//! Must not know what is checked, nor how it is booted. All that needs root is done here, by root's
//! own programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use xtask::{root, sh};

use crate::vm::{apt::Mirror, cache, host};

/// What the guest has besides `minbase`: systemd, and what the checks are written in and call.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,python3-minimal";

/// What no check reads, nine tenths of it translations: under emulation each megabyte costs.
const LEFT_OUT: [&str; 5] = [
    "./var/cache/apt",
    "./var/lib/apt/lists",
    "./usr/share/locale",
    "./usr/share/i18n",
    "./usr/lib/x86_64-linux-gnu/gconv",
];

/// Says what is missing, with its package, before anything is begun.
pub fn require() -> Result<()> {
    host::require(&[
        ("debootstrap", "debootstrap"),
        ("chroot", "coreutils"),
        ("tar", "tar"),
        ("dpkg-deb", "dpkg"),
    ])?;
    root::command("true").map(drop)
}

/// A file of `xtask/lab/deploy-guest`.
pub fn guest_file(name: &str) -> Result<PathBuf> {
    Ok(sh::workspace()?.join("xtask/lab/deploy-guest").join(name))
}

/// The suite of this host, by the text of its `/etc/os-release`.
fn suite(os_release: &str) -> Result<String> {
    let value = |key| os_release.lines().find_map(|line| line.strip_prefix(key));
    let plain = |name: &str| name.trim_matches('"').to_owned();
    // Others have code names too, which no Debian mirror knows.
    match (value("ID=").map(plain), value("VERSION_CODENAME=").map(plain)) {
        (Some(id), Some(name)) if id == "debian" && !name.is_empty() => Ok(name),
        (id, _) => bail!(
            "/etc/os-release says {}, and no release of Debian: this takes a Debian machine",
            id.as_deref().unwrap_or("nothing")
        ),
    }
}

/// The root without the package, as a tarball in the cache, made if it is not there. Delete it to
/// have a newer one.
pub fn base(dir: &Path, mirror: Option<&str>, offline: bool) -> Result<PathBuf> {
    let file = "/etc/os-release";
    let suite = suite(&fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?)?;
    let home = dir.join("roots");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let _lock = cache::lock(&home.join("lock"))?;
    let tar = home.join(format!("{suite},{PACKAGES}.tar"));
    if tar.exists() {
        return Ok(tar);
    }
    if offline {
        bail!("{} is not in the cache, and --offline", tar.display());
    }
    let mirror = match mirror {
        Some(uri) => Mirror::at(uri),
        None => Mirror::of_host(&dir.join("apt/host"))?,
    };
    let root = Root::empty()?;
    let mut make = root::command("debootstrap")?;
    make.args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite])
        .arg(root.path())
        .arg(mirror.base(&suite));
    sh::run(&mut make).context("no Debian could be made; is the mirror reached?")?;
    let partial = tar.with_extension("partial");
    pack(root.path(), &partial, &[])?;
    fs::rename(&partial, &tar).with_context(|| format!("cannot make {}", tar.display()))?;
    Ok(tar)
}

/// A Debian in a directory of its own, which goes with it.
pub struct Root(Option<TempDir>, PathBuf);

impl Root {
    fn empty() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tcptrace-root-").tempdir()?;
        // Programs of other users run in it.
        sh::run(root::command("chmod")?.arg("755").arg(dir.path()))?;
        sh::run(root::command("chown")?.arg("root:root").arg(dir.path()))?;
        let path = dir.path().to_owned();
        Ok(Self(Some(dir), path))
    }

    /// Unpacks what [`base`] made.
    pub fn unpack(tar: &Path) -> Result<Self> {
        let root = Self::empty()?;
        sh::run(root::command("tar")?.arg("-xpf").arg(tar).arg("-C").arg(root.path()))?;
        Ok(root)
    }

    fn path(&self) -> &Path {
        &self.1
    }

    /// A program that runs in it.
    fn inside(&self, program: &str) -> Result<Command> {
        let mut command = root::command("chroot")?;
        command.arg(self.path()).args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
        Ok(command)
    }

    /// Installs a package as an administrator does, where no systemd runs.
    pub fn install(&self, package: &Path) -> Result<()> {
        self.put(package, "/opt/deploy/tcptrace.deb", "644")?;
        // It depends on nothing, so nothing is fetched.
        let install = ["--yes", "install", "/opt/deploy/tcptrace.deb"];
        sh::run(self.inside("apt-get")?.args(install))
            .context("the package cannot be installed in a small Debian")
    }

    /// Puts the checks there, and what has systemd run them.
    pub fn put_checks(&self, drop_in: Option<&Path>) -> Result<()> {
        self.put(&guest_file("check.py")?, "/opt/deploy/check.py", "755")?;
        let unit = "/etc/systemd/system/deploy-check.service";
        self.put(&guest_file("deploy-check.service")?, unit, "644")?;
        sh::run(self.inside("systemctl")?.args(["enable", "deploy-check.service"]))?;
        // The serial port is the checks' alone.
        sh::run(self.inside("systemctl")?.args(["mask", "serial-getty@ttyS0.service"]))?;
        if let Some(file) = drop_in {
            self.put(file, "/etc/systemd/system/tcptrace.service.d/drop-in.conf", "644")?;
        }
        Ok(())
    }

    fn put(&self, file: &Path, to: &str, mode: &str) -> Result<()> {
        let to = self.path().join(to.trim_start_matches('/'));
        sh::run(root::command("install")?.args(["-D", "--mode", mode]).arg(file).arg(to))
    }

    /// Packs it for the guest.
    pub fn pack(self, tar: &Path) -> Result<PathBuf> {
        pack(self.path(), tar, &LEFT_OUT)?;
        Ok(tar.to_owned())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What is root's only root can remove. What stays is in the directory for temporary files.
        if let Ok(mut remove) = root::command("rm") {
            let _ = sh::output(remove.args(["-rf", "--one-file-system"]).arg(&self.1));
        }
        drop(self.0.take());
    }
}

fn pack(root: &Path, tar: &Path, without: &[&str]) -> Result<()> {
    let mut command = root::command("tar")?;
    command.arg("-cpf").arg(tar).arg("-C").arg(root);
    command.args(without.iter().map(|path| format!("--exclude={path}/*"))).arg(".");
    sh::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_debians() {
        let text = "PRETTY_NAME=\"Debian 12\"\nID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(suite(text).unwrap(), "bookworm");
        let error = suite("ID=ubuntu\nVERSION_CODENAME=jammy\n").unwrap_err().to_string();
        assert!(error.contains("says ubuntu"), "{error}");
        assert!(suite("ID=debian\n").is_err() && suite("").is_err());
    }

    #[test]
    fn what_the_guest_runs_is_in_the_tree() {
        for name in ["init", "check.py", "deploy-check.service"] {
            assert!(guest_file(name).unwrap().is_file(), "{name}");
        }
    }
}
