//! What follows from inputs, by scripts.

use super::*;
use tcptrace_model::script;

/// Runs a script and prints each change in one line, then the counts.
fn track(limit: usize, lines: &str) -> String {
    use std::fmt::Write as _;
    let mut tracker = Tracker::new(limit);
    let mut text = String::new();
    for input in script::inputs(lines).unwrap() {
        tracker.apply(&input, &mut |change| {
            let Change::Moved(moved) = change else { return };
            let age = match moved.in_old {
                Age::Unknown => "?".to_owned(),
                Age::AtLeast(ns) => format!(">={}us", ns / 1000),
                Age::About { ns, within_ns } => {
                    format!("{}us+-{}", ns / 1000, within_ns / 1000)
                }
                Age::Exactly(ns) => format!("{}us", ns / 1000),
            };
            let owner = moved
                .owner
                .map(|o| format!(" {} by {}", o.task.comm, o.from.name()))
                .unwrap_or_default();
            let t = moved.tuple;
            writeln!(
                text,
                "{:x} {}:{} {}:{} {}>{} {age}{owner}",
                moved.skaddr,
                t.local_ip(),
                t.lport,
                t.remote_ip(),
                t.rport,
                moved.old,
                moved.new
            )
            .unwrap();
        });
    }
    let Counts { anomalies, resynchronised, evicted, tracked, .. } = tracker.counts();
    writeln!(text, "{anomalies} {resynchronised} {evicted} {tracked}").unwrap();
    text
}

#[test]
fn a_connection_from_connect_to_close() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl\n\
         3ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 comm=swapper/0\n\
         5ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 comm=curl\n\
         6ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443 comm=nginx\n\
         9ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443 comm=nginx\n",
    );
    assert_eq!(
        out,
        "a 10.0.0.1:0 10.0.0.2:443 CLOSE>SYN_SENT ? curl by connect\n\
         a 10.0.0.1:7 10.0.0.2:443 SYN_SENT>ESTABLISHED 2000us curl by connect\n\
         a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>FIN_WAIT1 2000us curl by connect\n\
         a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT1>FIN_WAIT2 1000us curl by connect\n\
         a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT2>CLOSE 3000us curl by connect\n\
         0 0 0 0\n"
    );
}

#[test]
fn an_unseen_start_is_a_lower_bound() {
    let out = track(
        9,
        "10ms begin\n\
         12ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n\
         13ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.1:7 10.0.0.2:443 comm=app\n\
         10ms sk=b LAST_ACK>CLOSE 10.0.0.1:8 10.0.0.2:443\n",
    );
    assert_eq!(
        out,
        "a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=2000us\n\
         a 10.0.0.1:7 10.0.0.2:443 CLOSE_WAIT>LAST_ACK 1000us app by close\n\
         b 10.0.0.1:8 10.0.0.2:443 LAST_ACK>CLOSE ?\n\
         0 0 0 1\n",
        "never 0"
    );
}

#[test]
fn a_childs_syn_queue_time_is_not_its_own() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0 comm=nginx\n\
         5ms sk=c LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:7 comm=curl\n\
         5.01ms sk=c SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:7 comm=curl\n\
         9ms sk=1 LISTEN>CLOSE 10.0.0.2:443 0.0.0.0:0 comm=nginx\n",
    );
    assert_eq!(
        out,
        "1 10.0.0.2:443 0.0.0.0:0 CLOSE>LISTEN ? nginx by listener\n\
         c 10.0.0.2:443 10.0.0.1:7 LISTEN>SYN_RECV ? nginx by listener\n\
         c 10.0.0.2:443 10.0.0.1:7 SYN_RECV>ESTABLISHED >=10us nginx by listener\n\
         1 10.0.0.2:443 0.0.0.0:0 LISTEN>CLOSE 8000us nginx by listener\n\
         0 0 0 1\n"
    );
}

#[test]
fn what_was_lost_makes_no_anomaly_and_no_false_time() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=curl\n\
         1ms sk=b CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=curl cookie=1\n\
         2ms sk=b SYN_SENT>ESTABLISHED 10.0.0.1:8 10.0.0.2:443 cookie=1\n\
         1ms sk=d CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=curl\n\
         2ms sk=d SYN_SENT>ESTABLISHED 10.0.0.1:8 10.0.0.2:443\n\
         4ms lost 2\n\
         7ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n\
         7ms sk=b ESTABLISHED>CLOSE_WAIT 10.0.0.1:8 10.0.0.2:443 cookie=1\n\
         7ms sk=d ESTABLISHED>CLOSE_WAIT 10.0.0.1:8 10.0.0.2:443\n\
         8ms sk=e ESTABLISHED>CLOSE 10.0.0.1:9 10.0.0.2:443 err=104\n",
    );
    let tail: Vec<_> = out.lines().skip(5).collect();
    assert_eq!(
        tail,
        [
            "a 10.0.0.1:7 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=3000us curl by connect",
            "b 10.0.0.1:8 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT 5000us curl by connect",
            "d 10.0.0.1:8 10.0.0.2:443 ESTABLISHED>CLOSE_WAIT >=3000us curl by connect",
            "e 10.0.0.1:9 10.0.0.2:443 ESTABLISHED>CLOSE >=4000us",
            "0 1 0 3",
        ]
    );
}

#[test]
fn what_the_kernel_skipped_makes_no_anomaly_either() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=curl\n\
         4ms missed 1\n\
         7ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443\n",
    );
    assert!(out.ends_with("ESTABLISHED>CLOSE_WAIT >=3000us curl by connect\n0 1 0 1\n"), "{out}");
}

#[test]
fn an_address_is_reused_by_another_socket() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=curl cookie=1\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cookie=1\n\
         9ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:9 10.0.0.2:80 cookie=2\n",
    );
    assert!(
        out.ends_with("a 10.0.0.1:9 10.0.0.2:80 ESTABLISHED>CLOSE_WAIT >=9000us\n1 0 0 1\n"),
        "{out}"
    );
}

#[test]
fn the_impossible_is_counted_and_shown() {
    let out = track(
        9,
        "0ms begin\n\
         1ms sk=a LISTEN>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
         2ms sk=a ESTABLISHED>ESTABLISHED 10.0.0.1:7 10.0.0.2:443\n\
         3ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443\n",
    );
    assert_eq!(
        out,
        "a 10.0.0.1:7 10.0.0.2:443 LISTEN>ESTABLISHED >=1000us\n\
         a 10.0.0.1:7 10.0.0.2:443 FIN_WAIT2>CLOSE ?\n\
         2 0 0 0\n"
    );
}

#[test]
fn past_the_limit_the_oldest_is_forgotten() {
    let out = track(
        1,
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 comm=x\n\
         2ms sk=b CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443 comm=x\n\
         5ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443\n",
    );
    assert!(out.ends_with("SYN_SENT>CLOSE >=3000us\n0 0 1 1\n"), "{out}");
}
