//! The recipes of docs/RECIPES.md: their SQL is taken out of the document, run by the engines that
//! it names over tables of several hosts, and must say what tcptrace's own views say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tcptrace::{
    model::{Accounts, Input, script},
    record::{Header, NewFile, Tap},
};

use crate::{
    python::python,
    run::{run, tcptrace},
};

/// What is installed, as pip has it.
const ENGINES: [&str; 2] = ["duckdb==2.0.0", "chdb==4.4.0"];

/// Reads statements as JSON, one a line, and answers each with its rows as JSON.
const RUNNER: &str = r#"
import json, sys
engine = sys.argv[1]
if engine == "duckdb":
    import duckdb
    def rows(sql):
        found = duckdb.sql(sql)
        return [dict(zip(found.columns, row)) for row in found.fetchall()]
else:
    import chdb
    def rows(sql):
        text = str(chdb.query(sql, "JSONEachRow"))
        return [json.loads(line) for line in text.splitlines() if line]
for line in sys.stdin:
    print(json.dumps(rows(json.loads(line)), default=str), flush=True)
"#;

/// The statements for `engine`, by the heading that they are under.
fn recipes<'a>(document: &'a str, engine: &str) -> BTreeMap<&'a str, String> {
    let (mut heading, mut recipes) = ("", BTreeMap::new());
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("## ") {
            heading = text;
        } else if line == format!("```sql {engine}") {
            let sql: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            assert!(recipes.insert(heading, sql.join("\n")).is_none(), "two under {heading}");
        }
    }
    recipes
}

/// A recording of what `script` tells.
fn record(path: &Path, host: &str, text: &str) {
    let header = Header {
        host: host.to_owned(),
        run: format!("boot-of-{host}/1/2"),
        realtime_offset_ns: 1_795_330_800_000_000_000,
        ..Header::default()
    };
    let files = NewFile::open(path, false, None).unwrap().begin(header).unwrap();
    let mut tap = Tap::start(files).unwrap();
    script::inputs(text).unwrap().iter().for_each(|input| tap.put(input));
    let accounts = Accounts { mono_ns: 200_000_000_000, seconds: 200.0, ..Accounts::default() };
    tap.put(&Input::End(accounts));
    tap.finish().unwrap();
}

/// A connection from `lport` to a service, closed here at `ms`; its TIME_WAIT ends after 60 s, or is
/// taken over by the next connect().
fn closed_here(text: &mut String, id: u32, peer: &str, ms: u32, reused: bool) {
    let lport = 40_000 + id;
    let (end, how) =
        if reused { (ms + 2_000, "stopped-by-connect") } else { (ms + 60_000, "expired") };
    let tuple = format!("10.0.0.1:{lport} {peer}");
    *text += &format!(
        "{ms}ms sk={id:x}a CLOSE>SYN_SENT 10.0.0.1:0 {peer} pid=900 comm=curl cookie={id:x} netns=5\n\
         {ms}.2ms sk={id:x}a SYN_SENT>ESTABLISHED {tuple} cookie={id:x} netns=5\n\
         {ms}.3ms sk={id:x}a ESTABLISHED>FIN_WAIT1 {tuple} pid=900 comm=curl cookie={id:x} netns=5\n\
         {ms}.4ms sk={id:x}a FIN_WAIT1>FIN_WAIT2 {tuple} cookie={id:x} netns=5\n\
         {ms}.5ms tw={id:x}b started TIME_WAIT {tuple} cookie={id:x} netns=5 expires={due}ms\n\
         {ms}.6ms sk={id:x}a FIN_WAIT2>CLOSE {tuple} cookie={id:x} netns=5\n\
         {end}.5ms tw={id:x}b {how} TIME_WAIT {tuple} cookie={id:x} netns=5 expires={due}ms\n",
        due = ms + 60_000
    );
}

