//! For people, in 80 columns: findings, what could not be seen, and the sysctls.

use std::fmt::Write as _;

use crate::wrap::put_wrapped;
use tcptrace_doctor::{
    Diagnosis,
    facts::HostFacts,
    finding::{Finding, Severity},
    sysctl_file::shown,
    sysctls::{self, Row},
};
use tcptrace_model::Sysctl;
use tcptrace_model::text::harmless;

/// Where the text of a finding begins.
const TEXT_AT: usize = 9;
/// Where what is said of a sysctl begins.
const SAYS_AT: usize = 4;
/// Namespaces that are named for one value.
const NAMED: usize = 8;

/// What is shown, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) color: bool,
    pub(super) sysctls: bool,
}

pub(super) fn report(
    host: &HostFacts,
    diagnosis: &Diagnosis,
    style: Style,
    mut moment: impl FnMut(u64) -> String,
) -> String {
    let mut out = String::new();
    let several = host.spaces.len() > 1;
    title(&mut out, host, diagnosis);
    if !diagnosis.findings.is_empty() {
        out.push('\n');
    }
    list(&mut out, diagnosis, style.color);
    for finding in &diagnosis.findings {
        let when = finding.when.words(diagnosis.window, &mut moment);
        put(&mut out, finding, when.as_deref(), several, style.color);
    }
    rest(&mut out, diagnosis);
    sysctls(&mut out, host, style.sysctls);
    // What a screen ends with is what is read first.
    if out.lines().count() > SCREEN {
        out.push('\n');
        list(&mut out, diagnosis, style.color);
    }
    out
}

/// Lines of a usual screen.
const SCREEN: usize = 24;

/// A line for each finding.
fn list(out: &mut String, diagnosis: &Diagnosis, color: bool) {
    for finding in &diagnosis.findings {
        let about = &finding.about;
        let mut head = String::new();
        put_severity(&mut head, about.severity, 8, color);
        let over = if finding.when.over_ns.is_some() { "over: " } else { "" };
        let line = format!("  {:17} {over}{}", finding.rule, harmless(&about.seen));
        let room = WIDTH - 8;
        let _ = match line.char_indices().nth(room) {
            Some(_) => {
                let cut: String = line.chars().take(room - 3).collect();
                writeln!(out, "{head}{}...", cut.trim_end())
            }
            None => writeln!(out, "{head}{line}"),
        };
    }
}

/// Characters of a line.
const WIDTH: usize = 80;

/// The word for a severity, at least so wide.
fn put_severity(out: &mut String, severity: Severity, width: usize, color: bool) {
    let word = severity.name().to_uppercase();
    let (on, off) = match severity {
        Severity::Critical if color => ("\x1b[1;31m", "\x1b[0m"),
        Severity::Warning if color => ("\x1b[33m", "\x1b[0m"),
        _ => ("", ""),
    };
    let pad = width.saturating_sub(word.len());
    let _ = write!(out, "{on}{word}{off}{:pad$}", "");
}

fn title(out: &mut String, host: &HostFacts, diagnosis: &Diagnosis) {
    let count = |severity: Severity, one: &str, many: &str| {
        let found = diagnosis.findings.iter();
        match found.filter(|finding| finding.about.severity == severity).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        }
    };
    let counts: Vec<_> = [
        count(Severity::Critical, "critical finding", "critical findings"),
        count(Severity::Warning, "warning", "warnings"),
        count(Severity::Info, "note", "notes"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let counts = match (counts.is_empty(), diagnosis.unseen.is_empty()) {
        (true, true) if host.watched.events.is_ok() && !host.spaces.is_empty() => {
            "all is well".to_owned()
        }
        (true, _) => "nothing was found".to_owned(),
        (false, _) => counts.join(", "),
    };
    let spaces = match host.spaces.as_slice() {
        [] => "no network namespace could be looked at".to_owned(),
        [one] => format!("network namespace {}", one.called),
        many => format!("{} network namespaces", many.len()),
    };
    let mut line = format!("{counts}; {spaces}, watched for {:.1} s", seconds(diagnosis));
    if let Err(why) = &host.watched.events {
        let _ = write!(line, "; what happened to connections was not seen: {why}");
    }
    if host.watched.lost.is_any() {
        line += "; events were lost: what is counted by them is a lower bound";
    }
    put_wrapped(out, &line, 0);
}

/// For how long it was watched.
fn seconds(diagnosis: &Diagnosis) -> f64 {
    let (from_ns, to_ns) = diagnosis.window;
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// All that is to be said of one finding.
pub fn put(out: &mut String, finding: &Finding, when: Option<&str>, with_netns: bool, color: bool) {
    let about = &finding.about;
    let netns = if with_netns { format!("  netns {}", finding.called) } else { String::new() };
    out.push('\n');
    put_severity(out, about.severity, 0, color);
    // Writing to memory does not fail.
    let _ = writeln!(out, "  {}{netns}", finding.rule);
    labelled(out, "seen", &about.seen);
    if let Some(when) = when {
        labelled(out, "when", when);
    }
    labelled(out, "why", about.why);
    for (index, help) in about.helps.iter().enumerate() {
        let label = if index == 0 { "helps" } else { "" };
        if !help.what.is_empty() {
            labelled(out, label, &help.what);
        }
        // In one line, whatever its length: it is to be pasted.
        if let Some(command) = &help.command {
            let label = if help.what.is_empty() { label } else { "" };
            let _ = writeln!(out, "{label:TEXT_AT$}{}", harmless(command));
        }
        if help.cost != "none" {
            indented(out, TEXT_AT + 2, &format!("cost: {}", help.cost));
        }
    }
    for (index, useless) in about.useless.iter().enumerate() {
        labelled(out, if index == 0 { "no help" } else { "" }, useless);
    }
    labelled(out, "docs", about.docs);
}

fn labelled(out: &mut String, label: &str, text: &str) {
    let _ = write!(out, "{label:TEXT_AT$}");
    put_wrapped(out, text, TEXT_AT);
}

fn indented(out: &mut String, indent: usize, text: &str) {
    out.extend(std::iter::repeat_n(' ', indent));
    put_wrapped(out, text, indent);
}

/// What was fine, and what could not be seen: a line for each reason.
pub(crate) fn rest(out: &mut String, diagnosis: &Diagnosis) {
    if !diagnosis.fine.is_empty() {
        out.push('\n');
        labelled(out, "OK", &diagnosis.fine.join(", "));
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (rule, _, why) in &diagnosis.unseen {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, rules)) if rules.contains(rule) => {}
            Some((_, rules)) => rules.push(rule),
            None => reasons.push((why, vec![rule])),
        }
    }
    for (index, (why, rules)) in reasons.iter().enumerate() {
        if index == 0 {
            out.push('\n');
        }
        let label = if index == 0 { "UNSEEN" } else { "" };
        labelled(out, label, &format!("{}: {why}", rules.join(", ")));
    }
}

