//! For people, in 80 columns: findings, what could not be seen, and the sysctls.

use std::fmt::Write as _;

use crate::wrap::put_wrapped;
use tcptrace_doctor::{
    Diagnosis,
    facts::HostFacts,
    finding::{Finding, Severity},
    knobs::{self, Row},
    sysctl_file::shown,
};
use tcptrace_model::Knob;

/// Where the text of a finding begins.
const TEXT_AT: usize = 9;
/// Where what is said of a sysctl begins.
const SAYS_AT: usize = 4;
/// Namespaces that are named for one value.
const NAMED: usize = 8;

pub(super) fn report(host: &HostFacts, diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    title(&mut out, host, diagnosis);
    for finding in &diagnosis.findings {
        put(&mut out, finding, host.spaces.len() > 1);
    }
    rest(&mut out, diagnosis);
    sysctls(&mut out, host);
    out
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
        [one] => format!("network namespace {}", one.netns),
        many => format!("{} network namespaces", many.len()),
    };
    let mut line = format!("{counts}; {spaces}, watched for {:.1} s", host.watched.seconds);
    if let Err(why) = &host.watched.events {
        let _ = write!(line, "; what happened to connections was not seen: {why}");
    }
    if host.watched.lossy {
        line += "; events were lost: what is counted by them is a lower bound";
    }
    put_wrapped(out, &line, 0);
}

/// All that is to be said of one finding.
pub fn put(out: &mut String, finding: &Finding, with_netns: bool) {
    let about = &finding.about;
    let netns = if with_netns { format!("  netns {}", finding.netns) } else { String::new() };
    // Writing to memory does not fail.
    let _ = writeln!(out, "\n{}  {}{netns}", about.severity.name().to_uppercase(), finding.rule);
    labelled(out, "seen", &about.seen);
    labelled(out, "why", about.why);
    for (index, help) in about.helps.iter().enumerate() {
        labelled(out, if index == 0 { "helps" } else { "" }, &help.what);
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

/// One entry for each sysctl, with a line for each value that it has somewhere.
fn sysctls(out: &mut String, host: &HostFacts) {
    let spaces: Vec<(u32, Vec<Row>)> =
        host.spaces.iter().map(|space| (space.netns, knobs::rows(host, space))).collect();
    if spaces.is_empty() {
        return;
    }
    out.push_str("\nSYSCTLS\n");
    for (index, spec) in knobs::ALL.iter().enumerate() {
        let mut values: Vec<(&Row, Vec<u32>)> = Vec::new();
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
                let named: Vec<_> = with.iter().take(NAMED).map(u32::to_string).collect();
                let _ = write!(text, "; netns {}", named.join(", "));
                if more > 0 {
                    let _ = write!(text, " and {more} more");
                }
            }
            put_wrapped(out, &text, 35);
            if !matches!(row.value, Knob::Absent) {
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
        Knob::Absent => format!("not there: {}", row.spec.absent),
        Knob::Unreadable(why) => why.to_string(),
        Knob::Is(value) => match &row.default {
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
