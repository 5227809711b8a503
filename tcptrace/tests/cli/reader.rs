//! Where the reader is in namespaces of its own: times, process numbers and network namespaces are
//! told as the reader knows them, or said not to be.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::MetadataExt as _,
    process, thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::{
    peer::Server,
    run::{Running, can_trace, command, run, until},
    sys::now,
};

/// `tcptrace` with `arguments`, in a time namespace whose clocks are a day ahead.
fn a_day_ahead(arguments: &[&str]) -> std::process::Command {
    const UNSHARE: [&str; 7] = [
        "--time",
        "--monotonic=86400",
        "--boottime=86400",
        "--fork",
        "--kill-child",
        "--",
        env!("CARGO_BIN_EXE_tcptrace"),
    ];
    command("unshare", &[&UNSHARE, arguments].concat())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn nanoseconds(line: &Value) -> u64 {
    line["mono_ns"].as_str().unwrap().parse().unwrap()
}

#[test]
fn in_a_time_namespace_times_are_those_of_the_kernel() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let arguments = ["live", "-o", "json", "-D", &server.port(), "--duration", "1s"];
    let running = Running::listening(&mut a_day_ahead(&arguments));
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (before, from) = (now(), wall());
    server.connection();
    let (after, to) = (now(), wall());
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = lines(ended.text());
    let moved: Vec<_> = lines.iter().filter(|line| line["type"] == "transition").collect();
    assert!(moved.len() >= 5, "{ended:?}");
    for line in moved.iter().filter(|line| line["old"] != "TIME_WAIT") {
        assert!((before..=after).contains(&nanoseconds(line)), "{before} {after} {line}");
        let time: jiff::Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        let time = Duration::from_nanos(time.as_nanosecond().try_into().unwrap());
        // The clocks are compared to a fraction of a millisecond.
        let tolerance = Duration::from_millis(10);
        assert!(time + tolerance >= from && time <= to + tolerance, "{from:?} {to:?} {line}");
    }
}

#[test]
fn in_a_time_namespace_intervals_are_as_long_as_asked_for() {
    if !can_trace() {
        return;
    }
    const EVERY: Duration = Duration::from_millis(300);
    let start = Instant::now();
    let ended = run(a_day_ahead(&["states", "0.3", "4", "-o", "json"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(start.elapsed() >= 3 * EVERY, "{:?}: {ended:?}", start.elapsed());
    let lines = lines(ended.text());
    let times: Vec<_> = lines.iter().filter(|l| l["type"] == "states").map(nanoseconds).collect();
    assert_eq!(times.len(), 4, "{ended:?}");
    for pair in times.windows(2) {
        // Late by what the machine takes, never early by more than a tick of the loop.
        let apart = Duration::from_nanos(pair[1] - pair[0]);
        assert!(apart >= EVERY - Duration::from_millis(60) && apart < 10 * EVERY, "{times:?}");
    }
    assert!(times[3] <= now(), "{times:?}");
}

#[test]
fn check_says_that_the_offset_of_the_time_namespace_is_applied() {
    let ended = run(a_day_ahead(&["check"]));
    assert!(ended.text().contains("in a time namespace, +86400 s"), "{ended:?}");
    assert!(ended.text().contains("the offset is applied"), "{ended:?}");
}

/// What process 1 of a PID namespace does: a connection before tcptrace, which it starts, and one
/// after; then both are closed, a while later. Arguments: the port, a folder, how long that is, tcptrace,
/// and arguments for that.
const PROCESS_1: &str = r#"
port=$1; out=$2; while=$3; shift 3
exec 3<>/dev/tcp/127.0.0.1/$port
"$@" 3>&- >"$out/stdout" 2>"$out/stderr" &
tracer=$!
until grep -q "listening by" "$out/stderr"; do kill -0 $tracer || exit 9; sleep 0.05; done
exec 4<>/dev/tcp/127.0.0.1/$port
sleep "$while"
# The server answers each with a line, once the other end may be closed.
read -r line <&3; read -r line <&4
exec 3>&- 4>&-
sleep 0.3
kill -TERM $tracer; wait $tracer
"#;

/// Both ends of both connections as `tcptrace conns` with `arguments` tells them, which runs in the
/// PID namespace of the client. The server is outside of it.
///
/// Whose the first connection is, is read from the open files of all processes, after tcptrace has said
/// that it listens, and nothing says when that is done. So both are held open longer and longer, until
/// it is known whose both are, or the time is up.
fn ends_in_a_pid_namespace(arguments: &[&str]) -> Vec<Value> {
    let mut ends = Vec::new();
    for held_open in ["0.1", "0.5", "2", "8"] {
        ends = ends_of_connections_held_open(held_open, arguments);
        if ends.iter().filter(|end| !end["pid"].is_null()).count() >= 2 {
            break;
        }
    }
    ends
}

fn ends_of_connections_held_open(held_open: &str, arguments: &[&str]) -> Vec<Value> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let server = thread::spawn(move || {
        let pair: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        pair.iter().for_each(|mut socket| socket.write_all(b"close\n").unwrap());
        pair.iter().for_each(|mut socket| {
            // The end of the client's.
            assert_eq!(std::io::Read::read(&mut socket, &mut [0]).unwrap(), 0);
        });
    });
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "--"];
    let out = folder.path().to_str().unwrap();
    let client = ["bash", "-c", PROCESS_1, "process-1", &port, out, held_open];
    let tcptrace = [env!("CARGO_BIN_EXE_tcptrace"), "conns", "-o", "json"];
    let ended = run(command("unshare", &[&unshare[..], &client, &tcptrace, arguments].concat()));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?} {}", read("stderr"));
    server.join().unwrap();
    let port: u16 = port.parse().unwrap();
    let mut ends = lines(&read("stdout"));
    ends.retain(|end| end["lport"] == port || end["rport"] == port);
    ends
}

