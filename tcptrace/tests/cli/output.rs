//! What is on stdout: the formats, and nothing in them that a process could use against whoever
//! looks.

use std::{
    fs,
    io::Read as _,
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    peer::{CLIENT, Server},
    run::{Ended, Running, can_trace, own_name, run, tcptrace},
};

/// A name that clears the screen, breaks a CSV row and starts a formula: 15 bytes.
const HOSTILE: &[u8] = b"=\x1b[2J\",\x07\\\xff\xe2\x80\xaex";

/// What `command` prints of one connection.
fn of_one_connection(command: &mut Command, server: &Server) -> Ended {
    let running = Running::listening(command);
    server.connection();
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

fn objects(ended: &Ended) -> Vec<Value> {
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn steps(objects: &[Value]) -> Vec<String> {
    let transitions = objects.iter().filter(|o| o["type"] == "transition");
    transitions
        .map(|o| format!("{} {}", o["old"].as_str().unwrap(), o["new"].as_str().unwrap()))
        .collect()
}

#[test]
fn hist_measures_each_connection_once() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let arguments = ["hist", "-D", &port, "-o", "json", "--time-wait-hook", "off"];
    let states = ["syn-sent", "fin-wait-1", "life"];
    let mut command = tcptrace(&[&arguments[..], &states].concat());
    let ended = of_one_connection(&mut command, &server);
    let lines = objects(&ended);
    let rows = lines[0]["rows"].as_array().unwrap();
    let counted: Vec<_> = rows
        .iter()
        .map(|row| (row["state"].as_str().unwrap(), row["key"].as_str(), row["count"].as_u64()))
        .collect();
    assert_eq!(
        counted,
        [
            ("SYN_SENT", Some("connected"), Some(1)),
            ("FIN_WAIT1", None, Some(1)),
            ("life", None, Some(1))
        ]
    );
    assert!(rows.iter().all(|row| row["max_ms"].as_f64().unwrap() < 10_000.0), "{rows:?}");
    assert_eq!(lines[1]["type"], "summary");
}

#[test]
fn hist_ends_after_so_many_intervals() {
    if !can_trace() {
        return;
    }
    let ended = run(tcptrace(&["hist", "-o", "json", "-L", "1", "300ms", "2"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let kinds: Vec<_> = objects(&ended).iter().map(|line| line["type"].to_string()).collect();
    assert_eq!(kinds, ["\"hist\"", "\"hist\"", "\"summary\""]);
}

#[test]
fn closers_ranks_the_two_ends_of_each_connection() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let filter = format!("{port},32768-60999");
    let arguments = ["closers", "-L", &filter, "-D", &filter, "-o", "json"];
    let running = Running::listening(&mut tcptrace(&arguments));
    server.connection_by(b"leaves");
    server.connection_by(b"leaves");
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = objects(&ended);
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&"closers".into(), &"summary".into()));
    let rows = lines[0]["rows"].as_array().unwrap();
    let row = |key: String| rows.iter().find(|row| row["key"] == key.as_str());
    // Of the process, whatever its threads are named.
    let name = own_name();
    let client = row(format!("{name} →:{port}")).unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!((&client["closed"], &client["initiators"]["local"]), (&2.into(), &2.into()));
    assert_eq!(client["endings"][0]["how"], "fin");
    if !ended.stderr.contains("TIME_WAIT is not observable") {
        assert_eq!(client["active"]["entered_time_wait"], 2);
        assert_eq!(client["time_wait"]["now"], 2);
        assert!(client["time_wait"]["seconds"].as_f64().unwrap() > 0.0, "{client}");
    }
    let accepted = row(format!("{name} :{port}")).unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!((&accepted["closed"], &accepted["initiators"]["remote"]), (&2.into(), &2.into()));
}

#[test]
fn closers_ends_after_so_many_rankings() {
    if !can_trace() {
        return;
    }
    let ended = run(tcptrace(&["closers", "-o", "json", "-L", "1", "300ms", "2"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let kinds: Vec<_> = objects(&ended).iter().map(|line| line["type"].to_string()).collect();
    assert_eq!(kinds, ["\"closers\"", "\"closers\"", "\"summary\""]);
}

#[test]
fn json_is_an_object_a_line_and_the_account_balances() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    for hook in ["tp_btf", "tracepoint"] {
        let port = server.port();
        let mut command = tcptrace(&[
            "live",
            "-o",
            "json",
            "--time-wait-hook",
            "off",
            "-D",
            &port,
            "--hook",
            hook,
        ]);
        let ended = of_one_connection(&mut command, &server);
        let objects = objects(&ended);
        assert_eq!(steps(&objects), CLIENT, "{hook}");
        for object in objects.iter().filter(|o| o["type"] == "transition") {
            assert_eq!((&object["v"], object["rport"].to_string()), (&2.into(), server.port()));
            assert_eq!(object["netns"].is_null(), hook == "tracepoint", "{object}");
        }
        let summary = objects.last().unwrap();
        assert_eq!(summary["type"], "summary");
        let number = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!(number("seen"), number("delivered") + number("filtered") + number("lost"));
        assert_eq!(number("delivered"), CLIENT.len() as u64);
        assert!(ended.stderr.contains(" 5 delivered, "), "{}", ended.stderr);
    }
}

#[test]
fn where_time_wait_is_observed_it_is_told_and_the_account_still_balances() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let mut command = tcptrace(&["-o", "json", "-D", &server.port()]);
    let ended = of_one_connection(&mut command, &server);
    let objects = objects(&ended);
    let steps = steps(&objects);
    if !ended.stderr.contains("TIME_WAIT is not observable") {
        assert_eq!(steps[4..], ["FIN_WAIT2 TIME_WAIT"], "{steps:?}");
    }
    let summary = objects.last().unwrap();
    let number = |key: &str| summary[key].as_u64().unwrap();
    assert_eq!(number("seen"), number("delivered") + number("filtered") + number("lost"));
}

#[test]
fn where_it_is_sampled_that_is_said_and_the_last_look_tells() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let mut command = tcptrace(&["-o", "json", "-D", &port, "--time-wait-hook", "sampling"]);
    let ended = of_one_connection(&mut command, &server);
    assert!(ended.stderr.contains("TIME_WAIT by sampling"), "{}", ended.stderr);
    assert!(ended.stderr.contains("between two looks"), "{}", ended.stderr);
    assert_eq!(steps(&objects(&ended))[..4], CLIENT[..4]);
    assert_eq!(steps(&objects(&ended))[4..], ["FIN_WAIT2 TIME_WAIT"]);
}

#[test]
fn a_namespace_is_filtered_by_whatever_names_it() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let (port, pid) = (server.port(), std::process::id().to_string());
    for netns in [&*pid, &format!("/proc/{pid}/ns/net")] {
        let mut command = tcptrace(&[
            "-o",
            "json",
            "--time-wait-hook",
            "off",
            "-D",
            &port,
            "-N",
            netns,
            "--hook",
            "tp_btf",
        ]);
        assert_eq!(steps(&objects(&of_one_connection(&mut command, &server))), CLIENT, "{netns}");
    }
}

