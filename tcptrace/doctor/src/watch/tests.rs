use std::fmt::Write as _;

use tcptrace_model::{Accounts, Gap, NetnsName, script};

use super::*;
use crate::finding::Severity;

/// What was found of `text`, judged as `span` says.
fn watch(text: &str, span: Span) -> Watch {
    let (mut watch, mut tracker) = (Watch::new(Setup::recorded(), span), Tracker::default());
    let mut inputs = script::inputs(text).unwrap();
    let mono_ns = inputs.iter().rev().find_map(Input::mono_ns).unwrap_or(0);
    inputs.push(Input::End(Accounts { mono_ns, ..Accounts::default() }));
    for input in inputs {
        tracker.apply(&input, &mut |change| watch.change(&change));
        if !matches!(input, Input::Event(_)) {
            watch.input(&input, &tracker);
        }
    }
    watch
}

fn whole(text: &str) -> Diagnosis {
    watch(text, Span::WHOLE).diagnosis()
}

/// A scan at `s` seconds, with these sockets and counters.
fn scan(s: u64, sockets: &str, counters: &str) -> String {
    let ms = s * 1000;
    let sockets: String = sockets.lines().map(|line| format!("{ms}ms socket {line}\n")).collect();
    format!(
        "{ms}ms snapshot open\n{ms}ms sysctls 5\n\
         {ms}ms counters 5 ActiveOpens=0 PassiveOpens=0 {counters}\n\
         {ms}ms snapshot 5\n{sockets}{ms}ms snapshot end\n{ms}ms snapshot over\n{ms}ms tick\n"
    )
}

/// So many sockets in CLOSE_WAIT that `app` holds.
fn leak(count: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        let port = 1000 + n;
        let _ = writeln!(text, "CLOSE_WAIT {n:x} 10.0.0.1:{port} 10.0.0.2:443 pid=7 comm=app");
    }
    text
}

/// So many connections that the peer resets at `s` seconds.
fn resets(s: u64, count: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        let id = 0x10_0000 + s * 1000 + n;
        let of = format!("10.0.0.1:{} 10.0.0.2:443 cookie={id:x} netns=5", 2000 + n);
        let ms = s * 1000 + 500;
        let _ = writeln!(text, "{ms}ms sk={id:x} CLOSE>SYN_SENT {of} comm=app");
        let _ = writeln!(text, "{ms}ms sk={id:x} SYN_SENT>ESTABLISHED {of}");
        let _ = writeln!(text, "{ms}ms sk={id:x} ESTABLISHED>CLOSE {of} err=104");
    }
    text
}

fn found<'a>(diagnosis: &'a Diagnosis, rule: &str) -> Option<&'a Finding> {
    diagnosis.findings.iter().find(|finding| finding.rule == rule)
}

#[test]
fn a_leak_that_begins_late_or_is_over_is_found_with_its_time() {
    // D1: healthy at the first scan, 600 in CLOSE_WAIT at the last.
    let diagnosis = whole(&script::late_leak(600, 60, 1000, 120));
    let leak = found(&diagnosis, "close-wait").expect("the leak at the end");
    assert_eq!(leak.about.severity, Severity::Warning);
    assert!(!diagnosis.fine.contains(&"close-wait"));
    assert_eq!(leak.when.over_ns, None);
    assert_eq!((leak.when.began_ns, leak.when.worst_ns), (60_000_000_000, 120_000_000_000));

    // It was there for a minute, and is over at the end.
    let diagnosis = whole(&script::late_leak(600, 20, 80, 600));
    let leak = found(&diagnosis, "close-wait").expect("the leak in the middle");
    assert_eq!((leak.when.began_ns, leak.when.over_ns), (20_000_000_000, Some(70_000_000_000)));
    assert!(!diagnosis.fine.contains(&"close-wait"), "it was bad in the window");
}

#[test]
fn of_what_does_not_end_old_findings_are_forgotten() {
    let recent = watch(&script::late_leak(600, 20, 80, 600), Span::RECENT).diagnosis();
    assert!(found(&recent, "close-wait").is_some(), "within ten minutes");
    let recent = watch(&script::late_leak(600, 20, 80, 700), Span::RECENT).diagnosis();
    assert!(found(&recent, "close-wait").is_none() && recent.fine.contains(&"close-wait"));
}

