//! What the account says of scripts.

use std::fmt::Write as _;

use super::{held::late_s, *};
use tcptrace_model::script;
use tcptrace_track::Tracker;

/// 100 ports, no taking over of TIME_WAITs.
const SYSCTLS: &str =
    "ip_local_port_range=40000-40099 ip_local_reserved_ports= tcp_tw_reuse=0 tcp_timestamps=1";

/// Hooks, and a snapshot of `sockets` in namespace 5.
fn begin(sysctls: &str, sockets: &str) -> String {
    format!(
        "0ms begin\n0ms sysctls 5 {sysctls}\n0ms snapshot open\n0ms snapshot 5\n{sockets}\
         0ms snapshot end\n0ms snapshot over\n1ms tick\n"
    )
}

/// The account at the last of several moments, each the end of an interval.
fn at(moments_ms: &[u64], text: &str) -> Interval {
    let (mut tracker, mut ports) = (Tracker::default(), Ports::default());
    let mut inputs = script::inputs(text).unwrap().into_iter().peekable();
    let mut last = None;
    for &ms in moments_ms {
        let end_ns = ms * 1_000_000;
        let tick = script::inputs(&format!("{ms}ms tick")).unwrap();
        let before = |input: &Input| match input {
            Input::Event(tcptrace_model::Event::Transition(event)) => event.mono_ns <= end_ns,
            Input::Event(tcptrace_model::Event::Minisock(event)) => event.mono_ns <= end_ns,
            _ => true,
        };
        let due: Vec<_> = std::iter::from_fn(|| inputs.next_if(before)).collect();
        for input in due.into_iter().chain(tick) {
            tracker.apply(&input, &mut |change| ports.change(&change));
            ports.input(&input);
        }
        last = Some(ports.interval(end_ns, || tracker.census()));
    }
    last.unwrap()
}

/// One connection from here, closed from here at once: a TIME_WAIT.
fn churned(ms: u64, id: u64, lport: u16, peer: &str) -> String {
    let (ends, more) = (format!("10.0.0.1:{lport} {peer}"), format!("cookie={id:x} netns=5"));
    let mut text = opened(ms, id, lport, peer);
    for step in ["ESTABLISHED>FIN_WAIT1", "FIN_WAIT1>FIN_WAIT2"] {
        let _ = writeln!(text, "{ms}ms sk={id:x} {step} {ends} {more}");
    }
    let expires = ms + 60_000;
    let _ = writeln!(
        text,
        "{ms}ms tw={id:x}0000 started TIME_WAIT {ends} {more} expires={expires}ms timestamps"
    );
    let _ = writeln!(text, "{ms}ms sk={id:x} FIN_WAIT2>CLOSE {ends} {more}");
    text
}

/// One connection from here that stays.
fn opened(ms: u64, id: u64, lport: u16, peer: &str) -> String {
    let more = format!("cookie={id:x} netns=5");
    format!(
        "{ms}ms sk={id:x} CLOSE>SYN_SENT 10.0.0.1:0 {peer} {more}\n\
         {ms}ms sk={id:x} SYN_SENT>ESTABLISHED 10.0.0.1:{lport} {peer} {more}\n"
    )
}

/// So many churned ones, one each so many milliseconds from `from_ms` on.
fn churn(from_ms: u64, every_ms: u64, count: u16) -> String {
    (0..count)
        .map(|i| churned(from_ms + u64::from(i) * every_ms, 1 + u64::from(i), 40000 + i, PEER))
        .collect()
}

const PEER: &str = "10.0.0.2:443";

#[track_caller]
fn only(interval: &Interval) -> &Row {
    assert_eq!(interval.rows.len(), 1, "{interval:?}");
    &interval.rows[0]
}

