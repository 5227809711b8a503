//! What is counted of scripts.

use std::fmt::Write as _;

use super::*;
use tcptrace_model::script;
use tcptrace_track::Tracker;

/// Runs a script whose ticks end intervals, and says what was counted in each: a line a group.
fn count(closers: &mut Closers, lines: &str) -> String {
    use tcptrace_model::Input;
    let (mut tracker, mut text) = (Tracker::default(), String::new());
    for input in script::inputs(lines).unwrap() {
        tracker.apply(&input, &mut |change| closers.add(&change));
        match input {
            Input::Begin { mono_ns, .. } => closers.begin(mono_ns),
            Input::Lost(_) => closers.lost(),
            Input::Tick { mono_ns } => {
                let mut groups = closers.take(mono_ns, tracker.census());
                groups.sort_by_key(|(key, _)| *key);
                for (key, tally) in groups {
                    line(&mut text, key, &tally);
                }
                text.push_str("--\n");
            }
            _ => {}
        }
    }
    text
}

fn line(text: &mut String, key: Key, tally: &Tally) {
    write!(text, "{key} {}:", tally.closed()).unwrap();
    for (ending, count) in tally.endings() {
        let Ending { initiator, how, fate } = ending;
        let initiator = initiator.map_or("-", Initiator::name);
        write!(text, " {count} {initiator} {} {fate:?},", how.name()).unwrap();
    }
    for (how, count) in tally.failures() {
        write!(text, " {count} failed {},", how.name()).unwrap();
    }
    let ms = tally.time_wait_ns() / 1_000_000;
    let sign = if tally.at_least() { "≥" } else { "" };
    writeln!(text, " TIME_WAIT {} now, {sign}{ms} ms", tally.alive()).unwrap();
}

fn by_service() -> Closers {
    Closers::new(None, DEFAULT_LIMIT)
}

/// A server's end of a connection from `peer`, in ESTABLISHED at 1 ms.
fn accepted(sk: &str, peer: &str) -> String {
    format!(
        "1ms sk={sk} LISTEN>SYN_RECV 10.0.0.2:80 {peer} netns=5\n\
         1ms sk={sk} SYN_RECV>ESTABLISHED 10.0.0.2:80 {peer} netns=5\n"
    )
}

#[test]
fn each_end_counts_once_and_where_it_is_settled() {
    let (a, b) = (accepted("a", "10.0.0.1:7"), accepted("b", "10.0.0.1:8"));
    let script = format!(
        "0ms begin\n\
         1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0 comm=nginx netns=5\n{a}{b}\
         2ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.2:80 10.0.0.1:7 comm=nginx netns=5\n\
         3ms sk=a FIN_WAIT1>FIN_WAIT2 10.0.0.2:80 10.0.0.1:7 netns=5\n\
         5ms tw=d started TIME_WAIT 10.0.0.2:80 10.0.0.1:7 netns=5 expires=60005ms\n\
         5ms sk=a FIN_WAIT2>CLOSE 10.0.0.2:80 10.0.0.1:7 netns=5\n\
         6ms sk=b ESTABLISHED>CLOSE_WAIT 10.0.0.2:80 10.0.0.1:8 netns=5\n\
         7ms sk=b CLOSE_WAIT>LAST_ACK 10.0.0.2:80 10.0.0.1:8 comm=nginx netns=5\n\
         8ms sk=b LAST_ACK>CLOSE 10.0.0.2:80 10.0.0.1:8 netns=5 dead shut=3 unacked=0\n\
         1005ms tick\n\
         2005ms tick\n\
         60005ms tw=d expired TIME_WAIT 10.0.0.2:80 10.0.0.1:7 netns=5 expires=60005ms\n\
         60006ms sk=1 LISTEN>CLOSE 10.0.0.2:80 0.0.0.0:0 comm=nginx netns=5\n\
         60010ms tick\n"
    );
    let expected = "\
nginx :80 2: 1 local fin TimeWait, 1 remote fin Over, TIME_WAIT 1 now, 1000 ms
--
nginx :80 0: TIME_WAIT 1 now, 1000 ms
--
nginx :80 0: TIME_WAIT 0 now, 58000 ms
--
";
    assert_eq!(count(&mut by_service(), &script), expected);
}

