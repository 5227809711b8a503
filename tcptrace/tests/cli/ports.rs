//! `tcptrace ports` against `ss`, in a network namespace of the test's own.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use serde_json::Value;

use crate::{
    net::{Netns, sysctl},
    run::{can_trace, run, tcptrace},
    witness::{output, path},
};

const OPEN: u64 = 30;
const CLOSED: u64 = 20;

/// Lines of `ss -Htan` in this state with this port of the peer.
fn ss(netns: &Netns, state: &str, rport: u16) -> Option<u64> {
    let filter = ["-Htan", "state", state, "dport", "=", &rport.to_string()];
    let output = output(netns, "ss", &filter)?;
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().lines().count() as u64)
}

#[test]
fn what_was_there_before_is_counted_as_ss_has_it() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let (listener, _held) = netns.run(|| {
        sysctl("net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 5000)).unwrap();
        let address = listener.local_addr().unwrap();
        let pair = || {
            let client = TcpStream::connect(address).unwrap();
            (client, listener.accept().unwrap().0)
        };
        for _ in 0..CLOSED {
            let (client, mut server) = pair();
            drop(client);
            // The FIN is here.
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        }
        let held: Vec<_> = (0..OPEN).map(|_| pair()).collect();
        (listener, held)
    });
    let rport = listener.local_addr().unwrap().port();
    let arguments = ["ports", "-o", "json", "-N", &path(&netns)];
    let ended = run(tcptrace(&arguments));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line: Value = serde_json::from_str(ended.text().lines().next().unwrap()).unwrap();
    assert_eq!((&line["v"], &line["type"]), (&2.into(), &"ports".into()));
    let space = &line["namespaces"][0];
    assert_eq!(
        (&space["netns"], &space["range"], &space["offered"], &space["bound"]),
        (&netns.inode().into(), &serde_json::json!([40000, 40099]), &100.into(), &0.into())
    );
    let rows = line["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "the server's ends take no ports: {line}");
    let row = &rows[0];
    let taken = OPEN + CLOSED;
    assert_eq!((&row["rport"], &row["live"]), (&rport.into(), &OPEN.into()), "{line}");
    assert_eq!((&row["time_wait"], &row["usable"]), (&CLOSED.into(), &100.into()), "{line}");
    // tcp_tw_reuse may have made some of the TIME_WAITs free to take by now. Whether their peer has
    // sent timestamps, which that takes, no snapshot says.
    assert_eq!(row["free_at_least"].as_u64(), Some(100 - taken), "{line}");
    match row["uncertain"].as_u64().unwrap() {
        0 => assert_eq!(row["free"].as_u64(), Some(100 - taken), "{line}"),
        _ => assert!(row["free"].is_null() && row["reusable"].is_null(), "{line}"),
    }
    let (Some(live), Some(time_wait)) =
        (ss(&netns, "established", rport), ss(&netns, "time-wait", rport))
    else {
        return;
    };
    assert_eq!((live, time_wait), (OPEN, CLOSED));
}

#[test]
fn a_table_and_rows_come_by_the_interval() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let arguments = ["ports", "0.2", "3", "-N", &path(&netns)];
    let ended = run(tcptrace(&arguments));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let headers = ended.text().lines().filter(|line| line.contains("FROM > PEER")).count();
    assert_eq!(headers, 3, "{}", ended.text());
    assert!(ended.text().contains("... no connections that were opened from here"), "{ended:?}");
    let csv = run(tcptrace(&[&arguments[..], &["-o", "csv", "-H"]].concat()));
    assert_eq!((csv.code, csv.text()), (Some(0), ""), "{csv:?}");
}