#[test]
fn states_are_selected_by_either_spelling() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    for states in ["FIN_WAIT2", "fin-wait-2"] {
        let mut command =
            tcptrace(&["-o", "json", "--time-wait-hook", "off", "-D", &port, "--state", states]);
        let steps = steps(&objects(&of_one_connection(&mut command, &server)));
        assert_eq!(steps, CLIENT[3..], "{states}");
    }
}

#[test]
fn the_table_has_a_header_unless_not_wanted() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let with = of_one_connection(&mut tcptrace(&["--time-wait-hook", "off", "-D", &port]), &server);
    assert!(with.text().starts_with("LADDR:LPORT "), "{with:?}");
    assert_eq!(with.text().lines().count(), 1 + CLIENT.len());
    assert!(with.text().lines().all(|line| line.chars().count() <= 80), "{with:?}");
    assert!(!with.text().contains('\x1b'), "coloured, and not on a terminal");
    let without =
        of_one_connection(&mut tcptrace(&["--time-wait-hook", "off", "-D", &port, "-H"]), &server);
    assert_eq!(without.text().lines().count(), CLIENT.len());
    let csv =
        of_one_connection(&mut tcptrace(&["--time-wait-hook", "off", "-D", &port, "-s"]), &server);
    assert!(csv.text().starts_with("time,mono_ns,"), "{csv:?}");
    assert_eq!(csv.text().lines().count(), 1 + CLIENT.len());
}

