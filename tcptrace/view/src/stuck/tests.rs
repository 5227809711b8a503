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
    let lines = Lines { every: every_ms.map(Duration::from_millis), count: None, at_end: false };
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
  x                                     1       2       -   ≥1m01s      0      0
  \\x1b[31mevil                          1       1       -   ≥1000d      0      0
  (1 more)                              1       1       -   ≥2h13m   3.7G      0
LAST_ACK 10s: both ends closed or shut down; data or FIN not acknowledged
  (orphan)                              1       1       -   ≥25.5s      0      0
SYN_RECV: no last ACK from the client, or a full accept queue here
  :443 in 5: 12 wait, 3 with the SYN-ACK resent, accept queue 129/128
... below the threshold: 1 CLOSE_WAIT (60s); --older 0 lists them
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
    assert!(reports[1].contains("\n... 3 events lost"), "{text}");
    assert!(reports[2].contains("     2       2       .     1.6s"), "{text}");
}

#[test]
fn nothing_stuck_is_said() {
    let text = "0ms begin\n1ms snapshot open\n1ms snapshot 5\n\
        1ms socket CLOSE_WAIT 1 10.0.0.1:80 10.0.0.9:1 pid=7 comm=x inode=9\n\
        1ms snapshot end\n1ms snapshot over\n2ms tick\n";
    let expected = "- no connection is past its threshold yet\n\
        ... below the threshold: 1 CLOSE_WAIT (60s); --older 0 lists them\n";
    assert_eq!(show(Format::Table, None, None, text), expected);
    let none = "0ms begin\n1ms snapshot open\n1ms snapshot 5\n\
        1ms snapshot end\n1ms snapshot over\n2ms tick\n";
    assert_eq!(show(Format::Table, None, None, none), "- nothing is stuck\n");
}

#[test]
fn json_has_it_all_and_no_magic_numbers() {
    let text = show(Format::Json, None, None, SCRIPT);
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["type"], &line["v"]), (&"stuck".into(), &2.into()));
    assert_eq!((&line["by"], &line["seconds"].is_null()), (&"owner".into(), &true));
    assert_eq!((&line["stuck"], &line["all"]), (&4.into(), &5.into()));
    assert_eq!(line["older_ms"]["SYN_SENT"], 3000);
    let groups = line["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups[1]["group"], "\\x1b[31mevil");
    assert_eq!(
        (&groups[1]["cause"], &groups[1]["older_ms"]),
        (&"not-closed".into(), &60000.into())
    );
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
        rows[2].ends_with(
            ",CLOSE_WAIT,owner,,other,1,1,,7980002.000,true,1,3999999999,0,1,not-closed,60000"
        ),
        "{text}"
    );
    assert!(rows[0].contains(",owner,x,known,1,2,,"), "{text}");
}

#[test]
fn every_age_fits_its_column() {
    for s in [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 86_399_999, 86_400_000, 18_000_000_000] {
        let text = crate::time::duration(Duration::from_millis(s * 1000 + 999));
        assert!(text.chars().count() <= 7, "{text}");
    }
    assert_eq!(crate::time::duration(Duration::from_millis(59_999)), "59.9s");
    assert_eq!(crate::time::duration(Duration::from_secs(7_199)), "1h59m");
    assert_eq!(crate::time::duration(Duration::from_secs(86_400 * 3 + 7_200)), "3d02h");
}

/// A snapshot at `ms`, with these lines, and the tick after it.
fn snapshot(ms: u64, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("{ms}ms {line}\n")).collect();
    format!(
        "{ms}ms snapshot open\n{ms}ms snapshot 5\n{lines}{ms}ms snapshot end\n\
         {ms}ms snapshot over\n{ms}ms tick\n"
    )
}

fn leak(count: usize) -> Vec<String> {
    let socket =
        |n| format!("socket CLOSE_WAIT {n:x} 10.0.0.1:80 10.0.0.9:{n} pid=7 comm=leaky inode=9");
    (1..=count).map(socket).collect()
}

