//! What is stuck, by scripts.

use super::*;
use tcptrace_model::script::{self, later};

fn wanted(older: Option<u64>, top: usize) -> Wanted {
    let older = older.map(Duration::from_secs);
    Wanted { states: StateSet::all(), older, by: By::Owner, top }
}

/// The reports at the ticks of a script.
fn reports(wanted: Wanted, text: &str) -> Vec<Report> {
    let (mut tracker, mut survey) = (Tracker::default(), Survey::new(wanted));
    let mut reports = Vec::new();
    for input in script::inputs(&later(text)).unwrap() {
        tracker.apply(&input, &mut |_| {});
        survey.input(&input);
        if let Input::Tick { mono_ns } = input {
            reports.push(survey.report(mono_ns, &tracker));
        }
    }
    reports
}

fn of(report: &Report, state: TcpState) -> Vec<(String, Count)> {
    let of = report.states.iter().find(|of| of.state == state).unwrap();
    let groups = of.groups.iter();
    groups.map(|(whose, count)| (whose.label().unwrap_or("-".to_owned()), *count)).collect()
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
    assert_eq!(reports[0].states[0].all, 3);

    let second = of(&reports[1], TcpState::CloseWait);
    assert_eq!(second[0].1.stuck, 2, "59 s and 2 s");
    assert_eq!(second[0].1.change(), Some(0), "the new one has no owner that is known");
    assert_eq!(reports[1].states[0].all, 4);
    assert_eq!(second.len(), 1);

    let third = of(&reports[2], TcpState::CloseWait);
    let seen = third.iter().find(|(label, _)| label == "-").unwrap();
    assert_eq!(seen.1.oldest, Some(Age::Exactly(60 * SECOND)));
    assert_eq!((seen.1.looked_at, seen.1.change()), (0, Some(0)), "in no snapshot yet");
    assert!(third.iter().any(|(label, _)| label == "(not accepted)"), "{third:?}");
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
    assert_eq!(reports[2].states.iter().map(|of| of.all).sum::<u64>(), 1);
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
    let close_wait = &report.states[0];
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

#[test]
fn every_state_that_should_pass_has_a_diagnosis_that_fits() {
    for state in TcpState::ALL {
        let text = diagnosis(state);
        assert_eq!(!text.is_empty(), STATES.contains(&state), "{state}");
        assert!(text.len() <= 62, "{state}: {}", text.len());
    }
}
