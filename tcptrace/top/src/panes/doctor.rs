//! What `tcptrace doctor` says of what is happening, and all of it on one finding.

use super::super::{
    findings::{Findings, Latest},
    listing::{Goes, Listing, Row, Tone},
};
use tcptrace_doctor::finding::{Finding, Severity};
use tcptrace_view::{doctor::text, wrap::put_wrapped};

/// What is over for longer is forgotten, nanoseconds ([`tcptrace_doctor::watch::Span::RECENT`]).
const RECENT_NS: u64 = 600_000_000_000;

/// The findings, the worst first.
pub(in super::super) fn listing(findings: &Findings, now_ns: u64) -> Listing {
    let Some(Latest { diagnosis, at_ns }) = findings.latest() else {
        let note = "watches: the first findings come when the sockets were looked at twice";
        return Listing { notes: vec![note.to_owned()], ..Listing::default() };
    };
    let head = format!("{:9} {:18} SEEN", "SEVERITY", "RULE");
    let seconds = |ns: u64| ns / 1_000_000_000;
    let ago = |ns: u64| format!("{} s ago", seconds(now_ns.saturating_sub(ns)));
    let rows = diagnosis.findings.iter().map(|finding| {
        let over = if finding.when.over_ns.is_some() { "over: " } else { "" };
        let row = Row::new(format!("{:9} ", finding.about.severity.name()), tone(finding))
            .and(format!("{:18} {over}{}", finding.rule, finding.about.seen), Tone::Plain);
        let mut seen = String::new();
        put_wrapped(&mut seen, &finding.about.seen, 0);
        let mut detail: Vec<String> = seen.lines().map(str::to_owned).collect();
        detail.extend(finding.when.words(diagnosis.window, ago));
        Row { detail, ..row }.leading(Goes::Finding(finding.rule, finding.netns))
    });
    let rows: Vec<_> = rows.collect();
    let watched = diagnosis.window.1.saturating_sub(diagnosis.window.0).min(RECENT_NS);
    let mut notes = vec![format!(
        "of {} s, {}, whatever the filter  (enter: why, what helps)",
        seconds(watched),
        ago(*at_ns)
    )];
    if !diagnosis.fine.is_empty() {
        notes.push(format!("{} rules found nothing wrong", diagnosis.fine.len()));
    }
    let unseen = diagnosis.unseen.len();
    if unseen > 0 {
        notes.push(format!("{unseen} could not look: `tcptrace doctor` says why"));
    }
    Listing { head, rows, notes }
}

/// What is to be said of one.
pub(in super::super) fn finding(
    findings: &Findings,
    rule: &str,
    netns: u32,
    now_ns: u64,
) -> Listing {
    let found = findings.latest().and_then(|latest| {
        let mut all = latest.diagnosis.findings.iter();
        all.find(|finding| finding.rule == rule && finding.netns == netns)
    });
    let Some(finding) = found else {
        let note = format!("{rule} in {netns} is fine by now");
        return Listing { notes: vec![note], ..Listing::default() };
    };
    let ago = |ns: u64| format!("{} s ago", now_ns.saturating_sub(ns) / 1_000_000_000);
    let window = findings.latest().map_or((0, 0), |latest| latest.diagnosis.window);
    let when = finding.when.words(window, ago);
    let mut said = String::new();
    text::put(&mut said, finding, when.as_deref(), true, false);
    let mut lines = said.lines().filter(|line| !line.is_empty());
    let first = lines.next().map(|line| Row::new(line, tone(finding)));
    let rows = first.into_iter().chain(lines.map(|line| Row::new(line, Tone::Plain)));
    Listing { rows: rows.collect(), ..Listing::default() }
}

fn tone(finding: &Finding) -> Tone {
    match finding.about.severity {
        Severity::Critical => Tone::Bad,
        Severity::Warning => Tone::Warn,
        Severity::Info | Severity::Ok => Tone::Plain,
    }
}

/// How many findings there are, and how the worst is meant.
pub(in super::super) fn worst(findings: &Findings) -> Option<(usize, Tone)> {
    let Latest { diagnosis, .. } = findings.latest()?;
    Some((diagnosis.findings.len(), tone(diagnosis.findings.first()?)))
}