/// A connection to a server, closed by the peer, or reset by the server.
fn served(text: &mut String, id: u32, peer: &str, ms: u32, reset: bool) {
    let tuple = format!("10.0.0.2:80 {peer}:{}", 30_000 + id);
    let of = format!("{tuple} cookie={id:x} netns=5");
    *text += &format!(
        "{ms}ms sk={id:x}c LISTEN>SYN_RECV {of}\n{ms}.1ms sk={id:x}c SYN_RECV>ESTABLISHED {of}\n\
         {ms}.2ms sk={id:x}c accept pid=80 comm=nginx netns=5\n"
    );
    *text += &match reset {
        true => format!(
            "{ms}.3ms sk={id:x}c ESTABLISHED>CLOSE {of} pid=80 comm=nginx linger=0 shut=3 unread=0\n\
             {ms}.3ms sk={id:x}c reset-sent CLOSE tcp-state\n"
        ),
        false => format!(
            "{ms}.3ms sk={id:x}c ESTABLISHED>CLOSE_WAIT {of}\n\
             {ms}.4ms sk={id:x}c CLOSE_WAIT>LAST_ACK {of} pid=80 comm=nginx\n\
             {ms}.5ms sk={id:x}c LAST_ACK>CLOSE {of} unacked=0\n"
        ),
    };
}

/// Three hosts: one that closes first, one that is closed by its peers and resets some, and one
/// with connects that fail.
fn fleet(folder: &Path) -> Vec<PathBuf> {
    const BEGIN: &str = "0ms begin\n0ms clock 1795330800000000000\n\
        1ms cgroup 7 /system.slice/app.service\n";
    let mut scripts = [BEGIN.to_owned(), BEGIN.to_owned(), BEGIN.to_owned()];
    for id in 1..=9 {
        closed_here(&mut scripts[0], id, "10.0.0.9:443", id * 10, id % 4 == 0);
        served(&mut scripts[1], id, &format!("10.0.1.{}", id % 2), id * 10, id % 3 == 0);
    }
    for id in 1..=4 {
        closed_here(&mut scripts[2], id, "10.0.0.9:5432", id * 10, false);
        served(&mut scripts[2], id + 20, "10.0.1.1", id * 10 + 5, true);
        scripts[2] += &format!(
            "{ms}ms sk={id:x}d CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.7:81 pid=900 comm=curl netns=5\n\
             {ms}.2ms sk={id:x}d SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.7:81 netns=5 err=111\n",
            ms = id * 10 + 7
        );
    }
    scripts[2] += "199000ms tick\n";
    let mut recordings = Vec::new();
    for (script, host) in scripts.iter().zip(["app1", "web1", "mix1"]) {
        // In the order of time, as a host tells it.
        let mut lines: Vec<&str> = script.lines().collect();
        let at = |line: &str| -> f64 { line.split_once("ms ").unwrap().0.parse().unwrap() };
        lines.sort_by(|a, b| at(a).total_cmp(&at(b)));
        let path = folder.join(format!("{host}.tcptrace"));
        record(&path, host, &lines.join("\n"));
        recordings.push(path);
    }
    recordings
}