#[test]
fn what_was_accepted_takes_no_port() {
    // A listener, what it accepted before the run (in the range, and in TIME_WAIT too), and what
    // it accepts now.
    let sockets = "0ms socket LISTEN 1 0.0.0.0:40001 0.0.0.0:0\n\
        0ms socket ESTABLISHED 2 10.0.0.1:40001 10.0.0.9:5555\n\
        0ms socket TIME_WAIT 3 10.0.0.1:40001 10.0.0.9:5556 30000\n\
        0ms socket ESTABLISHED 4 10.0.0.1:40002 10.0.0.2:443\n\
        0ms socket ESTABLISHED 5 10.0.0.1:22 10.0.0.9:5557\n";
    let script = begin(SYSCTLS, sockets)
        + "5ms sk=c LISTEN>SYN_RECV 10.0.0.1:40001 10.0.0.9:7 cookie=c netns=5\n\
           5ms sk=c SYN_RECV>ESTABLISHED 10.0.0.1:40001 10.0.0.9:7 cookie=c netns=5\n\
           6ms sk=c ESTABLISHED>CLOSE 10.0.0.1:40001 10.0.0.9:7 cookie=c netns=5\n";
    let interval = at(&[10], &script);
    let row = only(&interval);
    assert_eq!((row.path.remote_ip().to_string(), row.path.rport), ("10.0.0.2".into(), 443));
    assert_eq!((row.live, row.time_wait), (1, Some(0)));
    // The port of the listener is nobody's to connect from.
    assert_eq!((interval.spaces[0].bound, row.usable, row.free), (1, Some(99), Some(98)));
    assert_eq!(row.flow, Flow::default());
}

#[test]
fn a_port_is_taken_for_one_peer_and_a_bound_one_for_all() {
    let script = begin(SYSCTLS, "")
        + &opened(2, 1, 40000, PEER)
        + &churned(2, 2, 40001, PEER)
        + &opened(2, 3, 40000, "10.0.0.3:443")
        // Bound in the range, bound outside of it, and one that asked for another range.
        + "3ms sk=d CLOSE>SYN_SENT 10.0.0.1:40050 10.0.0.4:80 cookie=d netns=5\n\
           3ms sk=e CLOSE>SYN_SENT 10.0.0.1:2000 10.0.0.4:80 cookie=e netns=5\n"
        + &opened(4, 15, 50000, "10.0.0.4:80");
    let interval = at(&[10], &script);
    let rows: Vec<_> = interval
        .rows
        .iter()
        .filter(|row| row.path.rport == 443)
        .map(|row| (row.path.remote_ip().to_string(), row.live, row.time_wait, row.free))
        .collect();
    let expected = [
        ("10.0.0.2".to_owned(), 1, Some(1), Some(97)),
        ("10.0.0.3".to_owned(), 1, Some(0), Some(98)),
    ];
    assert_eq!(rows, expected);
    // That one opened something, and has nothing of the range.
    let other = interval.rows.iter().find(|row| row.path.rport == 80).unwrap();
    assert_eq!((other.live, other.free, other.outlook), (0, Some(99), Outlook::Never));
    assert_eq!(interval.spaces[0].bound, 1);
    // When it ends, so does the taking.
    let script =
        script + "5ms sk=d SYN_SENT>CLOSE 10.0.0.1:40050 10.0.0.4:80 cookie=d netns=5 err=111\n";
    assert_eq!(at(&[10], &script).spaces[0].bound, 0);
}

