use std::fmt::Write as _;

use super::*;
use tcptrace_model::{StateSet, script};
use tcptrace_stats::{
    durations::{DEFAULT_LIMIT, Durations, Spans},
    group::By,
    steps::Steps,
};
use tcptrace_track::Tracker;

fn show(mut view: HistView, text: &str) -> String {
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    view.begin(&mut out);
    for input in script::inputs(text).unwrap() {
        if view.is_done() {
            break;
        }
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

fn spans(states: &str) -> Spans {
    let states =
        states.split(' ').fold(StateSet::EMPTY, |all, state| all.union(state.parse().unwrap()));
    Spans { states, life: false }
}

fn durations(states: &str, by: Option<By>) -> Subject {
    Subject::Durations(Durations::new(spans(states), by, DEFAULT_LIMIT))
}

fn every(ms: u64, count: Option<u64>) -> Option<Intervals> {
    Some(Intervals { length: Duration::from_millis(ms), count })
}

/// Connections closed here: one is reused by a SYN after 20 s, the others expire after 60 s and
/// some slack; an orphan whose peer never closes; and one from before.
fn closes() -> String {
    let mut text = "0ms begin\n".to_owned();
    for (i, end) in [60_004, 60_011, 61_024, 20_000].into_iter().enumerate() {
        let ends = format!("10.0.0.1:{i}1 10.0.0.2:443");
        let how = if end < 60_000 { "stopped-by-receive" } else { "expired" };
        writeln!(
            text,
            "1ms sk={i}a ESTABLISHED>FIN_WAIT1 {ends} comm=curl netns=5\n\
             1.040ms sk={i}a FIN_WAIT1>FIN_WAIT2 {ends} netns=5\n\
             10ms tw={i}b started TIME_WAIT {ends} netns=5 expires=60010ms\n\
             10ms sk={i}a FIN_WAIT2>CLOSE {ends} netns=5\n\
             {}ms tw={i}b {how} TIME_WAIT {ends} netns=5 expires=60010ms",
            end + 10
        )
        .unwrap();
    }
    text + "1ms sk=c ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:80 comm=wget netns=5\n\
        2ms sk=c FIN_WAIT1>FIN_WAIT2 10.0.0.1:7 10.0.0.2:80 netns=5\n\
        3ms tw=d started FIN_WAIT2 10.0.0.1:7 10.0.0.2:80 netns=5 expires=3002ms\n\
        3ms sk=c FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:80 netns=5\n\
        3002ms tw=d expired FIN_WAIT2 10.0.0.1:7 10.0.0.2:80 netns=5 expires=3002ms\n\
        5ms sk=e CLOSE_WAIT>LAST_ACK 10.0.0.1:7 10.0.0.2:22 comm=sshd netns=5\n\
        70000ms tick\n"
}

#[test]
fn the_rows_are_those_of_bcc_and_fit_eighty_columns() {
    let view = HistView::new(
        durations("fin-wait-1 fin-wait-2 time-wait closing close-wait", None),
        Format::Table,
        every(70_000, None),
        true,
    );
    let text = show(view, &closes());
    let expected = "\
from 0.0 s to 70.0 s

FIN_WAIT1: 5
  ms: mean 0.232  p50 0.040  p90 1.000  p99 1.000  max 1.000
     usecs               : count     distribution
        32 -> 63         : 4        |****************************************|
        64 -> 127        : 0        |                                        |
       128 -> 255        : 0        |                                        |
       256 -> 511        : 0        |                                        |
       512 -> 1023       : 1        |**********                              |

FIN_WAIT2: 5
  ms: mean 607.168  p50 8.967  p90 3000.000  p99 3000.000  max 3000.000
  1 ended expired: no FIN of the peer came (tcp_fin_timeout)
     usecs               : count     distribution
      8192 -> 16383      : 4        |****************************************|
     16384 -> 32767      : 0        |                                        |
     32768 -> 65535      : 0        |                                        |
     65536 -> 131071     : 0        |                                        |
    131072 -> 262143     : 0        |                                        |
    262144 -> 524287     : 0        |                                        |
    524288 -> 1048575    : 0        |                                        |
   1048576 -> 2097151    : 0        |                                        |
   2097152 -> 4194303    : 1        |**********                              |

CLOSING: none ended

TIME_WAIT, expired: 3
  ms: mean 60346.333  p50 60030.975  p90 61024.000  p99 61024.000  max 61024.000
     msecs               : count     distribution
     60000 -> 60999      : 2        |****************************************|
     61000 -> 61999      : 1        |********************                    |

TIME_WAIT, reused-by-syn: 1
  ms: mean 20000.000  p50 20000.000  p90 20000.000  p99 20000.000  max 20000.000
     msecs               : count     distribution
     16384 -> 32767      : 1        |****************************************|

CLOSE_WAIT: 0
  and 1 that began before: the longest ≥ 5.000 ms
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn the_buckets_of_json_hold_all_that_was_measured_and_nothing_else() {
    let view = HistView::new(
        durations("fin-wait-2 time-wait close-wait", None),
        Format::Json,
        every(70_000, None),
        true,
    );
    let text = show(view, &format!("0ms clock 1795330800000000000\n{}", closes()));
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["v"], &line["type"]), (&2.into(), &"hist".into()));
    assert_eq!(line["time"], "2026-11-22T07:01:10.000000000Z");
    let rows = line["rows"].as_array().unwrap();
    let keys: Vec<_> =
        rows.iter().map(|row| (row["state"].as_str().unwrap(), row["key"].as_str())).collect();
    assert_eq!(
        keys,
        [
            ("FIN_WAIT2", None),
            ("TIME_WAIT", Some("expired")),
            ("TIME_WAIT", Some("reused-by-syn")),
            ("CLOSE_WAIT", None)
        ]
    );
    for row in rows {
        let buckets = row["buckets"].as_array().unwrap();
        let count: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
        assert_eq!(row["count"], count);
    }
    assert_eq!(rows[0]["ends"], serde_json::json!({"expired": 1}));
    assert_eq!(rows[1]["max_ms"], 61_024.0);
    assert_eq!(rows[3]["at_least"], serde_json::json!({"count": 1, "max_ms": 5.0}));
    assert_eq!(rows[3]["mean_ms"], serde_json::Value::Null);
}

#[test]
fn an_interval_holds_what_was_told_in_it() {
    let mut text = "100ms begin\n".to_owned();
    for i in 0..6 {
        let at = 200 * i;
        writeln!(
            text,
            "{}ms sk={i}a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=x\n\
             {}ms sk={i}a SYN_SENT>CLOSE 10.0.0.1:0 10.0.0.2:443\n\
             {}ms tick",
            101 + at,
            150 + at,
            200 + at
        )
        .unwrap();
    }
    let view = HistView::new(durations("syn-sent", None), Format::Csv, every(500, Some(2)), true);
    let expected = "0.000,0.500,SYN_SENT,failed,3,49.000,49.000,49.000,49.000,49.000,0,,0\n\
        0.500,1.000,SYN_SENT,failed,3,49.000,49.000,49.000,49.000,49.000,0,,0\n";
    assert_eq!(show(view, &text), format!("{}{expected}", csv::HEADER));
    // A tick that comes late closes what is over as one, and the grid stays.
    let view = HistView::new(durations("syn-sent", None), Format::Csv, every(30, None), false);
    let text = show(view, &text);
    let bounds: Vec<_> = text.lines().map(|line| line.split(",SYN").next().unwrap()).collect();
    assert_eq!(
        bounds,
        ["0.000,0.090", "0.090,0.300", "0.300,0.480", "0.480,0.690", "0.690,0.900", "0.900,1.080"]
    );
}

#[test]
fn the_steps_say_who_is_waited_for() {
    let view =
        HistView::new(Subject::Steps(Steps::default()), Format::Table, every(70_000, None), true);
    let text = show(view, &closes());
    let expected = "\
from 0.0 s to 70.0 s

closed here first (active close): 5 began
  FIN_WAIT1: waits for the peer's kernel, to acknowledge our FIN
    ms:                                          count     p50     p99      max
    -> FIN_WAIT2   acknowledged                      5   0.040   1.000    1.000
  FIN_WAIT2: waits for the peer's application, to close its end
    -> TIME_WAIT   the peer's FIN came               4   8.960   8.960    8.960
    -> CLOSE       it never came, or reset           1 3000.00 3000.00 3000.000
      1 expired
  TIME_WAIT: waits for nobody: late segments are to die out
    -> CLOSE       ended                             4 60030.9 61024.0 61024.00
      3 expired
      1 reused-by-syn

closed by the peer first (passive close): 0 began
  CLOSE_WAIT: waits for our own application, to close its end
    ms:                                          count     p50     p99      max
    -> LAST_ACK    it closed, our FIN went out       0       -       -        -
  and 1 that began before: the longest ≥ 5.000 ms

no FIN of either side (reset, timed out): 0
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
    let view =
        HistView::new(Subject::Steps(Steps::default()), Format::Json, every(70_000, None), true);
    let line: serde_json::Value = serde_json::from_str(show(view, &closes()).trim_end()).unwrap();
    assert_eq!(line["steps"][1]["new"], "TIME_WAIT");
    assert_eq!(
        (&line["began_local"], &line["steps"][3]["ends"]["expired"]),
        (&5.into(), &3.into())
    );
}

#[test]
fn names_of_groups_are_harmless_and_within_the_line() {
    let script = "0ms begin\n\
        1ms sk=1 CLOSE>SYN_SENT [2001:db8:1111:2222:3333:4444:5555:6666]:0 \
        [2001:db8:1111:2222:3333:4444:5555:7777]:443 comm=\x1b[31m\x01\x02\x03\x04\x05\n\
        2ms sk=1 SYN_SENT>CLOSE [2001:db8::1]:7 [2001:db8:1111:2222:3333:4444:5555:7777]:443\n\
        3ms lost 17\n\
        10ms tick\n";
    for by in By::ALL {
        let subject = durations("syn-sent", Some(by));
        let text = show(HistView::new(subject, Format::Table, every(10, None), true), script);
        assert!(!text.contains('\x1b') && text.contains(by.name()), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("... 17 events lost"), "{text}");
    }
}

#[test]
fn cgroups_of_one_unit_are_one_histogram() {
    let mut script = "0ms begin\n0ms cgroup 7 /a.service\n\
        0ms cgroup 9 /system.slice/\\x1b[2J\u{202e},\"=a-very-long-name-of-a-hostile-unit.service\n"
        .to_owned();
    for (i, cgroup) in ["cgroup=8", "cgroup=9", "", "cgroup=7", "cgroup=10"].iter().enumerate() {
        writeln!(
            script,
            "1ms sk={i}a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 {cgroup}\n\
             {}ms sk={i}a SYN_SENT>CLOSE 10.0.0.1:{i}1 10.0.0.2:443 err=111 {cgroup}",
            3 + i
        )
        .unwrap();
    }
    script += "90ms cgroup 10 /a.service\n1000ms tick\n";
    let of = |format| {
        let subject = durations("syn-sent", Some(By::Unit));
        show(HistView::new(subject, format, every(1000, None), true), &script)
    };
    let text = of(Format::Table);
    let titles: Vec<_> = text.lines().filter(|line| line.starts_with("SYN_SENT")).collect();
    let expected = [
        "SYN_SENT, unit a.service: 2",
        "SYN_SENT, unit -: 1",
        "SYN_SENT, unit cgroup 8: 1",
        "SYN_SENT, unit \\x1b[2J\\u{202e},\"=a-very-long-name-of-a…: 1",
    ];
    assert_eq!(titles, expected);
    assert!(text.contains("  ms: mean 5.500  p50 5.003  p90 6.000 "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let line: serde_json::Value = serde_json::from_str(&of(Format::Json)).unwrap();
    assert_eq!(
        (&line["rows"][0]["by"], &line["rows"][0]["key"]),
        (&"unit".into(), &"a.service".into())
    );
    assert_eq!((&line["rows"][0]["count"], &line["rows"][1]["key"]), (&2.into(), &().into()));
    let csv = of(Format::Csv);
    assert!(csv.contains(",SYN_SENT,a.service,2,5.500,"), "{csv}");
    assert!(!csv.contains(['\x1b', '\u{202e}']), "{csv}");
}
