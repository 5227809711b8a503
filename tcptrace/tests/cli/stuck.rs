//! `tcptrace stuck`: what is on stdout.

use std::{
    io::Write as _,
    net::{Shutdown, TcpListener, TcpStream},
};

use serde_json::Value;

use crate::{
    net::Netns,
    run::{Ended, can_trace, run, tcptrace, until},
    witness::path,
};

/// A server in `netns` that has not closed what its client did, and that client.
fn leak(netns: &Netns) -> (TcpListener, TcpStream, TcpStream) {
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"seven!!").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        (listener, client, server)
    })
}

fn stuck(netns: &Netns, arguments: &[&str]) -> Ended {
    let path = path(netns);
    let ended = run(tcptrace(&[&["stuck", "-N", &path], arguments].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

#[test]
fn a_leak_is_shown_at_once_without_hooks() {
    let netns = Netns::new().unwrap();
    let _leaked = leak(&netns);
    let text = until("the FIN to arrive", || {
        let ended = stuck(&netns, &["--older", "0", "--state", "close-wait"]);
        ended.text().contains("\nCLOSE_WAIT 0s: the peer has closed").then_some(ended)
    });
    assert!(!text.stderr.contains("listening"), "{text:?}");
    let text = text.text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let own = std::process::id().to_string();
    let socket = text.lines().last().unwrap();
    assert!(socket.contains("CLOSE_WAIT") && socket.contains(&own), "{text}");
    assert!(!text.contains("FIN_WAIT2"), "{text}");

    // The server's host may be slow to acknowledge the FIN.
    let line: Value = until("the FIN's acknowledgement", || {
        let ended = stuck(&netns, &["--older", "0", "-o", "json", "--by", "port"]);
        ended
            .text()
            .contains("\"FIN_WAIT2\",\"cause\":\"half-closed\",\"ms\"")
            .then(|| serde_json::from_str(ended.text().trim_end()).unwrap())
    });
    let sockets = line["sockets"].as_array().unwrap();
    let server = sockets.iter().find(|socket| socket["state"] == "CLOSE_WAIT").unwrap();
    assert_eq!((&server["unread"], &server["eof_read"]), (&7.into(), &false.into()), "{server}");
    let client = sockets.iter().find(|socket| socket["state"] == "FIN_WAIT2").unwrap();
    assert_eq!((&client["lport"], &client["held"]), (&server["rport"], &true.into()));
    // Which end was the service was not seen: the lower port is taken for it.
    let service = server["lport"].as_u64().min(server["rport"].as_u64()).unwrap();
    assert_eq!(
        (&line["by"], &line["groups"][0]["group"]),
        (&"port".into(), &service.to_string().into())
    );

    let young = stuck(&netns, &[]);
    assert!(young.text().contains("no connection is past its threshold yet\n"), "{young:?}");
    let below = "... below the threshold: 1 CLOSE_WAIT (60s), 1 FIN_WAIT2 (60s); --older 0 lists";
    assert!(young.text().contains(below), "{young:?}");
    let csv = stuck(&netns, &["-o", "csv", "--older", "0"]);
    assert_eq!(csv.text().lines().count(), 3, "{csv:?}");
}

#[test]
fn at_intervals_it_listens() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let _leaked = leak(&netns);
    let ended = stuck(&netns, &["0.2", "2", "-o", "json", "--older", "0"]);
    assert!(ended.stderr.contains("listening by"), "{ended:?}");
    let lines: Vec<Value> =
        ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second, summary] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&first["type"], &summary["type"]), (&"stuck".into(), &"summary".into()));
    assert!(first["seconds"].is_null() && second["seconds"].as_f64().unwrap() >= 0.2);
    let change = |line: &Value| line["groups"][0]["change"].clone();
    assert_eq!((change(first), change(second)), (Value::Null, 0.into()), "{lines:?}");
}