#[test]
fn a_connect_that_finds_no_port_is_a_failure_and_opened_nothing() {
    let fails = |ms: u64, port: u16, err: u16| {
        format!(
            "{ms}ms sk=f CLOSE>SYN_SENT 10.0.0.1:{port} {PEER} cookie=f netns=5\n\
             {ms}ms sk=f SYN_SENT>CLOSE 10.0.0.1:{port} {PEER} cookie=f netns=5 err={err}\n"
        )
    };
    let script =
        begin(SYSCTLS, "") + &fails(2, 0, 0) + &fails(3, 0, 0) + &opened(4, 1, 40000, PEER);
    let interval = at(&[10], &script);
    let row = only(&interval);
    assert_eq!((row.flow.opened, row.flow.failed, row.failed_total), (1, 2, 2));
    assert_eq!(row.outlook, Outlook::Now);
    // It is remembered, but it is not now any more. That it never will is not said beside that.
    let interval = at(&[10, 1000], &script);
    assert_eq!((only(&interval).flow.failed, only(&interval).failed_total), (0, 2));
    assert_eq!(only(&interval).outlook, Outlook::Unknown);
    // Refused, or with a port of its own: another matter.
    let script = begin(SYSCTLS, "") + &fails(2, 0, 111) + &fails(3, 40000, 0);
    let interval = at(&[10], &script);
    assert_eq!(interval.rows.iter().map(|row| row.failed_total).sum::<u64>(), 0);
}

#[test]
fn it_says_early_when_a_steady_rate_runs_it_dry() {
    // 20 a second: 100 ports last for 5 s.
    let script = begin(SYSCTLS, "") + &churn(1000, 50, 100);
    let moments: Vec<u64> = (1..=5).map(|s| s * 1000 + 500).collect();
    for end in 1..=moments.len() {
        let interval = at(&moments[..end], &script);
        let row = only(&interval);
        let Outlook::In(seconds) = row.outlook else { panic!("{row:?}") };
        let runs_out = moments[end - 1] as f64 / 1000.0 + seconds;
        assert!((runs_out - 6.0).abs() < 0.1, "{runs_out} by {row:?}");
        assert_eq!(row.live, 0);
    }
    assert_eq!(only(&at(&[6000], &script)).outlook, Outlook::Now);
}

#[test]
fn at_a_rate_that_returns_keep_up_with_it_never_does() {
    // 1.6 a second hold 99 ports at a time, with the second by which a timer is late.
    let never = begin(SYSCTLS, "") + &churn(1000, 630, 60);
    let interval = at(&[20_000, 38_000], &never);
    assert_eq!(only(&interval).outlook, Outlook::Never);
    let later = begin(SYSCTLS, "") + &churn(1000, 590, 60);
    let interval = at(&[20_000, 36_000], &later);
    let row = only(&interval);
    let Outlook::In(seconds) = row.outlook else { panic!("{row:?}") };
    assert!((23.0..26.0).contains(&seconds), "{seconds}");
}