/// One entry for each sysctl, with a line for each value that it has somewhere: of `all`, or of those
/// that differ from the default, cannot be read, or matter now.
fn sysctls(out: &mut String, host: &HostFacts, all: bool) {
    let spaces: Vec<(&str, Vec<Row>)> = host
        .spaces
        .iter()
        .map(|space| (space.called.as_str(), sysctls::rows(host, space)))
        .collect();
    if spaces.is_empty() {
        return;
    }
    let says = |row: &Row| match &row.value {
        Sysctl::Absent => false,
        Sysctl::Unreadable(_) => true,
        Sysctl::Is(value) => row.default.as_ref().is_some_and(|default| default != value),
    };
    let of = |index: usize| spaces.iter().any(|(_, rows)| says(&rows[index]));
    let shown: Vec<usize> = (0..sysctls::ALL.len()).filter(|&index| all || of(index)).collect();
    let left = sysctls::ALL.len() - shown.len();
    out.push_str("\nSYSCTLS");
    match (left, shown.len()) {
        (0, _) => {}
        (left, 0) => {
            let _ = write!(out, "  all {left} at their defaults (--sysctls lists them)");
        }
        (left, _) => {
            let _ = write!(out, "  ({left} more are at their defaults: --sysctls)");
        }
    }
    out.push('\n');
    for index in shown {
        let spec = &sysctls::ALL[index];
        let mut values: Vec<(&Row, Vec<&str>)> = Vec::new();
        for (netns, rows) in &spaces {
            let row = &rows[index];
            match values.iter_mut().find(|(known, _)| known.value == row.value) {
                Some((known, with)) => {
                    with.push(*netns);
                    // The one that matters speaks for those of the same value.
                    if known.matters.name() != "yes" {
                        *known = row;
                    }
                }
                None => values.push((row, vec![*netns])),
            }
        }
        let several = values.len() > 1;
        for (first, (row, with)) in values.iter().enumerate() {
            let name = if first == 0 { spec.name } else { "" };
            let _ = write!(out, "{name:33}  ");
            let mut text = value(row);
            if several {
                let more = with.len().saturating_sub(NAMED);
                let named: Vec<_> = with.iter().take(NAMED).copied().collect();
                let _ = write!(text, "; netns {}", named.join(", "));
                if more > 0 {
                    let _ = write!(text, " and {more} more");
                }
            }
            put_wrapped(out, &text, 35);
            if !matches!(row.value, Sysctl::Absent) {
                let matters = match row.matters.name() {
                    "yes" => "matters now",
                    "no" => "does not matter now",
                    _ => "not known whether it matters now",
                };
                indented(out, SAYS_AT, &format!("{matters}: {}", row.matters.why()));
            }
        }
        indented(out, SAYS_AT, spec.does);
    }
}

fn value(row: &Row) -> String {
    let quoted = |value: &str| match value {
        "" => "none".to_owned(),
        value => shown(value.as_bytes()),
    };
    match &row.value {
        Sysctl::Absent => format!("not there: {}", row.spec.absent),
        Sysctl::Unreadable(why) => why.to_string(),
        Sysctl::Is(value) => match &row.default {
            Some(default) if default == value => {
                let whose = if row.default_is_own { "the" } else { "upstream's" };
                format!("{} ({whose} default)", quoted(value))
            }
            Some(default) if row.default_is_own => {
                format!("{} (default {})", quoted(value), quoted(default))
            }
            Some(default) => format!("{} (upstream's default {default})", quoted(value)),
            None => quoted(value),
        },
    }
}
