//! Real programs, and programs as real ones are: each of their connections is told with the right
//! program, port and side, and what is not known is not guessed. The kernel's counters say how many
//! connections there were; what is true of them follows from how the programs are made.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CStr,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::fs::PermissionsExt as _,
    },
    process, ptr,
    sync::{LazyLock, Mutex},
    thread,
};

use nix::sys::socket::{Shutdown, shutdown};
use serde_json::Value;

use crate::{
    child::Child,
    net::{COMM, Netns, sysctl},
    real_server::{SERVER, nginx},
    run::{DEADLINE, Running, can_trace, command, own_name, tcptrace, until},
    witness::{output, path},
};

/// What is true of one end of every connection to a service.
struct End {
    /// The service's.
    port: u16,
    /// It is the end of the service.
    is_server: bool,
    comm: &'static str,
    /// Who closed first, as seen from this end.
    initiator: &'static str,
    how: &'static [&'static str],
}

impl End {
    /// Of the service that `comm` is.
    fn server(
        port: u16,
        comm: &'static str,
        initiator: &'static str,
        how: &'static [&'static str],
    ) -> Self {
        Self { port, is_server: true, comm, initiator, how }
    }

    /// Of the client that `comm` is.
    fn client(
        port: u16,
        comm: &'static str,
        initiator: &'static str,
        how: &'static [&'static str],
    ) -> Self {
        Self { port, is_server: false, comm, initiator, how }
    }

    /// Its process as it is named: what this one does on a thread called [`COMM`] is its own.
    fn process(&self) -> &str {
        static OWN: LazyLock<String> = LazyLock::new(own_name);
        if self.comm == COMM { &OWN } else { self.comm }
    }

    /// As `closers` names it.
    fn key(&self) -> String {
        let (comm, port) = (self.process(), self.port);
        if self.is_server { format!("{comm} :{port}") } else { format!("{comm} →:{port}") }
    }

    fn is_of(&self, connection: &Value) -> bool {
        connection[if self.is_server { "lport" } else { "rport" }] == self.port
    }

    /// What is told of `connection` that is not true, and whether something is not told.
    fn judge(&self, connection: &Value) -> (Vec<&'static str>, bool) {
        let opened = if self.is_server { "accept" } else { "connect" };
        let truths = [
            ("comm", &[self.process()][..]),
            ("opened", &[opened]),
            ("initiator", &[self.initiator]),
            ("how", self.how),
        ];
        let told = truths.map(|(field, truth)| {
            let word = connection[field].as_str().filter(|word| *word != "unknown");
            (field, word.is_none(), word.is_some_and(|word| !truth.contains(&word)))
        });
        let wrong = told.iter().filter(|(.., wrong)| *wrong).map(|(field, ..)| *field).collect();
        (wrong, told.iter().any(|(_, unknown, _)| *unknown))
    }
}

/// `conns` and `closers`, listening in a namespace, and the kernel's counters when they began.
struct Watched<'a> {
    netns: &'a Netns,
    conns: Running,
    closers: Running,
    before: (u64, u64),
}

impl<'a> Watched<'a> {
    fn new(netns: &'a Netns) -> Self {
        let listen = |arguments: &[&str]| {
            let common = ["-o", "json", "-N", &path(netns)];
            Running::listening(&mut tcptrace(&[arguments, &common].concat()))
        };
        let (conns, closers) = (listen(&["conns", "--no-time-wait"]), listen(&["closers"]));
        Self { netns, conns, closers, before: opens(netns) }
    }