#[test]
fn what_is_in_time_wait_comes_back_when_its_timer_says() {
    // 90 from before, of which 40 are due within 2 s; then some more.
    let begin = |sockets: &str| {
        begin(SYSCTLS, sockets).replace("0ms ", "100000ms ").replace("1ms tick", "100001ms tick")
    };
    let sockets: String = (0..90)
        .map(|i| {
            let left_ms = if i < 40 { 1000 + i * 20 } else { 50_000 };
            format!("0ms socket TIME_WAIT {:x} 10.0.0.1:{} {PEER} {left_ms}\n", 1000 + i, 40000 + i)
        })
        .collect();
    let fast = begin(&sockets) + &churn(100_010, 50, 3).replace(":4000", ":4009");
    let interval = at(&[100_000, 100_160], &fast);
    let row = only(&interval);
    assert_eq!((row.time_wait, row.free), (Some(93), Some(7)));
    // 7 ports at 20 a second: gone before any of those from before comes back.
    assert!(row.outlook.seconds().is_some_and(|s| (0.3..0.5).contains(&s)), "{row:?}");
    let slow = begin(&sockets) + &churn(100_010, 300, 3).replace(":4000", ":4009");
    let interval = at(&[100_000, 100_910], &slow);
    let seconds = only(&interval).outlook.seconds().unwrap();
    // 47 ports at 3.3 a second: they come back in time.
    assert!((13.0..15.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_time_wait_that_may_be_taken_over_keeps_no_port() {
    let sysctls =
        |reuse: &str| format!("ip_local_port_range=40000-40099 ip_local_reserved_ports= {reuse}");
    let run = |reuse: &str, peer: &str| {
        let churn = churn(1000, 50, 60).replace(PEER, peer);
        let interval = at(&[2500, 3950], &(begin(&sysctls(reuse), "") + &churn));
        let row = only(&interval).clone();
        (row.time_wait.unwrap(), row.reusable.unwrap(), row.free.unwrap(), row.outlook)
    };
    let off = run("tcp_tw_reuse=0 tcp_timestamps=1", PEER);
    assert!(matches!(off, (60, 0, 40, Outlook::In(_))), "{off:?}");
    // 20 a second, held for a second.
    assert_eq!(run("tcp_tw_reuse=1 tcp_timestamps=1", PEER), (60, 40, 80, Outlook::Never));
    // Those had timestamps, whatever the sysctl is now.
    assert_eq!(run("tcp_tw_reuse=1 tcp_timestamps=0", PEER), (60, 40, 80, Outlook::Never));
    assert_eq!(run("tcp_tw_reuse=2 tcp_timestamps=1", PEER), off);
    let on_loopback = run("tcp_tw_reuse=2 tcp_timestamps=1", "127.0.0.1:443");
    assert_eq!(on_loopback, (60, 40, 80, Outlook::Never));
    let soon = run("tcp_tw_reuse=1 tcp_tw_reuse_delay=100 tcp_timestamps=1", PEER);
    assert_eq!(soon, (60, 58, 98, Outlook::Never));
    // Longer than it takes to use them all.
    let late = run("tcp_tw_reuse=1 tcp_tw_reuse_delay=9000 tcp_timestamps=1", PEER);
    assert!(matches!(late, (60, 0, 40, Outlook::In(_))), "{late:?}");
}

#[test]
fn without_timestamps_of_the_peer_no_time_wait_is_taken_over() {
    let sysctls = "ip_local_port_range=40000-40059 ip_local_reserved_ports= tcp_tw_reuse=1 \
        tcp_timestamps=1";
    let churn = churn(1000, 50, 60);
    let run = |word: &str, more: &str| {
        let churn = churn.replace("ms timestamps", word);
        only(&at(&[2500, 6000], &(begin(sysctls, "") + &churn + more))).clone()
    };
    // All 60 are taken: connect() fails, and the row says so in all of its numbers.
    let fails = format!(
        "5000ms sk=f CLOSE>SYN_SENT 10.0.0.1:0 {PEER} cookie=f netns=5\n\
         5000ms sk=f SYN_SENT>CLOSE 10.0.0.1:0 {PEER} cookie=f netns=5\n"
    );
    let row = run("ms no-timestamps", &fails);
    assert_eq!((row.time_wait, row.reusable, row.free), (Some(60), Some(0), Some(0)));
    assert_eq!((row.flow.failed, row.outlook), (1, Outlook::Now));
    assert_eq!(run("ms no-timestamps", "").outlook, Outlook::Now, "also before it fails");
    let with = run("ms timestamps", "");
    assert_eq!((with.reusable, with.free, with.outlook), (Some(60), Some(60), Outlook::Never));
    // What only a snapshot would know is not known: no number is made up.
    let row = run("ms", "");
    assert_eq!((row.reusable, row.free, row.outlook), (None, None, Outlook::Unknown));
    assert_eq!((row.free_at_least, row.uncertain), (Some(0), 60));
}

#[test]
fn connections_that_stay_are_a_leak_and_chance_is_none() {
    let leak: String = (0..30)
        .map(|i| opened(1000 + u64::from(i) * 500, 1 + u64::from(i), 40000 + i, PEER))
        .collect();
    let interval = at(&[8000, 16_000], &(begin(SYSCTLS, "") + &leak));
    let row = only(&interval);
    let seconds = row.outlook.seconds().unwrap();
    assert!((seconds - 35.0).abs() < 2.0, "{row:?}");
    // A pool of 40 from before that got three more.
    let pool: String = (0..40)
        .map(|i| format!("0ms socket ESTABLISHED {:x} 10.0.0.1:{} {PEER}\n", 1000 + i, 40000 + i))
        .collect();
    let more: String = (0..3).map(|i| opened(100 * i, 1 + i, 40050 + i as u16, PEER)).collect();
    let interval = at(&[1000], &(begin(SYSCTLS, &pool) + &more));
    assert_eq!(only(&interval).outlook, Outlook::Never);
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let bare = |begin: &str| {
        format!(
            "0ms {begin}\n0ms snapshot open\n0ms snapshot 5\n\
             0ms socket ESTABLISHED 1 10.0.0.1:40000 {PEER}\n\
             0ms snapshot end\n0ms snapshot over\n1ms tick\n"
        )
    };
    let interval = at(&[10], &bare("begin"));
    let row = only(&interval);
    assert_eq!((row.usable, row.free, row.reusable), (None, None, None));
    assert_eq!(row.outlook, Outlook::Unknown);
    assert!(interval.spaces[0].limits.as_ref().is_err_and(|why| why.contains("not read")));

    let interval = at(&[10], &(format!("0ms sysctls 5 {SYSCTLS}\n") + &bare("begin unfollowed")));
    let row = only(&interval);
    assert_eq!((row.usable, row.time_wait, row.free), (Some(100), None, None));
    assert_eq!(row.outlook, Outlook::Unknown);
    assert!(interval.spaces[0].time_wait_unseen);
}

#[test]
fn there_is_a_limit_and_it_is_told() {
    let mut ports = Ports::new(2);
    let mut tracker = Tracker::default();
    let script: String =
        (0..5).map(|i| opened(2, 1 + i, 40000, &format!("10.0.1.{i}:80"))).collect();
    for input in script::inputs(&(begin(SYSCTLS, "") + &script)).unwrap() {
        tracker.apply(&input, &mut |change| ports.change(&change));
        ports.input(&input);
    }
    let interval = ports.interval(10_000_000, || tracker.census());
    assert!(interval.left_out >= 3, "{interval:?}");
    assert!(interval.rows.len() <= 4, "{interval:?}");
}

#[test]
fn what_is_over_is_forgotten() {
    let script = begin(SYSCTLS, "")
        + &opened(2, 1, 40000, PEER)
        + &format!("3ms sk=1 ESTABLISHED>CLOSE 10.0.0.1:40000 {PEER} cookie=1 netns=5 err=104\n");
    assert_eq!(only(&at(&[1000], &script)).flow.returned, 1);
    assert_eq!(at(&[1000, 2000], &script).rows, []);
    for asked in [true, false] {
        let (mut ports, mut tracker) = (Ports::default(), Tracker::default());
        for input in script::inputs(&script).unwrap() {
            tracker.apply(&input, &mut |change| ports.change(&change));
        }
        assert_eq!(ports.flows.len(), 1);
        for s in 1..60 {
            let now_ns = s * 1_000_000_000;
            match asked {
                true => drop(ports.interval(now_ns, || tracker.census())),
                false => ports.pass(now_ns, 1_000_000_000),
            }
        }
        assert_eq!(ports.flows.len(), 0, "{asked}");
    }
}

#[test]
fn what_is_said_is_not_of_all_the_time_that_nobody_asked() {
    const S: u64 = 1_000_000_000;
    let script = begin(SYSCTLS, "") + &churn(2, 10, 50);
    let said = |pass_ns: u64| {
        let (mut ports, mut tracker) = (Ports::default(), Tracker::default());
        for input in script::inputs(&script).unwrap() {
            tracker.apply(&input, &mut |change| ports.change(&change));
            ports.input(&input);
        }
        (1..=30).for_each(|s| ports.pass(s * S, pass_ns));
        ports.interval(31 * S, || tracker.census())
    };
    let (all, last) = (said(u64::MAX), said(10 * S));
    assert_eq!((all.seconds, only(&all).flow.opened), (31.0, 50));
    assert_eq!((last.seconds, only(&last).flow.opened), (1.0, 0));
    assert!(only(&last).smoothed.opened < only(&all).smoothed.opened, "{last:?}");
}

#[test]
fn a_timer_is_late_by_half_a_slot_of_its_wheel() {
    // 512 ticks at 100 and 250 Hz, 4096 at 1000 Hz; measured at 250 Hz: 60.02 to 62.04 s.
    for (hz, late) in [(100, 2.56), (250, 1.024), (1000, 2.048), (0, 0.0)] {
        assert!((late_s(hz) - late).abs() < 1e-9, "{hz}");
    }
}

/// A range of 30 ports, and `sockets` and what else a dump has.
fn thirty(dump: &str, end: &str) -> String {
    format!(
        "0ms begin\n0ms sysctls 5 ip_local_port_range=20000-20029 ip_local_reserved_ports= \
         tcp_tw_reuse=2\n0ms snapshot open\n0ms snapshot 5\n{dump}0ms snapshot end {end}\n\
         0ms snapshot over\n1ms tick\n"
    )
}

/// `bind(addr, 0)`, thirty times, by two processes.
fn thirty_bound() -> String {
    (20000..20030)
        .map(|port| format!("0ms bound {port} pid={} comm=binds\n", 7 + u32::from(port == 20029)))
        .collect()
}

#[test]
fn ports_that_are_bound_and_nothing_else_are_taken_for_all_without_a_connection() {
    let interval = at(&[10], &thirty(&(thirty_bound() + "0ms bound 80\n"), "lists-bound"));
    let [space] = &interval.spaces[..] else { panic!("{interval:?}") };
    assert_eq!((space.netns, space.bound, space.inactive), (Some(5), 30, Some(30)));
    assert_eq!((space.used_up(), interval.worst_used()), (Some(30), Some(1.0)));
    assert_eq!(space.bound_by.words(3), "binds (30)", "80 is not on offer");
    // For each peer, then.
    let opens = "2ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie=a netns=5\n\
                 2ms sk=a SYN_SENT>CLOSE 10.0.0.1:0 10.0.0.2:443 cookie=a netns=5\n";
    let interval = at(&[10], &(thirty(&thirty_bound(), "lists-bound") + opens));
    let row = only(&interval);
    assert_eq!((row.usable, row.free, row.outlook), (Some(0), Some(0), Outlook::Now));
    assert_eq!((row.failed_total, interval.spaces.len()), (1, 1));
}

/// A port is counted once, whatever is bound to it, and no more when the last scan has it no more.
#[test]
fn a_bound_port_counts_once_and_as_of_the_last_scan() {
    let dump = "0ms socket LISTEN 1 0.0.0.0:20000 0.0.0.0:0\n0ms bound 20000 sockets=2\n\
                0ms bound 20001\n";
    let script = thirty(dump, "lists-bound");
    assert_eq!(at(&[10], &script).spaces[0].bound, 2);
    let connects = "2ms sk=a CLOSE>SYN_SENT 10.0.0.1:20001 10.0.0.2:443 cookie=a netns=5\n";
    assert_eq!(at(&[10], &format!("{script}{connects}")).spaces[0].bound, 2);
    let again = "3ms snapshot open\n3ms snapshot 5\n\
                 3ms socket LISTEN 1 0.0.0.0:20000 0.0.0.0:0\n\
                 3ms snapshot end lists-bound\n3ms snapshot over\n4ms tick\n";
    let spaces = at(&[10], &format!("{script}{again}")).spaces;
    assert_eq!((spaces[0].bound, spaces[0].inactive), (1, Some(0)));
}

#[test]
fn where_bound_ports_are_not_listed_their_number_is_unknown_and_not_nought() {
    let listener = "0ms socket LISTEN 1 0.0.0.0:20000 0.0.0.0:0\n";
    let interval = at(&[10], &thirty(listener, ""));
    assert_eq!((interval.spaces[0].bound, interval.spaces[0].inactive), (1, None));
    let interval = at(&[10], &thirty(listener, "lists-bound"));
    assert_eq!((interval.spaces[0].bound, interval.spaces[0].inactive), (1, Some(0)));
}

/// connect() of sockets with an `IP_LOCAL_PORT_RANGE` takes ports of the namespace, but that theirs
/// are used up says nothing of the others, and their rate is not that of the others.
#[test]
fn a_range_of_a_sockets_own_is_told_from_that_of_the_namespace() {
    let fails = |ms: u64, id: u64, own: &str| {
        let more = format!("10.0.0.1:0 {PEER} cookie={id:x} netns=5 {own}");
        format!("{ms}ms sk={id:x} CLOSE>SYN_SENT {more}\n{ms}ms sk={id:x} SYN_SENT>CLOSE {more}\n")
    };
    let opened = opened(2, 1, 40000, PEER).replacen("netns=5", "netns=5 own-ports", 1);
    let script =
        begin(SYSCTLS, "") + &opened + &fails(3, 2, "own-ports") + &fails(4, 3, "own-ports");
    let row = only(&at(&[10], &script)).clone();
    assert_eq!((row.own_failed, row.failed_total, row.failures()), (2, 0, Some((0, 0))));
    assert_eq!((row.live, row.free, row.flow), (1, Some(99), Flow::default()));
    assert_eq!(row.outlook, Outlook::Never);
    let both = script + &fails(5, 4, "");
    let row = only(&at(&[10], &both)).clone();
    assert_eq!((row.own_failed, row.failed_total, row.outlook), (2, 1, Outlook::Now));
}

#[test]
fn who_takes_the_ports_of_a_path_is_named_and_what_takes_none_is_not_counted() {
    let mut sockets: String = (0..5)
        .map(|i| {
            format!(
                "0ms socket ESTABLISHED {i}1 10.0.0.1:{} {PEER} inode=9 pid=7 comm=curl\n",
                40000 + i
            )
        })
        .collect();
    sockets += "0ms socket LISTEN a 0.0.0.0:40050 0.0.0.0:0 inode=9 pid=8 comm=srv\n\
                0ms socket ESTABLISHED b 10.0.0.1:40050 10.0.0.2:443 inode=9 pid=8 comm=srv\n\
                0ms socket ESTABLISHED c 10.0.0.1:40007 10.0.0.3:443 inode=9 pid=9 comm=other\n";
    let script = begin(SYSCTLS, &sockets)
        + &churned(2, 0x77, 40009, PEER).replacen("cookie", "pid=5 comm=wget cookie", 1);
    let (mut tracker, mut ports) = (Tracker::default(), Ports::default());
    for input in script::inputs(&script).unwrap() {
        tracker.apply(&input, &mut |change| ports.change(&change));
        ports.input(&input);
    }
    let mut interval = ports.interval(10_000_000, || tracker.census());
    ports.name_takers(&mut interval.rows, || tracker.census());
    let row = interval.rows.iter().find(|row| row.path.remote_ip().to_string() == "10.0.0.2");
    let row = row.unwrap();
    let takers = row.takers.as_ref().unwrap();
    assert_eq!(takers.words(3), "curl, pid 7 (5), wget, pid 5 (1)");
    let named: u64 = takers.most.iter().map(|taker| taker.ports).sum();
    assert_eq!(named, row.live + row.time_wait.unwrap(), "the parts are the whole");
    assert_eq!(interval.spaces[0].bound_by.words(3), "srv, pid 8 (1)");
}
