//! `tcptrace serve --export-dir`: the files that are there, what is in them, and what is not when
//! the disk is full, the directory gone, or the run killed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::Signal,
    unistd::{Gid, Uid, chown},
};
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Field, RowAccessor as _},
};
use tcptrace::host::kernel;

use crate::{
    net::Netns,
    run::{can_trace, run, tcptrace, until},
    serve::{Serving, churn, sum},
};

/// A table, read from all its files.
#[derive(Debug, Default)]
struct Read {
    files: usize,
    rows: u64,
    /// How many rows have this in the columns asked for.
    by: BTreeMap<Vec<String>, u64>,
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// What is not whole.
fn unfinished(directory: &Path) -> Vec<String> {
    let mut names = names(directory);
    names.retain(|name| !name.ends_with(".parquet"));
    names
}

/// All rows of `table`, which other programs find as `*.TABLE.parquet`.
fn read(directory: &Path, table: &str, columns: &[&str]) -> Read {
    let mut read = Read::default();
    for name in names(directory) {
        if !name.ends_with(&format!(".{table}.parquet")) {
            continue;
        }
        let host = kernel::host_name().unwrap();
        assert!(name.starts_with(&format!("{host}-2")), "{name}");
        let file = SerializedFileReader::new(File::open(directory.join(&name)).unwrap()).unwrap();
        let about = file.metadata().file_metadata().key_value_metadata().unwrap();
        let about = |key: &str| {
            about.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone())
        };
        assert_eq!(about("tcptrace.lost").as_deref(), Some("0"), "{name}");
        assert!(about("tcptrace.recording").unwrap().contains(&host), "{name}");
        read.files += 1;
        for row in file.get_row_iter(None).unwrap() {
            let row = row.unwrap();
            read.rows += 1;
            let value = |wanted: &&str| {
                let field = row.get_column_iter().find(|(name, _)| name == wanted).unwrap().1;
                match field {
                    Field::Str(text) => text.clone(),
                    other => other.to_string(),
                }
            };
            *read.by.entry(columns.iter().map(value).collect()).or_default() += 1;
            assert!(row.get_string(0).unwrap() == &host);
        }
    }
    read
}

fn of(read: &Read, key: &[&str]) -> u64 {
    let key: Vec<_> = key.iter().map(|word| (*word).to_owned()).collect();
    read.by.get(&key).copied().unwrap_or(0)
}

fn serving(netns: &Netns, directory: &Path, more: &[&str]) -> Serving {
    let every = ["--export-dir", directory.to_str().unwrap(), "--export-every", "1"];
    Serving::between(netns, netns, &[&every[..], more].concat())
}

fn files(serving: &Serving) -> f64 {
    sum(&serving.metrics(), "tcptrace_export_files_total", "transitions")
}

#[test]
fn all_rows_are_in_some_file_and_none_in_two() {
    const CONNECTIONS: u32 = 150;
    const ROUNDS: u32 = 4;
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let serving = serving(&netns, directory.path(), &[]);
    for round in 1..=ROUNDS {
        netns.run(|| churn(CONNECTIONS));
        until("another file", || (files(&serving) >= f64::from(round)).then_some(()));
    }
    let number = u64::from(CONNECTIONS * ROUNDS);
    let samples = until("all ends", || {
        let samples = serving.metrics();
        let closes = sum(&samples, "tcptrace_closes_total", "fin");
        (closes == 2.0 * number as f64).then_some(samples)
    });
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");
    assert_eq!(unfinished(directory.path()), [""; 0]);

    let transitions = read(directory.path(), "transitions", &["old", "new"]);
    assert!(transitions.files >= 4, "{transitions:?}");
    assert_eq!(transitions.rows as f64, sum(&samples, "tcptrace_transitions_total", ""));
    for pair in [
        ["CLOSE", "SYN_SENT"],
        ["SYN_RECV", "ESTABLISHED"],
        ["ESTABLISHED", "FIN_WAIT1"],
        ["FIN_WAIT2", "TIME_WAIT"],
        ["LAST_ACK", "CLOSE"],
    ] {
        assert_eq!(of(&transitions, &pair), number, "{pair:?} {transitions:?}");
    }
    // One row a connection: the one end is over, the other in TIME_WAIT.
    let connections = read(directory.path(), "connections", &["state", "initiator"]);
    assert_eq!(connections.rows, 2 * number, "{connections:?}");
    assert_eq!(of(&connections, &["CLOSE", "remote"]), number);
    assert_eq!(of(&connections, &["TIME_WAIT", "local"]), number);
    let ids = read(directory.path(), "connections", &["conn"]);
    assert!(ids.by.values().all(|count| *count == 1), "{ids:?}");
}

