//! The page of scripts.

use bytes::BytesMut;

use crate::ReportView;
use tcptrace_model::{Accounts, Input, script};
use tcptrace_pipeline::Analysis;
use tcptrace_record::Header;
use tcptrace_track::Tracker;

/// The page of `script`, recorded on a host of this name.
fn page_of(script: &str, host: &str) -> String {
    let header = Header {
        host: host.to_owned(),
        run: "boot/1/2".to_owned(),
        command: vec!["tcptrace".to_owned(), "<i>record</i>\x1b[2J".to_owned()],
        not_observable: vec!["<u>x</u>".to_owned()],
        ..Header::default()
    };
    let mut analysis = Analysis::new(Tracker::default(), ReportView::new(header));
    for input in script::inputs(script).unwrap() {
        analysis.feed(&input);
    }
    let accounts = Accounts { mono_ns: 90_000_000_000, seconds: 90.0, ..Accounts::default() };
    analysis.feed(&Input::End(accounts));
    let out: BytesMut = analysis.take_output();
    String::from_utf8(out.to_vec()).unwrap()
}

const SCRIPT: &str = include_str!("../../../tests/recordings/v1.script");

#[test]
fn a_page_has_what_there_is_to_tell() {
    let page = page_of(SCRIPT, "web1");
    for id in [
        "findings",
        "states",
        "rates",
        "time-wait",
        "linger",
        "closers",
        "stuck",
        "ports",
        "losses",
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert!(page.contains("<h1>TCP on web1, 2026-11-22 07:00:00 UTC</h1>"));
    let plots = page.matches("<svg class=\"chart\"").count();
    assert!(plots >= 7, "{plots}");
    assert_eq!(page.matches("<figure").count(), 5);
    // The one TIME_WAIT that ended, in the row of its second.
    assert!(page.contains("<th scope=\"row\">60 s–61 s</th><td>1</td>"), "a spike at 60 s");
    assert!(page.contains("the peer has closed, the program here has not"), "CLOSE_WAIT is stuck");
}

#[test]
fn text_of_a_host_stays_text() {
    let hostile = SCRIPT
        .replace("comm=app", "comm=<b>&\"'")
        .replace("/system.slice/app.service", "/<script>alert(1)</script>");
    let page = page_of(&hostile, "</title><script>alert(1)</script>");
    assert_eq!(page.matches("<script").count(), 1, "ours");
    for raw in ["<b>&", "<i>", "<u>", "\x1b", "alert(1)</script>\""] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert!(page.contains("&lt;b&gt;&amp;&quot;'"));
}

/// What is in the section `ports` of a page.
fn ports_of(script: &str) -> String {
    let page = page_of(script, "web1");
    let (_, from) = page.split_once("<section id=\"ports\">").unwrap();
    from.split_once("</section>").unwrap().0.to_owned()
}

#[test]
fn who_takes_ports_is_named_and_bound_ports_are_shown_without_a_connection() {
    let begin = "0ms begin\n0ms snapshot open\n0ms sysctls 5 ip_local_port_range=20000-20029 \
                 ip_local_reserved_ports= tcp_tw_reuse=0\n0ms snapshot 5\n";
    let end = "0ms snapshot end lists-bound\n0ms snapshot over\n2ms tick\n1002ms tick\n";
    let bound: String =
        (20000..20030).map(|port| format!("0ms bound {port} pid=7 comm=binds\n")).collect();
    let text = ports_of(&format!("{begin}{bound}{end}"));
    assert!(text.contains("bound by binds, pid 7 (30)"), "{text}");
    assert!(text.contains("all 30 are bound: connect() finds none"), "{text}");
    assert!(text.contains("No scan found connections that were opened from here."), "{text}");

    let connected: String = (20000..20009)
        .map(|port| {
            format!(
                "1ms sk={port} CLOSE>SYN_SENT 10.0.0.1:{port} 10.0.0.2:443 cookie={port} netns=5 \
                 pid=8 comm=takes\n"
            )
        })
        .collect();
    let text = ports_of(&format!("{begin}{end}{connected}2000ms tick\n"));
    assert!(text.contains("by takes, pid 8 (9)") || text.contains(">takes, pid 8 (9)<"), "{text}");
    let none = ports_of(&format!("{begin}{end}"));
    assert!(none.contains("No scan found connections that were opened from here, nor"), "{none}");
}

#[test]
fn a_page_fetches_nothing() {
    let page = page_of(SCRIPT, "web1");
    for word in [" src=", "url(", "@import", "http://", "https://", "fetch(", "import("] {
        let at = page.find(word);
        // The name space of SVG is a name, not an address.
        let is_name = at.is_some_and(|at| page[at..].starts_with("http://www.w3.org/2000/svg"));
        assert!(at.is_none() || is_name, "{word}: {:?}", at.map(|at| &page[at..at + 60]));
    }
}

#[test]
fn nothing_at_all_is_a_page_too() {
    let page = page_of("0ms begin\n", "");
    assert!(page.contains("TCP on a host without a name") && page.contains("No event is missing."));
    assert!(page.contains("The sockets were not read twice"));
}
