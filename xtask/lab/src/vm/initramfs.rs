//! The guest's file system: a cpio archive, written here so that its files can belong to root
//! without anybody being root.
//!
//! Not compressed: under emulation, unpacking costs more time than loading what it saves.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

/// `S_IFDIR | 0755`, `S_IFREG | 0755`, `S_IFREG | 0644`, `S_IFCHR | 0600`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;

/// A cpio archive in the `newc` format: Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    /// Bytes written: members are aligned to four.
    written: usize,
    members: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An archive with `/dev/console` in it, without which the guest's first process has no output.
    pub fn new(out: W) -> io::Result<Self> {
        let mut archive = Self { out, written: 0, members: 0, directories: BTreeSet::new() };
        archive.parents("dev/console")?;
        archive.member("dev/console", CONSOLE, (5, 1), &[])?;
        Ok(archive)
    }

    /// Adds a program at `path` (with or without a leading `/`).
    pub fn program(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.add(path, PROGRAM, bytes)
    }

    /// Adds a plain file at `path`.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.add(path, FILE, bytes)
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) -> io::Result<()> {
        self.parents(&format!("{}/x", path.trim_matches('/')))
    }

    /// Ends the archive. More may follow it in the same file: the kernel reads archive by archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.member("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn add(&mut self, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        self.parents(path)?;
        self.member(path, mode, (0, 0), bytes)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        let mut ancestors: Vec<_> = Path::new(path).ancestors().skip(1).collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let ancestor = ancestor.to_string_lossy();
            if !ancestor.is_empty() && self.directories.insert(ancestor.clone().into_owned()) {
                self.member(&ancestor, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, mode: u32, dev: (u32, u32), bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len())
            .map_err(|_| io::Error::other(format!("{name} is too large for an initramfs")))?;
        self.members += 1;
        let mut header = String::from("070701");
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // inode, mode, uid, gid, links, mtime, size, device (2), device it is (2), name, checksum
        for field in [self.members, mode, 0, 0, 1, 0, size, 0, 0, dev.0, dev.1, name_size, 0] {
            write!(header, "{field:08X}").map_err(io::Error::other)?;
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(bytes)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..padding])
    }
}

/// A word of a shell command that stands for exactly `text`.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_newc_with_parents_before_children_and_root_as_owner() {
        let mut archive = Archive::new(Vec::new()).unwrap();
        archive.program("/vm/bin/test", b"12345").unwrap();
        archive.file("vm/env", b"").unwrap();
        archive.directory("/proc").unwrap();
        let bytes = archive.finish().unwrap();

        let mut members = Vec::new();
        let mut at = 0;
        loop {
            let field = |index: usize| {
                let from = at + 6 + 8 * index;
                usize::from_str_radix(str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            assert_eq!((field(2), field(3)), (0, 0), "owner and group");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = str::from_utf8(&bytes[at + 110..at + 110 + name_size - 1]).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            members.push((name.to_owned(), mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
        }
        assert_eq!(at, bytes.len());
        let names: Vec<_> = members.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["dev", "dev/console", "vm", "vm/bin", "vm/bin/test", "vm/env", "proc", "TRAILER!!!"]
        );
        assert_eq!(members[4], ("vm/bin/test".into(), 0o100_755, b"12345".to_vec()));
        assert_eq!(members[6].1, 0o040_755);
    }

    #[test]
    fn a_quoted_word_is_one_word() {
        let words = ["plain", "with space", "it's", "$HOME `x` \"y\" \\", ""];
        for word in words {
            let script = format!("printf %s {}", quote(word));
            let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
    }
}
