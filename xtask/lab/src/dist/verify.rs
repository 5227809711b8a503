//! What a package is worth is seen by unpacking it: by the programs that install it elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use super::{
    pack::Format,
    place::{Place, files},
};

/// Unpacks `file` and compares what is in it with what was staged. Without a program that unpacks it,
/// says so.
pub(super) fn unpacked(place: &Place, format: Format, file: &Path) -> Result<()> {
    let needed: &[&str] = match format {
        Format::Tarball => &["tar"],
        Format::Deb => &["dpkg-deb"],
        Format::Rpm => &["rpm", "rpmkeys", "rpm2cpio", "cpio"],
    };
    if let Some(lacking) = needed.iter().find(|program| sh::which(program).is_none()) {
        sh::say(&format!("dist: {} is not verified: there is no {lacking}", file.display()));
        return Ok(());
    }
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let to = directory.path();
    let prefix = match format {
        Format::Tarball => {
            sh::output(Command::new("tar").arg("-xzf").arg(file).arg("-C").arg(to))?;
            let mut entries = fs::read_dir(to)?;
            entries.next().context("the tarball is empty")??.path()
        }
        Format::Deb => {
            sh::output(Command::new("dpkg-deb").arg("--extract").arg(file).arg(to))?;
            to.join("usr")
        }
        Format::Rpm => {
            by_cpio(file, to)?;
            let said = sh::output(Command::new("rpm").args(["-qp", "--info", "--list"]).arg(file))?;
            for part in ["tcptrace-ebpf", env!("CARGO_PKG_VERSION"), "/usr/bin/tcptrace"] {
                if !said.contains(part) {
                    bail!("rpm -qp --info --list {} does not say {part}:\n{said}", file.display());
                }
            }
            to.join("usr")
        }
    };
    let program = prefix.join("bin/tcptrace");
    if fs::read(&program).ok() != fs::read(place.stage().join("bin/tcptrace")).ok() {
        bail!("{} has another program than the one that was staged", file.display());
    }
    let said = sh::output(sh::clean(&program).arg("--version"))?;
    if said != concat!("tcptrace ", env!("CARGO_PKG_VERSION")) {
        bail!("the program in {} says it is {said}", file.display());
    }
    let (pages, staged) = (pages(&prefix)?, pages(&place.stage())?);
    if pages != staged || pages.is_empty() {
        bail!("{} has the manual pages {pages:?} and not {staged:?}", file.display());
    }
    Ok(())
}

/// The names of manual pages below `prefix`, compressed or not.
fn pages(prefix: &Path) -> Result<Vec<String>> {
    let name = |page: PathBuf| {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(".gz").map_or(name.clone(), str::to_owned)
    };
    Ok(files(&prefix.join("share/man/man1"))?.into_iter().map(name).collect())
}

/// Unpacks an RPM package without a database of packages.
fn by_cpio(file: &Path, to: &Path) -> Result<()> {
    // The digests of header and payload; a signature is the distributor's business.
    sh::output(Command::new("rpmkeys").args(["--checksig", "--nosignature"]).arg(file))?;
    let archive = to.join("archive.cpio");
    let bytes = fs::File::create(&archive).context("cannot make a file for the archive")?;
    // Its exit status compares what it wrote with a tag, the size of the archive, that
    // cargo-generate-rpm leaves out; cpio notices an archive that is cut short.
    Command::new("rpm2cpio").arg(file).stdout(bytes).status().context("cannot start rpm2cpio")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--extract", "--make-directories", "--quiet"])
        .current_dir(to)
        .stdin(fs::File::open(&archive)?);
    if !cpio.status().context("cannot start cpio")?.success() {
        bail!("cpio does not unpack what rpm2cpio makes of {}", file.display());
    }
    Ok(())
}