fn shows(recording: &Path, arguments: &[&str]) -> Vec<Value> {
    let ended =
        run(tcptrace(&[arguments, &["-o", "json", "-r", recording.to_str().unwrap()]].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn rows_of(lines: &[Value], kind: &str) -> Vec<Value> {
    let of_kind = lines.iter().filter(|line| line["type"] == kind);
    of_kind.flat_map(|line| line["rows"].as_array().unwrap().clone()).collect()
}

fn shown(number: f64) -> String {
    if number.fract() == 0.0 { number.to_string() } else { format!("{number:.3}") }
}

type Answer = BTreeSet<Vec<String>>;

/// The columns of each row as text.
fn answer(rows: &[Value], columns: &[&str]) -> Answer {
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => shown(n.as_f64().unwrap()),
        other => other.to_string(),
    };
    rows.iter().map(|row| columns.iter().map(|column| cell(&row[*column])).collect()).collect()
}

fn sums<const N: usize>(rows: impl Iterator<Item = (Vec<String>, [f64; N])>) -> Answer {
    let mut sums: BTreeMap<Vec<String>, [f64; N]> = BTreeMap::new();
    for (key, values) in rows {
        let sum = sums.entry(key).or_insert([0.0; N]);
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.into_iter()
        .map(|(key, values)| key.into_iter().chain(values.map(shown)).collect())
        .collect()
}

/// A number; ClickHouse may put one of 64 bits between quotes.
fn number(value: &Value) -> f64 {
    match value {
        Value::String(text) => text.parse().unwrap(),
        other => other.as_f64().unwrap(),
    }
}

/// What `closers` says of all, by process and port: closed here, by the peer, and in all.
fn closers(recordings: &[PathBuf]) -> Answer {
    let rows = recordings.iter().flat_map(|path| rows_of(&shows(path, &["closers"]), "closers"));
    let rows: Vec<_> = rows.filter(|row| number(&row["closed"]) > 0.0).collect();
    sums(rows.iter().map(|row| {
        let key = vec![row["process"].as_str().unwrap().to_owned(), row["port"].to_string()];
        let of = &row["initiators"];
        (key, [number(&of["local"]), number(&of["remote"]), number(&row["closed"])])
    }))
}

/// What `hist` says of TIME_WAIT by port: how many ended, and how many expired.
fn time_waits(recordings: &[PathBuf]) -> Answer {
    let arguments = ["hist", "time-wait", "--by", "port"];
    let rows = recordings.iter().flat_map(|path| rows_of(&shows(path, &arguments), "hist"));
    let rows: Vec<_> = rows.collect();
    sums(rows.iter().map(|row| {
        let ended = number(&row["count"]) + number(&row["at_least"]["count"]);
        let expired = row["ends"]["expired"].as_f64().unwrap_or(0.0);
        (vec![row["key"].as_str().unwrap().to_owned()], [ended, expired])
    }))
}

/// What `conns` says of resets, by peer and kind.
fn resets(recordings: &[PathBuf]) -> Answer {
    let lines: Vec<_> =
        recordings.iter().flat_map(|path| shows(path, &["conns", "--how", "rst"])).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let conns = lines.iter().filter(|line| line["type"] == "connection");
    sums(conns.map(|line| (vec![text(&line["raddr"]), text(&line["how"])], [1.0])))
}

/// What `live` says, by states: how many transitions.
fn transitions(recordings: &[PathBuf]) -> Answer {
    let lines: Vec<_> = recordings.iter().flat_map(|path| shows(path, &["live"])).collect();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let moves = lines.iter().filter(|line| line["type"] == "transition");
    sums(moves.map(|line| (vec![text(&line["old"]), text(&line["new"])], [1.0])))
}

#[test]
fn recipes_say_what_the_views_say() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("recordings")).unwrap();
    let recordings = fleet(&folder.path().join("recordings"));
    // As it is written, in a directory with nothing but the recordings.
    let document = include_str!("../../../docs/RECIPES.md");
    let (_, block) = document.split_once("```sh\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_tcptrace")).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", block]).current_dir(folder.path()).env("PATH", path);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_dir(folder.path().join("fleet")).unwrap().count(), 6);
    let (closers, time_waits) = (closers(&recordings), time_waits(&recordings));
    let (resets, transitions) = (resets(&recordings), transitions(&recordings));
    assert!(closers.len() >= 3 && time_waits.len() == 2 && resets.len() >= 2, "{closers:?}");

    let Some(python) = python("recipes", &ENGINES) else { return };
    for engine in ["duckdb", "clickhouse"] {
        let recipes = recipes(document, engine);
        assert_eq!(recipes.len(), 4, "{:?}", recipes.keys());
        let statements: String =
            recipes.values().map(|sql| serde_json::to_string(sql).unwrap() + "\n").collect();
        let mut child = Command::new(&python)
            .args(["-c", RUNNER, engine])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
        let answers = String::from_utf8(output.stdout).unwrap();
        let answers: BTreeMap<&str, Vec<Value>> = recipes
            .keys()
            .copied()
            .zip(answers.lines().map(|line| serde_json::from_str(line).unwrap()))
            .collect();
        let of = |heading: &str, columns: &[&str]| answer(&answers[heading], columns);
        assert_eq!(
            of(
                "The fleet's closers",
                &["process", "service_port", "this_host", "the_peer", "ended"]
            ),
            closers,
            "{engine}"
        );
        let columns = ["service_port", "time_waits", "expired"];
        assert_eq!(of("TIME_WAIT by service", &columns), time_waits, "{engine}");
        assert_eq!(of("Resets by peer", &["raddr", "how", "resets"]), resets, "{engine}");
        let by_state = answers["Transitions per minute"].iter().map(|row| {
            let text = |column: &str| row[column].as_str().unwrap().to_owned();
            (vec![text("old"), text("new")], [number(&row["transitions"])])
        });
        assert_eq!(sums(by_state), transitions, "{engine}");
        // The services of both kinds of hosts, and the TIME_WAITs that were taken over.
        let seconds = answer(&answers["TIME_WAIT by service"], &["service_port", "seconds"]);
        let expected = [["443", "424"], ["5432", "240"]];
        let expected = expected.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(seconds, Answer::from(expected), "{engine}");
    }
}