/// A client's connection, established at 1 ms, and then `lines` of `sk=a` with its ends.
fn client(lines: &str) -> String {
    let ends = "10.0.0.1:7 10.0.0.2:443";
    let mut script = "0ms begin\n\
        1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl\n"
        .to_owned();
    for line in lines.lines() {
        writeln!(script, "{}", line.trim_start().replace("ENDS", ends)).unwrap();
    }
    script + "1000ms tick\n"
}

fn of_client(lines: &str) -> String {
    let text = count(&mut by_service(), &client(lines));
    let line = text.strip_prefix("curl →:443 ").unwrap_or(&text);
    line.strip_suffix(", TIME_WAIT 0 now, 0 ms\n--\n").unwrap_or(line).to_owned()
}

#[test]
fn an_active_close_without_a_time_wait_says_why() {
    let established = "2ms sk=a SYN_SENT>ESTABLISHED ENDS\n";
    for (lines, expected) in [
        ("3ms sk=a ESTABLISHED>CLOSE ENDS shut=3 linger=0 unread=0", "1 local rst-linger0 Over"),
        ("3ms sk=a ESTABLISHED>CLOSE ENDS shut=3 unread=9", "1 local rst-unread-data Over"),
        ("3ms sk=a ESTABLISHED>CLOSE ENDS shut=3", "1 local unknown Over"),
        ("3ms sk=a ESTABLISHED>CLOSE ENDS err=110 unacked=1", "1 none timeout-retransmit Over"),
        ("3ms sk=a ESTABLISHED>CLOSE ENDS err=104", "1 remote rst-received Over"),
        (
            "3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
             4ms sk=a FIN_WAIT1>CLOSE ENDS err=110 dead shut=3",
            "1 local orphan-gave-up Over",
        ),
        (
            "3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
             4ms sk=a FIN_WAIT1>FIN_WAIT2 ENDS\n\
             5ms sk=a FIN_WAIT2>CLOSE ENDS full dead shut=3 peer-fin",
            "1 local fin NeverCreated",
        ),
        (
            "3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
             4ms sk=a FIN_WAIT1>FIN_WAIT2 ENDS\n\
             5ms tw=d started FIN_WAIT2 ENDS expires=65ms\n\
             5ms sk=a FIN_WAIT2>CLOSE ENDS\n\
             65ms tw=d expired FIN_WAIT2 ENDS expires=65ms",
            "1 local orphan-gave-up Over",
        ),
        ("3ms sk=a ESTABLISHED>CLOSE ENDS classic", "1 - unknown Over"),
    ] {
        assert_eq!(of_client(&format!("{established}{lines}")), format!("1: {expected}"));
    }
}

#[test]
fn both_at_once_and_the_orphan_that_got_its_fin_enter_time_wait() {
    let both = of_client(
        "2ms sk=a SYN_SENT>ESTABLISHED ENDS\n\
         3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
         4ms sk=a FIN_WAIT1>CLOSING ENDS\n\
         500ms tw=d started TIME_WAIT ENDS expires=60500ms\n\
         500ms sk=a CLOSING>CLOSE ENDS",
    );
    assert_eq!(both, "1: 1 both fin TimeWait, TIME_WAIT 1 now, 500 ms\n--\n");
    let orphan = of_client(
        "2ms sk=a SYN_SENT>ESTABLISHED ENDS\n\
         3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
         4ms sk=a FIN_WAIT1>FIN_WAIT2 ENDS\n\
         5ms tw=d started FIN_WAIT2 ENDS expires=60005ms\n\
         5ms sk=a FIN_WAIT2>CLOSE ENDS\n\
         300ms tw=d restarted TIME_WAIT ENDS expires=60300ms\n\
         700ms tw=d stopped-by-connect TIME_WAIT ENDS expires=60300ms",
    );
    assert_eq!(orphan, "1: 1 local fin TimeWait, TIME_WAIT 0 now, 400 ms\n--\n");
}

#[test]
fn what_never_was_a_connection_is_no_close() {
    for (line, how) in [
        ("2ms sk=a SYN_SENT>CLOSE ENDS err=111", "refused"),
        ("2ms sk=a SYN_SENT>CLOSE ENDS err=110", "timeout-syn"),
        ("2ms sk=a SYN_SENT>CLOSE ENDS", "unknown"),
        ("2ms sk=a SYN_SENT>CLOSE ENDS classic", "unknown"),
    ] {
        assert_eq!(of_client(line), format!("0: 1 failed {how}"));
    }
}

