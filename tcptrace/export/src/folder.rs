//! Files in a folder that other programs look into: each is there under its name once it is whole,
//! and whose it is and of when is in the name.
//!
//! `HOST-20261122T184500.123Z.TABLE.parquet`; what is being written is `.tcptrace-NAME.tmp`, and
//! locked for as long as somebody writes it. Must not touch what is named otherwise, nor what is
//! another host's.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};

use super::Table;

/// Names of one moment that are tried, at most.
const TRIES: u32 = 100;

const TEMPORARY: &str = ".tcptrace-";
const TMP: &str = ".tmp";

/// Where files go, and what they are called.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Name of the host, as far as it fits a name of a file.
    host: String,
}

/// A file that is not there yet.
#[derive(Debug)]
pub(super) struct Unfinished {
    file: File,
    path: PathBuf,
    name: String,
    table: Table,
    kept: bool,
}

/// What a host's name is in a file's: letters, digits, dots, dashes and underscores, no dot first.
fn sanitised(host: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = host.chars().take(64).map(fits).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "host".to_owned() } else { name.to_owned() }
}

/// Whether it is `20261122T184500.123Z`, or that with a number behind.
fn is_time(text: &str) -> bool {
    const PATTERN: &[u8] = b"00000000T000000.000Z";
    let Some((time, rest)) = text.split_at_checked(PATTERN.len()) else { return false };
    let same = |(c, p): (u8, &u8)| if *p == b'0' { c.is_ascii_digit() } else { c == *p };
    let number = |rest: &str| rest.parse::<u32>().is_ok();
    time.bytes().zip(PATTERN).all(same)
        && (rest.is_empty() || rest.strip_prefix('-').is_some_and(number))
}

fn suffix(table: Table) -> String {
    format!(".{}.parquet", table.name())
}

