//! What is stuck, by scripts.

use super::*;
use tcptrace_model::script::{self, later};

fn wanted(older: Option<u64>, top: usize) -> Wanted {
    let older = older.map(Duration::from_secs);
    Wanted { states: StateSet::all(), older, by: By::Owner, top }
}

/// The reports at the ticks of a script.
fn reports(wanted: Wanted, text: &str) -> Vec<Report> {
    reports_and_tracker(wanted, text).0
}

fn reports_and_tracker(wanted: Wanted, text: &str) -> (Vec<Report>, Tracker) {
    let (mut tracker, mut survey) = (Tracker::default(), Survey::new(wanted));
    let mut reports = Vec::new();
    for input in script::inputs(&later(text)).unwrap() {
        tracker.apply(&input, &mut |_| {});
        survey.input(&input);
        if let Input::Tick { mono_ns } = input {
            reports.push(survey.report(mono_ns, &tracker));
        }
    }
    (reports, tracker)
}

/// The groups of a state of which some are stuck.
fn of(report: &Report, state: TcpState) -> Vec<(String, Count)> {
    let sections = report.sections.iter().filter(|of| of.state == state);
    let groups = sections.flat_map(Section::stuck_groups);
    groups.map(|(whose, count)| (whose.label().unwrap_or("-".to_owned()), *count)).collect()
}

