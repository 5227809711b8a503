use super::*;
use tcptrace_model::{Clock, How, TcpState, script};

fn everything() -> Selection {
    Selection {
        wanted: Wanted::default(),
        min_life_ns: 0,
        until: Until::End,
        open: false,
        count: None,
        header: true,
    }
}

fn show(format: Format, selection: Selection, text: &str) -> String {
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    let mut view = ConnsView::new(format, selection);
    view.begin(&mut out);
    let clock = Clock { mono_ns: 0, realtime_offset_ns: 1_795_330_800_000_000_000 };
    view.input(&Input::Clock(clock), &tracker, &mut out);
    for input in script::inputs(text).unwrap() {
        if view.is_done() {
            break;
        }
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    if !view.is_done() {
        let accounts = tcptrace_model::Accounts { mono_ns: 90_000_000_000, ..Default::default() };
        view.input(&Input::End(accounts), &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

fn table(selection: Selection, text: &str) -> String {
    show(Format::Table(Columns::default()), selection, text)
}

fn objects(selection: Selection, text: &str) -> Vec<serde_json::Value> {
    let text = show(Format::Json, selection, text);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// From here, closed here, its TIME_WAIT expires; one that is accepted, and closed by the peer; one
/// that is refused; one from before, reset; and one that stays in TIME_WAIT.
fn connections() -> String {
    let mut text = "0ms begin\n0ms netns 5 blue\n\
        5ms sk=1 CLOSE>LISTEN 0.0.0.0:80 0.0.0.0:0 pid=4194304 comm=nginx-worker-12\n\
        6ms sk=b LISTEN>SYN_RECV 192.168.123.234:80 192.168.234.123:54321 netns=5\n\
        7ms sk=b SYN_RECV>ESTABLISHED 192.168.123.234:80 192.168.234.123:54321 netns=5\n\
        8ms sk=b ESTABLISHED>CLOSE_WAIT 192.168.123.234:80 192.168.234.123:54321 netns=5\n\
        9ms sk=b CLOSE_WAIT>LAST_ACK 192.168.123.234:80 192.168.234.123:54321 pid=4194304 comm=nginx-worker-12 netns=5\n\
        10ms sk=b LAST_ACK>CLOSE 192.168.123.234:80 192.168.234.123:54321 netns=5 \
        acked=104857601 received=2049 srtt-us=250 retransmits=3\n\
        11ms sk=c CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=9 comm=curl uid=1000 netns=5\n\
        13ms sk=c SYN_SENT>CLOSE 10.0.0.1:40001 10.0.0.2:443 err=111 acked=0 netns=5\n\
        14ms sk=d ESTABLISHED>CLOSE 10.0.0.1:40002 10.0.0.2:443 err=104 netns=5 acked=601\n"
        .to_owned();
    for (sk, port, expires) in [("a", 40003, Some(60_120)), ("e", 40004, None)] {
        let ends = format!("10.0.0.1:{port} 10.0.0.2:443");
        text += &format!(
            "100ms sk={sk} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=812 comm=curl cookie={sk} netns=5\n\
             103ms sk={sk} SYN_SENT>ESTABLISHED {ends} cookie={sk} netns=5\n\
             113ms sk={sk} ESTABLISHED>FIN_WAIT1 {ends} cookie={sk} netns=5\n\
             114ms sk={sk} FIN_WAIT1>FIN_WAIT2 {ends} cookie={sk} netns=5\n\
             119ms tw={sk}f started TIME_WAIT {ends} cookie={sk} netns=5 expires=60120ms\n\
             119ms sk={sk} FIN_WAIT2>CLOSE {ends} cookie={sk} netns=5 peer-fin acked=1002 received=501\n"
        );
        if let Some(ms) = expires {
            text += &format!(
                "{ms}ms tw={sk}f expired TIME_WAIT {ends} cookie={sk} netns=5 expires=60120ms\n"
            );
        }
    }
    text
}

#[test]
fn the_table_fits_eighty_columns() {
    let text = table(everything(), &connections());
    let expected = "    \
    PID COMM     LPORT    RADDR:RPORT              TX    RX       MS BY HOW
4194304 nginx-wo    80 <- 192.168.234.123:54321  100M  2.0K    4.000 R  fin
      9 curl     40001 -> 10.0.0.2:443              0     0    2.000 R  refused
      - -        40002 -- 10.0.0.2:443           ≤601     0  ≥14.000 R  rst-in
    812 curl     40003 -> 10.0.0.2:443           1000   500   19.000 L  fin
    812 curl     40004 -> 10.0.0.2:443           1000   500   19.000 L  fin
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn the_widest_row_fits_too_unless_the_address_is_long() {
    let text = table(
        Selection { header: false, open: true, ..everything() },
        "0ms begin\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=4194304 comm=\x1b[2J\u{202e}evil\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 192.168.123.234:54321\n\
         3ms sk=b ESTABLISHED>CLOSE_WAIT [2001:db8::1]:40001 [2001:db8:1:2:3:4:5:6]:54321\n\
         3600000ms sk=a ESTABLISHED>CLOSE 10.0.0.1:65535 192.168.123.234:54321 linger=0 \
         shut=3 acked=1048575 received=1048575\n\
         3600001ms lost 3\n",
    );
    let expected = "\
4194304 \\x1b[2J\\ 65535 -> 192.168.123.234:54321 1023K 1023K  3599999 L  linger0
... 3 events lost
      - -        40001 -- [2001:db8:1:2:3:4:5:6]:54321     -     - ≥90000.0 CLOSE_WAIT
";
    assert_eq!(text, expected);
    for line in text.lines() {
        let long = if line.contains('[') && line.contains("2001") { 6 } else { 0 };
        assert!(line.chars().count() <= 80 + long, "{line}");
        assert!(!line.chars().any(char::is_control));
    }
}

#[test]
fn every_short_end_fits_its_column() {
    let mut longest = 0;
    for how in How::ALL {
        let seen = |state: &TcpState| *state != TcpState::NewSynRecv;
        for state in TcpState::ALL.into_iter().filter(seen) {
            let (mut tracker, mut one) = (Tracker::default(), None);
            let mut conns = Conns::new(Until::End, 1);
            let text = "1ms sk=a ESTABLISHED>CLOSE 10.0.0.1:7 10.0.0.2:443\n";
            for input in script::inputs(text).unwrap() {
                tracker.apply(&input, &mut |change| one = conns.change(&change).or(one));
            }
            let mut one = one.unwrap();
            (one.verdict.how, one.state) = (Some(how), state);
            let mut out = BytesMut::new();
            Table::new(Columns::default()).row(&one, &Namespaces::default(), &mut out);
            longest = longest.max(std::str::from_utf8(&out).unwrap().trim_end().chars().count());
        }
    }
    assert_eq!(longest, 80);
}

#[test]
fn wide_has_the_whole_end() {
    let columns = Columns { wide: true, timestamp: true, ..Columns::default() };
    let text = show(Format::Table(columns), everything(), &connections());
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0].len() + 1, rows[1].len(), "but for the arrow, a word each: {text}");
    let expired = text.lines().find(|line| line.ends_with(" expired           -")).unwrap();
    assert!(expired.starts_with("0.119000   blue "), "{expired}");
    assert!(
        expired.ends_with(
            "local  -                       fin                                 1.000      5.000          \
             .          .          .  60001.000 expired           -"
        ),
        "{expired}"
    );
    let waiting = text.lines().last().unwrap();
    assert!(waiting.ends_with(" ≥89881.000 -                 -"), "{waiting}");
}

#[test]
fn an_object_has_every_key_and_null_for_what_is_not_known() {
    let lines = objects(everything(), &connections());
    let one = lines.iter().find(|line| line["lport"] == 40003).unwrap();
    let state = |name: &str, ms: f64| serde_json::json!({"state": name, "ms": ms, "at_least": false, "within_ms": null});
    let mut expected = serde_json::json!({
        "v": 2, "type": "connection", "time": "2026-11-22T07:01:00.120000000Z",
        "mono_ns": "60120000000", "begin_mono_ns": "100000000", "closed_mono_ns": "119000000",
        "cookie": "10", "netns": 5, "family": "ipv4", "mapped": false, "laddr": "10.0.0.1",
        "lport": 40003, "raddr": "10.0.0.2", "rport": 443, "state": "CLOSE", "opened": "connect",
        "pid": 812, "uid": 0, "comm": "curl", "owner_from": "connect", "tid": 812,
        "thread": "curl", "cgroup": null,
        "handshake_ms": 3.0, "ms": 19.0, "at_least": false, "within_ms": null, "tx_bytes": 1000,
        "tx_at_most": false, "rx_bytes": 500, "rtt_ms": null, "retransmits": 0,
        "initiator": "local", "how": "fin", "unknown_because": null, "end_reason": "expired",
        "mptcp": null,
        "states": [state("SYN_SENT", 3.0), state("ESTABLISHED", 10.0), state("FIN_WAIT1", 1.0),
            state("FIN_WAIT2", 5.0), state("TIME_WAIT", 60001.0)]
    });
    for nobody in [
        "closer_pid",
        "closer_comm",
        "closer_from",
        "holder_pid",
        "holder_comm",
        "holders",
        "also_held_by_pid",
        "also_held_by_comm",
    ] {
        expected[nobody] = serde_json::Value::Null;
    }
    expected["netns_name"] = "blue".into();
    expected["retransmits_at_least"] = false.into();
    assert_eq!(*one, expected);
    assert_eq!(lines.last().unwrap()["type"], "summary");
    let found = lines.iter().find(|line| line["lport"] == 40002).unwrap();
    for key in ["begin_mono_ns", "cookie", "opened", "pid", "uid", "comm", "handshake_ms"] {
        assert!(found[key].is_null(), "{key}");
    }
    assert_eq!(found.as_object().unwrap().len(), one.as_object().unwrap().len());
    assert_eq!((&found["ms"], &found["at_least"]), (&14.0.into(), &true.into()));
    let waiting = lines.iter().find(|line| line["lport"] == 40004).unwrap();
    assert_eq!((&waiting["state"], waiting["end_reason"].is_null()), (&"TIME_WAIT".into(), true));
    assert_eq!(waiting["states"][4]["at_least"], true);
}

#[test]
fn without_waiting_the_end_of_time_wait_is_null() {
    let lines = objects(Selection { until: Until::Close, ..everything() }, &connections());
    let closed: Vec<_> = lines.iter().filter(|line| line["state"] == "TIME_WAIT").collect();
    assert_eq!(closed.len(), 2, "each once");
    assert!(closed.iter().all(|line| line["end_reason"].is_null() && line["ms"] == 19.0));
    assert!(closed.iter().all(|line| line["states"].as_array().unwrap().len() == 4));
}

#[test]
fn a_row_of_csv_has_a_field_for_each_column() {
    let mut script = connections();
    script += "200ms sk=f CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm==1,\"x netns=5\n\
        201ms sk=f SYN_SENT>CLOSE 10.0.0.1:4 10.0.0.2:443 err=110 netns=5\n";
    let text = show(Format::Csv, everything(), &script);
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut hostile = 0;
    for line in lines {
        // The only fields with commas or blanks in them are quoted.
        let plain: String = line.split('"').step_by(2).collect();
        hostile += u32::from(line.contains(r#","'=1,""x","#) && line.contains(",timeout-syn,"));
        assert_eq!(plain.matches(',').count() + 1, columns.len(), "{line}");
    }
    assert_eq!(hostile, 1, "{text}");
    let last = text.lines().find(|line| line.contains(",TIME_WAIT,connect,")).unwrap();
    assert!(
        last.ends_with(
            ",3.000,,10.000,1.000,5.000,,,,89881.000,TIME_WAIT,812,curl,,,,,,,,,,,false,blue,,"
        ),
        "{last}"
    );
}

#[test]
fn what_was_not_asked_for_is_not_shown() {
    let ports = |selection: Selection| -> Vec<u64> {
        let lines = objects(selection, &connections());
        lines.iter().filter_map(|line| line["lport"].as_u64()).collect()
    };
    let want = |wanted: Wanted| ports(Selection { wanted, ..everything() });
    assert_eq!(want(Wanted { pids: vec![812], ..Wanted::default() }), [40003, 40004]);
    assert_eq!(want(Wanted { uids: vec![1000], ..Wanted::default() }), [40001]);
    assert_eq!(want(Wanted { how: "rst".parse().ok(), ..Wanted::default() }), [40002]);
    let remote = vec!["remote".parse().unwrap()];
    assert_eq!(want(Wanted { closed_by: remote, ..Wanted::default() }), [80, 40001, 40002]);
    let lived = ports(Selection { min_life_ns: 10_000_000, ..everything() });
    assert_eq!(lived, [40002, 40003, 40004]);
    assert_eq!(ports(Selection { count: Some(2), ..everything() }), [80, 40001]);
}

#[test]
fn those_that_are_open_come_first_and_once() {
    let text = "0ms begin\n\
        1ms snapshot open\n1ms snapshot 5\n\
        1ms socket ESTABLISHED 9b 10.0.0.1:7 10.0.0.2:443\n\
        1ms snapshot end\n3ms snapshot over\n\
        2ms tick\n\
        4ms tick\n\
        5ms snapshot open\n5ms snapshot 5\n\
        5ms socket ESTABLISHED 9b 10.0.0.1:7 10.0.0.2:443\n\
        5ms snapshot end\n5ms snapshot over\n6ms tick\n\
        7ms sk=a ESTABLISHED>CLOSE 10.0.0.1:7 10.0.0.2:443 err=104 cookie=9b netns=5\n";
    let states = |open| -> Vec<(String, String)> {
        let lines = objects(Selection { open, ..everything() }, text);
        let lines = lines.iter().filter(|line| line["type"] == "connection");
        lines.map(|line| (line["state"].to_string(), line["ms"].to_string())).collect()
    };
    let words = |a: &str, b: &str| (format!("\"{a}\""), b.to_owned());
    assert_eq!(states(true), [words("ESTABLISHED", "null"), words("CLOSE", "6.0")]);
    assert_eq!(states(false), [words("CLOSE", "6.0")]);
}
