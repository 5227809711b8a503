//! `tcptrace states` against `ss -tan`, in a network namespace of the test's own.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::{
    net::Netns,
    run::{DEADLINE, Running, can_trace, run, tcptrace, until},
};

/// Connections in each state.
pub type Counts = BTreeMap<String, u64>;

/// The output of `program` in `netns`; `None`, and a word that the test is skipped, where it is
/// not installed.
pub fn output(netns: &Netns, program: &str, arguments: &[&str]) -> Option<Output> {
    match netns.run(|| Command::new(program).args(arguments).output()) {
        Ok(output) => Some(output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Not by eprintln!, which libtest keeps to itself when the test passes.
            let says = format!("skipped: {program} is not installed\n");
            io::stderr().write_all(says.as_bytes()).unwrap();
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// What `ss -Htan` counts, by tcptrace's names of the states.
pub fn ss(netns: &Netns) -> Option<Counts> {
    let output = output(netns, "ss", &["-Htan"])?;
    assert!(output.status.success(), "{output:?}");
    let mut counts = Counts::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let state = match line.split_whitespace().next().unwrap() {
            "ESTAB" => "ESTABLISHED".to_owned(),
            // FIN-WAIT-1
            other => other.replace("WAIT-", "WAIT").replace('-', "_"),
        };
        *counts.entry(state).or_default() += 1;
    }
    Some(counts)
}

/// What a line of `states -o json` has, states without any left out, as in ss.
fn counts(line: &Value) -> Counts {
    let rows = line["rows"].as_array().unwrap().iter();
    let named = rows.map(|row| (row["state"].as_str().unwrap().to_owned(), row["count"].as_u64()));
    named.filter_map(|(state, count)| Some((state, count.filter(|&count| count > 0)?))).collect()
}

/// The sum of `key` of one state over all lines.
pub fn sum(lines: &[Value], state: &str, key: &str) -> u64 {
    let rows = lines.iter().flat_map(|line| line["rows"].as_array().unwrap());
    rows.filter(|row| row["state"] == state).filter_map(|row| row[key].as_u64()).sum()
}

/// `-N` for `netns`.
pub fn path(netns: &Netns) -> String {
    netns.path().to_str().unwrap().to_owned()
}

/// `tcptrace states 0.2` of a namespace, while it runs.
pub struct States {
    _running: Running,
    file: PathBuf,
    _directory: TempDir,
}

impl States {
    pub fn of(netns: &Netns) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("states.json");
        let out = file.to_str().unwrap();
        let arguments = ["states", "0.2", "-o", "json", "-N", &path(netns), "--out", out];
        let running = Running::listening(&mut tcptrace(&arguments));
        Self { _running: running, file, _directory: directory }
    }

    /// The lines up to now.
    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.file).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["type"] == "states").collect()
    }

    /// Waits for a line that has the counts of ss, which are the same before and after it.
    #[track_caller]
    pub fn agree(&self, netns: &Netns) -> Counts {
        let start = Instant::now();
        loop {
            let (before, seen) = (ss(netns).unwrap(), self.lines().len());
            // Of the line after the next, the whole interval is after that look.
            let line = until("two more lines", || self.lines().get(seen + 1).cloned());
            let after = ss(netns).unwrap();
            if before == after && counts(&line) == after {
                return after;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "tcptrace: {:?}; ss: {before:?}, then {after:?}",
                counts(&line)
            );
        }
    }
}

/// A client closes `times` connections first, one after the other on one socket, and connects it once
/// more: the socket and the minisocks have one cookie.
fn connected_again(times: usize) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().into();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    for _ in 0..times {
        client.connect(&address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        // The server's FIN has come, and the TIME_WAIT with it.
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        let nowhere =
            libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let length = size_of_val(&nowhere) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address is as long as told.
        let done = unsafe { libc::connect(client.as_raw_fd(), &raw const nowhere, length) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
    client.connect(&address).unwrap();
    let (server, _) = listener.accept().unwrap();
    (listener, client.into(), server)
}

#[test]
fn a_socket_that_connects_again_counts_as_in_ss() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if ss(&netns).is_none() {
        return;
    }
    // From before, and traced.
    let before: Vec<_> = (0..10).map(|_| netns.run(|| connected_again(3))).collect();
    let states = States::of(&netns);
    let counts = states.agree(&netns);
    assert_eq!((counts["TIME_WAIT"], counts["ESTABLISHED"]), (30, 20));
    let traced: Vec<_> = (0..10).map(|_| netns.run(|| connected_again(4))).collect();
    let counts = states.agree(&netns);
    assert_eq!((counts["TIME_WAIT"], counts["ESTABLISHED"]), (70, 40));
    // The tables are read again within ten seconds, and a second later where that differs.
    let seen = states.lines().len();
    for seconds in [6, 12] {
        until("more lines", || (states.lines().len() > seen + 5 * seconds).then_some(()));
    }
    assert_eq!(states.agree(&netns), counts);
    let corrected: u64 = states.lines().iter().filter_map(|line| line["corrected"].as_u64()).sum();
    assert_eq!(corrected, 0);
    let once = run(tcptrace(&["states", "-o", "json", "-N", &path(&netns)]));
    assert_eq!(self::counts(&serde_json::from_str(once.text()).unwrap()), counts);
    drop((before, traced));
}

/// Connections in many states, and what keeps them there.
fn churn() -> Vec<(TcpListener, Vec<TcpStream>)> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (busy, full) = (listen(), listen());
    let mut kept = Vec::new();
    for i in 0..1000 {
        let client = TcpStream::connect(busy.local_addr().unwrap()).unwrap();
        let (server, _) = busy.accept().unwrap();
        match i % 100 {
            0 => kept.extend([client, server]),
            // One end is in FIN_WAIT2 and the other in CLOSE_WAIT.
            1 => {
                client.shutdown(Shutdown::Write).unwrap();
                kept.extend([client, server]);
            }
            // The FIN_WAIT2 is an orphan's.
            2 => kept.push(client),
            n if n % 2 == 0 => drop((client, server)),
            _ => drop((server, client)),
        }
    }
    let waiting = TcpStream::connect(full.local_addr().unwrap()).unwrap();
    vec![(busy, kept), (full, vec![waiting])]
}

#[test]
fn states_are_those_of_ss() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if ss(&netns).is_none() {
        return;
    }
    let states = States::of(&netns);
    let kept = netns.run(churn);
    let counts = states.agree(&netns);
    for (state, at_least) in [
        ("LISTEN", 2),
        ("ESTABLISHED", 20),
        ("FIN_WAIT2", 20),
        ("CLOSE_WAIT", 20),
        ("TIME_WAIT", 970),
    ] {
        assert!(counts.get(state).is_some_and(|&count| count >= at_least), "{state}: {counts:?}");
    }
    // Nothing had to be corrected on the way.
    let corrected: u64 = states.lines().iter().filter_map(|line| line["corrected"].as_u64()).sum();
    assert_eq!(corrected, 0);
    // One look at the tables says the same.
    let once = run(tcptrace(&["states", "-o", "json", "-N", &path(&netns)]));
    assert_eq!(self::counts(&serde_json::from_str(once.text()).unwrap()), counts);
    drop(kept);
}
