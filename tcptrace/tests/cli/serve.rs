//! `tcptrace serve`: what Prometheus and others get, and what clients that mean no good do not.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use serde_json::Value;

use crate::{
    net::Netns,
    run::{DEADLINE, Running, can_trace, command, run, tcptrace, until},
    validator,
    witness::{output, path, ss},
};

/// Where it listens in a namespace of its own, and Prometheus.
const SERVE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9718);
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// A run of `serve` at a socket in a directory: asking it makes no TCP connection.
pub struct Serving {
    pub running: Running,
    directory: tempfile::TempDir,
}

impl Serving {
    pub fn of(netns: &Netns, more: &[&str]) -> Self {
        Self::between(netns, netns, more)
    }

    /// One that runs in `home` and looks at `watched`.
    pub fn between(home: &Netns, watched: &Netns, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let of = path(watched);
        let arguments =
            [&["serve", "--unix", socket.to_str().unwrap(), "-N", &of][..], more].concat();
        let mut command = tcptrace(&arguments);
        let running = home.run(|| Running::listening(&mut command));
        let serving = Self { running, directory };
        until("it to be ready", || (serving.get("/readyz").0 == 200).then_some(()));
        serving
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("socket")
    }

    /// Status and body of an answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.socket(), path)
    }

    /// The whole answer, with its head.
    pub fn answer(&self, path: &str) -> String {
        hear(&self.socket(), &get_request(path))
    }

    pub fn metrics(&self) -> Samples {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        samples(&text)
    }
}

/// Status and body of an answer to `request` at a socket.
fn ask(socket: &Path, request: &str) -> (u16, String) {
    split(&hear(socket, request))
}