impl Folder {
    pub(super) fn new(path: PathBuf, host: &str) -> Self {
        Self { path, host: sanitised(host) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file can be made.
    pub(super) fn try_out(&self) -> io::Result<()> {
        self.create(Table::Transitions, Timestamp::now()).map(drop)
    }

    /// Begins a file of `table` and of the time from `at` on.
    pub(super) fn create(&self, table: Table, at: Timestamp) -> io::Result<Unfinished> {
        let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
        for number in 0..TRIES {
            let number = if number > 0 { format!("-{number}") } else { String::new() };
            let name = format!("{}-{time}{number}{}", self.host, suffix(table));
            if self.path.join(&name).exists() {
                continue;
            }
            let path = self.path.join(format!("{TEMPORARY}{name}{TMP}"));
            // What is left over may have the name: then there is another.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // A file system without locks has no left-overs removed while they are
                    // written: `remove_left` wants the lock too.
                    let _ = file.try_lock();
                    return Ok(Unfinished { file, path, name, table, kept: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Names in the folder that are this host's: between `before` and `after` there is a time.
    fn own(&self, before: &str, after: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let middle = name.strip_prefix(before).and_then(|name| name.strip_suffix(after));
            let time = middle.and_then(|middle| middle.strip_prefix(&self.host)?.strip_prefix('-'));
            if time.is_some_and(is_time) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Removes what killed runs on this host have left unfinished; says how many there were.
    pub(super) fn remove_left(&self) -> io::Result<usize> {
        let mut removed = 0;
        for table in Table::ALL {
            for name in self.own(TEMPORARY, &format!("{}{TMP}", suffix(table)))? {
                let path = self.path.join(name);
                let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
                // Whoever writes it holds the lock until it is closed.
                if file.try_lock().is_ok() && fs::remove_file(&path).is_ok() {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// The finished files of `table` of this host from earlier runs, in the order of their names.
    pub(super) fn earlier(&self, table: Table) -> io::Result<Written> {
        let mut names = self.own("", &suffix(table))?;
        // The time is first behind what is the same in all.
        names.sort_unstable();
        Ok(Written(names.into()))
    }

    /// Removes the first of `written` until `keep` are left.
    pub(super) fn prune(&self, written: &mut Written, keep: usize) -> io::Result<()> {
        while written.0.len() > keep
            && let Some(name) = written.0.pop_front()
        {
            match fs::remove_file(self.path.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // It is there, and is tried again with the next.
                    written.0.push_front(name);
                    return Err(error);
                }
                // Somebody else may have moved it away.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Finished files in the order in which they were written: those of earlier runs, then those of this
/// one in turn. The clock has no say in it, which may have been wrong when an earlier run gave its
/// files their names: a file of this run never goes before one of those.
#[derive(Debug, Default)]
pub(super) struct Written(VecDeque<String>);

impl Written {
    /// One more was finished. It is the last, also where it was among those that were there.
    pub(super) fn add(&mut self, name: String) {
        self.0.retain(|there| *there != name);
        self.0.push_back(name);
    }
}

impl Unfinished {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives it its name, once what is in it is on the disk, and returns that.
    pub(super) fn keep(mut self) -> io::Result<String> {
        self.file.sync_all()?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::rename(&self.path, directory.join(&self.name))?;
        self.kept = true;
        // The name is to survive too. Where that cannot be, the file still may.
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
        Ok(std::mem::take(&mut self.name))
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path().to_owned(), "../we b1\n");
        let begun = at("2026-11-22T18:45:00.1239Z");
        let mut file = folder.create(Table::Connections, begun).unwrap();
        file.write(b"PAR1").unwrap();
        let temporary = ".tcptrace-_we_b1_-20261122T184500.123Z.connections.parquet.tmp";
        assert_eq!(names(directory.path()), [temporary]);
        file.keep().unwrap();
        let name = "_we_b1_-20261122T184500.123Z.connections.parquet";
        assert_eq!(names(directory.path()), [name]);
        // The clock was set back.
        folder.create(Table::Connections, begun).unwrap().keep().unwrap();
        let second = "_we_b1_-20261122T184500.123Z-1.connections.parquet";
        assert_eq!(names(directory.path()), [second, name]);
        drop(folder.create(Table::Transitions, begun).unwrap());
        assert_eq!(names(directory.path()).len(), 2, "what is not kept is gone");
    }

    #[test]
    fn only_what_is_left_over_and_ours_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let ours = ".tcptrace-web-20261122T184500.123Z.transitions.parquet.tmp";
        let others = [
            ".tcptrace-web-1-20261122T184500.123Z.transitions.parquet.tmp",
            ".tcptrace-web-20261122T184500.123Z.transitions.parquet",
            ".tcptrace-web-x.transitions.parquet.tmp",
            "web-20261122T184500.123Z.transitions.parquet",
        ];
        for name in others.iter().chain([&ours]) {
            fs::write(path(name), "x").unwrap();
        }
        let folder = Folder::new(directory.path().to_owned(), "web");
        let writing = folder.create(Table::Transitions, at("2026-11-22T18:46:00Z")).unwrap();
        assert_eq!(folder.remove_left().unwrap(), 1);
        assert_eq!(names(directory.path()).len(), others.len() + 1);
        assert!(!path(ours).exists());
        writing.keep().unwrap();
    }

    #[test]
    fn the_last_ones_are_kept_of_this_host_alone() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path().to_owned(), "web");
        let other = "web-1-20261122T184500.123Z.transitions.parquet";
        fs::write(directory.path().join(other), "x").unwrap();
        for minute in 10..15 {
            let begun = at(&format!("2026-11-22T18:{minute}:00Z"));
            folder.create(Table::Transitions, begun).unwrap().keep().unwrap();
            folder.create(Table::Connections, begun).unwrap().keep().unwrap();
        }
        let mut written = folder.earlier(Table::Transitions).unwrap();
        folder.prune(&mut written, 2).unwrap();
        let left: Vec<_> = names(directory.path())
            .into_iter()
            .filter(|name| name.contains("transitions"))
            .collect();
        let expected =
            ["web-1-20261122T184500.123Z", "web-20261122T181300.000Z", "web-20261122T181400.000Z"];
        assert_eq!(left, expected.map(|name| format!("{name}.transitions.parquet")));
        assert_eq!(names(directory.path()).len(), 8);
    }

    /// As when the clock was wrong in an earlier run, or is set back in this one.
    #[test]
    fn what_this_run_wrote_is_kept_before_files_from_the_future() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path().to_owned(), "web");
        let write =
            |begun: &str| folder.create(Table::Transitions, at(begun)).unwrap().keep().unwrap();
        let future = [write("2030-01-01T00:00:00Z"), write("2031-01-01T00:00:00Z")];
        let mut written = folder.earlier(Table::Transitions).unwrap();
        let mut fresh = Vec::new();
        for begun in ["2026-11-22T18:10:00Z", "2026-11-22T18:20:00Z", "2026-11-22T18:15:00Z"] {
            let name = write(begun);
            written.add(name.clone());
            folder.prune(&mut written, 2).unwrap();
            assert!(directory.path().join(&name).exists(), "{name} is the newest");
            fresh.push(name);
        }
        // The last two of this run, though the one before the last is dated behind it.
        let mut expected = fresh.split_off(1);
        expected.sort_unstable();
        assert_eq!(names(directory.path()), expected);
        assert!(future.iter().all(|name| !directory.path().join(name).exists()));
        // One that somebody has moved away is no reason to remove another, nor a failure.
        fs::remove_file(directory.path().join(&expected[1])).unwrap();
        written.add(write("2026-11-22T18:30:00Z"));
        folder.prune(&mut written, 2).unwrap();
        assert_eq!(names(directory.path()).len(), 2);
    }
}