#[test]
fn a_killed_run_leaves_whole_files_and_the_next_one_tidies_up() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let first = serving(&netns, directory.path(), &[]);
    netns.run(|| churn(100));
    until("a file", || (files(&first) >= 1.0).then_some(()));
    netns.run(|| churn(100));
    first.running.signal(Signal::SIGKILL);
    first.running.end();
    let left = unfinished(directory.path());
    // One of each table at most, and one of each at least, but between two.
    assert!(left.len() <= 2, "{left:?}");
    assert!(left.iter().all(|name| name.starts_with(".tcptrace-")), "{left:?}");
    let kept = read(directory.path(), "transitions", &[]);
    assert!(kept.rows >= 10, "{kept:?}");
    // Somebody else's is left alone.
    let theirs = [".tcptrace-elsewhere-20261122T184500.123Z.transitions.parquet.tmp", "notes"];
    for name in theirs {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    let second = serving(&netns, directory.path(), &["--export-keep", "1"]);
    if !left.is_empty() {
        let said = format!("{} unfinished files of killed runs are removed", left.len());
        assert!(second.running.heard().contains(&said), "{}", second.running.heard());
    }
    assert!(left.iter().all(|name| !directory.path().join(name).exists()));
    netns.run(|| churn(10));
    until("another file", || (files(&second) >= 1.0).then_some(()));
    assert_eq!(second.running.interrupt().code, Some(0));
    assert_eq!(unfinished(directory.path()), theirs);
    // One of each table is kept, of all runs.
    let left = names(directory.path());
    let count = |table: &str| left.iter().filter(|name| name.ends_with(table)).count();
    assert_eq!(count(".transitions.parquet"), 1, "{left:?}");
}

/// A file system of a size of its own, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, options: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at);
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    fn resize(&self, options: &str) {
        let remount = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &remount]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_once_and_does_not_end_it() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(directory.path(), "size=4k") else { return };
    let mut serving = serving(&netns, directory.path(), &[]);
    netns.run(|| churn(100));
    serving.running.hear("No space left on device");
    netns.run(|| churn(100));
    let lost = |serving: &Serving| {
        sum(&serving.metrics(), "tcptrace_export_rows_lost_total", "transitions")
    };
    // Ten of each connection, all of both periods.
    until("more to be lost", || (lost(&serving) >= 2000.0).then_some(()));
    assert!(sum(&serving.metrics(), "tcptrace_export_failures_total", "") >= 2.0);
    small.resize("size=4m");
    netns.run(|| churn(10));
    serving.running.hear("files are written to");
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("nothing is written to").count(), 1, "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");
    assert!(read(directory.path(), "transitions", &[]).rows >= 10);
}

#[test]
fn a_directory_that_is_gone_is_said_and_used_again() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let parent = tempfile::tempdir().unwrap();
    let (here, there) = (parent.path().join("here"), parent.path().join("there"));
    fs::create_dir(&here).unwrap();
    let mut serving = serving(&netns, &here, &[]);
    fs::rename(&here, &there).unwrap();
    netns.run(|| churn(10));
    serving.running.hear("nothing is written to");
    fs::create_dir(&here).unwrap();
    // Files begin with the next period.
    until("a file", || {
        netns.run(|| churn(1));
        (files(&serving) >= 1.0).then_some(())
    });
    serving.running.hear("files are written to");
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(read(&here, "transitions", &[]).files >= 1);
}

/// It has no capability by which root writes where root may not.
#[test]
fn whose_directory_it_is_not_is_refused_at_once() {
    if !can_trace() || !Uid::effective().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let nobody = (Some(Uid::from_raw(65534)), Some(Gid::from_raw(65534)));
    chown(directory.path(), nobody.0, nobody.1).unwrap();
    let path = directory.path().to_str().unwrap();
    let ended = run(tcptrace(&["serve", "--listen", "127.0.0.1:0", "--export-dir", path]));
    let line = ended.refusal(1);
    assert!(line.contains("without capabilities (let it belong to the user"), "{line}");
    assert!(line.ends_with("Permission denied (os error 13)"), "{line}");
    assert_eq!(names(directory.path()), [""; 0]);
}
