//! The cache of fetched kernels: one directory a line, holding the newest release that was fetched.
//!
//! Layout: `apt/SUITE/…` (indexes), `kernels/LINE/RELEASE/…` (an unpacked package without what no
//! guest needs), `kernels/LINE/lock`. Never installs anything.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{Index, Mirror},
    host,
    kernel::{self, Kernel},
    line::{Line, compare_releases},
};

/// Below `lib/modules/RELEASE/kernel`: what networking needs, a tenth of the whole.
const KEPT_MODULES: &[&str] = &["net", "lib", "crypto", "drivers/net"];

/// Kernels by line, from the cache or from the mirror.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Offline,
    /// Why there is no index to look into.
    Unknown(String),
    Mirror(Index),
}

/// The answer for a line.
#[derive(Debug)]
pub enum Fetched {
    /// The lock keeps other runs from replacing the kernel. The note says why it may not be the
    /// newest.
    Kernel { kernel: Kernel, note: Option<String>, lock: File },
    /// The mirror (or, offline, the cache) has no such line.
    NotAvailable(String),
}

impl Cache {
    /// Opens the cache in `dir`, with the index of the mirror (the host's own, if `None`) unless
    /// `offline`. A mirror that cannot be reached is not an error here: what is cached still boots.
    pub fn open(dir: &Path, mirror: Option<&str>, lines: &[Line], offline: bool) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        let apt = dir.join("apt");
        fs::create_dir_all(&apt).with_context(|| {
            format!("cannot make {} (--cache DIR names another place)", apt.display())
        })?;
        if offline {
            return Ok(Self { dir, source: Source::Offline });
        }
        host::require(&[("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg")])?;
        let _lock = lock(&apt.join("lock"))?;
        let mirror = match mirror {
            Some(uri) => Ok(Mirror::at(uri)),
            None => Mirror::of_host(&apt.join("host")),
        };
        let source = match mirror.and_then(|mirror| Index::open(&mirror, &apt, lines)) {
            Ok(index) => Source::Mirror(index),
            Err(error) => Source::Unknown(format!("{error:#}")),
        };
        Ok(Self { dir, source })
    }

    /// Every line that the mirror or the cache has.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = match &self.source {
            Source::Mirror(index) => index.lines(),
            Source::Offline | Source::Unknown(_) => Vec::new(),
        };
        for dir in kernel::entries(&self.dir.join("kernels"))? {
            if let Some(line) = dir.file_name().and_then(|name| name.to_str()?.parse().ok())
                && newest_in(&dir)?.is_some()
            {
                lines.push(line);
            }
        }
        lines.sort_unstable();
        lines.dedup();
        Ok(lines)
    }

    /// The newest kernel of a line: from the mirror, else what is cached.
    ///
    /// # Errors
    ///
    /// If none is cached, and the mirror cannot be reached or its kernel cannot be had.
    pub fn get(&self, line: Line) -> Result<Fetched> {
        let dir = self.dir.join("kernels").join(line.to_string());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let lock = lock(&dir.join("lock"))?;
        let cached = newest_in(&dir)?;

        let found = match &self.source {
            Source::Mirror(index) => index.find(line),
            Source::Offline | Source::Unknown(_) => None,
        };
        let trouble = if let Some((suite, release)) = found {
            if let Some(kernel) = cached.as_ref().filter(|kernel| kernel.release == release) {
                return Ok(Fetched::Kernel { kernel: kernel.clone(), note: None, lock });
            }
            match install(&dir, &release, |into| suite.fetch(&release, into)) {
                Ok(kernel) => return Ok(Fetched::Kernel { kernel, note: None, lock }),
                Err(error) => Trouble::Failure(format!("{error:#}")),
            }
        } else {
            self.absence(line)
        };
        match (cached, trouble) {
            (Some(kernel), Trouble::Failure(why) | Trouble::Absence(why)) => {
                // Offline, the cache is what was asked for.
                let asked = matches!(self.source, Source::Offline);
                let note = (!asked).then(|| format!("from the cache: {why}"));
                Ok(Fetched::Kernel { kernel, note, lock })
            }
            (None, Trouble::Absence(why)) => Ok(Fetched::NotAvailable(why)),
            (None, Trouble::Failure(why)) => bail!("{why}"),
        }
    }

    /// Why a line is not in the index.
    fn absence(&self, line: Line) -> Trouble {
        match &self.source {
            Source::Offline => Trouble::Absence("not in the cache, and --offline".to_owned()),
            Source::Unknown(why) => Trouble::Failure(why.clone()),
            Source::Mirror(index) => match index.trouble() {
                Some(why) if index.unreachable() => Trouble::Failure(why.to_owned()),
                Some(why) => Trouble::Absence(format!("the mirror has no {line} kernel ({why})")),
                None => Trouble::Absence(format!("the mirror has no {line} kernel")),
            },
        }
    }
}

/// Why no kernel came from the mirror.
enum Trouble {
    /// It was asked, and has none.
    Absence(String),
    /// It could not be asked, or what it has could not be had.
    Failure(String),
}

/// Waits for other runs. The lock is held as long as the file is open.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// The newest kernel that was fetched into the directory of a line.
fn newest_in(dir: &Path) -> Result<Option<Kernel>> {
    let mut newest: Option<Kernel> = None;
    for entry in kernel::entries(dir)? {
        // Also here: a lock, and what is left of a run that was interrupted.
        if !entry.is_dir() || is_temporary(&entry) {
            continue;
        }
        // One that is damaged is as good as none: it is fetched again.
        for kernel in Kernel::under(&entry).unwrap_or_default() {
            let newer = newest
                .as_ref()
                .is_none_or(|old| compare_releases(&kernel.release, &old.release).is_gt());
            if newer {
                newest = Some(kernel);
            }
        }
    }
    Ok(newest)
}