    /// Ends both when no connection is open any more, and holds what they said against what is
    /// true of the `ends` of each. Returns the connections, and prints how many were told wholly.
    #[track_caller]
    fn told(self, what: &str, ends: &[End]) -> Vec<Value> {
        until("all connections to be closed", || all_closed(self.netns).then_some(()));
        let after = opens(self.netns);
        let opened = (after.0 - self.before.0) + (after.1 - self.before.1);
        let lines = |ended: &str| -> Vec<Value> {
            ended.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let mut conns = lines(self.conns.interrupt().text());
        conns.retain(|line| line["type"] == "connection");
        let closers = lines(self.closers.interrupt().text());
        assert_eq!(conns.len() as u64, opened, "{what}: the kernel opened another number");

        let mut not_whole = 0;
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for one in &conns {
            let end = ends.iter().find(|end| end.is_of(one));
            let end = end.unwrap_or_else(|| panic!("{what}: nobody's: {one}"));
            let (wrong, is_unknown) = end.judge(one);
            assert_eq!(wrong, [""; 0], "{what}: {one}");
            not_whole += u64::from(is_unknown);
            *counts.entry(end.key()).or_default() += 1;
        }
        // Not by println!, which libtest keeps to itself when the test passes.
        let line = format!("{what}: {opened} ends of connections, {not_whole} not wholly known\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
        assert!(not_whole * 1000 <= opened, "{line}");
        if not_whole == 0 {
            let line = closers.iter().find(|line| line["type"] == "closers").unwrap();
            let rows = line["rows"].as_array().unwrap();
            let ranked: BTreeMap<_, _> = rows.iter().map(|row| ranked(row, ends)).collect();
            assert_eq!(ranked, counts, "{what}");
        }
        conns
    }
}

/// The key of a row of `closers`, and how many of it the end closed first that did in truth.
fn ranked(row: &Value, ends: &[End]) -> (String, u64) {
    let key = row["key"].as_str().unwrap_or("-").to_owned();
    let end = ends.iter().find(|end| end.key() == key);
    let initiator = end.map_or("unknown", |end| end.initiator);
    (key, row["initiators"][initiator].as_u64().unwrap())
}

/// ActiveOpens and PassiveOpens of the namespace.
fn opens(netns: &Netns) -> (u64, u64) {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut tcp = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let mut row = || tcp.next().unwrap().split(' ').collect::<Vec<_>>();
    let (names, values) = (row(), row());
    let of = |name| values[names.iter().position(|it| *it == name).unwrap()].parse().unwrap();
    (of("ActiveOpens"), of("PassiveOpens"))
}

/// Of each state as `/proc/net/tcp` numbers it, how many sockets of the namespace are in it.
fn states(netns: &Netns) -> HashMap<u8, usize> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap();
    let mut states = HashMap::new();
    for line in text.lines().skip(1) {
        let state = line.split_whitespace().nth(3).unwrap();
        *states.entry(u8::from_str_radix(state, 16).unwrap()).or_default() += 1;
    }
    states
}

const TIME_WAIT: u8 = 6;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

fn all_closed(netns: &Netns) -> bool {
    states(netns).keys().all(|state| [TIME_WAIT, LISTEN].contains(state))
}

#[track_caller]
fn until_listening(netns: &Netns, count: usize) {
    until("a listener", || (states(netns).get(&LISTEN) == Some(&count)).then_some(()));
}

/// A namespace, where what is tested can be.
fn namespace() -> Option<Netns> {
    can_trace().then(|| Netns::new().unwrap())
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// `count` times `work`, by a few threads.
fn load(netns: &Netns, count: usize, work: impl Fn() + Sync) {
    const THREADS: usize = 4;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| netns.run(|| (0..count / THREADS).for_each(|_| work())));
        }
    });
}

/// Several requests on a connection, which the client then closes.
fn kept_alive() {
    let mut stream = connect(SERVER);
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello\n") {
            let mut part = [0; 1024];
            let length = stream.read(&mut part).unwrap();
            assert!(length > 0, "nginx closed");
            answer.extend_from_slice(&part[..length]);
        }
    }
}

