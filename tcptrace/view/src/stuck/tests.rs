//! What the view prints of scripts.

use std::time::Duration;

use super::*;
use tcptrace_model::{
    StateSet,
    script::{self, later},
};
use tcptrace_stats::group::By;

fn show(format: Format, every_ms: Option<u64>, older: Option<Duration>, text: &str) -> String {
    let wanted = Wanted { states: StateSet::all(), older, by: By::Owner, top: 2 };
    let lines = Lines { every: every_ms.map(Duration::from_millis), count: None };
    let mut view = StuckView::new(wanted, format, lines, true);
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    view.begin(&mut out);
    for input in script::inputs(&later(text)).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

const SCRIPT: &str = "0ms begin\n\
    1ms cgroup 7 /system.slice/app.service\n\
    1ms snapshot open\n1ms snapshot 5\n\
    1ms socket CLOSE_WAIT 1 10.0.0.1:80 255.255.255.255:65535 pid=4194304 comm=fifteen-letters inode=9 unread=4000000000 cgroup=7 in-state-ms=7980001\n\
    1ms socket CLOSE_WAIT 2 10.0.0.1:80 10.0.0.9:2 pid=7 comm=\x1b[31mevil inode=9 unread=0 in-state-ms=86400000000\n\
    1ms socket CLOSE_WAIT 3 [2001:db8::1]:80 [2001:db8::2]:3 pid=7 comm=x inode=9 unread=0 in-state-ms=61000\n\
    1ms socket CLOSE_WAIT 4 10.0.0.1:80 10.0.0.9:4 pid=7 comm=x inode=9 unread=0\n\
    1ms socket LAST_ACK 5 10.0.0.1:80 10.0.0.9:5 inode=0 unsent=1 in-state-ms=25500\n\
    1ms socket LISTEN 6 0.0.0.0:443 0.0.0.0:0 inode=9 unread=129 unsent=128\n\
    1ms syn-queue 443 12 3\n1ms syn-queue 80 1 0\n\
    1ms snapshot end syn-queue=13\n1ms snapshot over\n\
    2ms tick\n";

#[test]
fn one_report_fits_eighty_columns() {
    let text = show(Format::Table, None, None, SCRIPT);
    let expected = "\
- OWNER                             STUCK     ALL  GROWTH   OLDEST UNREAD UNSENT
CLOSE_WAIT 60s: the peer has closed, the program here has not: fix it here
  \\x1b[31mevil                          1       1       -   ≥1000d      0      0
  fifteen-letters                       1       1       -   ≥2h13m   3.7G      0
  (1 more)                              1       2       -   ≥1m01s      0      0
LAST_ACK 10s: both ends closed; the peer's host acknowledges no FIN
  (orphan)                              1       1       -   ≥25.5s      0      0
SYN_RECV: no last ACK from the client, or a full accept queue here
  :443 in 5: 12 wait, 3 with the SYN-ACK resent, accept queue 129/128
... 1 more in these states, not known to be there for so long (--older)
  OLDEST STATE          PID COMM       UNREAD UNSENT LPORT PEER
  ≥1000d CLOSE_WAIT       7 \\x1b[31me…      0      0    80 10.0.0.9:2
  ≥2h13m CLOSE_WAIT 4194304 fifteen-l…   3.7G      0    80 255.255.255.255:65535
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn growth_is_told_from_the_second_report_on() {
    let more = "500ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:80 10.0.0.9:8 cookie=8 netns=5\n\
        600ms sk=b ESTABLISHED>CLOSE_WAIT 10.0.0.1:80 10.0.0.9:9 cookie=9 netns=5\n\
        1003ms tick\n1100ms lost 3\n2100ms tick\n";
    let text = show(Format::Table, Some(1000), Some(Duration::ZERO), &format!("{SCRIPT}{more}"));
    let reports: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(reports.len(), 3, "{text}");
    assert!(reports[0].contains("LAST_ACK 0s: "), "{text}");
    assert!(reports[0].contains("  :80 in 5: 1 wait, 0 with the SYN-ACK resent\n"), "{text}");
    // In no snapshot yet: what is in their queues is not known.
    let line = "  -                                     2       2  +2.0/s     0.5s      -      -\n";
    assert!(reports[1].contains(line), "{text}");
    assert!(reports[1].contains("\n... 3 transitions lost"), "{text}");
    assert!(reports[2].contains("     2       2       .     1.6s"), "{text}");
}

#[test]
fn nothing_stuck_is_said() {
    let text = "0ms begin\n1ms snapshot open\n1ms snapshot 5\n\
        1ms socket CLOSE_WAIT 1 10.0.0.1:80 10.0.0.9:1 pid=7 comm=x inode=9\n\
        1ms snapshot end\n1ms snapshot over\n2ms tick\n";
    let expected = "- nothing is stuck\n\
        ... 1 more in these states, not known to be there for so long (--older)\n";
    assert_eq!(show(Format::Table, None, None, text), expected);
}

#[test]
fn json_has_it_all_and_no_magic_numbers() {
    let text = show(Format::Json, None, None, SCRIPT);
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["type"], &line["v"]), (&"stuck".into(), &1.into()));
    assert_eq!((&line["by"], &line["seconds"].is_null()), (&"owner".into(), &true));
    assert_eq!((&line["stuck"], &line["all"]), (&4.into(), &5.into()));
    assert_eq!(line["older_ms"]["SYN_SENT"], 3000);
    let groups = line["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups[0]["group"], "\\x1b[31mevil");
    assert_eq!((&groups[2]["kind"], &groups[2]["group"].is_null()), (&"other".into(), &true));
    assert_eq!((&groups[3]["state"], &groups[3]["kind"]), (&"LAST_ACK".into(), &"orphan".into()));
    assert!(groups.iter().all(|group| group["change"].is_null() && group["at_least"] == true));
    let sockets = line["sockets"].as_array().unwrap();
    let letters = &sockets[1];
    assert_eq!((&letters["unit"], &letters["pid"]), (&"app.service".into(), &4_194_304.into()));
    assert_eq!(
        (&letters["unread"], &letters["eof_read"]),
        (&3_999_999_999_u64.into(), &false.into())
    );
    assert_eq!(letters["ms"].as_f64().unwrap().floor(), 7_980_002.0);
    assert_eq!((&sockets[0]["unit"].is_null(), &sockets[0]["eof_read"]), (&true, &true.into()));
    let queues = line["syn_queues"].as_array().unwrap();
    assert_eq!((&queues[0]["lport"], &queues[0]["accept_full"]), (&443.into(), &true.into()));
    assert!(queues[1]["accept_full"].is_null(), "no listener in the snapshot");
}

#[test]
fn csv_has_a_field_for_each_column() {
    let text = show(Format::Csv, None, None, SCRIPT);
    let mut lines = text.lines();
    let columns = lines.next().unwrap().split(',').count();
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows.iter().all(|row| row.split(',').count() == columns), "{text}");
    assert!(
        rows[1].contains(
            ",CLOSE_WAIT,owner,fifteen-letters,known,1,1,,7980002.000,true,1,3999999999,0,1"
        ),
        "{text}"
    );
    assert!(rows[2].contains(",owner,,other,1,2,,"), "{text}");
}

#[test]
fn every_age_fits_its_column() {
    for s in [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 86_399_999, 86_400_000, 18_000_000_000] {
        let text = text::duration(Duration::from_millis(s * 1000 + 999));
        assert!(text.chars().count() <= 7, "{text}");
    }
    assert_eq!(text::duration(Duration::from_millis(59_999)), "59.9s");
    assert_eq!(text::duration(Duration::from_secs(7_199)), "1h59m");
    assert_eq!(text::duration(Duration::from_secs(86_400 * 3 + 7_200)), "3d02h");
}