/// Puts a release into the directory of its line, in one step, and takes the others out.
fn install(dir: &Path, release: &str, fetch: impl FnOnce(&Path) -> Result<()>) -> Result<Kernel> {
    let unpacked = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempdir_in(dir)
        .with_context(|| format!("cannot make a directory in {}", dir.display()))?;
    fetch(unpacked.path())?;
    prune(unpacked.path())?;
    if Kernel::under(unpacked.path())?.iter().all(|kernel| kernel.release != release) {
        bail!("the package of {release} has no image of that kernel in it");
    }
    for old in kernel::entries(dir)? {
        if old.is_dir() && old != unpacked.path() {
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let home = dir.join(release);
    fs::rename(unpacked.path(), &home)
        .with_context(|| format!("cannot make {}", home.display()))?;
    let mut kernels = Kernel::under(&home)?;
    kernels.retain(|kernel| kernel.release == release);
    kernels.pop().with_context(|| format!("{release} vanished from {}", home.display()))
}

const TEMPORARY: &str = ".unpacking-";

fn is_temporary(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TEMPORARY))
}

/// Removes what no guest needs from an unpacked package: nine tenths of it.
fn prune(root: &Path) -> Result<()> {
    let keep = |dir: &Path, wanted: &dyn Fn(&str) -> bool| -> Result<()> {
        for entry in kernel::entries(dir)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if wanted(&name) {
                continue;
            }
            let removed = if entry.is_dir() && !entry.is_symlink() {
                fs::remove_dir_all(&entry)
            } else {
                fs::remove_file(&entry)
            };
            removed.with_context(|| format!("cannot remove {}", entry.display()))?;
        }
        Ok(())
    };
    keep(root, &|name| matches!(name, "boot" | "lib" | "usr"))?;
    keep(&root.join("boot"), &|name| name.starts_with("vmlinuz"))?;
    keep(&root.join("usr"), &|name| name == "lib")?;
    for lib in ["lib", "usr/lib"] {
        keep(&root.join(lib), &|name| name == "modules")?;
        for release in kernel::entries(&root.join(lib).join("modules"))? {
            let modules = release.join("kernel");
            keep(&modules, &|name| {
                KEPT_MODULES.iter().any(|kept| kept.split('/').next() == Some(name))
            })?;
            keep(&modules.join("drivers"), &|name| {
                KEPT_MODULES.contains(&format!("drivers/{name}").as_str())
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::kernel::test_image, *};

    fn put(root: &Path, release: &str) {
        let modules = root.join("lib/modules").join(release).join("kernel");
        for dir in ["net/ipv4", "drivers/net", "drivers/gpu", "sound"] {
            fs::create_dir_all(modules.join(dir)).unwrap();
            fs::write(modules.join(dir).join("some.ko"), "").unwrap();
        }
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(root.join("usr/share/doc")).unwrap();
        fs::write(root.join("boot").join(format!("vmlinuz-{release}")), test_image(release))
            .unwrap();
        fs::write(root.join("boot/System.map"), "").unwrap();
    }

    #[test]
    fn the_newest_release_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        for release in ["6.1.0-9-x", "6.1.0-10-x"] {
            let fetch = |into: &Path| {
                put(into, release);
                Ok(())
            };
            install(dir.path(), release, fetch).unwrap();
            assert_eq!(newest_in(dir.path()).unwrap().unwrap().release, release);
        }
        let left: Vec<_> = kernel::entries(dir.path()).unwrap();
        assert_eq!(left, [dir.path().join("6.1.0-10-x")]);
        let modules = left[0].join("lib/modules/6.1.0-10-x/kernel");
        assert!(modules.join("net/ipv4/some.ko").exists() && modules.join("drivers/net").exists());
        assert!(!modules.join("sound").exists() && !modules.join("drivers/gpu").exists());
        assert!(!left[0].join("boot/System.map").exists() && !left[0].join("usr/share").exists());
    }

    #[test]
    fn a_failed_fetch_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let good = |into: &Path| {
            put(into, "6.1.0-9-x");
            Ok(())
        };
        install(dir.path(), "6.1.0-9-x", good).unwrap();
        let error = install(dir.path(), "6.1.0-10-x", |_| bail!("disk full")).unwrap_err();
        assert_eq!(error.to_string(), "disk full");
        let error = install(dir.path(), "6.1.0-10-x", |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("no image"), "{error}");
        assert_eq!(kernel::entries(dir.path()).unwrap(), [dir.path().join("6.1.0-9-x")]);
        assert_eq!(newest_in(dir.path()).unwrap().unwrap().release, "6.1.0-9-x");
    }

    #[test]
    fn offline_only_the_cache_counts() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("kernels/6.1/6.1.0-9-x");
        fs::create_dir_all(&home).unwrap();
        put(&home, "6.1.0-9-x");
        let cache = Cache::open(dir.path(), None, &[], true).unwrap();
        assert_eq!(cache.lines().unwrap(), [Line::new(6, 1)]);
        assert!(matches!(cache.get(Line::new(6, 1)).unwrap(), Fetched::Kernel { .. }));
        assert!(matches!(cache.get(Line::new(6, 2)).unwrap(), Fetched::NotAvailable(_)));
        fs::write(home.join("boot/vmlinuz-6.1.0-9-x"), "damaged").unwrap();
        assert!(matches!(cache.get(Line::new(6, 1)).unwrap(), Fetched::NotAvailable(_)));
    }
}
