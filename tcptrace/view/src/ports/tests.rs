//! What the view prints of scripts.

use super::*;
use tcptrace_model::script;

fn show(format: Format, top: usize, filter: Filter, text: &str) -> String {
    let shown = Shown {
        every: Duration::from_secs(1),
        count: Some(2),
        top,
        filter,
        header: true,
        which: Which::All,
    };
    let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
    let mut view = PortsView::new(format, shown);
    view.begin(&mut out);
    for input in script::inputs(text).unwrap() {
        tracker.apply(&input, &mut |change| view.change(&change, &mut out));
        view.input(&input, &tracker, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

/// Two connections and a TIME_WAIT from before, a listener in the range, a long path; then one
/// more, one that finds no port, and one that ends.
const SCRIPT: &str = "0ms begin\n\
    1ms netns 5 blue\n\
    1ms snapshot open\n\
    1ms sysctls 5 ip_local_port_range=40000-40099 ip_local_reserved_ports=40007 tcp_tw_reuse=2 tcp_timestamps=1\n\
    1ms snapshot 5\n\
    1ms socket LISTEN 1 0.0.0.0:40080 0.0.0.0:0\n\
    1ms socket ESTABLISHED 2 10.0.0.1:40000 10.0.0.2:443\n\
    1ms socket ESTABLISHED 3 10.0.0.1:40001 10.0.0.2:443 inode=3 pid=31 comm=curl\n\
    1ms socket TIME_WAIT 4 10.0.0.1:40002 10.0.0.2:443 59999\n\
    1ms socket ESTABLISHED 5 [2001:db8:1:2:3:4:5:6]:40000 [2001:db8:1:2:3:4:5:7]:65535\n\
    1ms snapshot end lists-bound\n\
    1ms snapshot 6\n\
    1ms socket ESTABLISHED 6 10.0.0.1:40000 10.0.0.2:443\n\
    1ms snapshot end\n\
    1ms snapshot over\n\
    2ms tick\n\
    500ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=32 comm=curl cookie=a netns=5\n\
    500ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:40003 10.0.0.2:443 cookie=a netns=5\n\
    600ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=b netns=5\n\
    600ms sk=b SYN_SENT>CLOSE 10.0.0.1:0 10.0.0.2:443 cookie=b netns=5\n\
    700ms sk=c ESTABLISHED>CLOSE 10.0.0.1:40000 10.0.0.2:443 cookie=2 netns=5 err=104\n\
    1002ms tick\n\
    1500ms tick\n\
    2002ms tick\n\
    3002ms tick\n";

#[test]
fn a_block_an_interval_that_fits_eighty_columns() {
    let text = show(Format::Table, 20, Filter::default(), SCRIPT);
    let expected = "\
- FROM > PEER                     LIVE    TW   FREE  NEW/s BACK/s  FAIL RUNS-OUT
netns blue (5): 99 of 40000-40099, 1 reserved, 1 bound; tw_reuse lo 1s
10.0.0.1 > 10.0.0.2:443              2     1     95      .      .     1      now
  by curl (2), owner not known (1)
[2001:db8:1:2:3:4:5:6] > [2001:db8:1:2:3:4:5:7]:65535
                                     1     0     97      .      .     0    never
netns 6: its sysctls were not read: it cannot be reached
10.0.0.1 > 10.0.0.2:443              1     0      -      .      .     0        -
- FROM > PEER                     LIVE    TW   FREE  NEW/s BACK/s  FAIL RUNS-OUT
netns blue (5): 99 of 40000-40099, 1 reserved, 1 bound; tw_reuse lo 1s
10.0.0.1 > 10.0.0.2:443              2     1     95    0.5    0.5     1        -
  by curl (2), owner not known (1)
[2001:db8:1:2:3:4:5:6] > [2001:db8:1:2:3:4:5:7]:65535
                                     1     0     97      .      .     0    never
netns 6: its sysctls were not read: it cannot be reached
10.0.0.1 > 10.0.0.2:443              1     0      -      .      .     0        -
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.len() <= 80));
}

#[test]
fn json_is_an_object_an_interval() {
    let text = show(Format::Json, 1, Filter::default(), SCRIPT);
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "COUNT");
    let expected = serde_json::json!({
        "v": 2, "type": "ports", "time": null, "mono_ns": "1002000000", "seconds": 1,
        "left_out": 0, "not_remembered": 0, "more_rows": 2,
        "namespaces": [{
            "netns": 5, "netns_name": "blue", "range": [40000, 40099], "offered": 99, "reserved": 1, "bound": 1,
            "bound_inactive": 0,
            "bound_by": {
                "most": [{ "comm": null, "pid": null, "ports": 1 }], "more": 0, "more_ports": 0
            },
            "reuse": "loopback", "reuse_after_ms": 1000.0, "not_known": null,
            "time_wait_observed": true
        }],
        "rows": [{
            "netns": 5, "netns_name": "blue", "family": "ipv4", "laddr": "10.0.0.1", "raddr": "10.0.0.2",
            "rport": 443, "live": 2, "time_wait": 1, "reusable": 0, "uncertain": 0, "usable": 98,
            "free": 95, "free_at_least": 95,
            "opened": 1, "returned": 1, "failed": 1, "failed_total": 1,
            "own_range_failed_total": 0, "opened_per_s": 0.0,
            "returned_per_s": 0.0, "outlook": "now", "runs_out_s": 0.0,
            "taken_by": {
                "most": [
                    { "comm": "curl", "pid": null, "ports": 2 },
                    { "comm": null, "pid": null, "ports": 1 }
                ],
                "more": 0, "more_ports": 0
            }
        }]
    });
    assert_eq!(lines[0], expected);
    assert_eq!(lines[1]["rows"][0]["runs_out_s"], serde_json::Value::Null);
    // What is not known is null, and said.
    let all = show(Format::Json, 9, Filter::default(), SCRIPT);
    let first: serde_json::Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    let row = first["rows"].as_array().unwrap().iter().find(|row| row["netns"] == 6).unwrap();
    assert_eq!((&row["free"], &row["outlook"]), (&serde_json::Value::Null, &"unknown".into()));
    assert!(first["namespaces"][1]["not_known"].as_str().unwrap().contains("cannot be reached"));
}