#[test]
fn nginx_keeps_connections_and_its_clients_close_them() {
    let Some(netns) = namespace() else { return };
    if output(&netns, "nginx", &["-v"]).is_none() || output(&netns, "ss", &["-V"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let _nginx = nginx(&netns, directory.path(), 60);
    let watched = Watched::new(&netns);
    load(&netns, 5_000, kept_alive);
    let port = SERVER.port();
    watched.told(
        "nginx with keep-alive",
        &[
            End::server(port, "nginx", "remote", &["fin"]),
            End::client(port, COMM, "local", &["fin"]),
        ],
    );
}

#[test]
fn redis_is_left_by_its_benchmark() {
    let Some(netns) = namespace() else { return };
    for program in ["redis-server", "redis-benchmark"] {
        if output(&netns, program, &["--version"]).is_none() {
            return;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--bind", "127.0.0.1", "--port", "6379", "--save", "", "--dir"];
    let arguments = [&arguments[..], &[directory.path().to_str().unwrap()]].concat();
    let _server = netns.run(|| Running::start(&mut command("redis-server", &arguments)));
    until_listening(&netns, 1);
    let watched = Watched::new(&netns);
    // Without -k 1 each request has a connection of its own.
    let arguments = ["-p", "6379", "-k", "0", "-n", "5000", "-c", "20", "-t", "set", "-q"];
    let ended = output(&netns, "redis-benchmark", &arguments).unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let conns = watched.told(
        "redis-benchmark",
        &[
            End::server(6379, "redis-server", "remote", &["fin", "rst-received"]),
            End::client(6379, "redis-benchmark", "local", &["fin", "rst-unread-data"]),
        ],
    );
    assert!(conns.len() >= 10_000, "{}", conns.len());
}

/// The proxy closes first to its clients, and the origin to the proxy: neither says beforehand how
/// much will come.
#[test]
fn squid_is_server_and_client() {
    const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
    const REQUESTS: usize = 1_000;
    let Some(netns) = namespace() else { return };
    if output(&netns, "squid", &["-v"]).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // It goes on as a user of its own.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("squid.conf");
    let configuration = format!(
        "http_port {PROXY}\nhttp_access allow all\ncache deny all\npid_filename none\n\
         access_log none\ncache_log /dev/null\ncache_store_log none\nnetdb_filename none\n\
         pinger_enable off\nclient_persistent_connections off\n\
         server_persistent_connections off\nshutdown_lifetime 0 seconds\ncoredump_dir {}\n",
        directory.path().display()
    );
    fs::write(&file, configuration).unwrap();
    let (origin, address) = netns.run(listener);
    let arguments = ["-N", "-f", file.to_str().unwrap()];
    let mut squid = netns.run(|| Running::start(&mut command("squid", &arguments)));
    until_listening(&netns, 2);
    assert!(!squid.has_ended());
    let watched = Watched::new(&netns);
    let request = format!("GET http://{address}/ HTTP/1.0\r\n\r\n");
    let serve = || {
        for _ in 0..REQUESTS {
            let (mut stream, _) = origin.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend_from_slice(&byte);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n").unwrap();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| netns.run(serve));
        load(&netns, REQUESTS, || {
            let mut stream = connect(PROXY);
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.ends_with(b"hello\n"), "{}", String::from_utf8_lossy(&answer));
        });
    });
    let (proxy, origin) = (PROXY.port(), address.port());
    watched.told(
        "squid",
        &[
            End::server(proxy, "squid", "local", &["fin"]),
            End::client(proxy, COMM, "remote", &["fin"]),
            End::server(origin, COMM, "local", &["fin"]),
            End::client(origin, "squid", "remote", &["fin"]),
        ],
    );
}

/// What is killed has not read all that has come: its sockets are reset.
#[test]
fn curl_is_killed_in_mid_transfer() {
    let Some(netns) = namespace() else { return };
    if output(&netns, "curl", &["--version"]).is_none() {
        return;
    }
    let (listener, address) = netns.run(listener);
    let watched = Watched::new(&netns);
    let url = format!("http://{address}/");
    let arguments = ["-s", "-o", "/dev/null", "--limit-rate", "1k", &url];
    for _ in 0..30 {
        let curl = netns.run(|| Running::start(&mut command("curl", &arguments)));
        netns.run(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let head = b"HTTP/1.0 200 OK\r\n\r\n";
            assert_eq!(stream.write(head).unwrap(), head.len());
            // Until both queues are full.
            let full = loop {
                if let Err(error) = stream.write_all(&[0; 65_536]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
            drop(curl);
            let reset = until("the reset", || stream.write(&[0]).err().filter(is_final));
            assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{reset}");
        });
    }
    watched.told(
        "curl killed",
        &[
            End::server(address.port(), COMM, "remote", &["rst-received"]),
            End::client(address.port(), "curl", "local", &["rst-unread-data"]),
        ],
    );
}

fn is_final(error: &io::Error) -> bool {
    error.kind() != ErrorKind::WouldBlock
}

fn call_itself(name: &CStr) {
    // SAFETY: reads a string that ends, of a static.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

fn accept(listener: &OwnedFd) -> RawFd {
    // SAFETY: the descriptor is open, and no address is asked for.
    unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), 0) }
}

/// Takes connections until the listener is shut down: tells each the process that it is, and closes
/// it.
fn serve(_control: RawFd, files: &[OwnedFd]) -> bool {
    let [listener] = files else { return false };
    call_itself(c"worker");
    let own = process::id().to_ne_bytes();
    loop {
        let taken = accept(listener);
        if taken < 0 {
            return true;
        }
        // SAFETY: reads as many bytes as there are in `own`.
        let written = unsafe { libc::write(taken, own.as_ptr().cast(), own.len()) };
        // SAFETY: the descriptor was just given, and nothing else has it.
        unsafe { libc::close(taken) };
        if written != own.len() as isize {
            return false;
        }
    }
}

/// The worker that accepted it owns a connection, not the parent that listens, whose children all
/// wait at one listener.
#[test]
fn a_pre_forking_server_is_known_by_its_workers() {
    const CONNECTIONS: usize = 4_000;
    let Some(netns) = namespace() else { return };
    let (listener, address) = netns.run(listener);
    let mut workers: Vec<_> =
        (0..4).map(|_| Child::fork(&netns, &[listener.as_fd()], serve).unwrap()).collect();
    let watched = Watched::new(&netns);
    // By the client's port, which is free again when the client has reported.
    let reports = Mutex::new(HashMap::<u16, Vec<u32>>::new());
    load(&netns, CONNECTIONS, || {
        let mut stream = connect(address);
        let port = stream.local_addr().unwrap().port();
        let mut pid = [0; 4];
        stream.read_exact(&mut pid).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it closes first");
        reports.lock().unwrap().entry(port).or_default().push(u32::from_ne_bytes(pid));
    });
    let conns = watched.told(
        "pre-fork",
        &[
            End::server(address.port(), "worker", "local", &["fin"]),
            End::client(address.port(), COMM, "remote", &["fin"]),
        ],
    );
    shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
    workers.iter_mut().for_each(|worker| worker.done().unwrap());

    let pids: Vec<u32> = workers.iter().map(Child::pid).collect();
    let mut told = HashMap::<u16, Vec<u32>>::new();
    let mut taken = BTreeMap::new();
    let mut accepted: Vec<_> = conns.iter().filter(|one| one["lport"] == address.port()).collect();
    accepted.sort_by_key(|one| one["begin_mono_ns"].as_str().unwrap().parse::<u64>().unwrap());
    for one in &accepted {
        let number = |field| one[field].as_u64().unwrap().try_into().unwrap();
        let (port, pid): (u32, u32) = (number("rport"), number("pid"));
        assert!(pids.contains(&pid), "{one}");
        told.entry(port.try_into().unwrap()).or_default().push(pid);
        *taken.entry((pid, one["owner_from"].to_string())).or_insert(0) += 1;
    }
    assert_eq!((accepted.len(), told), (CONNECTIONS, reports.into_inner().unwrap()));
    assert!(taken.len() > 1, "one worker took all: {taken:?}");
    assert!(taken.keys().all(|(_, from)| from != "\"listener\""), "{taken:?}");
    workers.into_iter().for_each(|worker| worker.end().unwrap());
}

const LEAKED: usize = 500;

/// Takes connections and forgets them.
fn leak(_control: RawFd, files: &[OwnedFd]) -> bool {
    let [listener] = files else { return false };
    call_itself(c"leaky");
    (0..LEAKED).all(|_| accept(listener) >= 0)
}

/// The last line of `states --by owner -o json`: how many of `owner` are in CLOSE_WAIT.
fn leaked(netns: &Netns, owner: &str) -> Option<u64> {
    let arguments = ["states", "--by", "owner", "-o", "json", "-N", &path(netns)];
    let ended = crate::run::run(tcptrace(&arguments));
    let line: Value = serde_json::from_str(ended.text().lines().next()?).unwrap();
    let row = line["rows"].as_array().unwrap().iter().find(|row| row["group"] == owner)?;
    row["states"]["CLOSE_WAIT"].as_u64()
}

/// The peers close, the leaking process does not; when it ends at last, nobody is there any more.
#[test]
fn a_process_that_leaks_close_wait_is_named() {
    let Some(netns) = namespace() else { return };
    // An orphan is given up after a second.
    netns.run(|| sysctl("net/ipv4/tcp_fin_timeout", "1")).unwrap();
    let (listener, address) = netns.run(listener);
    let mut leaky = Child::fork(&netns, &[listener.as_fd()], leak).unwrap();
    let watched = Watched::new(&netns);
    load(&netns, LEAKED, || drop(connect(address)));
    leaky.done().unwrap();
    until("the peers to be given up", || {
        let states = states(&netns);
        let leaked = states.get(&CLOSE_WAIT) == Some(&LEAKED);
        (leaked && states.len() == 2).then_some(())
    });
    assert_eq!(leaked(&netns, "leaky"), Some(LEAKED as u64), "by the tables and /proc alone");
    leaky.end().unwrap();
    watched.told(
        "CLOSE_WAIT leaked",
        &[
            End::server(address.port(), "leaky", "remote", &["rst-received"]),
            End::client(address.port(), COMM, "local", &["orphan-gave-up"]),
        ],
    );
}
