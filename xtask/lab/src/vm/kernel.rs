//! A kernel on disk: its image, its release, its modules. Reads unpacked packages and the like.
//!
//! Must not know where kernels come from, nor how they are booted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::host;

/// A kernel image and the directory of its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As the image itself says it: `6.1.0-56-cloud-amd64`.
    pub release: String,
    pub image: PathBuf,
    modules: Vec<PathBuf>,
}

/// A module as the guest loads it.
#[derive(Debug)]
pub struct Module {
    pub name: String,
    /// The object, not compressed.
    pub object: Vec<u8>,
}

impl Kernel {
    /// The kernel with this image, with modules in `lib/modules` or `usr/lib/modules` under `root`
    /// (a subdirectory named after the release, if there is one), or in `modules`.
    fn new(root: &Path, image: &Path) -> Result<Self> {
        let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
        let release = image_release(&bytes)
            .with_context(|| format!("{} is not a bootable x86 kernel image", image.display()))?;
        let modules = ["lib/modules", "usr/lib/modules", "modules"]
            .iter()
            .map(|dir| root.join(dir))
            .filter(|dir| dir.is_dir())
            .map(|dir| Some(dir.join(&release)).filter(|own| own.is_dir()).unwrap_or(dir))
            .collect();
        Ok(Self { release, image: image.to_owned(), modules })
    }

    /// The kernels under `root`, which is laid out like an unpacked package (or several unpacked
    /// into one place), or holds an image and perhaps a directory `modules`.
    ///
    /// # Errors
    ///
    /// If there is an image that cannot be read or does not boot. No image is not an error.
    pub fn under(root: &Path) -> Result<Vec<Self>> {
        let images = images(root)
            .with_context(|| format!("cannot look for kernels in {}", root.display()))?;
        images.iter().map(|image| Self::new(root, image)).collect()
    }

    /// The modules of `wanted` and all that they depend on, in an order in which they load, and
    /// the names of those that are not there (they may be built in).
    pub fn modules(&self, wanted: &[String]) -> Result<(Vec<Module>, Vec<String>)> {
        let mut files = BTreeMap::new();
        for dir in &self.modules {
            find_modules(dir, &mut files)
                .with_context(|| format!("cannot look for modules in {}", dir.display()))?;
        }
        let mut loader = Loader { files, loaded: Vec::new(), missing: Vec::new() };
        for name in wanted {
            loader.load(&name.replace('-', "_"))?;
        }
        Ok((loader.loaded, loader.missing))
    }
}

/// The kernel images under `root`.
fn images(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for dir in [root.to_owned(), root.join("boot")] {
        for entry in entries(&dir)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if (name.starts_with("vmlinuz") || name == "bzImage") && entry.is_file() {
                found.push(entry);
            }
        }
    }
    for dir in ["lib/modules", "usr/lib/modules"] {
        let inner = entries(&root.join(dir))?.into_iter().map(|dir| dir.join("vmlinuz"));
        found.extend(inner.filter(|image| image.is_file()));
    }
    // `/vmlinuz` and, on a merged-/usr system, `/lib` are links to what is listed already.
    let mut seen = Vec::new();
    found.retain(|image| {
        let Ok(real) = image.canonicalize() else { return false };
        let new = !seen.contains(&real);
        seen.push(real);
        new
    });
    Ok(found)
}

/// What is in a directory, sorted; nothing if there is no such directory.
pub fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The release in the header of a bzImage: see Documentation/arch/x86/boot.rst, `kernel_version`.
fn image_release(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes([*image.get(0x20e)?, *image.get(0x20f)?]);
    let text = image.get(usize::from(offset) + 0x200..)?;
    // "6.1.0-56-cloud-amd64 (builder) #1 SMP ...", and a NUL.
    let end = text.iter().position(|&byte| byte == b' ' || byte == 0)?;
    let release = str::from_utf8(&text[..end]).ok()?;
    // It names directories.
    let plain = release.chars().all(|c| c.is_ascii_graphic() && c != '/');
    (plain && release.starts_with(|c: char| c.is_ascii_digit())).then(|| release.to_owned())
}

