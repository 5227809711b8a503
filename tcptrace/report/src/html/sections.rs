//! The parts of the page that are text and tables.

use jiff::Timestamp;
use maud::{Markup, html};

use super::table::table;
use crate::{facts::Facts, figures::Table};
use tcptrace_doctor::finding::{About, Finding, Severity};
use tcptrace_model::text::harmless;
use tcptrace_stats::{
    ports,
    stuck::{Section, Stuck},
};
use tcptrace_view::{
    ports::{describe, text::bound_by},
    stuck::{age, say},
    table::end,
    who,
};

/// A moment, UTC; `-` where the clocks are not known.
fn moment(facts: &Facts, mono_ns: u64) -> String {
    facts
        .real_ns(mono_ns)
        .and_then(|ns| Timestamp::from_nanosecond(ns).ok())
        .map_or_else(|| "–".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// What it is of.
pub(super) fn title(facts: &Facts) -> String {
    let host = match facts.header.host.as_str() {
        "" => "a host without a name".to_owned(),
        host => harmless(host).into_owned(),
    };
    match facts.live {
        true => format!("TCP on {host}, now"),
        false => format!("TCP on {host}, {}", moment(facts, facts.stretch.0)),
    }
}

/// Where the same is answered to programs.
pub(super) fn answers() -> Markup {
    const OF: [&str; 6] = ["states", "hist", "closers", "stuck", "ports", "doctor"];
    html! {
        p.answers {
            "For programs: " a href="/metrics" { "/metrics" }
            @for of in OF { ", " a href={ "/api/v1/" (of) } { "/api/v1/" (of) } }
        }
    }
}

/// Where, when and how it was recorded.
pub(super) fn whence(facts: &Facts) -> Markup {
    let header = &facts.header;
    let (from, to) = facts.stretch;
    let hooks: Vec<_> = header
        .hooks
        .iter()
        .filter_map(|hook| Some(format!("{} by {}", hook.of, hook.by.as_ref()?)))
        .collect();
    let words =
        |words: &[String]| words.iter().map(|word| harmless(word)).collect::<Vec<_>>().join(" ");
    let mut rows = vec![
        ("from", moment(facts, from)),
        ("to", moment(facts, to)),
        ("for", format!("{:.1} s", to.saturating_sub(from) as f64 / 1e9)),
        ("kernel", harmless(&header.kernel).into_owned()),
        ("by", format!("tcptrace {}: {}", harmless(&header.tcptrace), harmless(&hooks.join(", ")))),
        ("command", words(&header.command)),
        ("kept was", words(&header.filter)),
    ];
    rows.extend(
        header.not_observable.iter().map(|what| ("not observable", harmless(what).into_owned())),
    );
    html! {
        dl {
            @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
                dt { (name) } dd { (value) }
            }
        }
    }
}

/// What `doctor` says.
pub(super) fn findings(facts: &Facts) -> Markup {
    html! {
        section #findings {
            h2 { "Findings" }
            @match &facts.diagnosis {
                None => p { "The sockets were not read twice: nothing can be said." },
                Some(diagnosis) => {
                    @if diagnosis.findings.is_empty() { p { "Nothing was found." } }
                    @for found in &diagnosis.findings { (finding(facts, diagnosis.window, found)) }
                    @if !diagnosis.fine.is_empty() {
                        p.fine { "Fine, all the time: " (diagnosis.fine.join(", ")) "." }
                    }
                    @if !diagnosis.unseen.is_empty() {
                        details {
                            summary { (diagnosis.unseen.len()) " could not be judged" }
                            ul {
                                @for (rule, netns, why) in &diagnosis.unseen {
                                    li { (rule) " (netns " (netns) "): " (why) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn finding(facts: &Facts, window: (u64, u64), found: &Finding) -> Markup {
    let about = &found.about;
    let class = match about.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info | Severity::Ok => "info",
    };
    html! {
        article.finding.(class) {
            h3 { span.severity { (about.severity.name()) } " " (found.rule) }
            p.seen { (about.seen) " " span.netns { "(netns " (found.called) ")" } }
            @if let Some(when) = found.when.words(window, |ns| moment(facts, ns)) {
                p.when { (when) }
            }
            @if about.severity > Severity::Info {
                (advice(about))
            } @else {
                details { summary { "Why, and what helps" } (advice(about)) }
            }
        }
    }
}

fn advice(about: &About) -> Markup {
    html! {
            p { (about.why) }
            @if !about.helps.is_empty() {
                h4 { "What helps" }
                ul {
                    @for help in &about.helps {
                        li { (help.what) @if let Some(command) = &help.command { " " code { (command) } } @if help.cost != "none" { span.cost { " – " (help.cost) } } }
                    }
                }
            }
            @if !about.useless.is_empty() {
                h4 { "What does not, though it is often advised" }
                ul { @for useless in about.useless { li { (useless) } } }
            }
            p.docs { (about.docs) }
    }
}

/// What was stuck.
pub(super) fn stuck(facts: &Facts) -> Markup {
    let Some((at, report)) = &facts.stuck else {
        return html! { section #stuck { h2 { "Stuck" } p { "Nothing was looked at." } } };
    };
    let some: Vec<&Section> = report.sections.iter().filter(|of| of.is_problem()).collect();
    let below = say::below(report, "", |_| None);
    html! {
        section #stuck {
            h2 { "Stuck: too long in a state that should pass" }
            @if some.is_empty() && below.is_empty() {
                p { "Nothing was stuck." }
            } @else if some.is_empty() {
                p { "No connection was past its threshold: " (below.join(" ")) }
            } @else {
                p { "As of " (moment(facts, *at)) @if !facts.live { ", when most were" } "." }
                ul {
                    @for of in &some {
                        li { b { (of.stuck) " of " (of.all) } " " (say::heading(of)) }
                    }
                }
                @if !below.is_empty() { p { (below.join(" ")) } }
                (table(&groups(&some), "Whose they are"))
                (table(&sockets(&report.oldest, *at), "Those that were stuck for longest"))
            }
        }
    }
}

fn groups(sections: &[&Section]) -> Table {
    let rows = sections.iter().flat_map(|of| {
        of.groups.iter().map(|(whose, count)| {
            vec![
                whose.label().unwrap_or_else(|| "–".to_owned()),
                of.state.name().to_owned(),
                of.cause.name().to_owned(),
                count.stuck.to_string(),
                count.all.to_string(),
                count.oldest.map_or_else(|| "–".to_owned(), age),
                count.unread.to_string(),
                count.unsent.to_string(),
            ]
        })
    });
    Table {
        columns: [
            "held by",
            "state",
            "cause",
            "stuck",
            "all",
            "oldest",
            "unread bytes",
            "unsent bytes",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn sockets(oldest: &[Stuck], now: u64) -> Table {
    let row = |one: &Stuck| {
        let tuple = &one.found.tuple;
        let (pid, process) = who::holder(&one.found, one.held, usize::MAX);
        let known = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        vec![
            format!(
                "{} → {}",
                end(tuple.local_ip(), tuple.lport),
                end(tuple.remote_ip(), tuple.rport)
            ),
            one.found.state.name().to_owned(),
            age(one.age),
            process,
            pid,
            known(one.unit.as_deref().map(|unit| harmless(unit).into_owned())),
            known(one.bytes.map(|bytes| bytes.unread.to_string())),
            known(one.bytes.map(|bytes| bytes.unsent.to_string())),
            known(say::detail(one, now)),
        ]
    };
    Table {
        columns: ["socket", "state", "for", "held by", "pid", "unit", "unread", "unsent", "timer"]
            .map(str::to_owned)
            .to_vec(),
        rows: oldest.iter().map(row).collect(),
    }
}

/// How near the ephemeral ports were to running out.
pub(super) fn ports(facts: &Facts) -> Markup {
    let some =
        |interval: &ports::Interval| !interval.rows.is_empty() || !interval.spaces.is_empty();
    let Some((at, interval)) = facts.ports.as_ref().filter(|(_, it)| some(it)) else {
        return html! {
            section #ports {
                h2 { "Ephemeral ports" }
                p { "No scan found connections that were opened from here, nor ports that are bound." }
            }
        };
    };
    html! {
        section #ports {
            h2 { "Ephemeral ports" }
            p {
                "As of " (moment(facts, *at))
                @if !facts.live { ", when fewest were free on a path" } "."
            }
            ul {
                @for space in &interval.spaces {
                    li {
                        (describe(space))
                        @if let Some(by) = bound_by(space, WHOSE) { "; " (by) }
                        @if let Some(all) = space.used_up() {
                            "; all " (all) " are bound: connect() finds none"
                        }
                    }
                }
            }
            @if interval.rows.is_empty() {
                p { "No scan found connections that were opened from here." }
            } @else {
                (table(&paths(&interval.rows), "Ports by path"))
            }
        }
    }
}

/// As many characters say whose ports are.
const WHOSE: usize = 120;

fn paths(rows: &[ports::Row]) -> Table {
    let known = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let row = |row: &ports::Row| {
        let path = &row.path;
        vec![
            format!(
                "{} → {}",
                path.local_ip(),
                std::net::SocketAddr::new(path.remote_ip(), path.rport)
            ),
            row.live.to_string(),
            known(row.time_wait),
            known(row.free),
            known(row.usable),
            format!("{:.1}", row.smoothed.opened),
            known(row.failures().map(|(_, total)| total)),
            match row.outlook.seconds() {
                Some(0.0) => "now".to_owned(),
                Some(seconds) => format!("in {seconds:.0} s"),
                None => row.outlook.name().to_owned(),
            },
            match row.takers.as_ref().map(|takers| takers.fit(WHOSE)) {
                Some(by) if !by.is_empty() => by,
                _ => "–".to_owned(),
            },
        ]
    };
    Table {
        columns: [
            "path",
            "in use",
            "TIME_WAIT",
            "free",
            "usable",
            "new a second",
            "failed",
            "runs out",
            "taken by",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.iter().map(row).collect(),
    }
}

/// What the report does not know of.
pub(super) fn losses(facts: &Facts) -> Markup {
    let losses = &facts.losses;
    let doubts = &facts.doubts;
    let mut rows = Vec::new();
    if let Some(accounts) = &losses.accounts {
        rows.extend([
            ("events seen by the hooks", accounts.seen.to_string()),
            ("delivered", accounts.delivered.to_string()),
            ("filtered", accounts.filtered.to_string()),
        ]);
    }
    rows.extend([
        ("lost, the ring being full or the disk too slow", losses.lost.to_string()),
        (
            "missed, the kernel having skipped the program",
            losses.missed.map_or_else(|| "not observable".to_owned(), |n| n.to_string()),
        ),
    ]);
    let malformed = losses.accounts.map_or(0, |accounts| accounts.malformed);
    rows.extend(
        [
            ("transitions that did not follow from what was known", doubts.anomalies),
            ("connections that a snapshot had otherwise", doubts.corrected),
            ("TIME_WAITs that ended without an event", doubts.unobserved_expiries),
            ("sockets forgotten to bound memory", doubts.evicted),
            ("records that could not be understood", malformed),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name, count.to_string())),
    );
    let gaps = losses.accounts.map(|accounts| accounts.gaps).unwrap_or_default();
    if gaps.count > 0 {
        let value = format!("{}, {:.3} s in all", gaps.count, gaps.ns as f64 / 1e9);
        rows.push(("gaps, in which events are lost that nobody counted", value));
    }
    let lossy = gaps.count > 0 || losses.lost > 0 || losses.missed.is_some_and(|missed| missed > 0);
    html! {
        section #losses {
            h2 { "Losses" }
            p {
                @if lossy {
                    "Events are missing: counts are lower bounds, and times that began before a \
                     loss are marked with ≥."
                } @else { "No event is missing." }
                @if gaps.partial {
                    " The recording does not have the beginning of its run, or not its end: what \
                     happened then is not in this page."
                }
                @if facts.live { " All of these are since tcptrace was started." }
            }
            @if !facts.gaps.is_empty() {
                p { "Nothing is known of:" }
                ul {
                    @for gap in &facts.gaps {
                        li {
                            (moment(facts, gap.from_ns)) " to " (moment(facts, gap.mono_ns))
                            (format!(" ({:.3} s): ", gap.ns() as f64 / 1e9)) (gap.because.says())
                        }
                    }
                }
            }
            @if losses.snapshots_ended {
                p {
                    "The helper process is gone, so there are no snapshots any more: sysctls, the \
                     kernel's own counters, queues, and whose connections from before are, stay \
                     as they were. A restart brings them back."
                }
            }
            dl { @for (name, value) in &rows { dt { (name) } dd { (value) } } }
        }
    }
}