#[test]
fn a_burst_is_not_thinned_by_the_hour_around_it() {
    let mut text = "0ms begin\n".to_owned();
    for s in (0..600).step_by(10) {
        text += &scan(s, "", "ListenOverflows=0");
        // 30 resets in one gust, and after that an hour of ends that are all well.
        text += &resets(s, if s == 100 { 30 } else { 0 });
        if s > 200 {
            let fine = resets(s, 40).replace(" err=104", "");
            text += &fine;
        }
    }
    text += &scan(600, "", "ListenOverflows=0");
    let diagnosis = whole(&text);
    let resets = found(&diagnosis, "resets").expect("the gust");
    assert_eq!(resets.about.severity, Severity::Warning);
    assert!(resets.about.seen.starts_with("30 in 10.0 s"), "{}", resets.about.seen);
    assert!(
        resets.about.seen.contains("10.0.0.2:443 (30); here: app →:443 (30); all"),
        "{}",
        resets.about.seen
    );
}

/// The law: what any minute would have said is in what is said of the whole, at least as bad.
#[test]
fn the_whole_has_every_finding_of_each_minute() {
    let mut scans = Vec::new();
    for s in (0..=600_u64).step_by(10) {
        let sockets = leak(if s % 170 > 90 { s % 37 } else { 0 });
        let overflows = s / 10 + if s > 300 { s } else { 0 };
        let ends = resets(s, if s % 130 < 40 { s % 23 } else { 0 });
        scans.push(scan(s, &sockets, &format!("ListenOverflows={overflows}")) + &ends);
    }
    let all = format!("0ms begin\n{}", scans.concat());
    let whole = whole(&all);
    let mut seen = 0;
    // What the whole judges: each step between two scans, and each minute.
    for length in [1, 6] {
        for (from, part) in scans.windows(length + 1).enumerate() {
            let text = format!("{}ms begin\n{}", from * 10_000, part.concat());
            for finding in watch(&text, Span::WHOLE).diagnosis().findings {
                seen += 1;
                let same = found(&whole, finding.rule);
                let same = same.unwrap_or_else(|| panic!("{from}+{length}: {finding:?}"));
                assert!(same.about.severity >= finding.about.severity, "{from}+{length}");
                assert!(!whole.fine.contains(&finding.rule));
            }
        }
    }
    assert!(seen > 100, "{seen} findings were compared");
}

#[test]
fn one_scan_has_no_rates_and_says_so() {
    let text = format!("0ms begin\n{}", scan(0, "", "ListenOverflows=3"));
    let diagnosis = whole(&text);
    let unseen: Vec<_> = diagnosis.unseen.iter().map(|(rule, _, why)| (*rule, &**why)).collect();
    assert!(unseen.contains(&("accept-queue", "its counters were read only once")), "{unseen:?}");
}

#[test]
fn losses_in_the_window_are_a_finding() {
    let mut text = format!("0ms begin\n{}", scan(0, "", "ListenOverflows=0"));
    text += "3000ms lost 12\n";
    text += &scan(10, "", "ListenOverflows=0");
    let diagnosis = whole(&text);
    let lost = found(&diagnosis, "lost-events").expect("a loss");
    assert!(lost.about.seen.starts_with("tcptrace lost 12 events in 10.0 s"), "{lost:?}");

    // A gap of a recording is one too.
    let mut watch = watch(&text.replace("3000ms lost 12\n", ""), Span::WHOLE);
    assert!(watch.diagnosis().fine.contains(&"lost-events"));
    let because = tcptrace_model::GapBecause::Missing;
    let gap = Input::Gap(Gap { from_ns: 11_000_000_000, mono_ns: 15_000_000_000, because });
    let tracker = Tracker::default();
    watch.input(&gap, &tracker);
    for input in script::inputs(&scan(20, "", "ListenOverflows=0")).unwrap() {
        watch.input(&input, &tracker);
    }
    let diagnosis = watch.diagnosis();
    let lost = found(&diagnosis, "lost-events").expect("a gap");
    assert!(lost.about.seen.contains("4.0 s of the recording are missing"), "{lost:?}");
}

