//! What the view prints of scripts.

use std::{fmt::Write as _, time::Duration};

use super::*;
use tcptrace_model::script;
use tcptrace_stats::{closers::DEFAULT_LIMIT, group::By};

fn view(by: Option<By>, order: Order, format: Format, every_ms: Option<u64>) -> ClosersView {
    let lines = Lines { every: every_ms.map(Duration::from_millis), count: None, at_end: false };
    ClosersView::new(Closers::new(by, DEFAULT_LIMIT), order, format, lines, true)
}

fn show(mut view: ClosersView, text: &str) -> String {
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    view.begin(&mut out);
    for input in script::inputs(text).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

/// A client named `comm` whose connection `i` is established at 1 ms.
fn established(i: u32, comm: &str) -> String {
    format!(
        "1ms sk={i:x}0a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm={comm} netns=5\n\
         1ms sk={i:x}0a SYN_SENT>ESTABLISHED 10.0.0.1:{i} 10.0.0.2:443 netns=5\n"
    )
}

/// It closes first, and enters TIME_WAIT at 100 ms.
fn active(i: u32, comm: &str) -> String {
    let ends = format!("10.0.0.1:{i} 10.0.0.2:443");
    let begin = established(i, comm);
    format!(
        "{begin}\
         2ms sk={i:x}0a ESTABLISHED>FIN_WAIT1 {ends} comm={comm} netns=5\n\
         3ms sk={i:x}0a FIN_WAIT1>FIN_WAIT2 {ends} netns=5\n\
         100ms tw={i:x}0b started TIME_WAIT {ends} netns=5 expires=60100ms\n\
         100ms sk={i:x}0a FIN_WAIT2>CLOSE {ends} netns=5\n"
    )
}

/// It ends at 9 ms as `detail` says.
fn reset(i: u32, comm: &str, detail: &str) -> String {
    let begin = established(i, comm);
    format!(
        "{begin}9ms sk={i:x}0a ESTABLISHED>CLOSE 10.0.0.1:{i} 10.0.0.2:443 comm={comm} netns=5 {detail}\n"
    )
}

/// Closes of every kind, by a few, in the first second; then one more.
fn closes() -> String {
    let mut text = "0ms begin\n\
        1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0 comm=nginx netns=5\n"
        .to_owned();
    (10..13).for_each(|i| text += &active(i, "curl"));
    text += &reset(20, "curl", "shut=3 linger=0 unread=0");
    text += &reset(21, "curl", "err=104");
    text += &reset(22, "curl", "err=110 unacked=1");
    text += &reset(23, "wget", "classic");
    text += "1ms sk=c CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.3:22 comm=ssh netns=5\n\
        2ms sk=c SYN_SENT>CLOSE 10.0.0.1:9 10.0.0.3:22 netns=5 err=111\n\
        1ms sk=d LISTEN>SYN_RECV 10.0.0.2:80 10.0.0.1:7 netns=5\n\
        1ms sk=d SYN_RECV>ESTABLISHED 10.0.0.2:80 10.0.0.1:7 netns=5\n\
        2ms sk=d ESTABLISHED>CLOSE_WAIT 10.0.0.2:80 10.0.0.1:7 netns=5\n\
        3ms sk=d CLOSE_WAIT>LAST_ACK 10.0.0.2:80 10.0.0.1:7 comm=nginx netns=5\n\
        4ms sk=d LAST_ACK>CLOSE 10.0.0.2:80 10.0.0.1:7 netns=5 dead shut=3 unacked=0\n";
    text + "1000ms tick\n"
        + &reset(24, "wget", "err=104").replace("9ms", "1500ms")
        + "2000ms tick\n"
}

#[test]
fn the_table_fits_eighty_columns() {
    let text = show(view(None, Order::default(), Format::Table, Some(1000)), &closes());
    let expected = "\
... closed first: LOCAL this end, REMOTE the peer, ELSE both, none or unknown
... TW NOW: TIME_WAITs alive; TW SEC: their time in the interval, all added up
... PROCESS: whose FIN or RST left first from here; where none did, the owner
-  1.0 s: 8 closed, 1 failed to connect
PROCESS :PORT              CLOSED      /S SHARE LOCAL REMOTE ELSE TW NOW  TW SEC
curl →:443                      6     6.0   75%   67%    17%  17%      3     2.7
  local 4: 3 fin to TIME_WAIT, 1 rst-linger0
  remote 1: 1 rst-received
  none 1: 1 timeout-retransmit
nginx :80                       1     1.0   12%     .   100%    .      .       .
  remote 1: 1 fin
wget →:443                      1     1.0   12%     .      . 100%      .       .
  unknown 1: 1 unknown
ssh →:22                        .       .     .     .      .    .      .       .
  failed to connect 1: 1 refused
-  1.0 s: 1 closed, 0 failed to connect
PROCESS :PORT              CLOSED      /S SHARE LOCAL REMOTE ELSE TW NOW  TW SEC
wget →:443                      1     1.0  100%     .   100%    .      .       .
  remote 1: 1 rst-received
curl →:443                      .       .     .     .      .    .      3     3.0
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn what_is_not_shown_is_counted_together() {
    let order = Order { sort: Sort::Failed, top: Some(1) };
    let text = show(view(None, order, Format::Table, Some(1000)), &closes());
    let rows: Vec<_> = text.lines().take(9).skip(5).collect();
    let expected = [
        "ssh →:22                        .       .     .     .      .    .      .       .",
        "  failed to connect 1: 1 refused",
        "(3 others)                      8     8.0  100%   50%    25%  25%      3     2.7",
        "  local 4: 3 fin to TIME_WAIT, 1 rst-linger0",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn every_column_can_come_first() {
    for (sort, first) in [
        ("closed", "curl"),
        ("local", "curl"),
        ("remote", "curl"),
        ("else", "curl"),
        ("failed", "ssh"),
        ("tw-now", "curl"),
        ("tw-sec", "curl"),
    ] {
        let order = Order { sort: sort.parse().unwrap(), top: None };
        let text = show(view(Some(By::Owner), order, Format::Csv, Some(1000)), &closes());
        assert!(text.lines().nth(1).unwrap().contains(&format!(",{first},")), "{sort}: {text}");
    }
    let error = "pid\x07".parse::<Sort>().unwrap_err().to_string();
    assert!(error.starts_with("unknown column 'pid\\u{7}': closed, "), "{error}");
    assert!(Sort::ALL.iter().all(|sort| error.contains(sort.name())), "{error}");
}

#[test]
fn json_has_the_words_of_live() {
    let text = show(view(None, Order::default(), Format::Json, Some(1000)), &closes());
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["v"], &lines[0]["type"]), (&2.into(), &"closers".into()));
    assert_eq!((&lines[0]["closed"], &lines[0]["failed"]), (&8.into(), &1.into()));
    let expected = serde_json::json!({
        "key": "curl →:443", "other": false, "process": "curl", "port": 443, "port_of": "remote",
        "closed": 6, "per_s": 6.0, "share": 0.75,
        "initiators": {"local": 4, "remote": 1, "both": 0, "none": 1, "unknown": 0},
        "endings": [
            {"initiator": "local", "how": "fin", "time_wait": "entered", "count": 3},
            {"initiator": "local", "how": "rst-linger0", "time_wait": null, "count": 1},
            {"initiator": "remote", "how": "rst-received", "time_wait": null, "count": 1},
            {"initiator": "none", "how": "timeout-retransmit", "time_wait": null, "count": 1},
        ],
        "active": {"closed": 4, "entered_time_wait": 3, "not": {"rst-linger0": 1}},
        "failed": {},
        "time_wait": {"now": 3, "seconds": 2.7, "at_least": false},
    });
    assert_eq!(lines[0]["rows"][0], expected);
    assert_eq!(lines[0]["rows"][3]["failed"], serde_json::json!({"refused": 1}));
    let unknown = &lines[0]["rows"][2]["endings"][0]["initiator"];
    assert_eq!(*unknown, serde_json::Value::Null);
    assert_eq!((&lines[1]["from"], &lines[1]["to"]), (&1.0.into(), &2.0.into()));
}

#[test]
fn csv_has_a_field_for_each_column() {
    let text = show(view(Some(By::Peer), Order::default(), Format::Csv, Some(1000)), &closes());
    let columns = |line: &str| line.matches(',').count();
    assert!(text.lines().all(|line| columns(line) == columns(text.lines().next().unwrap())));
    assert!(
        text.contains("\n0.000,1.000,10.0.0.2,7,7.000,0.875000,4,1,0,1,1,4,3,0,3,2.700,false,3,")
    );
}

#[test]
fn without_an_interval_there_is_one_ranking_at_the_end() {
    let mut view = view(None, Order::default(), Format::Json, None);
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    for input in script::inputs(&closes()).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    assert!(out.is_empty() && view.due_ns().is_none());
    let accounts = tcptrace_model::Accounts { mono_ns: 4_000_000_000, ..Default::default() };
    view.input(&Input::End(accounts), &tracker, &mut out);
    let text = String::from_utf8(out.to_vec()).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["closed"], &line["to"]), (&9.into(), &4.0.into()));
    assert_eq!(line["rows"][0]["time_wait"]["seconds"], 11.7);
    assert_eq!(text.lines().count(), 2, "and the summary");
}

