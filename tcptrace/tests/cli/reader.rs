//! Where the reader is in namespaces of its own: times, process numbers and network namespaces are
//! told as the reader knows them, or said not to be.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{
    peer::Server,
    run::{Running, can_trace, command, run},
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