/// The answer to `request` at a socket.
fn hear(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// What is answered at a socket for `path`.
pub fn get(socket: &Path, path: &str) -> (u16, String) {
    let (status, body) = ask(socket, &get_request(path));
    if status == 200 && path.starts_with("/api/v1/") {
        body.lines().for_each(|line| drop(validator::check(line)));
    }
    (status, body)
}

fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

/// By name and labels.
pub type Samples = BTreeMap<String, f64>;

fn samples(text: &str) -> Samples {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

pub fn sum(samples: &Samples, name: &str, label: &str) -> f64 {
    let of = |key: &&String| key.starts_with(name) && key.contains(label);
    samples.keys().filter(of).map(|key| samples[key]).sum()
}

/// So many connections on loopback, closed by the client first.
pub fn churn(connections: u32) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..connections {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        drop(client);
        // The FIN is here.
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}

/// Whether `program` is here; said where it is not.
fn is_here(netns: &Netns, program: &str) -> bool {
    output(netns, program, &["--version"]).is_some()
}

/// `promtool check` of `what`, with `input`.
fn promtool(what: &[&str], input: &str) {
    let mut child = command("promtool", what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn metrics_are_what_happened_and_what_ss_counts() {
    const CONNECTIONS: u32 = 500;
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if ss(&netns).is_none() {
        return;
    }
    let serving = Serving::of(&netns, &["--label", "owner", "--interval", "1"]);
    netns.run(|| churn(CONNECTIONS));
    let closes = |samples: &Samples| sum(samples, "tcptrace_closes_total", "how=\"fin\"");
    let samples = until("all ends", || {
        let samples = serving.metrics();
        (closes(&samples) >= 2.0 * f64::from(CONNECTIONS)).then_some(samples)
    });
    let number = f64::from(CONNECTIONS);
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("{name}: {samples:?}"));
    assert_eq!(sum(&samples, "tcptrace_closes_total", "initiator=\"local\""), number);
    assert_eq!(sum(&samples, "tcptrace_closes_total", "initiator=\"remote\""), number);
    let into = "tcptrace_transitions_total{from=\"fin_wait2\",to=\"time_wait\"}";
    assert_eq!(value(into), number);
    assert_eq!(value("tcptrace_state_duration_seconds_count{state=\"established\"}"), 2.0 * number);
    assert_eq!(value("tcptrace_events_lost_total{hook=\"set_state\"}"), 0.0);
    assert_eq!(value("tcptrace_time_wait_overflow_total"), 0.0);
    assert_eq!(sum(&samples, "tcptrace_hook_attached", "hook=\"set_state\""), 1.0);
    // Nothing moves any more, so that both see the same.
    until("the counts of ss", || {
        let (samples, ss) = (serving.metrics(), ss(&netns).unwrap());
        let same = |state: &str| {
            let label = format!("state=\"{}\"", state.to_ascii_lowercase());
            let counted = sum(&samples, "tcptrace_connections{", &label);
            counted == ss.get(state).copied().unwrap_or(0) as f64
        };
        ["LISTEN", "ESTABLISHED", "TIME_WAIT", "CLOSE_WAIT"].iter().all(|of| same(of)).then_some(())
    });
    if is_here(&netns, "promtool") {
        promtool(&["check", "metrics"], &serving.get("/metrics").1);
    }
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");
}

#[test]
fn an_answer_is_the_line_of_the_command_of_its_name() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--interval", "1"]);
    netns.run(|| churn(20));
    for name in ["states", "hist", "closers", "stuck", "ports", "doctor"] {
        // The doctor watches for ten seconds, and what it compares comes each ten seconds.
        let deadline = Instant::now() + 3 * DEADLINE;
        let served = loop {
            match serving.get(&format!("/api/v1/{name}")) {
                (200, body) => break body,
                (503, _) => assert!(Instant::now() < deadline, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
            thread::sleep(Duration::from_millis(50));
        };
        let served: Value = serde_json::from_str(served.trim_end()).unwrap();
        let (of, brief) = (path(&netns), name == "doctor");
        let mut arguments = vec![name, "-o", "json", "-N", &of];
        arguments.extend(brief.then_some(["--duration", "1s"]).into_iter().flatten());
        arguments.extend(
            matches!(name, "hist" | "closers")
                .then_some(["--duration", "200ms"])
                .into_iter()
                .flatten(),
        );
        let printed = run(tcptrace(&arguments));
        let first: Value = serde_json::from_str(printed.text().lines().next().unwrap()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&served), keys(&first), "{name}");
        assert_eq!((&served["v"], &served["type"]), (&2.into(), &name.into()));
    }
    assert_eq!(serving.get("/api/v1/no-such").0, 404);
    let (status, page) = serving.get("/");
    assert!(status == 200 && page.contains("href=\"/metrics\""), "{page}");
}

/// Many at a time, some of them slow, large or wrong.
#[test]
fn clients_that_mean_no_good_hold_nobody_up() {
    const SCRAPES: usize = 1000;
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--listen", &SERVE.to_string()]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096.min(hard)), hard).unwrap();
    // Each sends a byte of its request and no more.
    let slow: Vec<TcpStream> = netns.run(|| {
        (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect(SERVE).unwrap();
                stream.write_all(b"G").unwrap();
                stream
            })
            .collect()
    });
    let tcp = |request: &[u8]| -> (u16, String) {
        let mut stream = TcpStream::connect(SERVE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // It may be refused before all of it is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => split(&String::from_utf8_lossy(&answer)),
        }
    };
    netns.run(|| {
        let huge =
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
        let host = "GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n";
        let twice = format!("{host}Host: localhost\r\n\r\n");
        for (request, statuses) in [
            (twice.as_bytes(), &[400][..]),
            (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", &[400]),
            (b"GET /healthz HTTP/1.0\r\n\r\n", &[200]),
            (huge.as_bytes(), &[431, 0]),
            (many.as_bytes(), &[431]),
            (b"\x16\x03\x01\x02\x00\x01\x00", &[400]),
            (b"GET\r\n\r\n", &[400]),
            (b"GET / HTTP/9.9\r\n\r\n", &[400, 505]),
            (
                b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n",
                &[405],
            ),
            (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", &[413]),
            (
                b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
                &[413],
            ),
            (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", &[421]),
        ] {
            let (status, _) = tcp(request);
            let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
            assert!(statuses.contains(&status), "{shown}: {status}");
        }
    });
    // All at once: each is accepted before any asks.
    let answered = netns.run(|| {
        thread::scope(|scope| {
            let some = || {
                let mut streams: Vec<_> =
                    (0..SCRAPES / 10).map(|_| TcpStream::connect(SERVE).unwrap()).collect();
                let request =
                    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
                for stream in &mut streams {
                    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
                    stream.write_all(request).unwrap();
                }
                let whole = |stream: &mut TcpStream| {
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    let (status, text) = split(&answer);
                    status == 200 && text.contains("tcptrace_connections")
                };
                streams.iter_mut().filter_map(|stream| whole(stream).then_some(())).count()
            };
            let scrapers: Vec<_> = (0..10).map(|_| scope.spawn(some)).collect();
            scrapers.into_iter().map(|scraper| scraper.join().unwrap()).sum::<usize>()
        })
    });
    assert_eq!(answered, SCRAPES);
    // Who is slow is sent away, or told that it took too long.
    for mut stream in slow {
        stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
    }
    let lost = sum(&serving.metrics(), "tcptrace_events_lost_total", "");
    assert_eq!(lost, 0.0);
    serving.running.signal(Signal::SIGTERM);
    let ended = serving.running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");
}

/// A kubelet asks while others hold every connection that there may be with half a request.
#[test]
fn a_probe_is_answered_while_half_sent_requests_hold_every_connection() {
    const HALF_SENT: u64 = 1200;
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--listen", &SERVE.to_string()]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096.min(hard)), hard).unwrap();
    let half: Vec<TcpStream> = netns.run(|| {
        let half_sent = |_| {
            let mut stream = TcpStream::connect(SERVE).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local").unwrap();
            stream
        };
        (0..HALF_SENT).map(half_sent).collect()
    });
    for path in ["/healthz", "/readyz", "/metrics"] {
        let begun = Instant::now();
        let answer = netns.run(|| {
            let mut stream = TcpStream::connect(SERVE).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let request = get_request(path).replace("Host: x", "Host: localhost");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        println!("{path} behind {HALF_SENT} half-sent requests: {:?}", begun.elapsed());
        assert_eq!(split(&answer).0, 200, "{path}: {answer}");
    }
    // They were still there, or it was no test: most of them are, and their time is not over.
    let open = half.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.peek(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    let open = open.count();
    assert!(open > 500, "{open} are open");
    // Nobody who has not asked is waited for.
    serving.running.signal(Signal::SIGTERM);
    let begun = Instant::now();
    let ended = serving.running.end();
    println!("SIGTERM with {open} half-sent requests: {:?}", begun.elapsed());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// The certificate that is shown at [`SERVE`] to a new connection, in PEM; `None` without openssl.
fn certificate_shown(netns: &Netns) -> Option<String> {
    let connect = ["s_client", "-connect", &SERVE.to_string()];
    let shown = String::from_utf8(output(netns, "openssl", &connect)?.stdout).unwrap();
    let begin = shown.find("-----BEGIN CERTIFICATE-----")?;
    let end = shown.find("-----END CERTIFICATE-----")?;
    Some(shown[begin..end].to_owned())
}

/// As whoever renews a certificate does: other files at the same paths, then SIGHUP.
#[test]
fn sighup_reads_token_and_certificate_again_and_ends_nothing() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let make = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.cert")), file(&format!("{name}.key")));
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let out = ["-nodes", "-subj", "/CN=localhost", "-keyout", &key, "-out", &certificate];
        let made = output(&netns, "openssl", &[&make[..], &out].concat())?;
        assert!(made.status.success(), "{made:?}");
        Some((certificate, key))
    };
    let (Some(first), Some(second)) = (make("first"), make("second")) else { return };
    let (certificate, key, token) = (file("cert"), file("key"), file("token"));
    let install = |of: &(String, String)| {
        fs::copy(&of.0, &certificate).unwrap();
        fs::copy(&of.1, &key).unwrap();
    };
    let pem = |of: &(String, String)| {
        let pem = fs::read_to_string(&of.0).unwrap();
        pem.split("-----END").next().unwrap().to_owned()
    };
    install(&first);
    fs::write(&token, "the-token-of-before\n").unwrap();
    let listen = SERVE.to_string();
    let arguments = ["--listen", &listen, "--tls-cert", &certificate, "--tls-key", &key];
    let mut serving = Serving::of(&netns, &[&arguments[..], &["--token-file", &token]].concat());
    let status = |serving: &Serving, token: &str| {
        let request = format!(
            "GET /api/v1/states HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \
             {token}\r\n\r\n"
        );
        ask(&serving.socket(), &request).0
    };
    assert_eq!(certificate_shown(&netns).unwrap(), pem(&first));
    assert_eq!(status(&serving, "the-token-of-before"), 200);

    // A certificate whose key is not there yet, and half a token.
    fs::copy(&second.0, &certificate).unwrap();
    fs::write(&token, "half\n").unwrap();
    serving.running.signal(Signal::SIGHUP);
    serving.running.hear("the token from before stays in force");
    serving.running.hear("the certificate from before stays in force");
    assert_eq!(certificate_shown(&netns).unwrap(), pem(&first));
    assert_eq!(status(&serving, "the-token-of-before"), 200);

    install(&second);
    fs::write(&token, "the-token-from-now-on\n").unwrap();
    serving.running.signal(Signal::SIGHUP);
    serving.running.hear("the token was read again");
    serving.running.hear("certificate and key were read again");
    assert_eq!(certificate_shown(&netns).unwrap(), pem(&second));
    assert_eq!(status(&serving, "the-token-of-before"), 401);
    assert_eq!(status(&serving, "the-token-from-now-on"), 200);

    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");
}

/// Where in `deploy/` a file is.
fn deploy(file: &str) -> String {
    format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn ask_prometheus(query: &str) -> Value {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    prometheus(&format!("/api/v1/query?query={encoded}"))
}

fn prometheus(path: &str) -> Value {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(PROMETHEUS)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // 1.0: the answer is not in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().unwrap_or_default();
    serde_json::from_str(&split(&answer).1).unwrap_or(Value::Null)
}

/// Queries of the dashboard, with its variables as a browser fills them in.
fn dashboard_queries() -> Vec<String> {
    let text = fs::read_to_string(deploy("grafana/tcptrace.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            queries.push(
                query
                    .replace("$__rate_interval", "5s")
                    .replace("$instance", ".*")
                    .replace("$__range", "1m"),
            );
        }
    }
    assert!(queries.len() >= 10, "{queries:?}");
    queries
}

/// Each alert fires in its own case and is silent in another, by promtool; and what it asks for is there
/// before anything has happened, so that the first step of it is seen.
#[test]
fn every_alert_fires_in_its_own_case_and_only_there() {
    let (rules, cases) = (deploy("prometheus/rules.yaml"), deploy("prometheus/rules_test.yaml"));
    let text = fs::read_to_string(&rules).unwrap();
    let alerts: Vec<_> = text.lines().filter_map(|line| line.split_once("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let tested = fs::read_to_string(&cases).unwrap();
    for (_, alert) in alerts {
        let of = format!("        alertname: {alert}\n        exp_alerts:");
        let cases = tested.match_indices(&of).map(|(at, found)| &tested[at + found.len()..]);
        let (silent, firing): (Vec<_>, Vec<_>) = cases.partition(|rest| rest.starts_with(" []"));
        assert!(!silent.is_empty() && !firing.is_empty(), "{alert} is not tested both ways");
    }
    if command("promtool", &["--version"]).output().is_ok() {
        promtool(&["test", "rules", &cases], "");
        println!("promtool test rules: all cases of {cases}");
    } else {
        println!("skipped: promtool is not here, so no case of {cases} was evaluated");
    }

    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let serving = Serving::of(&netns, &["--interval", "1"]);
    let samples = until("the first scan and the first interval", || {
        let samples = serving.metrics();
        let has = |name: &&str| samples.keys().any(|key| key.starts_with(name));
        let late = ["tcptrace_stuck_sockets", "tcptrace_ephemeral_ports_used_ratio"];
        late.iter().all(has).then_some(samples)
    });
    // What is there only where there is trouble is a gauge, which has no first step to miss.
    let later = ["tcptrace_peer_ephemeral_ports_used_ratio"];
    for series in tested.lines().filter_map(|line| line.trim().strip_prefix("- series: ")) {
        let series = series.trim_matches('\'');
        let (name, labels) = series.split_once('{').unwrap();
        if !name.starts_with("tcptrace_") || later.contains(&name) {
            continue;
        }
        // But those that Prometheus adds and --label, and what depends on the host.
        let own = labels.trim_end_matches('}').split(",instance=").next().unwrap();
        let own = if own.starts_with("instance=") { "" } else { own };
        let own = own.split(",backend=").next().unwrap();
        let is = |key: &String| key.starts_with(name) && key.contains(own);
        assert!(samples.keys().any(is), "{series} is not served: {samples:?}");
    }
    for (name, label) in [
        ("tcptrace_closes_total", "how=\"timeout-retransmit\""),
        ("tcptrace_connects_failed_total", "how=\"timeout-syn\""),
        ("tcptrace_connects_failed_total", "how=\"no-local-port\""),
    ] {
        assert!(samples.keys().any(|key| key.starts_with(name) && key.contains(label)), "{label}");
    }
}

/// A real Prometheus scrapes under churn: it knows the metrics, the rules and the queries.
#[test]
fn a_real_prometheus_scrapes_it_and_its_queries_are_answered() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    if !is_here(&netns, "prometheus") || !is_here(&netns, "promtool") {
        return;
    }
    let rules = deploy("prometheus/rules.yaml");
    promtool(&["check", "rules", &rules], "");
    promtool(&["check", "config", "--syntax-only", &deploy("prometheus/scrape.yaml")], "");

    let serving = Serving::of(&netns, &["--listen", &SERVE.to_string(), "--interval", "1"]);
    let directory = tempfile::tempdir().unwrap();
    let configuration = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules}]\n\
         scrape_configs: [{{job_name: tcptrace, static_configs: [{{targets: ['{SERVE}']}}]}}]\n"
    );
    let file = directory.path().join("prometheus.yaml");
    fs::write(&file, configuration).unwrap();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", directory.path().join("data").display()),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _prometheus = netns.run(|| Running::start(&mut command("prometheus", &arguments)));

    let number = |query: &str| -> Option<f64> {
        let answer = ask_prometheus(query);
        answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
    };
    netns.run(|| {
        until("a target that is up", || {
            (number("up{job=\"tcptrace\"}") == Some(1.0)).then_some(())
        });
        // What is drawn needs two samples; some of it is there only when connections end.
        let queries = dashboard_queries();
        let start = Instant::now();
        let mut empty = queries.clone();
        while !empty.is_empty() {
            churn(50);
            // Nobody listens there.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, 1));
            empty.retain(|query| {
                let answer = ask_prometheus(query);
                assert_eq!(answer["status"], "success", "{query}: {answer}");
                answer["data"]["result"].as_array().is_none_or(Vec::is_empty)
            });
            assert!(start.elapsed() < 2 * DEADLINE, "no answer to {empty:?}");
        }
        // All rules are evaluated, and none of them fails.
        let rules = until("rules", || {
            let rules = prometheus("/api/v1/rules");
            let all = rules.pointer("/data/groups")?.as_array()?.clone();
            let done = |group: &Value| {
                group["rules"].as_array().unwrap().iter().all(|rule| rule["health"] == "ok")
            };
            (!all.is_empty() && all.iter().all(done)).then_some(all)
        });
        assert!(rules.iter().any(|group| group["rules"][0]["type"] == "recording"));
        let targets = prometheus("/api/v1/targets");
        let target = &targets["data"]["activeTargets"][0];
        assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    });
    // Prometheus has what was there when it asked, which cannot be more than there is.
    let total = "sum(tcptrace_closes_total{how=\"fin\"})";
    let now = sum(&serving.metrics(), "tcptrace_closes_total", "how=\"fin\"");
    netns.run(|| until("the last value", || (number(total)? >= now).then_some(())));
    let lost = sum(&serving.metrics(), "tcptrace_events_lost_total", "");
    assert_eq!(lost, 0.0);
}

#[test]
fn a_token_and_tls_are_asked_for_where_they_are_wanted() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (token, certificate, key) = (file("token"), file("cert"), file("key"));
    fs::write(&token, "correct-horse-battery\n").unwrap();
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let out = ["-keyout", &key, "-out", &certificate];
    let made = output(&netns, "openssl", &[&make[..], &out, &subject].concat());
    let (Some(made), true) = (made, is_here(&netns, "curl")) else { return };
    assert!(made.status.success(), "{made:?}");
    let listen = SERVE.to_string();
    let arguments = ["--listen", &listen, "--tls-cert", &certificate, "--tls-key", &key];
    let serving = Serving::of(&netns, &[&arguments[..], &["--token-file", &token]].concat());
    let curl = |more: &[&str]| {
        let url = format!("https://{SERVE}/metrics");
        let common = ["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"];
        let arguments = [&common[..], &[&certificate, &url], more].concat();
        String::from_utf8(output(&netns, "curl", &arguments).unwrap().stdout).unwrap()
    };
    assert_eq!(curl(&["-H", "Authorization: Bearer correct-horse-battery"]), "200");
    assert_eq!(curl(&["-H", "Authorization: Bearer correct-horse-batterz"]), "401");
    assert_eq!(curl(&[]), "401");
    // At the socket too; but not for whether it lives.
    assert_eq!((serving.get("/metrics").0, serving.get("/healthz").0), (401, 200));
    let mode = fs::metadata(serving.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let socket = serving.socket();
    serving.running.interrupt();
    assert!(!socket.exists());
}

/// Each in one line that says what to do, before anything is attached.
#[test]
fn what_cannot_be_served_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken_address(&taken);
    let (empty, short) = (file("empty", ""), file("short", "x\n"));
    let refused: [(&[&str], i32, &str); 22] = [
        (&["--listen", &taken], 1, "Address already in use"),
        (&["--listen", "0.0.0.0:0"], 2, "--allow-remote"),
        (&["--listen", "localhost:9718"], 2, "invalid socket address"),
        (&["--listen", "192.0.2.1:9718", "--allow-remote"], 1, "has no such address"),
        (&["--tls-cert", &empty], 2, "--tls-key"),
        (&["--tls-cert", &empty, "--tls-key", &empty], 1, "there is none in PEM in it"),
        (&["--tls-cert", "/no/such", "--tls-key", &empty], 1, "/no/such: No such file"),
        (&["--token-file", &short], 1, "openssl rand -hex 32"),
        (&["--token-file", "/no/such"], 1, "cannot read the token: No such file"),
        (&["--label", "peer"], 2, "owner, port or unit"),
        (&["--otlp", "localhost:4318"], 2, "give a URL like http://127.0.0.1:4318"),
        (&["--otlp", "grpc://localhost:4317"], 2, "neither http nor https"),
        (&["--otlp", "http://me:secret@localhost:4318"], 2, "--otlp-headers-file"),
        (&["--otlp", "http://c:4318", "--otlp-interval", "10ms"], 2, "at least 1s"),
        (&["--otlp-interval", "1m"], 2, "--otlp"),
        (&["--export-dir", "/no/such"], 1, "/no/such: it has to be there already: No such file"),
        (&["--export-dir", &empty], 1, "is no directory"),
        (&["--export-dir", "/", "--export-every", "10ms"], 2, "at least 1s"),
        (&["--export-keep", "3"], 2, "--export-dir"),
        (&["--otlp", "http://c:4318", "--otlp-headers-file", &short], 1, "line 1 is no header"),
        (
            &["--otlp", "http://c:4318", "--otlp-headers-file", "/no/such"],
            1,
            "headers: No such file",
        ),
        (&["--otlp", "https://c:4318", "--otlp-ca", &empty], 1, "there is none in PEM in it"),
    ];
    for (arguments, code, says) in refused {
        let ended = run(tcptrace(&[&["serve"], arguments].concat()));
        let line = ended.refusal(code);
        assert!(line.contains(says), "{arguments:?}: {line}");
        assert!(line.matches("No such file").count() <= 1, "said twice: {line}");
    }
    let left = directory.path().join("left");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let busy = directory.path().join("busy");
    let _busy = std::os::unix::net::UnixListener::bind(&busy).unwrap();
    let ended = run(tcptrace(&["serve", "--unix", busy.to_str().unwrap()]));
    assert!(ended.refusal(1).contains("Address already in use"), "{ended:?}");
    // A file that is no socket is not removed.
    let ended = run(tcptrace(&["serve", "--unix", &empty]));
    assert!(ended.refusal(1).contains("Address already in use"), "{ended:?}");
    assert!(Path::new(&empty).exists() && left.exists());
}

fn taken_address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}