/// Adds every module file under `dir` to `files`, by the module's name.
fn find_modules(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for path in entries(dir)? {
        // Not through links: an installed kernel's `build` leads out of its directory.
        if path.is_dir() && !path.is_symlink() {
            find_modules(&path, files)?;
        } else if let Some((name, ending)) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(".ko"))
            && (ending.is_empty() || decompressor(ending).is_some())
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The tool for a module with this ending, and its package.
fn decompressor(ending: &str) -> Option<(&'static str, &'static str)> {
    match ending {
        ".xz" => Some(("xz", "xz-utils")),
        ".zst" => Some(("zstd", "zstd")),
        ".gz" => Some(("gzip", "gzip")),
        _ => None,
    }
}

/// Depth-first, since packages hold no `modules.dep`: depmod writes it when they are installed.
struct Loader {
    files: BTreeMap<String, PathBuf>,
    loaded: Vec<Module>,
    missing: Vec<String>,
}

impl Loader {
    fn load(&mut self, name: &str) -> Result<()> {
        // Taken out of the map, so that a circle of dependencies comes to an end.
        let Some(file) = self.files.remove(name) else {
            let known = self.loaded.iter().any(|module| module.name == name);
            if !known && !self.missing.iter().any(|missing| missing == name) {
                self.missing.push(name.to_owned());
            }
            return Ok(());
        };
        let object = read_module(&file)?;
        for dependency in dependencies(&object) {
            self.load(&dependency)?;
        }
        self.loaded.push(Module { name: name.to_owned(), object });
        Ok(())
    }
}

fn read_module(file: &Path) -> Result<Vec<u8>> {
    let name = file.to_string_lossy();
    let tool = name.rsplit_once(".ko").and_then(|(_, ending)| decompressor(ending));
    let object = match tool {
        None => fs::read(file).with_context(|| format!("cannot read {name}"))?,
        Some((tool, package)) => {
            host::require(&[(tool, package)])?;
            host::output(Command::new(tool).arg("-dc").arg(file))
                .with_context(|| format!("cannot unpack {name}"))?
        }
    };
    if !object.starts_with(b"\x7fELF") {
        bail!("{name} is not a kernel module");
    }
    Ok(object)
}

/// What a module needs, from the entry `depends=a,b` of its `.modinfo` section.
fn dependencies(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = object[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// What looks like the image of a kernel with this release.
#[cfg(test)]
pub fn test_image(release: &str) -> Vec<u8> {
    let mut bytes = vec![0; 0x400];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    let text = format!("{release} (builder) #1 SMP\0");
    bytes[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{test_image as image, *};

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    fn write(file: PathBuf, bytes: &[u8]) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    #[test]
    fn an_unpacked_package_is_a_kernel_with_its_modules_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let release = "6.1.0-56-cloud-amd64";
        write(dir.path().join(format!("boot/vmlinuz-{release}")), &image(release));
        let modules = dir.path().join("lib/modules").join(release).join("kernel");
        write(modules.join("net/tcp_diag.ko"), &module("inet_diag"));
        write(modules.join("net/inet_diag.ko"), &module(""));
        write(modules.join("net/veth.ko"), &module("tcp-diag"));
        // Another kernel's module in the same place is not this one's.
        write(dir.path().join("lib/modules/6.2.0/other.ko"), &module(""));

        let kernels = Kernel::under(dir.path()).unwrap();
        assert_eq!(kernels.len(), 1);
        assert_eq!(kernels[0].release, release);
        let wanted = ["veth", "inet_diag", "other"].map(str::to_owned);
        let (loaded, missing) = kernels[0].modules(&wanted).unwrap();
        let names: Vec<_> = loaded.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["inet_diag", "tcp_diag", "veth"]);
        assert_eq!(missing, ["other"]);
    }

    #[test]
    fn a_kernel_of_ones_own_is_an_image_and_modules() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("vmlinuz"), &image("7.9.0-mine"));
        write(dir.path().join("modules/veth.ko"), &module(""));
        let kernels = Kernel::under(dir.path()).unwrap();
        assert_eq!(kernels[0].release, "7.9.0-mine");
        assert_eq!(kernels[0].modules(&["veth".to_owned()]).unwrap().0.len(), 1);
    }

    #[test]
    fn what_does_not_boot_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Kernel::under(dir.path()).unwrap().is_empty());
        write(dir.path().join("bzImage"), b"not a kernel");
        let error = format!("{:#}", Kernel::under(dir.path()).unwrap_err());
        assert!(error.ends_with("bzImage is not a bootable x86 kernel image"), "{error}");
        write(dir.path().join("bzImage"), &image("")[..0x300]);
        assert!(Kernel::under(dir.path()).is_err());
    }

    #[test]
    fn a_circle_of_modules_ends() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("vmlinuz"), &image("7.9.0-mine"));
        write(dir.path().join("modules/a.ko"), &module("b"));
        write(dir.path().join("modules/b.ko"), &module("a"));
        let kernels = Kernel::under(dir.path()).unwrap();
        let (loaded, missing) = kernels[0].modules(&["a".to_owned()]).unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(missing, ["a"]);
    }
}
