//! How a run ends: by signals, limits, and readers that go away or do not read.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _},
    os::fd::AsRawFd as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};

use crate::{
    peer::{CLIENT, Server},
    run::{Running, can_trace, run, tcptrace, until},
};

fn rows(text: &str) -> usize {
    text.lines().filter(|line| line.contains(" -> ")).count()
}

#[test]
fn signals_drain_what_has_happened_and_end_with_0() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let running =
            Running::listening(&mut tcptrace(&["--time-wait-hook", "off", "-D", &server.port()]));
        server.connection();
        // At once: nothing was waited for, so most of it is still in the ring.
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(0), "{signal}: {ended:?}");
        assert_eq!(rows(ended.text()), CLIENT.len(), "{signal}: {ended:?}");
        let summary = ended.stderr.lines().last().unwrap();
        assert!(summary.contains(" events seen, 5 delivered, "), "{summary}");
        assert!(summary.contains(" 0 lost, "), "{summary}");
    }
}

#[test]
fn a_signal_that_the_parent_ignores_stays_ignored() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_tcptrace")).stdin(Stdio::null());
    command.args([
        "--time-wait-hook",
        "off",
        "-D",
        &server.port(),
        "--out",
        file.to_str().unwrap(),
    ]);
    let running = Running::listening(&mut command);
    running.signal(Signal::SIGHUP);
    server.connection();
    let shown = || rows(&fs::read_to_string(&file).unwrap());
    until("the first connection", || (shown() == CLIENT.len()).then_some(()));
    // If SIGHUP had ended it, the hooks would be off by now.
    server.connection();
    let ended = running.interrupt();
    assert_eq!((ended.code, shown()), (Some(0), 2 * CLIENT.len()), "{ended:?}");
}

#[test]
fn count_ends_after_so_many_lines() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let running = Running::listening(&mut tcptrace(&[
        "--time-wait-hook",
        "off",
        "-D",
        &server.port(),
        "--count",
        "3",
    ]));
    server.connection();
    let ended = running.end();
    assert_eq!((ended.code, rows(ended.text())), (Some(0), 3), "{ended:?}");
}

#[test]
fn duration_ends_by_itself() {
    if !can_trace() {
        return;
    }
    let start = Instant::now();
    let ended = run(tcptrace(&["--duration", "100ms", "-o", "json"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() >= Duration::from_millis(100));
    let last = ended.text().lines().last().unwrap();
    let summary: serde_json::Value = serde_json::from_str(last).unwrap();
    assert!(summary["seconds"].as_f64().unwrap() >= 0.1, "{summary}");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let (reader, writer) = io::pipe().unwrap();
    let mut command = tcptrace(&["--time-wait-hook", "off", "-D", &server.port()]);
    let mut running = Running::start_with_stdout(command.stdout(writer));
    command.stdout(Stdio::null());
    running.hear("listening by");
    let mut first = String::new();
    BufReader::new(reader).read_line(&mut first).unwrap();
    assert!(first.starts_with("LADDR:LPORT "), "{first}");
    until("its end", || {
        server.connection();
        running.has_ended().then_some(())
    });
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("write") && !ended.stderr.contains("pipe"), "{ended:?}");
}

nix::ioctl_read_bad!(
    /// How many bytes wait in a pipe.
    fionread,
    libc::FIONREAD,
    libc::c_int
);

fn waiting(pipe: &io::PipeReader) -> usize {
    let mut count = 0;
    // SAFETY: the descriptor is open for as long as `pipe` is borrowed, and the kernel writes one
    // int to `count`.
    unsafe { fionread(pipe.as_raw_fd(), &raw mut count) }.unwrap();
    count.try_into().unwrap()
}

/// A run whose output nobody reads, with more to write than the pipe and the queue hold.
fn stuck() -> (Running, io::PipeReader) {
    let server = Server::new();
    let (reader, writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = tcptrace(&["--time-wait-hook", "off", "-D", &server.port(), "-o", "json"]);
    let mut running = Running::start_with_stdout(command.stdout(writer));
    command.stdout(Stdio::null());
    running.hear("listening by");
    // Some 75 kB, slower than it reads, so that they come in more chunks than its queue holds.
    for _ in 0..30 {
        server.connection();
        thread::sleep(Duration::from_millis(15));
    }
    until("something in the pipe", || (waiting(&reader) > 0).then_some(()));
    (running, reader)
}

#[test]
fn a_second_signal_ends_a_run_that_cannot_write() {
    if !can_trace() {
        return;
    }
    let (mut running, reader) = stuck();
    running.signal(Signal::SIGINT);
    running.hear("events seen, 150 delivered, ");
    assert!(!running.has_ended(), "it has not written everything");
    running.signal(Signal::SIGINT);
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.starts_with("tcptrace: interrupted again"), "{last}");
    drop(reader);
}

#[test]
fn a_reader_that_comes_back_gets_everything() {
    if !can_trace() {
        return;
    }
    let (mut running, mut reader) = stuck();
    running.signal(Signal::SIGTERM);
    running.hear("events seen, 150 delivered, ");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(running.end().code, Some(0));
    assert_eq!(text.matches(r#""type":"transition""#).count(), 150);
    assert!(text.lines().last().unwrap().contains(r#""type":"summary""#));
}
