//! `tcptrace serve --otlp`: what a collector gets, and what one that is down, slow or unwilling
//! does not do to the tracing. It is decoded by OpenTelemetry's own classes and Google's protobuf.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::{
    net::Netns,
    python::python,
    run::{DEADLINE, Running, can_trace, command, until},
    serve::{Samples, Serving, churn, sum},
    witness::output,
};

const COLLECTOR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);
const ENDPOINT: &str = "http://127.0.0.1:4318";

/// The messages of OTLP, as pip has them.
const MESSAGES: [&str; 1] = ["opentelemetry-proto==1.45.2"];

/// Appends each request to a file as a line of JSON. The first argument is that file, the next two a
/// certificate and a key or nothing; the rest are answers, the last of them for ever.
const RECEIVER: &str = r#"
import http.server, json, ssl, sys
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest, ExportMetricsServiceResponse)

requests, certificate, key = open(sys.argv[1], "a"), *sys.argv[2:4]
answers = [json.loads(answer) for answer in sys.argv[4:]]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportMetricsServiceRequest.FromString(body)
        exact = request.SerializeToString(deterministic=True) == body
        said = {"path": self.path, "headers": dict(self.headers), "exact": exact}
        requests.write(json.dumps(said | MessageToDict(request)) + "\n")
        requests.flush()
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        response = ExportMetricsServiceResponse()
        if "rejected" in answer:
            response.partial_success.rejected_data_points = answer["rejected"]
            response.partial_success.error_message = answer["why"]
        text = response.SerializeToString()
        self.send_response(answer["status"])
        for name, value in answer.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 4318), Handler)
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening by Python", file=sys.stderr, flush=True)
server.serve_forever()
"#;

/// A collector in a namespace.
struct Receiver {
    _running: Running,
    requests: PathBuf,
    _directory: tempfile::TempDir,
}

impl Receiver {
    /// `None` where there is no Python for it.
    fn start(home: &Netns, tls: [&str; 2], answers: &[&str]) -> Option<Self> {
        let python = python("otlp", &MESSAGES)?;
        let directory = tempfile::tempdir().unwrap();
        let requests = directory.path().join("requests");
        let file = requests.to_str().unwrap();
        let arguments = [&["-c", RECEIVER, file, tls[0], tls[1]], answers].concat();
        let mut receiver = command(python, &arguments);
        let running = home.run(|| Running::listening(&mut receiver));
        Some(Self { _running: running, requests, _directory: directory })
    }

    /// What came so far.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.requests).unwrap_or_default();
        // The last line may not be whole yet.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// One of the strings by which protobuf's JSON has 64-bit numbers.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap(),
        Value::Number(number) => number.as_f64().unwrap(),
        // Protobuf's 0 is left out.
        Value::Null => 0.0,
        other => panic!("{other}"),
    }
}