/// State, cause, how many are stuck and how many there are.
fn sections(report: &Report) -> Vec<(TcpState, Cause, u64, u64)> {
    report.sections.iter().map(|of| (of.state, of.cause, of.stuck, of.all)).collect()
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn a_leak_from_before_grows() {
    let text = "0ms begin\n0ms snapshot open\n0ms snapshot 5\n\
        0ms socket CLOSE_WAIT 1 10.0.0.1:80 10.0.0.9:1 pid=7 comm=app inode=9 unread=6 in-state-ms=7200000\n\
        0ms socket CLOSE_WAIT 2 10.0.0.1:80 10.0.0.9:2 pid=7 comm=app inode=9 unread=0 in-state-ms=59000\n\
        0ms socket CLOSE_WAIT 3 10.0.0.1:80 10.0.0.9:3 inode=0 unread=1\n\
        0ms snapshot end\n0ms snapshot over\n0ms tick\n\
        100ms sk=c ESTABLISHED>CLOSE_WAIT 10.0.0.1:80 10.0.0.9:4 cookie=4 netns=5 comm=bystander\n\
        2000ms tick\n\
        60100ms tick\n";
    let reports = reports(wanted(None, 9), text);
    let first = of(&reports[0], TcpState::CloseWait);
    let app = Count {
        stuck: 1,
        all: 2,
        before: None,
        oldest: Some(Age::AtLeast(7_200 * SECOND)),
        looked_at: 1,
        unread: 5,
        unsent: 0,
        eof_unread: 1,
    };
    assert_eq!(first, [("app".to_owned(), app)]);
    assert_eq!(reports[0].all_in(TcpState::CloseWait), 3);

    let second = of(&reports[1], TcpState::CloseWait);
    assert_eq!(second[0].1.stuck, 2, "59 s and 2 s");
    assert_eq!(second[0].1.change(), Some(0), "the new one has no owner that is known");
    assert_eq!(reports[1].all_in(TcpState::CloseWait), 4);
    assert_eq!(second.len(), 1);

    let third = of(&reports[2], TcpState::CloseWait);
    let seen = third.iter().find(|(label, _)| label == "-").unwrap();
    assert_eq!(seen.1.oldest, Some(Age::Exactly(60 * SECOND)));
    assert_eq!((seen.1.looked_at, seen.1.change()), (0, Some(0)), "in no snapshot yet");
    assert!(third.iter().any(|(label, _)| label == "(not accepted) :80"), "{third:?}");
}

#[test]
fn growth_counts_what_came_whatever_its_age() {
    let text = "0ms begin\n0ms tick\n\
        1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl cookie=1\n\
        1ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl cookie=2\n\
        3500ms sk=c CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl cookie=3\n\
        4000ms tick\n\
        4100ms sk=a SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443 err=110 cookie=1\n\
        4100ms sk=b SYN_SENT>CLOSE 10.0.0.1:8 10.0.0.2:443 err=110 cookie=2\n\
        6000ms tick\n";
    let reports = reports(wanted(None, 9), text);
    let counts = |report| {
        let groups = of(report, TcpState::SynSent);
        groups.first().map(|(_, count)| (count.stuck, count.all, count.change()))
    };
    assert_eq!(counts(&reports[1]), Some((2, 3, Some(3))));
    assert_eq!(counts(&reports[2]), None, "2.5 s is not too long");
    assert_eq!(reports[2].below(), 1);
}

#[test]
fn who_is_not_known_is_told_from_who_is_not_there() {
    let text = "0ms begin\n0ms snapshot open\n0ms snapshot 5\n\
        0ms socket LAST_ACK 1 10.0.0.1:80 10.0.0.9:1 inode=0 unsent=1 in-state-ms=25000\n\
        0ms socket FIN_WAIT1 2 10.0.0.1:80 10.0.0.9:2 inode=0 unsent=11 in-state-ms=25000\n\
        0ms socket FIN_WAIT2 3 10.0.0.1:80 10.0.0.9:3 inode=9 in-state-ms=90000\n\
        0ms socket FIN_WAIT2 4 10.0.0.1:80 10.0.0.9:4 40000\n\
        0ms snapshot end\n0ms snapshot over\n0ms tick\n70000ms tick\n";
    let reports = reports(wanted(None, 9), text);
    let [first, last] = &reports[..] else { panic!("{reports:?}") };
    let orphan = of(first, TcpState::LastAck);
    assert_eq!((orphan[0].0.as_str(), orphan[0].1.unsent), ("(orphan)", 0), "but for the FIN");
    assert_eq!(of(first, TcpState::FinWait1)[0].1.unsent, 10);
    assert_eq!(of(first, TcpState::FinWait2)[0].0, "-", "a process holds it, who is not known");
    assert_eq!(of(first, TcpState::FinWait2).len(), 1, "a minisock's age is not known");
    assert_eq!(of(last, TcpState::FinWait2)[1].0, "(orphan)", "by now it is");
}

#[test]
fn the_oldest_few_are_the_oldest_of_all() {
    use std::fmt::Write as _;
    let mut text = "0ms begin\n0ms snapshot open\n0ms snapshot 5\n".to_owned();
    for n in 1..=5000_u64 {
        let ms = (n * 7919) % 5003 * 1000 + 1;
        let comm = n % 30;
        writeln!(
            text,
            "0ms socket CLOSE_WAIT {n:x} 10.0.0.1:80 10.0.0.9:{n} pid=1 comm=app{comm} inode=9 \
             in-state-ms={ms}"
        )
        .unwrap();
    }
    text.push_str("0ms snapshot end\n0ms snapshot over\n0ms tick\n");
    let report = reports(wanted(Some(0), 3), &text).remove(0);
    let seconds: Vec<u64> =
        report.oldest.iter().map(|stuck| least_ns(stuck.in_state) / SECOND).collect();
    assert_eq!(seconds, [5002, 5001, 5000]);
    let close_wait = &report.sections[0];
    assert_eq!((close_wait.groups.len(), close_wait.rest.0), (3, 27));
    let shown: u64 = close_wait.groups.iter().map(|(_, count)| count.stuck).sum();
    assert_eq!((shown + close_wait.rest.1.stuck, close_wait.all), (5000, 5000));
    assert_eq!(close_wait.rest.1.before, None);
}

#[test]
fn a_syn_queue_stands_beside_its_accept_queue_until_the_next_snapshot() {
    let text = "0ms begin\n0ms snapshot open\n0ms snapshot 5\n\
        0ms socket LISTEN 1 0.0.0.0:443 0.0.0.0:0 inode=9 unread=129 unsent=128\n\
        0ms socket LISTEN 2 0.0.0.0:80 0.0.0.0:0 inode=9 unread=0 unsent=128\n\
        0ms syn-queue 443 12 3\n0ms syn-queue 80 5 5\n\
        0ms snapshot end syn-queue=17\n0ms snapshot over\n0ms tick\n\
        1ms snapshot minisocks\n1ms snapshot 5\n1ms snapshot end\n1ms snapshot over\n1ms tick\n\
        2ms snapshot open\n2ms snapshot 5\n2ms syn-queue 80 1 0\n2ms snapshot end\n\
        2ms snapshot over\n2ms tick\n";
    let reports = reports(wanted(None, 9), text);
    let rows = |report: &Report| -> Vec<_> {
        let rows = report.syn_queues.iter();
        rows.map(|row| (row.queue.lport, row.queue.waiting, row.accept_full())).collect()
    };
    assert_eq!(rows(&reports[0]), [(80, 5, Some(false)), (443, 12, Some(true))]);
    assert_eq!(rows(&reports[1]), rows(&reports[0]), "a look at minisocks says nothing of them");
    assert_eq!(rows(&reports[2]), [(80, 1, None)], "and no listener is there any more");
}

#[test]
fn queues_of_another_state_are_not_told() {
    let text = "0ms begin\n0ms snapshot open\n0ms snapshot 5\n\
        0ms socket CLOSE_WAIT 1 10.0.0.1:80 10.0.0.9:1 pid=7 comm=app inode=9 unread=6\n\
        0ms snapshot end\n0ms snapshot over\n0ms tick\n\
        1ms sk=a CLOSE_WAIT>LAST_ACK 10.0.0.1:80 10.0.0.9:1 cookie=1 netns=5 comm=app\n2ms tick\n";
    let reports = reports(wanted(Some(0), 9), text);
    assert_eq!(reports[0].oldest[0].bytes.unwrap().unread, 5);
    assert_eq!(reports[1].oldest[0].found.state, TcpState::LastAck);
    assert_eq!(reports[1].oldest[0].bytes, None);
}

/// A snapshot at `ms` of one namespace, with these lines.
fn snapshot(ms: u64, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{ms}ms {line}\n")).collect();
    format!(
        "{ms}ms snapshot open\n{ms}ms snapshot 5\n{lines}{ms}ms snapshot end\n\
         {ms}ms snapshot over\n{ms}ms tick\n"
    )
}

const ESTABLISHED: &str =
    "socket ESTABLISHED a 10.0.0.1:40000 10.0.0.2:80 pid=7 comm=app inode=9 unsent=1000";

#[test]
fn a_black_hole_is_stuck_once_it_has_waited_long_enough_and_not_before() {
    // 204 + 408 + … ms are over, up to the fifth timeout: 6.3 s, and of 6.5 s so much.
    for (sent_ms, stuck) in [(3_675, 0), (3_676, 1)] {
        let info = format!(
            "info a ESTABLISHED timer=on expires={} unacked=1000 retransmits=5 backoff=5 rto=6528 \
             last-sent={sent_ms} last-ack=60000",
            6528 - sent_ms
        );
        let text = format!("0ms begin\n{}", snapshot(1, &[ESTABLISHED, &info]));
        let report = reports(wanted(None, 9), &text).remove(0);
        let expected = [(TcpState::Established, Cause::NoAck, stuck, 1)];
        assert_eq!(sections(&report), expected, "{sent_ms}");
        assert_eq!(report.oldest.len() as u64, stuck);
        if let Some(one) = report.oldest.first() {
            assert_eq!(one.age, Age::AtLeast(10 * SECOND));
            assert_eq!(one.bytes.unwrap().unsent, 1000);
            assert_eq!(one.give_up, None, "no sysctls are known");
        }
    }
}

#[test]
fn a_connection_that_waits_for_nobody_is_not_stuck() {
    let quiet = "info a ESTABLISHED timer=on expires=100 unacked=1000 rto=204 last-sent=104";
    let idle = "socket ESTABLISHED b 10.0.0.1:40001 10.0.0.2:80 pid=7 comm=app inode=9";
    let text = format!("0ms begin\n{}", snapshot(1, &[ESTABLISHED, idle, quiet]));
    let report = reports(wanted(Some(0), 9), &text).remove(0);
    assert_eq!((sections(&report), report.oldest.len()), (vec![], 0));
}

#[test]
fn a_wait_goes_on_from_scan_to_scan_and_begins_anew_with_an_acknowledgement() {
    let info = |retransmits: u8, rto: u32, acked: u32| {
        format!(
            "info a ESTABLISHED timer=on expires={rto} unacked=1000 retransmits={retransmits} \
             backoff=0 rto={rto} last-sent=0 last-ack=60000 acked={acked}"
        )
    };
    // The host could not send: its short timeouts say nothing of how long that has been so.
    let lines = [(0, info(1, 500, 7)), (8_000, info(9, 500, 7)), (12_000, info(17, 500, 7))];
    let mut text = "0ms begin\n".to_owned();
    for (ms, info) in &lines {
        text += &snapshot(*ms, &[ESTABLISHED, info]);
    }
    text += &snapshot(20_000, &[ESTABLISHED, &info(2, 500, 8)]);
    let reports = reports(wanted(None, 9), &text);
    let stuck: Vec<u64> = reports.iter().map(Report::stuck).collect();
    assert_eq!(stuck, [0, 0, 1, 0]);
    assert_eq!(reports[2].oldest[0].age, Age::AtLeast(12 * SECOND));
}

#[test]
fn a_closed_window_is_the_peers_programs_and_the_fin_waits() {
    let info = |state, retransmits, window| {
        format!(
            "info a {state} timer=persist expires=900 unacked=3000001 backoff=6 rto=208 \
             not-sent=3000001 last-ack=100 probes={retransmits} window={window}"
        )
    };
    for (state, inode) in [("LAST_ACK", 0), ("FIN_WAIT1", 0), ("ESTABLISHED", 9), ("CLOSE_WAIT", 9)]
    {
        let socket =
            format!("socket {state} a 10.0.0.1:40000 10.0.0.2:80 inode={inode} unsent=3000001");
        let of = |info: &str| {
            let text = format!("0ms begin\n{}", snapshot(1, &[&socket, info]));
            let report = reports(wanted(None, 9), &text).remove(0);
            let one = report.oldest[0].clone();
            (one.cause, one.scan.unwrap().info.fin_waits())
        };
        let closing = inode == 0;
        assert_eq!(of(&info(state, 0, 0)), (Cause::ZeroWindow, closing), "{state}");
        assert_eq!(of(&info(state, 2, 0)), (Cause::NoProbeAnswer, closing), "{state}");
    }
}

#[test]
fn what_still_moves_data_is_not_stuck() {
    let socket = |state| format!("socket {state} a 10.0.0.1:80 10.0.0.9:1 pid=7 comm=app inode=9");
    for (state, cause) in [("CLOSE_WAIT", Cause::NotClosed), ("FIN_WAIT2", Cause::HalfClosed)] {
        let text = |sent: &str| {
            let old = match state {
                "FIN_WAIT2" => "FIN_WAIT1",
                _ => "ESTABLISHED",
            };
            format!(
                "0ms begin\n\
                 10ms sk=1 {old}>{state} 10.0.0.1:80 10.0.0.9:1 cookie=a netns=5 comm=app\n{}",
                snapshot(70_000, &[&socket(state), &format!("info a {state} {sent}")])
            )
        };
        for (moved, stuck) in [
            ("last-sent=59999 last-received=3600000", 0),
            ("last-sent=3600000 last-received=59999", 0),
            ("last-sent=60000", 1),
            // The state's own age is exact; what was sent before it says nothing.
            ("last-sent=69500 last-received=70100", 1),
            ("", 1),
        ] {
            let report = reports(wanted(None, 9), &text(moved)).remove(0);
            let state = report.sections[0].state;
            assert_eq!(sections(&report), [(state, cause, stuck, 1)], "{moved}");
        }
        let report = reports(wanted(None, 9), &text("last-sent=69500")).remove(0);
        assert_eq!(report.oldest[0].age, Age::Exactly(69_990_000_000));
        let report = reports(wanted(None, 9), &text("last-sent=61000")).remove(0);
        assert_eq!(report.oldest[0].age, Age::AtLeast(61 * SECOND));
    }
}

#[test]
fn closed_is_told_from_shut_down() {
    let text = "0ms begin\n\
        1ms sk=1 ESTABLISHED>FIN_WAIT1 10.0.0.1:40000 10.0.0.2:80 cookie=1 netns=5 comm=half\n\
        2ms sk=1 FIN_WAIT1>FIN_WAIT2 10.0.0.1:40000 10.0.0.2:80 cookie=1 netns=5\n\
        3ms sk=2 ESTABLISHED>FIN_WAIT1 10.0.0.1:40001 10.0.0.2:80 cookie=2 netns=5 comm=whole dead\n\
        4ms sk=2 FIN_WAIT1>FIN_WAIT2 10.0.0.1:40001 10.0.0.2:80 cookie=2 netns=5 dead\n\
        5ms sk=3 FIN_WAIT1>FIN_WAIT2 10.0.0.1:40002 10.0.0.2:80 classic\n\
        6ms tick\n\
        7ms tw=9 started FIN_WAIT2 10.0.0.1:40001 10.0.0.2:80 cookie=2 netns=5\n\
        8ms sk=2 FIN_WAIT2>CLOSE 10.0.0.1:40001 10.0.0.2:80 cookie=2 netns=5 dead\n\
        9ms tick\n";
    let expected = [
        (TcpState::FinWait2, Cause::HalfClosed, 1, 1),
        (TcpState::FinWait2, Cause::PeerNotClosed, 1, 1),
        (TcpState::FinWait2, Cause::NotScanned, 1, 1),
    ];
    for report in reports(wanted(Some(0), 9), text) {
        assert_eq!(sections(&report), expected);
    }
}

#[test]
fn a_deferred_syn_was_not_sent_and_no_bytes_wait() {
    let lines = [
        "socket SYN_SENT a 10.0.0.1:40000 10.0.0.2:80 pid=7 comm=app inode=9 unsent=1985891391",
        "socket SYN_SENT b 10.0.0.1:40001 10.0.0.2:80 pid=7 comm=app inode=9 unsent=1",
        "info a SYN_SENT segs-out=0 rto=1000 unacked=1985891391",
        "info b SYN_SENT timer=on expires=3000 retransmits=2 backoff=2 rto=4000 unacked=1",
    ];
    let text = format!("0ms begin\n{}", snapshot(1, &lines));
    let report = reports(wanted(Some(0), 9), &text).remove(0);
    let expected =
        [(TcpState::SynSent, Cause::NoSynAck, 1, 1), (TcpState::SynSent, Cause::SynDeferred, 1, 1)];
    assert_eq!(sections(&report), expected);
    assert!(report.oldest.iter().all(|one| one.bytes.unwrap().unsent == 0), "{report:?}");

    // A recording from before there was more to know.
    let text = format!("0ms begin\n{}", snapshot(1, &lines[..2]));
    let report = reports(wanted(Some(0), 9), &text).remove(0);
    assert_eq!(sections(&report), [(TcpState::SynSent, Cause::NotScanned, 2, 2)]);
    assert!(report.oldest.iter().all(|one| one.bytes.unwrap().unsent == 0), "{report:?}");
}

#[test]
fn a_port_that_the_kernel_chose_is_known_from_the_next_snapshot_on() {
    let text = format!(
        "0ms begin\n0ms snapshot open\n0ms snapshot 5\n0ms snapshot end\n0ms snapshot over\n\
         1ms sk=1 CLOSE>SYN_SENT 127.0.0.1:0 10.0.0.2:80 cookie=a netns=5 comm=app\n2ms tick\n{}",
        snapshot(3, &["socket SYN_SENT a 127.0.0.1:40000 10.0.0.2:80 inode=9 unsent=1"])
    );
    let ports: Vec<u16> = reports(wanted(Some(0), 9), &text)
        .iter()
        .map(|report| report.oldest[0].found.tuple.lport)
        .collect();
    assert_eq!(ports, [0, 40000]);
}

#[test]
fn what_was_not_accepted_is_its_listeners() {
    let lines = [
        "socket LISTEN 1 0.0.0.0:80 0.0.0.0:0 pid=70 comm=any inode=9 unread=3 unsent=128",
        "socket LISTEN 2 10.0.0.2:80 0.0.0.0:0 pid=71 comm=one inode=9 unread=1 unsent=128",
        "socket LISTEN 3 [::]:443 [::]:0 pid=73 comm=fork inode=9 unread=1 unsent=128",
        "socket LISTEN 4 [::]:443 [::]:0 pid=72 comm=first inode=9 unread=0 unsent=128",
        "socket CLOSE_WAIT 5 10.0.0.1:80 10.0.0.9:1 inode=0 unread=1",
        "socket CLOSE_WAIT 6 127.0.0.1:80 10.0.0.9:2 inode=0 unread=1",
        "socket CLOSE_WAIT 7 10.0.0.2:80 10.0.0.9:3 inode=0 unread=1",
        "socket CLOSE_WAIT 8 10.0.0.2:443 10.0.0.9:4 inode=0 unread=1",
        "socket CLOSE_WAIT 9 10.0.0.2:22 10.0.0.9:5 inode=0 unread=1",
        "socket CLOSE_WAIT a 10.0.0.2:80 10.0.0.9:6 inode=0 unread=1",
        // A subflow of MPTCP, which has no file of its own.
        "info a CLOSE_WAIT mptcp",
    ];
    let text = format!("0ms begin\n{}", snapshot(1, &lines));
    let (mut reports, tracker) = reports_and_tracker(wanted(Some(0), 9), &text);
    let report = reports.remove(0);
    let accepted = report.sections.iter().find(|of| of.cause == Cause::NotAccepted).unwrap();
    let groups: Vec<_> = accepted
        .groups
        .iter()
        .map(|(whose, count)| (whose.label().unwrap(), count.stuck))
        .collect();
    let label = |name: &str| format!("(not accepted) {name}");
    let mut expected =
        [(label(":22"), 1), (label("any :80"), 2), (label("first :443"), 1), (label("one :80"), 1)];
    expected.sort_by_key(|(_, count)| Reverse(*count));
    let mut sorted = groups.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    let not_closed = report.sections.iter().find(|of| of.cause == Cause::NotClosed).unwrap();
    assert_eq!((not_closed.groups.len(), not_closed.all), (1, 1), "the subflow");
    // Who asks for the connections of a group finds them.
    let doors = Doors::of(tracker.census());
    let of = |standing: &Standing<'_>| {
        doors.resolve(Whose::of(By::Owner, Cause::of(standing), standing))
    };
    for (whose, count) in &accepted.groups {
        let found = tracker.standing(0).filter(|standing| of(standing) == *whose);
        assert_eq!(found.count() as u64, count.all, "{whose:?}");
    }
}

