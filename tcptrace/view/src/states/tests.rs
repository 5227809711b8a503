//! What the view prints of scripts.

use std::time::Duration;

use super::*;
use tcptrace_model::script;
use tcptrace_track::Tracker;

fn show(format: Format, every_ms: Option<u64>, count: Option<u64>, text: &str) -> String {
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    let lines = Lines { every: every_ms.map(Duration::from_millis), count, at_end: false };
    let mut view = StatesView::new(format, lines, true);
    view.begin(&mut out);
    for input in script::inputs(text).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

const SCRIPT: &str = "0ms begin\n\
    1ms snapshot open\n1ms snapshot 5\n\
    1ms socket LISTEN 1 0.0.0.0:443 0.0.0.0:0\n\
    1ms socket ESTABLISHED 2 10.0.0.1:443 10.0.0.9:5\n\
    1ms snapshot end syn-queue=3\n1ms snapshot over\n\
    2ms tick\n\
    500ms sk=c LISTEN>SYN_RECV 10.0.0.1:443 10.0.0.9:6 cookie=3 netns=5\n\
    500ms sk=c SYN_RECV>ESTABLISHED 10.0.0.1:443 10.0.0.9:6 cookie=3 netns=5\n\
    600ms tick\n\
    1001ms sk=d LISTEN>SYN_RECV 10.0.0.1:443 10.0.0.9:7 cookie=4 netns=5\n\
    1003ms sk=c ESTABLISHED>CLOSE_WAIT 10.0.0.1:443 10.0.0.9:6 cookie=3 netns=5\n\
    1100ms tick\n\
    2100ms tick\n";

#[test]
fn one_table_by_default() {
    let expected = "\
STATE           COUNT
LISTEN              1
SYN_SENT            0
SYN_RECV            3
ESTABLISHED         1
FIN_WAIT1           0
FIN_WAIT2           0
CLOSING             0
TIME_WAIT           0
CLOSE_WAIT          0
LAST_ACK            0
CLOSE               - not observable: a merely bound socket has no events
all                 5
";
    let text = show(Format::Table, None, None, SCRIPT);
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn an_interval_is_cut_at_its_end_and_fits_eighty_columns() {
    let text = show(Format::Table, Some(1000), None, SCRIPT);
    // The first interval ends at 1002 ms, between two events of one batch.
    let expected = "\
... CLOSE is not observable: a merely bound socket has no events
TIME          EST  SYNS  SYNR   FW1    FW2       TW    CLW  LACK   LIS  CLSG
-               1     0     3     0      0        0      0     0     1     0
-               2     0     4     0      0        0      0     0     1     0
change         +1     .    +1     .      .        .      .     .     .     .
in/s          1.0     .   2.0     .      .        .      .     .     .     .
out/s           .     .   1.0     .      .        .      .     .     .     .
-               1     0     4     0      0        0      1     0     1     0
change         -1     .     .     .      .        .     +1     .     .     .
in/s            .     .     .     .      .        .    1.0     .     .     .
out/s         1.0     .     .     .      .        .      .     .     .     .
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn json_has_every_state_and_null_for_what_cannot_be_seen() {
    let text = show(Format::Json, Some(1000), Some(2), SCRIPT);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "COUNT");
    let row = |line: &serde_json::Value, state: &str| {
        let rows = line["rows"].as_array().unwrap();
        rows.iter().find(|row| row["state"] == state).unwrap().clone()
    };
    assert_eq!(lines[0]["rows"].as_array().unwrap().len(), 11);
    assert_eq!(lines[0]["seconds"], serde_json::Value::Null);
    assert_eq!(row(&lines[0], "TIME_WAIT")["count"], 0);
    for key in ["count", "change", "in", "out", "in_per_s", "out_per_s"] {
        assert_eq!(row(&lines[1], "CLOSE")[key], serde_json::Value::Null);
    }
    let expected = serde_json::json!({
        "state": "ESTABLISHED", "count": 2, "change": 1, "in": 1, "out": 0,
        "in_per_s": 1.0, "out_per_s": 0.0
    });
    assert_eq!(row(&lines[1], "ESTABLISHED"), expected);
    assert_eq!((&lines[1]["mono_ns"], &lines[1]["seconds"]), (&"1002000000".into(), &1.into()));
}

#[test]
fn csv_has_a_line_a_state() {
    let text = show(Format::Csv, Some(1000), Some(2), SCRIPT);
    assert_eq!(text.lines().count(), 1 + 2 * 11);
    assert_eq!(text.lines().nth(1), Some(",2000000,,LISTEN,1,,,"));
    assert_eq!(text.lines().nth(15), Some(",1002000000,1,ESTABLISHED,2,1,1,0"));
    assert_eq!(text.lines().last(), Some(",1002000000,1,CLOSE,,,,"));
}

#[test]
fn nothing_is_printed_before_the_tables_were_read() {
    let (early, _) = SCRIPT.split_once("1ms snapshot over").unwrap();
    assert_eq!(show(Format::Json, Some(1000), None, &format!("{early}3ms tick\n")), "");
}

#[test]
fn a_hold_up_makes_one_line_of_several_intervals() {
    let text = show(
        Format::Csv,
        Some(10),
        None,
        "0ms begin\n1ms snapshot open\n\
        1ms snapshot over\n2ms tick\n47ms tick\n",
    );
    assert_eq!(text.lines().last(), Some(",42000000,0.04,CLOSE,,,,"));
}

#[test]
fn a_drift_and_a_loss_are_shown() {
    let round = |ms: u32| {
        format!(
            "{ms}ms snapshot open\n{ms}ms snapshot 5\n{ms}ms snapshot end\n\
             {ms}ms snapshot over\n{ms}.5ms tick\n"
        )
    };
    let (first, second) = (round(2150), round(2250));
    let script = format!("{SCRIPT}2140ms lost 7\n{first}{second}3200ms tick\n");
    let text = show(Format::Table, Some(1000), None, &script);
    assert!(text.contains("... 7 events lost\n"), "{text}");
    assert!(text.contains("connections were otherwise in the kernel's tables"), "{text}");
    let json = show(Format::Json, Some(1000), None, &script);
    assert!(json.lines().last().unwrap().contains(r#""corrected":3,"#), "{json}");
}

#[test]
fn large_numbers_keep_their_columns_apart() {
    use tcptrace_stats::counts::Flow;
    let flow = |now| Some(Flow { now, entered: 12_345_678, left: 3 });
    let row = |state| Row { state, flow: flow(123_456_789), before: flow(3) };
    let line = Line {
        mono_ns: 0,
        since_ns: Some(1),
        rows: COUNTED.into_iter().map(row).collect(),
        corrected: 0,
    };
    let mut out = BytesMut::new();
    text::block(&line, "12:00:00", true, false, &mut out);
    let text = String::from_utf8(out.to_vec()).unwrap();
    assert!(text.lines().all(|line| line.split_whitespace().count() == 11), "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}
