//! The files by which sysctls are set at boot (sysctl.d(5)), as bytes. What is in them is not
//! understood here.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Where systemd and procps look.
const DIRECTORIES: [&str; 4] =
    ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
const CONF: &str = "/etc/sysctl.conf";
/// Bytes of a file that are read.
const LONGEST: u64 = 1 << 20;
/// Files of a directory that are read.
const MAX_FILES: usize = 1000;

/// The first MiB of a file, and whether there is more.
///
/// # Errors
/// What the kernel answered.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut text)?;
    let more = text.len() as u64 > LONGEST;
    text.truncate(usize::try_from(LONGEST).unwrap_or(usize::MAX));
    Ok((text, more))
}

/// The files of this host, each once, with what is in them or why that cannot be read. Paths are
/// untrusted text.
pub fn all() -> Vec<(PathBuf, io::Result<Vec<u8>>)> {
    under(Path::new("/"))
}

fn under(root: &Path) -> Vec<(PathBuf, io::Result<Vec<u8>>)> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let mut paths = vec![at(CONF)];
    for directory in DIRECTORIES {
        let Ok(entries) = fs::read_dir(at(directory)) else { continue };
        let named = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let conf = named.filter(|path| path.extension().is_some_and(|name| name == "conf"));
        let mut conf: Vec<_> = conf.take(MAX_FILES).collect();
        conf.sort();
        paths.append(&mut conf);
    }
    // 99-sysctl.conf is a link to sysctl.conf on some hosts.
    let mut told = HashSet::new();
    paths
        .into_iter()
        .filter(|path| path.is_file())
        .filter(|path| path.canonicalize().is_ok_and(|real| told.insert(real)))
        .map(|path| {
            let text = read(&path).map(|(text, _)| text);
            (path, text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_found_once_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/sysctl.d");
        fs::create_dir_all(directory.join("dir.conf")).unwrap();
        fs::write(root.path().join("etc/sysctl.conf"), "a = 1\n").unwrap();
        fs::write(directory.join("10-x.conf"), "b = 2\n").unwrap();
        fs::write(directory.join("README"), "c = 3\n").unwrap();
        std::os::unix::fs::symlink("../sysctl.conf", directory.join("99-sysctl.conf")).unwrap();
        let found = under(root.path());
        let texts: Vec<_> = found.iter().map(|(_, text)| text.as_ref().unwrap()).collect();
        assert_eq!(texts, [b"a = 1\n", b"b = 2\n"]);
    }

    #[test]
    fn a_file_is_read_to_a_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![b'x'; (1 << 20) + 1]).unwrap();
        let (text, more) = read(file.path()).unwrap();
        assert_eq!((text.len(), more), (1 << 20, true));
        assert!(read(Path::new("/no/such")).is_err());
    }
}