#[test]
fn orphans_with_data_to_send_are_stuck_in_a_single_look() {
    for state in ["FIN_WAIT1", "LAST_ACK", "CLOSING"] {
        let lines = [
            format!("socket {state} a 10.0.0.1:40000 10.0.0.2:80 inode=0 unsent=5001"),
            format!(
                "info a {state} timer=on expires=528 unacked=5001 retransmits=6 backoff=6 rto=13056 \
                 last-sent=12528 last-ack=90000"
            ),
        ];
        let text = format!("0ms begin\n{}", snapshot(1, &[&lines[0], &lines[1]]));
        let report = reports(wanted(None, 9), &text).remove(0);
        let of = &report.sections[0];
        assert_eq!((of.cause, of.stuck, of.groups[0].0), (Cause::NoAck, 1, Whose::Orphan));
        assert_eq!(report.oldest[0].age, Age::AtLeast(25_380_000_000));
        assert_eq!(report.oldest[0].bytes.unwrap().unsent, 5000);
    }
}

#[test]
fn what_grows_is_a_leak_before_it_is_old() {
    for (count, leak) in [(LEAK - 1, false), (LEAK, true)] {
        let lines: Vec<String> = (0..count)
            .map(|n| {
                format!("socket CLOSE_WAIT {n:x} 10.0.0.1:80 10.0.0.9:{n} pid=7 comm=x inode=9")
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let text = format!("0ms begin\n{}", snapshot(1, &lines));
        let report = reports(wanted(None, 9), &text).remove(0);
        assert_eq!((report.stuck(), report.below()), (0, count));
        assert_eq!(report.sections[0].is_leak(), leak);
        let groups = &report.sections[0].groups;
        assert_eq!((groups.len(), groups[0].1.all), (1, count), "whose it is shows");
    }
}

#[test]
fn keepalive_probes_without_an_answer_are_stuck_since_nobody_knows_when() {
    let info = "info a ESTABLISHED timer=keepalive expires=900 probes=2 rto=204 last-ack=7300000";
    let text = format!("0ms begin\n{}", snapshot(1, &[ESTABLISHED, info]));
    for (older, stuck) in [(None, 1), (Some(0), 1), (Some(60), 0)] {
        let report = reports(wanted(older, 9), &text).remove(0);
        let expected = [(TcpState::Established, Cause::NoProbeAnswer, stuck, 1)];
        assert_eq!(sections(&report), expected, "{older:?}");
    }
}
