use crate::Tracker;
use tcptrace_model::{Age, Change, script};

/// Runs what the functions told after the birth of a minisock in FIN_WAIT2 at 20 ms, and
/// prints each change of it.
fn track(lines: &str) -> String {
    let born = "\
        0ms begin\n\
        1ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
        20ms tw=b started FIN_WAIT2 10.0.0.1:7 10.0.0.2:443\n\
        21ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:0 10.0.0.2:443\n";
    let after: String =
        lines.lines().map(|line| line.trim_start().replace(" TW", TUPLE) + "\n").collect();
    let mut tracker = Tracker::default();
    let mut told = Vec::new();
    for input in script::inputs(&format!("{born}{after}")).unwrap() {
        tracker.apply(&input, &mut |change| match change {
            Change::Moved(m) if m.skaddr == 0xb => {
                let age = match m.in_old {
                    Age::Exactly(ns) => format!("{}", ns / 1_000_000),
                    Age::About { ns, .. } => format!("~{}", ns / 1_000_000),
                    other => format!("{other:?}"),
                };
                let why = m.end_reason.map_or("", |reason| reason.name());
                told.push(format!("{}>{} {age} {why}", m.old, m.new).trim_end().to_owned());
            }
            Change::Found(_) => told.push("found".to_owned()),
            Change::Gone(_) => told.push("gone".to_owned()),
            _ => {}
        });
    }
    assert_eq!(tracker.counts().anomalies, 0);
    told[1..].join(", ") + &format!("; {} left", tracker.counts().tracked)
}

const TUPLE: &str = " TIME_WAIT 10.0.0.1:7 10.0.0.2:443";

#[test]
fn a_restart_is_the_moment_of_the_move_to_time_wait() {
    let out = track("41ms tw=b restarted TW\n99ms tw=b restarted TW");
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40; 1 left");
}

#[test]
fn an_end_is_for_what_was_told_before_it() {
    let out =
        track("41ms tw=b restarted TW\n50ms tw=b stopping-by-process TW\n51ms tw=b ended TW\n");
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40, TIME_WAIT>CLOSE 9 reset; 0 left");
}

#[test]
fn a_timer_that_was_faster_than_its_stop_is_what_ended_it() {
    let out = track(
        "41ms tw=b restarted TW\n\
         60041ms tw=b stopping-by-receive TW\n\
         60042ms tw=b expired TW\n\
         60043ms tw=b ended TW\n",
    );
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40, TIME_WAIT>CLOSE 60001 expired; 0 left");
}

#[test]
fn an_end_that_nothing_announced_is_by_who_freed_it() {
    let out = track("41ms tw=b restarted TW\n50ms tw=b ended-by-purge TW\n");
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40, TIME_WAIT>CLOSE 9 netns-exit; 0 left");
    let out = track("41ms tw=b restarted TW\n50ms tw=b ended TW\n");
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40, TIME_WAIT>CLOSE 9 unknown; 0 left");
}

#[test]
fn an_end_that_was_lost_is_taken_from_its_stop() {
    let out = track(
        "41ms tw=b restarted TW\n50ms tw=b stopping-by-connect TW\n51ms tick\n1051ms tick\n\
         1052ms tw=b ended TW\n",
    );
    assert_eq!(out, "FIN_WAIT2>TIME_WAIT 40, TIME_WAIT>CLOSE 9 reused-by-connect; 0 left");
}

#[test]
fn the_end_of_one_from_before_is_told_once() {
    let out = track("50ms tw=c ended-by-purge TW\n51ms tw=c ended TW");
    assert_eq!(out, "found; 1 left");
}

#[test]
fn one_that_ended_before_its_full_socket_was_told_is_not_found_again() {
    let out = track(
        "30ms tw=d started TIME_WAIT 10.0.0.1:8 10.0.0.2:443\n\
         31ms tw=d ended TIME_WAIT 10.0.0.1:8 10.0.0.2:443\n\
         200ms tick\n",
    );
    assert_eq!(out, "; 1 left");
}