#[test]
fn a_time_wait_from_before_counts_from_when_it_was_found() {
    let mut closers = by_service();
    let script = "1000ms begin\n\
        1001ms snapshot open\n1001ms snapshot 5\n\
        1001ms socket TIME_WAIT 9 10.0.0.1:7 10.0.0.2:443 3000\n\
        1001ms snapshot end\n1001ms snapshot over\n\
        1050ms tick\n\
        2050ms tick\n\
        4001ms tw=d expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443 netns=5 cookie=9 expires=4001ms\n\
        5000ms tick\n";
    let expected = "- :7 0: TIME_WAIT 1 now, ≥0 ms\n--\n\
        - :7 0: TIME_WAIT 1 now, 1000 ms\n--\n\
        - :7 0: TIME_WAIT 0 now, 1951 ms\n--\n";
    assert_eq!(count(&mut closers, script), expected);
}

#[test]
fn what_was_not_seen_of_a_time_wait_is_a_lower_bound() {
    // Its beginning was lost: it is known when it ends, and its timer tells since when.
    let ended = "0ms begin\n\
        500ms lost 3\n\
        900ms tw=d expired TIME_WAIT 10.0.0.1:7 10.0.0.2:443 netns=5 expires=900ms\n\
        1000ms tick\n\
        2000ms tick\n";
    assert_eq!(count(&mut by_service(), ended), "- :7 0: TIME_WAIT 0 now, ≥900 ms\n--\n--\n");
    // Its end was lost: the address is another's.
    let replaced = of_client(
        "2ms sk=a SYN_SENT>ESTABLISHED ENDS\n\
         3ms sk=a ESTABLISHED>FIN_WAIT1 ENDS comm=curl\n\
         4ms sk=a FIN_WAIT1>FIN_WAIT2 ENDS\n\
         100ms tw=d started TIME_WAIT ENDS expires=60100ms\n\
         100ms sk=a FIN_WAIT2>CLOSE ENDS\n\
         600ms lost 1\n\
         700ms tw=d peeked TIME_WAIT 10.0.0.1:8 10.0.0.2:443 expires=60100ms\n\
         700ms tw=d started TIME_WAIT 10.0.0.1:9 10.0.0.2:443 expires=60700ms",
    );
    let expected = "- :9 0: TIME_WAIT 1 now, ≥0 ms\n\
        curl →:443 1: 1 local fin TimeWait, TIME_WAIT 0 now, ≥0 ms\n--\n";
    assert_eq!(replaced, expected);
}

#[test]
fn past_the_limit_groups_are_counted_together() {
    let script: String = (1..=9)
        .map(|i| {
            format!(
                "1ms sk={i:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.1.{i}:443 comm=x\n\
                 2ms sk={i:x} SYN_SENT>CLOSE 10.0.0.1:7 10.0.1.{i}:443 err=111\n"
            )
        })
        .collect();
    let mut closers = Closers::new(Some(By::Peer), 2);
    let text = count(&mut closers, &format!("0ms begin\n{script}9ms tick\n"));
    let expected = "10.0.1.1 0: 1 failed refused, TIME_WAIT 0 now, 0 ms\n\
        10.0.1.2 0: 1 failed refused, TIME_WAIT 0 now, 0 ms\n\
        (other) 0: 7 failed refused, TIME_WAIT 0 now, 0 ms\n--\n";
    assert_eq!(text, expected);
}

#[test]
fn groups_join_to_what_they_are_together() {
    let script = client(
        "2ms sk=a SYN_SENT>ESTABLISHED ENDS\n\
         3ms sk=a ESTABLISHED>CLOSE ENDS err=104",
    );
    let mut closers = by_service();
    let (mut tracker, mut sum) = (Tracker::default(), Tally::default());
    for input in script::inputs(&script).unwrap() {
        tracker.apply(&input, &mut |change| closers.add(&change));
    }
    let groups = closers.take(1_000_000_000, tracker.census());
    sum.join(&groups[0].1);
    sum.join(&groups[0].1);
    assert_eq!((sum.closed(), sum.by(Some(Initiator::Remote)), sum.by(None)), (2, 2, 0));
    assert_eq!(sum.endings().count(), 1);
}