#[test]
fn in_a_pid_namespace_processes_have_the_numbers_of_its_proc() {
    if !can_trace() {
        return;
    }
    let ends = ends_in_a_pid_namespace(&["--no-time-wait"]);
    assert_eq!(ends.len(), 4, "{ends:?}");
    for end in &ends {
        let is_client = end["rport"].as_u64() > Some(0) && end["comm"] == "bash";
        let own = std::process::id();
        assert_ne!(end["pid"], own, "a number of another namespace: {end}");
        // The server runs outside.
        let pid = if is_client { Value::from(1) } else { Value::Null };
        assert_eq!(end["pid"], pid, "{end}");
    }
    let clients = ends.iter().filter(|end| end["pid"] == 1).count();
    assert_eq!(clients, 2, "{ends:?}");
}

#[test]
fn in_a_pid_namespace_a_process_is_found_by_its_number_there() {
    if !can_trace() {
        return;
    }
    let ends = ends_in_a_pid_namespace(&["--no-time-wait", "-p", "1"]);
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends.iter().all(|end| end["pid"] == 1 && end["comm"] == "bash"), "{ends:?}");
}

#[test]
fn check_says_whose_numbers_processes_have() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child", "--"];
    let tcptrace = [env!("CARGO_BIN_EXE_tcptrace"), "check"];
    let ended = run(command("unshare", &[&unshare[..], &tcptrace].concat()));
    assert!(ended.text().contains("processes outside of it are shown as foreign"), "{ended:?}");
    if can_trace() {
        // Its numbers are translated too.
        assert!(ended.text().contains("iter/task_file      ok"), "{ended:?}");
    }
    let ended = run(crate::run::tcptrace(&["check"]));
    assert!(ended.text().contains("PID namespace"), "{ended:?}");
}

/// Holds one end of a connection as another user, and says what its number is. With an argument its first
/// thread ends meanwhile. `/proc/PID/fd` of neither can be listed without CAP_SYS_PTRACE, of the latter not
/// at all.
const HOLDER: &str = r"
import ctypes, os, socket, sys, threading
libc = ctypes.CDLL(None)
pair = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
os.setuid(65534)
pair.send(b'x')
def wait():
    pair.recv(1)
    os._exit(0)
threading.Thread(target=wait).start()
if len(sys.argv) > 2:
    libc.pthread_exit(None)
";

