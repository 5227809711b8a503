//! `tcptrace conns`: what is on stdout.

use std::{fs, net::TcpStream};

use serde_json::Value;

use crate::{
    peer::Server,
    run::{Ended, Running, can_trace, tcptrace},
};

/// What the command prints with `arguments` of one connection to `server`.
fn of_one(server: &Server, arguments: &[&str]) -> Ended {
    let port = server.port();
    let mut command = tcptrace(&[&["conns", "-D", &port], arguments].concat());
    let running = Running::listening(&mut command);
    server.connection();
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

fn connections(ended: &Ended) -> Vec<Value> {
    let lines = ended.text().lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line["type"] == "connection").collect()
}

#[test]
fn a_connection_is_a_line_in_each_format() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let table = of_one(&server, &[]);
    let lines: Vec<_> = table.text().lines().collect();
    assert!(lines[0].trim_start().starts_with("PID COMM "), "{table:?}");
    assert!(lines.len() == 2 && lines[1].ends_with(" L  fin"), "{table:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{table:?}");
    let wide = of_one(&server, &["--wide", "-H", "-T"]);
    // Between them: who closed.
    let text = wide.text();
    let verdict = text.split_once(" local ").is_some_and(|(_, rest)| rest.contains(" fin "));
    assert!(verdict, "{wide:?}");
    let csv = of_one(&server, &["-s"]);
    assert!(csv.text().starts_with("time,mono_ns,"), "{csv:?}");
    assert!(csv.text().lines().count() == 2 && csv.text().contains(",local,fin,"), "{csv:?}");
}

#[test]
fn one_in_time_wait_is_told_at_the_end_or_as_it_enters() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    for (arguments, bound) in
        [(&["-o", "json"][..], true), (&["-o", "json", "--no-time-wait"], false)]
    {
        let ended = of_one(&server, arguments);
        let [one] = &connections(&ended)[..] else { panic!("{ended:?}") };
        assert_eq!((&one["initiator"], &one["how"]), (&"local".into(), &"fin".into()));
        assert_eq!((&one["opened"], &one["tx_bytes"]), (&"connect".into(), &0.into()), "{one}");
        assert_eq!((&one["rx_bytes"], &one["pid"]), (&0.into(), &std::process::id().into()));
        assert!(one["handshake_ms"].as_f64().unwrap() <= one["ms"].as_f64().unwrap(), "{one}");
        if ended.stderr.contains("TIME_WAIT is not observable") {
            continue;
        }
        assert_eq!((&one["state"], one["end_reason"].is_null()), (&"TIME_WAIT".into(), true));
        let last = one["states"].as_array().unwrap().last().unwrap();
        assert_eq!((last["state"] == "TIME_WAIT", &last["at_least"]), (bound, &bound.into()));
    }
}

#[test]
fn those_that_are_open_are_printed_first() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let open = TcpStream::connect(server.address()).unwrap();
    let port = server.port();
    let mut command = tcptrace(&["conns", "-D", &port, "-o", "json", "--open", "--count", "1"]);
    let ended = Running::start(&mut command).end();
    let [one] = &connections(&ended)[..] else { panic!("{ended:?}") };
    assert_eq!((&one["state"], one["ms"].is_null()), (&"ESTABLISHED".into(), true), "{one}");
    assert_eq!(one["lport"], open.local_addr().unwrap().port());
}

#[test]
fn what_is_selected_is_shown_and_nothing_else() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let own = std::process::id().to_string();
    for (arguments, shown) in [
        (&["--pid", &own, "--how", "fin", "--closed-by", "local"][..], 1),
        (&["--pid", "1"], 0),
        (&["--how", "rst,timeout"], 0),
        (&["--closed-by", "remote"], 0),
        (&["--comm", "no-such-task"], 0),
        (&["--min-life", "1h"], 0),
    ] {
        let ended = of_one(&server, &[&["-o", "json"], arguments].concat());
        assert_eq!(connections(&ended).len(), shown, "{arguments:?} {ended:?}");
    }
}

#[test]
fn a_cgroup_is_named_by_its_path_or_its_id() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let all = of_one(&server, &["-o", "json"]);
    // Unknown by the classic hook, and where there is no hierarchy of v2.
    let Some(id) = connections(&all)[0]["cgroup"].as_str().map(str::to_owned) else { return };
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let Some(path) = cgroups.lines().find_map(|line| line.strip_prefix("0::")) else { return };
    for cgroup in [path, &id] {
        let ended = of_one(&server, &["-o", "json", "--cgroup", cgroup]);
        assert_eq!(connections(&ended).len(), 1, "{cgroup}: {ended:?}");
    }
    let ended = of_one(&server, &["-o", "json", "--cgroup", &format!("1{id}")]);
    assert_eq!(connections(&ended).len(), 0, "{ended:?}");
}
