//! Recordings as people meet them: the law (what a view showed is what it shows of the recording),
//! kills, disks that are full, and what is refused.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
    thread,
};

use nix::sys::{
    resource::{Resource, setrlimit},
    signal::{SigHandler, Signal, signal},
};

use crate::{
    host::Unprivileged,
    peer::Server,
    run::{Ended, Running, can_trace, command, run, tcptrace, until},
};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What `arguments` show of the recording.
fn of_recording(path: &Path, arguments: &[&str]) -> Ended {
    let ended = run(tcptrace(&[arguments, &["-r", text(path)]].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// Connections until the run has ended by itself.
fn churn(server: &Server, running: &mut Running) {
    while !running.has_ended() {
        server.connection();
    }
}

#[test]
fn what_a_view_showed_is_what_it_shows_of_the_recording() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::new();
    let port = server.port();
    // Filters and a ring of one page, which loses events.
    let page = ["--ring-size", "4096"];
    let mut lossy = 0;
    for (n, arguments) in [
        &["live", "-o", "json"][..],
        &["live", "-o", "csv", "-D", &port, "-c", "40"],
        &["live", "-D", &port, "--how", "fin"],
        &["states", "0.3", "-o", "json"],
        &["hist", "-o", "json"],
        &["closers", "-o", "json"],
        &["conns", "-o", "json", "--open"],
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(n.to_string());
        let mut all = arguments.to_vec();
        all.extend(page);
        all.extend(["--save", text(&path)]);
        let mut running = Running::listening(&mut tcptrace(&all));
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 1_500 && !running.has_ended() {
            server.connection();
        }
        let shown = if running.has_ended() { running.end() } else { running.interrupt() };
        assert_eq!(shown.code, Some(0), "{shown:?}");
        assert!(!shown.stdout.is_empty(), "{arguments:?}");
        lossy += usize::from(shown.stderr.contains("lost to a full ring"));
        let again = of_recording(&path, arguments);
        assert_eq!(shown.text(), again.text(), "{arguments:?}");
        let account = |ended: &Ended| {
            ended.stderr.lines().find(|l| l.contains("events seen")).map(str::to_owned)
        };
        assert_eq!(account(&shown), account(&again));
    }
    assert!(lossy > 0, "a ring of one page holds some 30 records");
}

#[test]
fn a_recording_is_seen_by_every_view_and_filter() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all");
    let server = Server::new();
    let running = Running::listening(&mut tcptrace(&["record", text(&path)]));
    for _ in 0..5 {
        server.connection();
    }
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.is_empty() && ended.stderr.contains("recorded "), "{ended:?}");
    let port = server.port();
    let births = |filter: &[&str]| {
        let shown = of_recording(&path, &[&["live", "-H", "--state", "syn-sent"], filter].concat());
        shown.text().lines().filter(|line| line.contains("CLOSE       ->")).count()
    };
    assert_eq!(births(&["-D", &port]), 5);
    assert_eq!(births(&["-D", &port, "--ipv6"]), 0);
    assert_eq!(births(&["-D", &port, "-N", "1"]), 0);
    assert_eq!(births(&["-D", &port, "--since", "-0s"]), 0);
    for arguments in
        [&["states"][..], &["states", "1"], &["hist"], &["closers"], &["conns"], &["ports"]]
    {
        of_recording(&path, arguments);
    }
}

#[test]
fn a_writer_that_is_killed_leaves_what_it_had_written() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::new();
    let mut read = 0;
    for n in 0..20_u32 {
        let path = directory.path().join(n.to_string());
        let mut running = Running::start(&mut tcptrace(&["record", text(&path)]));
        // From before the first byte to some blocks later.
        let len = u64::from(n) * 700;
        until("so many bytes", || {
            server.connection();
            let now = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            (now >= len).then_some(())
        });
        running.signal(Signal::SIGKILL);
        until("its end", || running.has_ended().then_some(()));
        if fs::metadata(&path).map_or(0, |metadata| metadata.len()) == 0 {
            continue;
        }
        let ended = of_recording(&path, &["live", "-o", "json"]);
        assert!(ended.stderr.contains("the recording has no end"), "{ended:?}");
        read += usize::from(ended.text().contains("\"transition\""));
    }
    assert!(read > 5, "{read}");
}

/// `command`, which may write files of no more than so many bytes.
fn limited(mut command: Command, bytes: u64) -> Command {
    let limit = move || {
        // SAFETY: no handler is installed, the signal is only ignored, so that writing fails.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
        setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec only signal(2) and setrlimit(2) are called, which are
    // async-signal-safe.
    unsafe { command.pre_exec(limit) };
    command
}

#[test]
fn a_full_disk_ends_a_recording_that_can_be_read() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full");
    let server = Server::new();
    let mut running = Running::listening(&mut limited(tcptrace(&["record", text(&path)]), 9_000));
    churn(&server, &mut running);
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cannot go on recording to "), "{ended:?}");
    let read = of_recording(&path, &["live", "-o", "json"]);
    assert!(read.stderr.contains("the recording has no end"), "{read:?}");
    assert!(!read.stderr.contains("not written to its end"), "what was half is gone: {read:?}");

    // A view goes on, and says so at its end.
    let path = directory.path().join("beside");
    let arguments = ["live", "-o", "json", "--save", text(&path)];
    let mut running = Running::listening(&mut limited(tcptrace(&arguments), 5_000));
    thread::scope(|scope| {
        let churn = scope.spawn(|| (0..3000).for_each(|_| server.connection()));
        running.hear("the recording has failed");
        churn.join().unwrap();
    });
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.text().lines().last().unwrap().contains("\"summary\""), "{ended:?}");
}

#[test]
fn what_is_refused_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "no recording").unwrap();
    let refused = |arguments: &[&str], code, says: &str| {
        let ended = run(command(env!("CARGO_BIN_EXE_tcptrace"), arguments));
        let line = ended.refusal(code).to_owned();
        assert!(line.contains(says), "{line}");
    };
    let (empty, other, none) = (path("empty"), path("text"), path("none"));
    refused(&["live", "-r", text(&empty)], 1, "it is empty");
    refused(&["hist", "-r", text(&other)], 1, "it is not a recording of tcptrace");
    refused(&["states", "-r", text(&none)], 1, "No such file");
    refused(&["states", "-r", text(directory.path())], 1, "Is a directory");
    refused(&["record", text(&other)], 1, "exists: give another name, or --force");
    refused(&["live", "--save", text(&other)], 1, "exists");
    refused(&["record", "/proc/none"], 1, "cannot write to /proc/none");
    assert_eq!(fs::read(other).unwrap(), b"no recording");
    refused(&["record"], 2, "required");
    refused(&["record", "x", "--rotate", "10"], 2, "with its unit");
    refused(&["record", "x", "--keep", "3"], 2, "--rotate");
    refused(&["live", "--since", "1s"], 2, "--read");
    refused(&["live", "-r", "x", "--save", "y"], 2, "cannot be used with");
    refused(&["live", "-r", "x", "--since", "soon"], 2, "'soon' is not a moment");
    refused(&["live", "-r", "x", "-N", "web"], 2, "told by its inode number");
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");
    refused(&["live", "-r", recording, "--duration", "1"], 2, "--since and --until");
}

#[test]
fn a_recording_needs_no_root() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");
    // The tree may be in a home that nobody else may enter.
    let unprivileged = Unprivileged::new();
    let path = unprivileged.directory().join("r");
    fs::copy(recording, &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let ended = run(unprivileged.tcptrace(&["conns", "-o", "json", "-r", text(&path)]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.text().contains("\"comm\":\"curl\""), "{ended:?}");
}