/// The holder of the connection as `tcptrace conns --open` names it without CAP_SYS_PTRACE, in a PID
/// namespace where the holder is process 2, or in this one.
fn holder_without_sys_ptrace(in_pid_namespace: bool, first_thread_ends: bool) -> Value {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holder.py"), HOLDER).unwrap();
    // The holder is the first process that is started. tcptrace ends when its output is there.
    let script = r#"
python3 "$1/holder.py" "$2" $3 & holder=$!
until [ -e "$1/connected" ]; do kill -0 $holder || exit 9; sleep 0.05; done
setpriv --bounding-set=-sys_ptrace --inh-caps=-all "$4" conns --open -o json -D "$2" >"$1/out" 2>"$1/err" &
tracer=$!
for i in $(seq 200); do grep -q '"holder_pid":[0-9]' "$1/out" && break; sleep 0.05; done
kill -INT $tracer; wait $tracer; kill -KILL $holder; echo $holder
"#;
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"];
    let path = folder.path().to_str().unwrap();
    let ends = if first_thread_ends { "ends" } else { "" };
    let tcptrace = env!("CARGO_BIN_EXE_tcptrace");
    let bash = ["bash", "-c", script, "bash", path, &port, ends, tcptrace];
    let words = [if in_pid_namespace { &unshare[..] } else { &[] }, &bash].concat();
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| run(command(words[0], &words[1..])));
        let (mut end, _) = server.accept().unwrap();
        std::io::Read::read_exact(&mut end, &mut [0]).unwrap();
        fs::write(folder.path().join("connected"), "").unwrap();
        ended.join().unwrap()
    });
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?} {}", read("err"));
    let holder: u64 = ended.text().trim().parse().unwrap();
    if in_pid_namespace {
        assert!(holder < 10, "a number of that namespace: {holder}");
    }
    let found = lines(&read("out")).into_iter().find(|line| line["holder_pid"].is_u64());
    let found = found.unwrap_or_else(|| panic!("{} {}", read("out"), read("err")));
    assert_eq!(found["holder_pid"], holder, "{found}");
    found
}

#[test]
fn without_sys_ptrace_the_kernel_tells_who_holds_sockets_and_in_whose_numbers() {
    if !can_trace() {
        return;
    }
    for in_pid_namespace in [false, true] {
        for first_thread_ends in [false, true] {
            let found = holder_without_sys_ptrace(in_pid_namespace, first_thread_ends);
            assert_eq!(found["holder_comm"], "python3", "{found}");
        }
    }
}

/// A namespace that `ip netns` has made, until dropped.
struct Named(String);

impl Named {
    /// `None` where there is no `ip`.
    fn add(name: &str) -> Option<Self> {
        match process::Command::new("ip").args(["netns", "add", name]).status() {
            Ok(status) => assert!(status.success()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                io::stderr().write_all(b"skipped: ip is not installed\n").unwrap();
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let up = ["netns", "exec", name, "ip", "link", "set", "lo", "up"];
        assert!(process::Command::new("ip").args(up).status().unwrap().success());
        Some(Self(name.to_owned()))
    }

    fn file(&self) -> File {
        File::open(format!("/run/netns/{}", self.0)).unwrap()
    }

    fn inode(&self) -> u64 {
        self.file().metadata().unwrap().ino()
    }

    /// One connection inside, closed by the client.
    fn connection(&self) {
        thread::scope(|scope| {
            scope.spawn(|| {
                setns(self.file(), CloneFlags::CLONE_NEWNET).unwrap();
                Server::new().connection();
            });
        });
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The name that `ip netns` shows is hostile here: any file name will do.
#[test]
fn namespaces_are_shown_by_name_live_and_from_a_recording() {
    if !can_trace() {
        return;
    }
    let name = format!("tcpt\u{1b}[31m-{}", process::id());
    let escaped = format!("tcpt\\x1b[31m-{}", process::id());
    let Some(netns) = Named::add(&name) else { return };
    let server = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(netns.file(), CloneFlags::CLONE_NEWNET).unwrap();
            Server::new()
        });
        inside.join().unwrap()
    });
    let inode = netns.inode();
    let long = format!("{escaped} ({inode})");