#[test]
fn csv_has_a_line_a_row_and_a_field_a_column() {
    let text = show(Format::Csv, 20, Filter::default(), SCRIPT);
    let columns = CSV_HEADER.split(',').count();
    assert!(text.lines().all(|line| line.split(',').count() == columns), "{text}");
    let expected = ",1002000000,1,5,ipv4,10.0.0.1,10.0.0.2,443,2,1,0,98,95,1,1,1,1,0.000,0.000,now,0.000,0,95,1,0,0,,curl,2,blue";
    assert_eq!(text.lines().nth(1), Some(expected));
    assert_eq!(text.lines().count(), 1 + 2 * 3);
}

#[test]
fn rows_are_kept_by_peer_and_not_by_what_they_are_counted_from() {
    let v4 = Filter { v4: true, netns: Some(5), ..Filter::default() };
    let text = show(Format::Csv, 20, v4, SCRIPT);
    assert_eq!(text.lines().count(), 1 + 2, "{text}");
    assert!(text.contains(",98,95,"), "the listener counts: {text}");
    let v6 = Filter { v6: true, ..Filter::default() };
    let text = show(Format::Csv, 20, v6, SCRIPT);
    assert!(text.lines().skip(1).all(|line| line.contains("ipv6")), "{text}");
    assert_eq!(text.lines().count(), 1 + 2);
}

/// Thirty ports that bind() took, and no connection.
fn thirty_bound(end: &str) -> String {
    let ports = (20000..20030).map(|port| format!("0ms bound {port} pid=7 comm=binds\n"));
    format!(
        "0ms begin\n0ms snapshot open\n0ms sysctls 5 ip_local_port_range=20000-20029 \
         ip_local_reserved_ports= tcp_tw_reuse=0\n0ms snapshot 5\n{}0ms snapshot end {end}\n\
         0ms snapshot over\n2ms tick\n1002ms tick\n",
        ports.collect::<String>()
    )
}

#[test]
fn ports_that_are_bound_are_shown_without_a_connection() {
    let script = thirty_bound("lists-bound");
    let text = show(Format::Table, 20, Filter::default(), &script);
    let expected = "\
- FROM > PEER                     LIVE    TW   FREE  NEW/s BACK/s  FAIL RUNS-OUT
netns 5: 30 of 20000-20029, 30 bound; tw_reuse no
  bound by binds, pid 7 (30)
... all 30 ports are bound: connect() finds none, and bind() to port 0 none for
    the addresses that they are bound to
... no connections that were opened from here
";
    assert_eq!(text, expected);
    let json = show(Format::Json, 20, Filter::default(), &script);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let space = &json["namespaces"][0];
    assert_eq!((&space["bound"], &space["bound_inactive"]), (&30.into(), &30.into()));
    assert_eq!(space["bound_by"]["most"][0]["comm"], "binds");
    let csv = show(Format::Csv, 20, Filter::default(), &script);
    let lines: Vec<Vec<_>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((lines.len(), lines[1].len()), (2, lines[0].len()), "{csv}");
    let field = |name| lines[1][lines[0].iter().position(|column| *column == name).unwrap()];
    let told = ["netns", "rport", "bound", "bound_inactive", "taken_by_comm", "taken_by_ports"];
    assert_eq!(told.map(field), ["5", "", "30", "30", "binds", "30"]);
    // Not of a namespace that was not asked for.
    let other = Filter { netns: Some(6), ..Filter::default() };
    let text = show(Format::Json, 20, other, &script);
    assert!(text.contains(r#""namespaces":[]"#), "{text}");
}

/// A kernel or a recording that has none of it: nothing says that there are none.
#[test]
fn bound_ports_that_are_not_listed_are_unknown() {
    let listener = "0ms socket LISTEN 1 0.0.0.0:20000 0.0.0.0:0\n0ms snapshot end";
    let bound: String = thirty_bound("")
        .lines()
        .filter(|line| !line.contains("bound "))
        .fold(String::new(), |text, line| {
            text + &line.replace("0ms snapshot end", listener) + "\n"
        });
    let text = show(Format::Table, 20, Filter::default(), &bound);
    assert!(text.contains("netns 5: 30 of 20000-20029, 1+ bound; "), "{text}");
    let json = show(Format::Json, 20, Filter::default(), &bound);
    assert!(json.contains(r#""bound":1,"#) && json.contains(r#""bound_inactive":null"#), "{json}");
}

#[test]
fn nothing_to_show_and_a_loss_are_said() {
    let script = "0ms begin\n1ms snapshot open\n1ms snapshot over\n2ms tick\n\
        3ms lost 7\n1002ms tick\n";
    let text = show(Format::Table, 20, Filter::default(), script);
    assert!(text.starts_with("... 7 events lost"), "{text}");
    assert!(text.ends_with("... no connections that were opened from here\n"), "{text}");
}

#[test]
fn times_are_short() {
    use tcptrace_stats::ports::Outlook;
    for (seconds, shown) in [
        (0.0, "0.0s"),
        (9.44, "9.4s"),
        (59.6, "60s"),
        (125.0, "2m05s"),
        (7265.0, "2h01m"),
        (1e6, "11d"),
    ] {
        assert_eq!(text::outlook(Outlook::In(seconds)), shown);
    }
}
