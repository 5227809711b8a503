//! Recordings through pipes: what a view prints of one is what it prints of the file, it comes as it
//! happens, and either side ends when it is asked to.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::{sys::signal::Signal, sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;

use crate::{
    gaps::rotation,
    peer::Server,
    run::{Ended, Running, can_trace, run, tcptrace, until},
};

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");

/// Every command that reads a recording, and prints.
const VIEWS: [&[&str]; 12] = [
    &["live"],
    &["live", "-o", "json"],
    &["live", "-o", "csv"],
    &["conns", "--open", "-o", "json"],
    &["states"],
    &["states", "1", "-o", "json"],
    &["hist", "-o", "json"],
    &["closers"],
    &["stuck", "1", "-o", "json"],
    &["ports", "-o", "json"],
    &["doctor", "-o", "json"],
    &["export", "--format", "csv", "--out", "-"],
];

/// A recording of several blocks, whole, with a damaged block, and cut off in one.
fn recordings(directory: &Path) -> Vec<PathBuf> {
    let base = directory.join("rec");
    rotation(&base);
    // The files of a rotation are of one run: as one file, the blocks behind one header.
    let mut whole = Vec::new();
    for (at, part) in tcptrace::record::parts(&base).iter().enumerate() {
        let bytes = fs::read(part).unwrap();
        let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        whole.extend_from_slice(&bytes[if at == 0 { 0 } else { 20 + len }..]);
    }
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    let cut = whole[..whole.len() * 2 / 3].to_vec();
    let write = |(name, bytes): (&str, Vec<u8>)| {
        let path = directory.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut all: Vec<_> = [("whole", whole), ("damaged", damaged), ("cut", cut)].map(write).into();
    all.push(V1.into());
    all
}

fn of_file(view: &[&str], path: &Path) -> Ended {
    run(tcptrace(&[view, &["-r", path.to_str().unwrap()]].concat()))
}

/// The same of a pipe into which the file is written piece by piece.
fn of_pipe(view: &[&str], path: &Path) -> Ended {
    let mut command = tcptrace(&[view, &["-r", "-"]].concat());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pipe, bytes) = (child.stdin.take().unwrap(), fs::read(path).unwrap());
    let feed = thread::spawn(move || {
        for piece in bytes.chunks(777) {
            pipe.write_all(piece).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Ended {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_stream_through_a_pipe_prints_what_the_file_prints() {
    let directory = tempfile::tempdir().unwrap();
    for path in recordings(directory.path()) {
        for view in VIEWS {
            let (file, pipe) = (of_file(view, &path), of_pipe(view, &path));
            let what = format!("{view:?} of {}", path.display());
            assert!(!file.stdout.is_empty(), "{what}: {file:?}");
            assert_eq!(file.text(), pipe.text(), "{what}");
            assert_eq!(file.code, pipe.code, "{what}: {} {}", file.stderr, pipe.stderr);
            // What is said of it names it otherwise.
            let lines = |ended: &Ended| ended.stderr.lines().count();
            assert_eq!(lines(&file), lines(&pipe), "{what}: {} {}", file.stderr, pipe.stderr);
        }
    }
}

#[test]
fn an_export_to_stdout_is_what_the_file_would_be() {
    let directory = tempfile::tempdir().unwrap();
    for format in ["parquet", "csv", "ndjson"] {
        let file = directory.path().join(format!("t.{format}"));
        let out = file.to_str().unwrap();
        let ended = run(tcptrace(&["export", "-r", V1, "--out", out]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let piped = run(tcptrace(&["export", "-r", V1, "--out", "-", "--format", format]));
        assert_eq!(piped.code, Some(0), "{piped:?}");
        assert_eq!(fs::read(&file).unwrap(), piped.stdout, "{format}");
    }
    let page = directory.path().join("page.html");
    let ended = run(tcptrace(&["report", "-r", V1, "--out", page.to_str().unwrap()]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let piped = run(tcptrace(&["report", "-r", V1, "--out", "-"]));
    assert_eq!(fs::read(&page).unwrap(), piped.stdout);
}

#[test]
fn a_fifo_is_read_once_and_heard_signals() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let arguments = ["live", "-o", "json", "-r", fifo.to_str().unwrap()];
    let mut running = Running::start(&mut tcptrace(&arguments));
    // What comes through it, and then nothing: it is asked to end.
    let bytes = fs::read(V1).unwrap();
    let mut writer = File::options().write(true).open(&fifo).unwrap();
    writer.write_all(&bytes[..bytes.len() - 1]).unwrap();
    running.hear("recorded on");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.text().lines().count() > 5, "{ended:?}");
    assert!(ended.text().lines().last().unwrap().contains(r#""type":"summary""#), "{ended:?}");
    drop(writer);
    // Nobody writes to it at all.
    let running = Running::start(&mut tcptrace(&arguments));
    until("it waits for a writer", || {
        let stat = fs::read_to_string(format!("/proc/{}/wchan", running.pid())).unwrap_or_default();
        (!stat.is_empty()).then_some(())
    });
    running.signal(Signal::SIGTERM);
    running.end();
}

#[test]
fn terminals_and_second_passes_are_refused_with_a_hint() {
    let pty = nix::pty::openpty(None, None).unwrap();
    let terminal = || Stdio::from(pty.slave.try_clone().unwrap());
    let refused = |command: &mut Command, code: i32, says: &str| {
        command.stderr(Stdio::piped());
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
    };
    let hint = "tcptrace record - | tcptrace live -r -";
    refused(tcptrace(&["record", "-"]).stdout(terminal()), 2, hint);
    refused(tcptrace(&["live", "-r", "-"]).stdin(terminal()), 1, hint);
    refused(
        tcptrace(&["export", "-r", V1, "--out", "-", "--format", "parquet"]).stdout(terminal()),
        2,
        "redirect it to a file",
    );
    refused(tcptrace(&["record", "-", "--rotate", "1M"]).stdout(Stdio::null()), 2, "one stream");
    let pipe = || {
        let (reader, _) = std::io::pipe().unwrap();
        Stdio::from(OwnedFd::from(reader))
    };
    refused(tcptrace(&["live", "-r", "-"]).stdin(pipe()), 1, "stdin: it is empty");
    let feed = |arguments: &[&str]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&fs::read(V1).unwrap()).unwrap();
        let mut command = tcptrace(arguments);
        command.stdin(Stdio::from(OwnedFd::from(reader)));
        command
    };
    refused(&mut feed(&["live", "-r", "-", "--since", "1s"]), 1, "save it first");
    refused(&mut feed(&["live", "-r", "-", "-r", V1]), 1, "give no other file");
}

#[test]
fn what_is_recorded_is_seen_at_the_other_end_and_both_end_in_order() {
    if !can_trace() {
        return;
    }
    // Who is asked to end: both, as Ctrl-C does, the writer alone, the reader alone.
    for (writer_too, reader_too) in [(true, true), (true, false), (false, true)] {
        let server = Server::new();
        let port = server.port();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut record = tcptrace(&["record", "-", "-D", &port]);
        record.stdout(Stdio::from(OwnedFd::from(writer)));
        let mut record_run = Running::start_with_stdout(&mut record);
        drop(record);
        let mut live = tcptrace(&["live", "-r", "-", "-o", "json"]);
        live.stdin(Stdio::from(OwnedFd::from(reader)));
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out.json");
        live.args(["--out", out.to_str().unwrap()]);
        let mut live_run = Running::start(&mut live);
        drop(live);
        record_run.hear("listening by");
        live_run.hear("recorded on");
        // It comes as it happens.
        server.connection();
        let text = || fs::read_to_string(&out).unwrap_or_default();
        until("a connection at the other end", || {
            text().contains(r#""new":"SYN_SENT""#).then_some(())
        });
        if writer_too {
            record_run.signal(Signal::SIGINT);
        }
        if reader_too {
            live_run.signal(Signal::SIGINT);
        }
        let live = live_run.end();
        if !writer_too {
            // It finds out with the next block.
            until("the writer notices", || record_run.has_ended().then_some(()));
        }
        let record = record_run.end();
        let what = format!("{writer_too} {reader_too}: {live:?} {record:?}");
        assert_eq!((live.code, record.code), (Some(0), Some(0)), "{what}");
        let lines: Vec<Value> =
            text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = lines.last().unwrap();
        assert_eq!(summary["type"], "summary", "{what}");
        assert_eq!(summary["lost"], 0, "{what}");
        assert_eq!(summary["complete"], writer_too, "{what} {summary}");
    }
}
