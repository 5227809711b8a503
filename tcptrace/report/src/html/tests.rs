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
