//! One scenario, recorded, and all views of it: they agree with each other and with `ss`.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use serde_json::Value;
use socket2::SockRef;

use crate::{
    net::Netns,
    run::{Running, can_trace, run, tcptrace, until},
    serve::{self, Serving},
    witness::{self, path},
};

/// Connections that the server never closes: from ten on, `doctor` takes them for a leak.
const LEAKED: u64 = 12;

/// Connections that the client closes first, and that go to TIME_WAIT.
const CLOSED: u64 = 5;

/// Connections that the client resets.
const RESET: u64 = 3;

/// What is open to the end.
struct Open {
    _listener: TcpListener,
    _leaked: Vec<TcpStream>,
    _established: (TcpStream, TcpStream),
}

fn scenario(netns: &Netns) -> Open {
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connection = || (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0);
        let closed_by_client = || {
            let (client, mut server) = connection();
            drop(client);
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            server
        };
        (0..CLOSED).for_each(|_| drop(closed_by_client()));
        for _ in 0..RESET {
            let (client, mut server) = connection();
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            server.read(&mut [0]).unwrap_err();
        }
        let leaked = (0..LEAKED).map(|_| closed_by_client()).collect();
        Open { _leaked: leaked, _established: connection(), _listener: listener }
    })
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of `arguments` of one type, as JSON.
fn of(arguments: &[&str], r#type: &str) -> Vec<Value> {
    let ended = run(tcptrace(&[arguments, &["-o", "json"]].concat()));
    assert!(matches!(ended.code, Some(0 | 1)), "{ended:?}");
    let mut lines = lines(ended.text());
    lines.retain(|line| line["type"] == r#type);
    assert!(!lines.is_empty(), "{arguments:?}: {ended:?}");
    lines
}

/// The connections in each state, states without any left out, as a line of `states` has them.
fn in_states(line: &Value) -> BTreeMap<String, u64> {
    let rows = line["rows"].as_array().unwrap().iter();
    let count = |row: &Value| row["count"].as_u64().filter(|&count| count > 0);
    rows.filter_map(|row| Some((row["state"].as_str().unwrap().to_owned(), count(row)?))).collect()
}

/// The same as the last row of the report's table has it.
fn in_states_of(page: &str) -> BTreeMap<String, u64> {
    let (_, table) = page.split_once("<section id=\"states\">").unwrap();
    let (table, _) = table.split_once("</section>").unwrap();
    let cells = |row: &str| -> Vec<String> {
        let texts = row.split('<').filter_map(|tag| Some(tag.split_once('>')?.1.trim().to_owned()));
        texts.filter(|text| !text.is_empty()).collect()
    };
    let rows: Vec<_> = table.split("<tr>").skip(1).map(cells).collect();
    let (names, last) = (rows.first().unwrap(), rows.last().unwrap());
    let counts = names.iter().cloned().zip(last.iter().map(|count| count.parse()));
    counts.skip(1).map(|(name, count)| (name, count.unwrap())).filter(|(_, n)| *n > 0).collect()
}

/// What `serve` says of the moment, in its metrics and as JSON, once it has the counts of `ss`.
fn is_served(serving: &Serving, ss: &BTreeMap<String, u64>) -> serve::Samples {
    let api = |name: &str| -> Value {
        let (_, body) = until(name, || {
            let (status, body) = serving.get(&format!("/api/v1/{name}"));
            (status == 200).then_some((status, body))
        });
        serde_json::from_str(body.trim_end()).unwrap()
    };
    let metrics = until("the counts of ss in the metrics", || {
        let metrics = serving.metrics();
        let count = |state: &String| {
            serve::sum(
                &metrics,
                "tcptrace_connections{",
                &format!("state=\"{}\"", state.to_ascii_lowercase()),
            )
        };
        let all = serve::sum(&metrics, "tcptrace_connections{", "state=\"") as u64;
        let same = ss.iter().all(|(state, number)| count(state) == *number as f64);
        (same && all == ss.values().sum::<u64>()).then_some(metrics)
    });
    until("the counts of ss as JSON", || (in_states(&api("states")) == *ss).then_some(()));
    until("the leak in stuck", || {
        let stuck = api("stuck");
        let all = |state: &str| sum(&stuck["groups"], "all", |row| row["state"] == state);
        (all("CLOSE_WAIT") == LEAKED && all("FIN_WAIT2") == LEAKED).then_some(())
    });
    metrics
}

fn sum(rows: &Value, key: &str, of: impl Fn(&Value) -> bool) -> u64 {
    let rows = rows.as_array().unwrap().iter().filter(|row| of(row));
    rows.map(|row| row[key].as_u64().unwrap()).sum()
}

#[test]
fn all_views_of_one_scenario_agree_with_each_other_and_with_ss() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let inside = path(&netns);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording");
    let file = file.to_str().unwrap();
    let recorder =
        Running::listening(&mut tcptrace(&["record", file, "-N", &inside, "--no-self-test"]));
    let serving = Serving::of(&netns, &["--interval", "1"]);
    let _open = scenario(&netns);
    // The orphans of the leak are in FIN_WAIT2 once their FINs are acknowledged.
    let Some(_) = witness::ss(&netns) else { return };
    let ss = until("the FINs to be acknowledged", || {
        let ss = witness::ss(&netns).unwrap();
        (ss.get("FIN_WAIT2") == Some(&LEAKED) && ss.get("TIME_WAIT") == Some(&CLOSED)).then_some(ss)
    });
    assert_eq!(ss.get("CLOSE_WAIT"), Some(&LEAKED), "{ss:?}");
    let metrics = is_served(&serving, &ss);
    drop(serving);
    let doctor = run(tcptrace(&["doctor", "--duration", "1s", "-N", &inside]));
    assert!(
        doctor.text().contains(&format!("seen     {LEAKED} connections stay in CLOSE_WAIT")),
        "{doctor:?}"
    );
    let stuck_now = of(&["stuck", "-N", &inside, "--older", "0"], "stuck");
    let ended = recorder.interrupt();
    assert_eq!(ended.code, Some(0), "{ended:?}");

    // Without an interval, these show the moment in which the first look at all sockets was over.
    let states = of(&["states", "0.2", "-r", file], "states").pop().unwrap();
    assert_eq!(in_states(&states), ss, "states and ss");

    let stuck = of(&["stuck", "0.2", "-r", file, "--older", "0"], "stuck");
    for stuck in [stuck_now.last().unwrap(), stuck.last().unwrap()] {
        for state in ["CLOSE_WAIT", "FIN_WAIT2"] {
            let all = sum(&stuck["groups"], "all", |row| row["state"] == state);
            assert_eq!(all, LEAKED, "stuck, {state}: {stuck}");
        }
    }

    // What ended: both ends of what was reset, and of what was closed the end that had no TIME_WAIT.
    let conns = of(&["conns", "-r", file, "--no-time-wait"], "connection");
    let closers = of(&["closers", "-r", file], "closers").pop().unwrap();
    assert_eq!(conns.len() as u64, 2 * (CLOSED + RESET), "{conns:?}");
    assert_eq!(closers["closed"], conns.len(), "closers and conns: {closers}");
    assert_eq!(sum(&closers["rows"], "closed", |_| true), conns.len() as u64, "{closers}");
    let resets = conns.iter().filter(|conn| conn["how"].as_str().unwrap().contains("rst")).count();
    assert_eq!(resets as u64, 2 * RESET, "{conns:?}");

    let closes = serve::sum(&metrics, "tcptrace_closes_total{", "");
    assert_eq!(closes, conns.len() as f64, "serve and conns: {metrics:?}");

    // What hist has of a state is the transitions out of it.
    let moved = of(&["live", "-r", file], "transition");
    let hist = of(&["hist", "-r", file], "hist").pop().unwrap();
    for state in ["FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK"] {
        let left = moved.iter().filter(|line| line["old"] == state).count() as u64;
        let measured = sum(&hist["rows"], "count", |row| row["state"] == state);
        assert_eq!(measured, left, "hist and live, {state}: {hist}");
        let label = state.to_ascii_lowercase();
        let name = format!("tcptrace_state_duration_seconds_count{{state=\"{label}\"}}");
        assert_eq!(metrics.get(&name), Some(&(left as f64)), "serve and live, {state}");
    }
    let page = directory.path().join("page.html");
    let ended = run(tcptrace(&["report", "-r", file, "--out", page.to_str().unwrap()]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let page = fs::read_to_string(&page).unwrap();
    assert_eq!(in_states_of(&page), ss, "the report and ss");
    let leak = format!("{LEAKED}</b> CLOSE_WAIT ");
    assert!(page.contains(&leak) || page.contains(&format!("{LEAKED} CLOSE_WAIT (")), "stuck");
}