    // Among all namespaces, in one look.
    let by = run(crate::run::tcptrace(&["states", "--by", "netns"]));
    assert!(by.text().contains(&escaped), "{by:?}");
    let doctor = run(crate::run::tcptrace(&["doctor", "--duration", "1s", "-N", &name]));
    assert!(doctor.text().contains(&format!("network namespace {long}")), "{doctor:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let file = file.to_str().unwrap();
    let record = Running::listening(&mut crate::run::tcptrace(&["record", file, "-N", &name]));
    let live = ["conns", "-o", "json", "-N", &name];
    let live = Running::listening(&mut crate::run::tcptrace(&live));
    let names = |text: &str| -> Vec<Value> {
        let all = lines(text);
        let ends = all.iter().filter(|line| line["type"] == "connection");
        ends.map(|line| line["netns_name"].clone()).collect()
    };
    let is_known = |names: &[Value]| names.iter().any(|name| *name == *escaped);
    // The name comes with the first snapshot, which connections may precede.
    let replay = || run(crate::run::tcptrace(&["conns", "-o", "json", "-r", file]));
    until("the name to be known", || {
        netns.connection();
        is_known(&names(replay().text())).then_some(())
    });
    for ended in [live.interrupt(), record.interrupt(), replay()] {
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let names = names(ended.text());
        assert!(names.iter().all(|name| name.is_null() || *name == *escaped), "{names:?}");
    }
    assert!(is_known(&names(replay().text())));
    let wide = run(crate::run::tcptrace(&["live", "--wide", "-r", file]));
    assert!(wide.text().contains(&escaped[..12]) && !wide.text().contains('\u{1b}'), "{wide:?}");
    let closers = run(crate::run::tcptrace(&["closers", "--by", "netns", "-r", file]));
    assert!(closers.text().contains(&escaped), "{closers:?}");
    drop(server);
}

/// The inode of a namespace is the next one's at once. What goes on in that one is nothing of the
/// one that was asked for.
#[test]
fn a_namespace_that_got_the_inode_of_the_one_asked_for_is_a_stranger() {
    const TRIES: usize = 3;
    if !can_trace() {
        return;
    }
    let name = format!("tcptrace-test-{}", process::id());
    for _ in 0..TRIES {
        let Some(asked) = Named::add(&name) else { return };
        let inode = asked.inode();
        let mut running =
            Running::listening(&mut crate::run::tcptrace(&["live", "-o", "json", "-N", &name]));
        asked.connection();
        drop(asked);
        // The inode is free once the kernel's worker has taken the namespace apart (cleanup_net()).
        let mut stranger = Named::add(&name).unwrap();
        let deadline = Instant::now() + Duration::from_secs(3);
        while stranger.inode() != inode && Instant::now() < deadline {
            drop(stranger);
            thread::sleep(Duration::from_millis(20));
            stranger = Named::add(&name).unwrap();
        }
        let same = stranger.inode() == inode;
        // What the namespace's end itself tells comes before this.
        let before = now();
        stranger.connection();
        running.hear("is gone, or can no longer be reached");
        assert!(running.heard().contains(&format!("network namespace {name} ({inode})")));
        let ended = running.interrupt();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let lines = lines(ended.text());
        let moved: Vec<_> = lines.iter().filter(|line| line["type"] == "transition").collect();
        assert!(moved.len() >= 5, "the one that was asked for is traced: {ended:?}");
        let strangers = moved.iter().filter(|l| nanoseconds(l) > before && l["old"] == "CLOSE");
        assert_eq!(strangers.count(), 0, "{ended:?}");
        if same {
            return;
        }
    }
    io::stderr().write_all(b"not shown: no inode was given twice\n").unwrap();
}

/// A command is for the namespace that its finding is about: pasted into a shell, it changes that one.
#[test]
fn what_doctor_advises_for_another_namespace_can_be_pasted() {
    let command = |program: &str| process::Command::new(program).arg("--version").output();
    if !can_trace() || command("nsenter").is_err() || command("sysctl").is_err() {
        return;
    }
    let Some(named) = Named::add("tcptrace-paste") else { return };
    let setting = |netns: &[&str]| {
        let read = [netns, &["cat", "/proc/sys/net/ipv4/tcp_fin_timeout"]].concat();
        process::Command::new(read[0]).args(&read[1..]).output().unwrap().stdout
    };
    let inside = ["ip", "netns", "exec", "tcptrace-paste"];
    let lower = [&inside[1..], &["sysctl", "-q", "-w", "net.ipv4.tcp_fin_timeout=7"]].concat();
    assert!(process::Command::new("ip").args(lower).status().unwrap().success());
    let before = (setting(&[]), setting(&inside));
    assert_eq!(before.1, b"7\n");
    let ended = run(crate::run::tcptrace(&["doctor", "--duration", "1s", "-o", "json"]));
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let is_it = |found: &&Value| found["rule"] == "fin-timeout" && found["netns"] == named.inode();
    let finding = report["findings"].as_array().unwrap().iter().find(is_it);
    let finding = finding.unwrap_or_else(|| panic!("{report}"));
    let command = finding["helps"][0]["command"].as_str().unwrap();
    assert!(command.starts_with("nsenter --net=/"), "{command}");
    let shell = process::Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(shell.status.success(), "{command}: {shell:?}");
    assert_eq!((setting(&[]), setting(&inside)), (before.0, b"60\n".to_vec()));
}