#[test]
fn a_leak_that_is_young_shows_with_its_owner_its_growth_and_the_threshold() {
    let text = format!(
        "0ms begin\n0ms clock 0\n{}{}",
        snapshot(1, &leak(50)),
        (51..=102).fold(String::new(), |text, n| {
            text + &format!(
                "1500ms sk={n:x} ESTABLISHED>CLOSE_WAIT 10.0.0.1:80 10.0.0.9:{n} cookie={n:x} netns=5\n"
            )
        }) + &snapshot(2_001, &leak(102))
    );
    let shown = show(Format::Table, Some(2000), None, &text);
    let reports: Vec<&str> = shown.split("\n\n").collect();
    let [first, second] = &reports[..] else { panic!("{shown}") };
    for (report, growth) in [(first, "      -"), (second, " +26/s")] {
        assert!(!report.contains("nothing"), "{report}");
        let all = if growth == " +26/s" { 102 } else { 50 };
        let heading =
            "CLOSE_WAIT <60s: the peer has closed, the program here has not: fix it here\n";
        assert!(report.contains(heading), "{report}");
        let group = format!("  leaky                                 0 {all:>7}");
        assert!(report.contains(&group) && report.contains(growth), "{report}");
    }
    assert!(
        second
            .contains("... below the threshold: 102 CLOSE_WAIT (60s, +26/s); --older 0 lists them"),
        "{second}"
    );
    assert!(!shown.contains("PEER"), "no connection is shown as stuck: {shown}");
}

#[test]
fn what_waits_for_its_peer_shows_what_its_timer_does_and_when_it_ends() {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let text = format!(
        "0ms begin\n0ms sysctls 5 tcp_retries2=15 tcp_orphan_retries=0 tcp_syn_retries=6\n{}\
         1001ms tick\n",
        snapshot(
            1,
            &lines(&[
                "socket ESTABLISHED a 10.0.0.1:40000 10.0.0.2:80 pid=7 comm=app inode=9 unsent=1000",
                "info a ESTABLISHED timer=on expires=12956 unacked=1000 retransmits=6 backoff=6 \
                 rto=13056 last-sent=100 last-ack=13200",
                "socket LAST_ACK b 10.0.0.1:40001 10.0.0.2:80 inode=0 unsent=3000001",
                "info b LAST_ACK timer=persist expires=5000 unacked=3000001 not-sent=3000001 \
                 backoff=6 rto=208 last-ack=100 window=0",
                "socket ESTABLISHED c 10.0.0.1:40002 10.0.0.2:80 pid=8 comm=out inode=9 unsent=70000",
                "info c ESTABLISHED timer=persist expires=5000 unacked=70000 not-sent=70000 \
                 backoff=6 rto=208 last-ack=100 window=0",
                "socket ESTABLISHED d 10.0.0.1:40003 10.0.0.2:80 pid=8 comm=idle inode=9",
                "info d ESTABLISHED timer=keepalive expires=900 probes=2 last-ack=7275000",
                "socket SYN_SENT e 10.0.0.1:40004 10.0.0.2:80 pid=8 comm=new inode=9 unsent=1 \
                 in-state-ms=6000",
                "info e SYN_SENT timer=on expires=3000 retransmits=5 backoff=2 rto=4000",
            ])
        )
    );
    let wanted = Wanted { states: StateSet::all(), older: None, by: By::Owner, top: 9 };
    let mut view = StuckView::new(
        wanted,
        Format::Table,
        Lines { every: None, count: None, at_end: false },
        true,
    );
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    // The report is that of the last tick, a second after the scan.
    let inputs = script::inputs(&later(&text)).unwrap();
    let ticks = inputs.iter().filter(|input| matches!(input, Input::Tick { .. })).count();
    let mut tick = 0;
    for input in &inputs {
        tracker.apply(input, &mut |_| {});
        tick += usize::from(matches!(input, Input::Tick { .. }));
        if tick == ticks || !matches!(input, Input::Tick { .. }) {
            view.input(input, &tracker, &mut out);
        }
    }
    let shown = String::from_utf8(out.to_vec()).unwrap();
    for line in [
        "         resent 6 times, next in 11.9s; ends in ~15m24s (tcp_retries2)\n",
        "         window 0, 2.8M and FIN unsent; ends in ~5m14s (tcp_orphan_retries)\n",
        "         window 0, 68.3K unsent; kept while it answers\n",
        "         2 probes unanswered, peer heard 2h01m ago\n",
        "         SYN resent 5 times, next in 2.0s; ends in ~10.2s (tcp_syn_retries)\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
}
