//! Servers whose connections are not in the process that accepts them, or in many threads of one: a real
//! PostgreSQL, whose postmaster accepts and whose backends serve, and a JVM. `ss -p` is the witness.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{sys::signal::Signal, unistd::User};
use serde_json::Value;

use crate::{
    net::Netns,
    run::{Running, can_trace, command, run, tcptrace, until},
    witness::{output, path},
};

const POSTGRES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5432);
const JAVA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7007);

/// Says that a test is skipped; not by eprintln!, which libtest keeps to itself when the test passes.
fn skipped(why: &str) {
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// Where Debian has the programs of its PostgreSQL server, the newest if there are several.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    programs.filter(|path| path.join("postgres").exists()).max()
}

/// `program` as the user postgres: as root it does not run.
fn as_postgres(program: &Path, arguments: &[&str]) -> Command {
    let who = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"];
    let program = program.to_str().unwrap();
    command("setpriv", &[&who[..], &[program], arguments].concat())
}

/// A PostgreSQL that listens in `netns`, with its data in `directory`.
fn postmaster(netns: &Netns, programs: &Path, directory: &Path) -> Running {
    let user = User::from_name("postgres").unwrap().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let data = directory.join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let data = data.to_str().unwrap();
    let made = as_postgres(&programs.join("initdb"), &["-D", data, "-A", "trust", "--no-sync"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let arguments = [
        "-D",
        data,
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ];
    let server =
        netns.run(|| Running::start(&mut as_postgres(&programs.join("postgres"), &arguments)));
    until("PostgreSQL to answer", || {
        let ready = output(netns, "psql", &psql("select 1")).unwrap();
        ready.status.success().then_some(())
    });
    server
}

fn psql(statement: &str) -> [&str; 7] {
    ["-h", "127.0.0.1", "-U", "postgres", "-tAc", statement, "-q"]
}

/// The processes that `ss` says have connections in CLOSE_WAIT.
fn in_close_wait(netns: &Netns) -> Vec<u32> {
    let said = output(netns, "ss", &["-Htnp", "state", "close-wait"]).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let pids = said.split("pid=").skip(1);
    pids.map(|rest| rest.split(',').next().unwrap().parse().unwrap()).collect()
}

/// The sockets in CLOSE_WAIT of each line.
fn leaked(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let sockets = lines.filter(|line| line["type"] == "stuck").flat_map(|line| {
        let sockets = line["sockets"].as_array().unwrap().clone();
        sockets.into_iter().filter(|socket| socket["state"] == "CLOSE_WAIT")
    });
    sockets.collect()
}

#[test]
fn a_backend_of_postgresql_is_named_and_never_its_postmaster() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if output(&netns, "ss", &["-V"]).is_none() || output(&netns, "psql", &["-V"]).is_none() {
        return;
    }
    let Some(programs) = postgres() else {
        return skipped("the server of PostgreSQL is not installed (Debian's postgresql)");
    };
    let directory = tempfile::tempdir().unwrap();
    let postmaster = postmaster(&netns, &programs, directory.path());
    let file = directory.path().join("stuck");
    let out = file.to_str().unwrap();
    let inside = path(&netns);
    let arguments = ["stuck", "0.3", "-o", "json", "--older", "0", "-N", &inside, "--out", out];
    let watching = Running::listening(&mut tcptrace(&arguments));

    // Its client is killed while the backend sleeps, and does not read.
    let client = netns.run(|| Running::start(&mut command("psql", &psql("select pg_sleep(30)"))));
    until("the backend to sleep", || {
        let statement = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        let asked = output(&netns, "psql", &psql(statement)).unwrap();
        (asked.stdout == b"1\n").then_some(())
    });
    client.signal(Signal::SIGKILL);
    drop(client);
    let backend = until("CLOSE_WAIT", || match in_close_wait(&netns)[..] {
        [pid] => Some(pid),
        _ => None,
    });
    assert_ne!(backend, postmaster.pid());

    // Traced from its accept() on, and from before.
    let whole = |text: &str| text.rsplit_once('\n').map_or("", |(whole, _)| whole).to_owned();
    until("stuck to name the backend", || {
        let sockets = leaked(&whole(&fs::read_to_string(&file).unwrap()));
        sockets.iter().any(|socket| socket["pid"] == backend).then_some(())
    });
    let once = run(tcptrace(&["stuck", "-o", "json", "--older", "0", "-N", &inside]));
    let mut sockets = leaked(once.text());
    assert_eq!(sockets.len(), 1, "{once:?}");
    assert_eq!(sockets[0]["pid"], backend, "{once:?}");
    sockets.extend(leaked(watching.interrupt().text()));
    sockets.extend(leaked(&fs::read_to_string(&file).unwrap()));
    for socket in &sockets {
        assert_eq!(socket["lport"], POSTGRES.port(), "{socket}");
        assert!(socket["pid"].is_null() || socket["pid"] == backend, "{socket}");
    }
    postmaster.signal(Signal::SIGQUIT);
    postmaster.end();
}

/// Threads accept; a connection that says `c` is closed, any other is kept.
const SERVER: &str = r#"
import java.net.*;
import java.util.*;
public class Server {
    static final List<Socket> kept = Collections.synchronizedList(new ArrayList<>());
    public static void main(String[] arguments) throws Exception {
        ServerSocket listener = new ServerSocket(PORT, 50, InetAddress.getByName("127.0.0.1"));
        for (int i = 0; i < 4; i++) {
            new Thread(() -> {
                try {
                    while (true) {
                        Socket socket = listener.accept();
                        if (socket.getInputStream().read() == 'c') socket.close();
                        else kept.add(socket);
                    }
                } catch (Exception error) { error.printStackTrace(); }
            }, "acceptor-" + i).start();
        }
    }
}
"#;

#[test]
fn a_jvm_is_one_process_whatever_its_threads_are_called() {
    /// Connections of each kind.
    const EACH: u64 = 8;
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if output(&netns, "ss", &["-V"]).is_none() || output(&netns, "java", &["-version"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("Server.java");
    fs::write(&file, SERVER.replace("PORT", &JAVA.port().to_string())).unwrap();
    let start = || Running::start(&mut command("java", &["-Xmx64m", file.to_str().unwrap()]));
    let java = netns.run(start);
    let inside = path(&netns);
    let connect = || TcpStream::connect(JAVA).ok();
    let mut early = until("the JVM to compile it and listen", || netns.run(connect));
    early.write_all(b"c").unwrap();
    std::io::copy(&mut early, &mut std::io::sink()).unwrap();
    drop(early);
    let arguments = ["closers", "-o", "json", "-N", &inside];
    let closers = Running::listening(&mut tcptrace(&arguments));
    let say = |word: &[u8]| {
        netns.run(|| {
            for _ in 0..EACH {
                let mut stream = TcpStream::connect(JAVA).unwrap();
                stream.write_all(word).unwrap();
                if word == b"c" {
                    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
                }
            }
        });
    };
    say(b"c");
    say(b"k");
    until("CLOSE_WAIT of all that were kept", || {
        (in_close_wait(&netns) == vec![java.pid(); EACH as usize]).then_some(())
    });
    let stuck = run(tcptrace(&["stuck", "-o", "json", "--older", "0", "-N", &inside]));
    let line: Value = serde_json::from_str(stuck.text().lines().next().unwrap()).unwrap();
    let groups = line["groups"].as_array().unwrap();
    let groups: Vec<_> = groups.iter().filter(|group| group["state"] == "CLOSE_WAIT").collect();
    assert_eq!(groups.len(), 1, "{line}");
    assert_eq!((&groups[0]["group"], &groups[0]["all"]), (&"java".into(), &EACH.into()), "{line}");
    for socket in leaked(stuck.text()) {
        assert_eq!((&socket["pid"], &socket["comm"]), (&java.pid().into(), &"java".into()));
    }
    let closers = closers.interrupt();
    let lines = closers.text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["type"] == "closers").unwrap();
    let rows = line["rows"].as_array().unwrap();
    let service = format!(" :{}", JAVA.port());
    // But for the TIME_WAIT of the first one, from before.
    let is_it =
        |row: &&Value| row["key"].as_str().unwrap().ends_with(&service) && row["closed"] != 0;
    let of: Vec<_> = rows.iter().filter(is_it).filter(|row| row["port_of"] == "local").collect();
    assert_eq!(of.len(), 1, "{line}");
    assert_eq!(of[0]["key"], format!("java{service}"), "{line}");
    assert_eq!(of[0]["initiators"]["local"], EACH, "{line}");
}