#[test]
fn a_hostile_name_never_arrives_raw() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    for format in [&["--wide"][..], &["-o", "json"], &["-o", "csv"]] {
        let running = Running::listening(&mut tcptrace(
            &[&["--time-wait-hook", "off", "-D", &port], format].concat(),
        ));
        server.connection_by(HOSTILE);
        let ended = running.interrupt();
        let text = ended.text();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}') && text.contains("x1b[2J"), "{text:?}");
        match format {
            ["-o", "json"] => {
                let thread = objects(&ended)[0]["thread"].as_str().unwrap().to_owned();
                assert_eq!(thread, r#"=\x1b[2J",\x07\\\xff\u{202e}x"#);
            }
            ["-o", "csv"] => {
                let row = text.lines().nth(1).unwrap();
                assert!(row.contains(r#","'=\x1b[2J"",\x07\\\xff\u{202e}x""#), "{row}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_file_gets_what_stdout_would() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.json");
    fs::write(&file, "x".repeat(1 << 16)).unwrap();
    let (port, path) = (server.port(), file.to_str().unwrap());
    let mut command =
        tcptrace(&["--time-wait-hook", "off", "-D", &port, "-o", "json", "--out", path, "--force"]);
    let mut ended = of_one_connection(&mut command, &server);
    assert!(ended.stdout.is_empty());
    ended.stdout = fs::read(&file).unwrap();
    assert_eq!(steps(&objects(&ended)), CLIENT);
}

/// What `command` prints on a terminal.
fn on_a_terminal(command: &mut Command, server: &Server) -> String {
    let pty = nix::pty::openpty(None, None).unwrap();
    command.env("TERM", "xterm").stdout(Stdio::from(pty.slave));
    let mut running = Running::start_with_stdout(command);
    // `command` holds its end of the terminal open.
    command.stdout(Stdio::null());
    running.hear("listening by");
    server.connection();
    let ended = running.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    read_terminal(pty.master)
}

/// Reads until the other end is closed, which is EIO here.
fn read_terminal(master: OwnedFd) -> String {
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    let mut master = fs::File::from(master);
    while let Ok(count @ 1..) = master.read(&mut chunk) {
        all.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn colour_is_for_terminals_and_for_those_who_insist() {
    if !can_trace() {
        return;
    }
    let server = Server::new();
    let port = server.port();
    let on_terminal = |arguments: &[&str], no_color: &str| {
        let mut command =
            tcptrace(&[&["--time-wait-hook", "off", "-D", &port], arguments].concat());
        command.env("NO_COLOR", no_color);
        let text = on_a_terminal(&mut command, &server);
        assert_eq!(text.lines().count(), 1 + CLIENT.len(), "{text}");
        text.contains('\x1b')
    };
    assert!(on_terminal(&[], ""), "empty is as if it were not set");
    assert!(!on_terminal(&[], "1"));
    assert!(!on_terminal(&["--color", "never"], ""));
    assert!(
        on_terminal(&["--color", "always"], "1"),
        "the argument is nearer than the environment"
    );
    let mut piped = tcptrace(&["--time-wait-hook", "off", "-D", &port, "--color", "always"]);
    assert!(of_one_connection(&mut piped, &server).text().contains('\x1b'));
}