/// As prometheus-client has them: the edge of a bucket first.
fn labels(attributes: &Value, more: Option<String>) -> String {
    let none = Vec::new();
    let pair = |pair: &Value| {
        let (key, value) = (pair["key"].as_str().unwrap(), &pair["value"]["stringValue"]);
        format!("{key}=\"{}\"", value.as_str().unwrap_or_default())
    };
    let pairs = attributes.as_array().unwrap_or(&none).iter().map(pair);
    let pairs: Vec<_> = more.into_iter().chain(pairs).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// The samples of a request by the names that Prometheus has for them, and when counting began.
fn decoded(request: &Value) -> (Samples, u64) {
    let (mut samples, mut start) = (Samples::new(), None);
    let mut began = |point: &Value| {
        let at = number(&point["startTimeUnixNano"]) as u64;
        assert_eq!(*start.get_or_insert(at), at);
    };
    for metric in request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        let points = |of: &str| metric[of]["dataPoints"].as_array().unwrap().clone();
        let value = |point: &Value| {
            number(point.get("asInt").or(point.get("asDouble")).unwrap_or(&Value::Null))
        };
        if metric.get("gauge").is_some() {
            for point in points("gauge") {
                assert!(point.get("startTimeUnixNano").is_none(), "{name}");
                samples
                    .insert(format!("{name}{}", labels(&point["attributes"], None)), value(&point));
            }
        } else if let Some(sum) = metric.get("sum") {
            assert_eq!(sum["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
            assert_eq!(sum["isMonotonic"], true, "{name}");
            for point in points("sum") {
                began(&point);
                let key = format!("{name}_total{}", labels(&point["attributes"], None));
                samples.insert(key, value(&point));
            }
        } else {
            let histogram = &metric["histogram"];
            assert_eq!(histogram["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
            for point in points("histogram") {
                began(&point);
                let key = |part: &str, le: Option<String>| {
                    let le = le.map(|le| format!("le=\"{le}\""));
                    format!("{name}_{part}{}", labels(&point["attributes"], le))
                };
                samples.insert(key("count", None), number(&point["count"]));
                samples.insert(key("sum", None), number(&point["sum"]));
                let bounds = point["explicitBounds"].as_array().unwrap().iter();
                let edges = bounds.map(|bound| format!("{:?}", number(bound)));
                let counts = point["bucketCounts"].as_array().unwrap();
                let mut below = 0.0;
                assert_eq!(counts.len(), edges.len() + 1);
                for (edge, count) in edges.chain(["+Inf".to_owned()]).zip(counts) {
                    below += number(count);
                    samples.insert(key("bucket", Some(edge)), below);
                }
            }
        }
    }
    (samples, start.unwrap())
}

/// Without what is different at each look: a port in TIME_WAIT is free again to loopback after a
/// second (`tcp_tw_reuse`).
fn steady(mut samples: Samples) -> Samples {
    let moving = ["process_", "tcptrace_otlp_", "tcptrace_ephemeral_ports_used_ratio"];
    samples.retain(|name, _| !moving.iter().any(|moving| name.starts_with(moving)));
    samples
}

/// The first push, the last one, and the same values as `/metrics` and the churn have.
#[test]
fn a_collector_gets_what_is_served() {
    const CONNECTIONS: u32 = 300;
    if !can_trace() {
        return;
    }
    // Where the collector is asked and where connections are counted.
    let (home, watched) = (Netns::new().unwrap(), Netns::new().unwrap());
    let Some(receiver) = Receiver::start(&home, ["", ""], &[r#"{"status": 200}"#]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let headers = directory.path().join("headers");
    fs::write(&headers, "Authorization: Bearer 0123456789\n").unwrap();
    let more = ["--otlp", ENDPOINT, "--otlp-interval", "1h"];
    let more = [&more[..], &["--otlp-headers-file", headers.to_str().unwrap()]].concat();
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut serving = Serving::between(
        &home,
        &watched,
        &[&more[..], &["--label", "owner", "--interval", "1"]].concat(),
    );
    serving.running.hear("metrics are pushed to http://127.0.0.1:4318/v1/metrics");
    watched.run(|| churn(CONNECTIONS));
    let number_of = f64::from(CONNECTIONS);
    // Nothing moves any more once all ends and a round of snapshots are in.
    let served = until("all ends", || {
        let samples = serving.metrics();
        let ends = sum(&samples, "tcptrace_closes_total", "how=\"fin\"");
        let waits = sum(&samples, "tcptrace_connections{", "time_wait");
        (ends >= 2.0 * number_of && waits == number_of).then_some(samples)
    });
    assert_eq!(sum(&served, "tcptrace_otlp_pushes_total", "accepted"), 1.0);
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains(" 0 lost"), "{ended:?}");

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2, "one at the start, one at the end");
    for request in &requests {
        assert_eq!((&request["path"], &request["exact"]), (&"/v1/metrics".into(), &true.into()));
        let headers = &request["headers"];
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["authorization"], "Bearer 0123456789");
        let resource = labels(&request["resourceMetrics"][0]["resource"]["attributes"], None);
        let version = concat!("service.version=\"", env!("CARGO_PKG_VERSION"), "\"");
        for part in ["service.name=\"tcptrace\"", version, "host.name="] {
            assert!(resource.contains(part), "{resource}");
        }
    }
    let (first, began) = decoded(&requests[0]);
    let (last, still) = decoded(&requests[1]);
    assert_eq!(began, still, "one run, one start");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // The kernel counts the start of a process in ticks since the boot.
    let least = before - Duration::from_secs(1);
    assert!((least.as_nanos()..now.as_nanos()).contains(&u128::from(began)), "{began}");
    assert_eq!(sum(&first, "tcptrace_closes_total", ""), 0.0);
    let names = |samples: &Samples| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&last), names(&served));
    for (name, value) in steady(served) {
        // serde_json may read the last bit of a sum otherwise.
        let close = (last[&name] - value).abs() <= value.abs() * 1e-12;
        assert!(close, "{name}: {} and {value}", last[&name]);
    }
    // What the churn says itself.
    assert_eq!(sum(&last, "tcptrace_closes_total", "initiator=\"local\""), number_of);
    assert_eq!(sum(&last, "tcptrace_closes_total", "initiator=\"remote\""), number_of);
    let into = "tcptrace_transitions_total{from=\"fin_wait2\",to=\"time_wait\"}";
    assert_eq!(last[into], number_of);
    let established = "tcptrace_state_duration_seconds_bucket{le=\"+Inf\",state=\"established\"}";
    assert_eq!(last[established], 2.0 * number_of);
}

/// It is said once, counted, and made up for.
#[test]
fn a_collector_in_trouble_is_pushed_to_again() {
    if !can_trace() {
        return;
    }
    let (home, watched) = (Netns::new().unwrap(), Netns::new().unwrap());
    if python("otlp", &MESSAGES).is_none() {
        return;
    }
    let more = ["--otlp", ENDPOINT, "--otlp-interval", "1"];
    let mut serving = Serving::between(&home, &watched, &more);
    serving.running.hear("metrics are not pushed to http://127.0.0.1:4318/v1/metrics: Connection");
    let answers = [
        r#"{"status": 429, "headers": {"Retry-After": "1"}}"#,
        r#"{"status": 200, "rejected": 7, "why": "too old"}"#,
        r#"{"status": 200}"#,
    ];
    let receiver = Receiver::start(&home, ["", ""], &answers).unwrap();
    watched.run(|| churn(20));
    // From 8 s of waiting on it is not long to wait for.
    let start = Instant::now();
    let pushes = |outcome: &str| sum(&serving.metrics(), "tcptrace_otlp_pushes_total", outcome);
    while pushes("accepted") < 2.0 {
        assert!(start.elapsed() < 6 * DEADLINE, "{:?}", receiver.requests().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(pushes("failed") >= 1.0);
    assert_eq!(pushes("refused"), 2.0);
    assert_eq!(
        sum(&decoded(receiver.requests().last().unwrap()).0, "tcptrace_closes_total", ""),
        40.0
    );
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = |part: &str| ended.stderr.matches(part).count();
    assert_eq!((said("are not pushed to"), said("are pushed to")), (1, 1), "{ended:?}");
}

#[test]
fn a_collector_that_never_answers_holds_nothing_up() {
    if !can_trace() {
        return;
    }
    let (home, watched) = (Netns::new().unwrap(), Netns::new().unwrap());
    // The kernel takes the connection and the request.
    let _silent = home.run(|| TcpListener::bind(COLLECTOR).unwrap());
    let serving = Serving::between(&home, &watched, &["--otlp", ENDPOINT]);
    watched.run(|| churn(20));
    until("all ends", || {
        (sum(&serving.metrics(), "tcptrace_closes_total", "fin") == 40.0).then_some(())
    });
    let start = Instant::now();
    let ended = serving.running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("no answer within 2s"), "{ended:?}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn https_is_spoken_with_whom_is_trusted() {
    if !can_trace() {
        return;
    }
    let (home, watched) = (Netns::new().unwrap(), Netns::new().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, other) = (file("cert"), file("key"), file("other"));
    for out in [&certificate, &other] {
        let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let leaf = ["-nodes", "-addext", "basicConstraints=critical,CA:FALSE"];
        let to = if *out == certificate { &key } else { &file("other-key") };
        let paths = ["-keyout", to, "-out", out];
        let made = output(&home, "openssl", &[&make[..], &leaf, &paths, &subject].concat());
        let Some(made) = made else { return };
        assert!(made.status.success(), "{made:?}");
    }
    let answers = [r#"{"status": 200}"#];
    let Some(receiver) = Receiver::start(&home, [&certificate, &key], &answers) else { return };
    for (trusted, says) in [(&certificate, "metrics are pushed to https"), (&other, "certificate")]
    {
        let more = ["--otlp", "https://127.0.0.1:4318", "--otlp-ca", trusted];
        let mut serving = Serving::between(&home, &watched, &more);
        serving.running.hear(says);
    }
    assert_eq!(receiver.requests().len(), 1);
}