#[test]
fn commands_are_for_the_namespace_that_they_are_about() {
    let two = |s: u64| {
        let second = scan(s, &leak(12), "ListenOverflows=0").replace(" 5", " 6");
        let first = scan(s, "", "ListenOverflows=0");
        let (head, tail) = first.split_once(&format!("{}ms snapshot over", s * 1000)).unwrap();
        let of_second = second.split_once("snapshot open\n").unwrap().1;
        let of_second = of_second.split_once(&format!("{}ms snapshot over", s * 1000)).unwrap().0;
        format!("{head}{of_second}{}ms snapshot over{tail}", s * 1000)
    };
    let text = format!("0ms begin\n{}{}", two(0), two(10));
    // Of a recording, even where a file led to it: by now that may lead to another.
    let named = NetnsName::new(0, 6, Some("blue"), false).at(Some("/proc/7/ns/net"));
    let mut tracker = Tracker::default();
    tracker.apply(&Input::NetnsName(Box::new(named)), &mut |_| {});
    assert_eq!(tracker.namespaces().path(6), Some("/proc/7/ns/net"));
    for (own_netns, enter) in
        [(None, "in network namespace blue (6): "), (Some(5), "nsenter --net=/proc/7/ns/net ")]
    {
        let mut watch = Watch::new(Setup { own_netns, ..Setup::recorded() }, Span::WHOLE);
        for input in script::inputs(
            &scan(0, "", "")
                .replace("snapshot over", "snapshot 6\n0ms snapshot end\n0ms snapshot over"),
        )
        .unwrap()
        {
            watch.input(&input, &tracker);
        }
        assert_eq!(watch.host().unwrap().spaces[1].enter, enter);
    }
    let watch = watch(&text, Span::WHOLE);
    let host = watch.host().unwrap();
    let enter: Vec<_> = host.spaces.iter().map(|space| (space.netns, &*space.enter)).collect();
    assert_eq!(enter, [(5, "in network namespace 5: "), (6, "in network namespace 6: ")]);
    assert_eq!(host.spaces[1].sysctl("a.b", 1), "in network namespace 6: sysctl -w a.b=1");
}

/// So many ports of 100 taken to one peer in a gust, and then nothing more.
#[test]
fn a_forecast_that_did_not_come_true_is_no_finding() {
    let mut text = "0ms begin\n".to_owned();
    let sysctls = "sysctls 5 ip_local_port_range=20000-20099 ip_local_reserved_ports=65535 tcp_tw_reuse=0 tcp_timestamps=1";
    for s in (0..=600).step_by(10) {
        text += &scan(s, "", "ListenOverflows=0").replace("sysctls 5", sysctls);
        if s == 100 {
            for n in 0..50_u64 {
                let (id, port) = (0x900 + n, 20_000 + n);
                let of = format!("10.0.0.1:{port} 10.0.0.2:443 cookie={id:x} netns=5");
                let _ = writeln!(
                    text,
                    "105000ms sk={id:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 cookie={id:x} netns=5"
                );
                let _ = writeln!(text, "105001ms sk={id:x} SYN_SENT>ESTABLISHED {of}");
            }
        }
        if s == 110 {
            let gust = watch(&text, Span::WHOLE).diagnosis();
            let ports = found(&gust, "ports");
            let rows = watch(&text, Span::WHOLE).host().map(|host| host.spaces[0].paths.clone());
            let ports =
                ports.unwrap_or_else(|| panic!("at that rate they run out: {rows:?} {gust:?}"));
            assert!(ports.about.is_forecast, "{ports:?}");
            for n in 0..50_u64 {
                let (id, port) = (0x900 + n, 20_000 + n);
                let of = format!("10.0.0.1:{port} 10.0.0.2:443 cookie={id:x} netns=5");
                let _ = writeln!(text, "115000ms sk={id:x} ESTABLISHED>CLOSE {of}");
            }
        }
    }
    assert!(found(&whole(&text), "ports").is_none());
}