#[test]
fn late_ticks_make_one_of_several_intervals_and_the_grid_stays() {
    let script = "0ms begin\n95ms tick\n99ms tick\n120ms tick\n150ms tick\n";
    let mut script = script.to_owned();
    // Something to show in each.
    script.insert_str(
        "0ms begin\n".len(),
        "1ms tw=b peeked TIME_WAIT 10.0.0.1:1 10.0.0.2:443 netns=5 expires=60000ms\n",
    );
    let text = show(view(None, Order::default(), Format::Json, Some(30)), &script);
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let times: Vec<_> = lines.map(|line| line["to"].as_f64().unwrap()).collect();
    assert_eq!(times, [0.095, 0.12, 0.15]);
}

#[test]
fn a_loss_makes_lower_bounds() {
    let script = closes().replace("1000ms tick", "900ms lost 17\n1000ms tick");
    let text = show(view(None, Order::default(), Format::Table, Some(1000)), &script);
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("curl")).collect();
    let expected = [
        "curl →:443                      6     6.0   75%   67%    17%  17%      3    ≥2.7",
        "curl →:443                      .       .     .     .      .    .      3     3.0",
    ];
    assert_eq!(rows, expected);
    assert!(text.contains("... 17 events lost\n"), "{text}");
}

#[test]
fn names_are_harmless_and_ports_are_never_cut_off() {
    let mut script = "0ms begin\n".to_owned();
    for (i, comm) in
        ["\x1b[2J\x07\x08\x01\x02\x03\x04\x05\x06", "=1+1,\"\u{202e}x"].iter().enumerate()
    {
        script += &reset(30 + i as u32, comm, "err=104");
    }
    writeln!(
        script,
        "1ms sk=e CLOSE>SYN_SENT [2001:db8:1111:2222:3333:4444:5555:6666]:0 \
         [2001:db8:1111:2222:3333:4444:5555:7777]:65535 comm=x\n\
         2ms sk=e SYN_SENT>CLOSE [2001:db8::1]:7 [2001:db8:1111:2222:3333:4444:5555:7777]:65535\n\
         1000ms lost 17\n1000ms tick"
    )
    .unwrap();
    let all = By::ALL.into_iter().map(Some).chain([None]);
    for by in all {
        for format in [Format::Table, Format::Json, Format::Csv] {
            let text = show(view(by, Order::default(), format, Some(1000)), &script);
            assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text}");
            if format == Format::Table {
                assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
                assert!(text.contains("... 17 events lost"), "{text}");
            }
        }
    }
    let text = show(view(None, Order::default(), Format::Table, Some(1000)), &script);
    assert!(text.contains("\n\\x1b[2J\\x07\\x08\\x… →:443 "), "{text}");
    let text = show(view(None, Order::default(), Format::Csv, Some(1000)), &script);
    assert!(text.contains(r#","'=1+1,""\u{202e}x →:443","#), "{text}");
}

/// An active close by each of: two cgroups of one unit, one that nothing is called, one with a
/// hostile name, one that is not known.
fn closes_by_units() -> String {
    let mut script = "0ms begin\n\
        0ms cgroup 7 /system.slice/nginx.service\n\
        0ms cgroup 9 /system.slice/\\x1b[2J\\xe2\\x80\\xae\u{202e},\"=a-very-long-name.service\n"
        .to_owned();
    for (i, cgroup) in [" cgroup=7", " cgroup=8", " cgroup=9", "", " cgroup=10"].iter().enumerate()
    {
        let lines = active(50 + i as u32, "x");
        lines.lines().for_each(|line| {
            // No hook tells the cgroup of a minisock.
            let cgroup = if line.contains("tw=") { "" } else { cgroup };
            writeln!(script, "{line}{cgroup}").unwrap();
        });
    }
    script + "500ms cgroup 10 /system.slice/nginx.service/worker\n1000ms tick\n"
}

#[test]
fn cgroups_of_one_unit_are_one_row() {
    let text =
        show(view(Some(By::Unit), Order::default(), Format::Table, Some(1000)), &closes_by_units());
    let rows: Vec<_> = text.lines().skip(4).collect();
    let expected = [
        "UNIT                       CLOSED      /S SHARE LOCAL REMOTE ELSE TW NOW  TW SEC",
        "nginx.service                   2     2.0   40%  100%      .    .      2     1.8",
        "  local 2: 2 fin to TIME_WAIT",
        "-                               1     1.0   20%  100%      .    .      1     0.9",
        "  local 1: 1 fin to TIME_WAIT",
        "cgroup 8                        1     1.0   20%  100%      .    .      1     0.9",
        "  local 1: 1 fin to TIME_WAIT",
        "\\x1b[2J\\u{202e}\\u{202e}… ",
        "  local 1: 1 fin to TIME_WAIT",
    ];
    for (row, expected) in rows.iter().zip(expected) {
        assert!(row.starts_with(expected), "{text}");
    }
    assert!(rows.len() == expected.len() && rows.iter().all(|row| row.chars().count() <= 80));

    let of = |format| {
        show(view(Some(By::Unit), Order::default(), format, Some(1000)), &closes_by_units())
    };
    let line: serde_json::Value = serde_json::from_str(&of(Format::Json)).unwrap();
    assert_eq!(line["by"], "unit");
    let keys: Vec<_> = line["rows"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
    let hostile = "\\x1b[2J\\u{202e}\\u{202e},\"=a-very-long-name.service";
    assert_eq!(
        serde_json::json!(keys),
        serde_json::json!(["nginx.service", null, "cgroup 8", hostile])
    );
    let csv = of(Format::Csv);
    assert!(csv.contains("\n0.000,1.000,nginx.service,2,"), "{csv}");
    let quoted = format!(",\"{}\",1,", hostile.replace('"', "\"\""));
    assert!(csv.contains(&quoted) && !csv.contains(['\x1b', '\u{202e}']), "{csv}");
}

#[test]
fn many_ways_to_end_take_several_lines() {
    let mut script = "0ms begin\n".to_owned();
    let ways = ["shut=3 linger=0 unread=0", "shut=3 unread=9", "shut=0 unread=0", "err=103"];
    for (i, detail) in ways.iter().enumerate() {
        script += &reset(40 + i as u32, "x", detail);
    }
    script += "1000ms tick\n";
    let text = show(view(None, Order::default(), Format::Table, Some(1000)), &script);
    assert!(
        text.ends_with(
            "  local 4: 1 rst-linger0, 1 rst-unread-data, 1 rst-sent-disconnect,\n    \
             1 sock-destroy\n"
        ),
        "{text}"
    );
}
