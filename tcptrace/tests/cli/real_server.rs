//! nginx under load, as people meet TIME_WAIT: `netstat -n | awk` counts thousands of them.
//! `states` counts the same, `hist` accounts for every one that ended, and `closers` knows whose
//! they are.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    net::{COMM, Netns, sysctl},
    run::{DEADLINE, Running, can_trace, command, tcptrace, until},
    witness::{States, output, path, ss, sum},
};

/// Where nginx listens.
pub const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Requests, each with a connection of its own, which the server closes first.
const REQUESTS: u64 = 20_000;
const CLIENTS: u64 = 4;

/// Fewer than requests, so that new connections meet TIME_WAITs of the server's.
const PORTS: &str = "40000 49999";

/// How long a TIME_WAIT lasts at least: a test that is slower than that has other numbers.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Starts nginx in `netns`, with all that it writes in `directory`: one process, which ends when
/// what is returned is dropped. It keeps an idle connection open for `keepalive` seconds.
pub fn nginx(netns: &Netns, directory: &Path, keepalive: u32) -> Running {
    let directory = directory.to_str().unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
        .concat();
    let configuration = format!(
        "daemon off; master_process off; pid {directory}/pid;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; keepalive_timeout {keepalive}; {temporary}\
         server {{ listen {SERVER}; location / {{ return 200 \"hello\\n\"; }} }} }}\n"
    );
    let file = format!("{directory}/nginx.conf");
    fs::write(&file, configuration).unwrap();
    let errors = format!("{directory}/errors");
    let arguments = ["-p", directory, "-e", &errors, "-c", &file];
    let server = netns.run(|| Running::start(&mut command("nginx", &arguments)));
    until("nginx to listen", || {
        ss(netns).unwrap().contains_key("LISTEN").then_some(()).or_else(|| {
            let said = fs::read_to_string(&errors).unwrap_or_default();
            assert!(!said.contains("[emerg]"), "{said}");
            None
        })
    });
    server
}

/// One request: the server closes when it has answered.
fn request() {
    let mut stream = TcpStream::connect_timeout(&SERVER, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

fn load(netns: &Netns) {
    netns.run(|| sysctl("net/ipv4/ip_local_port_range", PORTS)).unwrap();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| netns.run(|| (0..REQUESTS / CLIENTS).for_each(|_| request())));
        }
    });
}

/// How many TIME_WAITs ended, by reason, as `hist -o json` says.
fn ended(hist: &str) -> Vec<(String, u64)> {
    let lines = hist.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["type"] == "hist").unwrap();
    let rows = line["rows"].as_array().unwrap().iter();
    let of = |row: &Value| {
        assert_eq!(row["state"], "TIME_WAIT");
        let parts = [&row["count"], &row["at_least"]["count"], &row["unknown"]];
        let count = parts.map(|part| part.as_u64().unwrap()).iter().sum();
        (row["key"].as_str().unwrap_or("all").to_owned(), count)
    };
    rows.map(of).collect()
}

/// Of each group the closes by this end and by the peer, the TIME_WAITs entered and those alive, as
/// `closers -o json` says.
fn closes(closers: &str) -> Vec<(String, u64, u64, u64, u64)> {
    let lines = closers.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.into_iter().find(|line| line["type"] == "closers").unwrap();
    let of = |row: &Value| {
        let number = |pointer: &str| row.pointer(pointer).unwrap().as_u64().unwrap();
        assert_eq!(number("/closed"), number("/initiators/local") + number("/initiators/remote"));
        (
            row["key"].as_str().unwrap().to_owned(),
            number("/initiators/local"),
            number("/initiators/remote"),
            number("/active/entered_time_wait"),
            number("/time_wait/now"),
        )
    };
    let mut rows: Vec<_> = line["rows"].as_array().unwrap().iter().map(of).collect();
    rows.sort_by(|one, other| other.0.cmp(&one.0));
    rows
}

#[test]
fn every_time_wait_of_a_real_server_is_accounted_for() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if ss(&netns).is_none() || output(&netns, "nginx", &["-v"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let _nginx = nginx(&netns, directory.path(), 0);
    let states = States::of(&netns);
    let arguments = ["hist", "TIME_WAIT", "-o", "json", "-N", &path(&netns)];
    let hist = Running::listening(&mut tcptrace(&arguments));
    let arguments = ["closers", "-o", "json", "-N", &path(&netns)];
    let closers = Running::listening(&mut tcptrace(&arguments));
    let start = Instant::now();
    load(&netns);
    let alive = states.agree(&netns)["TIME_WAIT"];
    let ended = ended(hist.interrupt().text());
    let closers = closers.interrupt();
    assert!(start.elapsed() < TIME_WAIT, "too slow: {:?}", start.elapsed());

    let lines = states.lines();
    let born = sum(&lines, "TIME_WAIT", "in");
    assert_eq!(born, REQUESTS);
    assert_eq!(born - sum(&lines, "TIME_WAIT", "out"), alive);
    // More connections than ports: each of the others took the place of a TIME_WAIT.
    assert_eq!(ended, [("reused-by-syn".to_owned(), REQUESTS - alive)]);
    assert!(alive <= 10_000, "{alive}");
    assert_eq!(
        closes(closers.text()),
        [
            (format!("{COMM} →:{}", SERVER.port()), 0, REQUESTS, 0, 0),
            (format!("nginx :{}", SERVER.port()), REQUESTS, 0, REQUESTS, alive)
        ]
    );
    let corrected: u64 = lines.iter().filter_map(|line| line["corrected"].as_u64()).sum();
    assert_eq!(corrected, 0);
}
