//! Histograms for people: rows and bars as bcc's tools print them, in 80 columns.

use std::fmt::Write as _;

use bytes::BytesMut;

use super::subject::{Stretch, Subject, groups};
use crate::number::ms_within;
use tcptrace_model::{EndReason, TcpState};
use tcptrace_stats::{
    durations::{Durations, Span},
    group::{By, Key},
    measure::Measure,
    rows::Rows,
    steps::{Side, Steps},
};
use tcptrace_track::Tracker;

/// Characters of the longest bar, as in bcc.
const BAR: u64 = 40;

/// Characters of a time in ms.
const MS_WIDTH: usize = 9;

/// Characters of the name of a group: an IPv6 address fits.
const LABEL_WIDTH: usize = 40;

/// Writes all that was measured in `stretch`.
pub(super) fn print(subject: &Subject, stretch: Stretch, tracker: &Tracker, out: &mut BytesMut) {
    let (from, to) = stretch.seconds();
    line(out, format_args!("from {from:.1} s to {to:.1} s"));
    match subject {
        Subject::Durations(durations) => print_durations(durations, tracker, out),
        Subject::Steps(steps) => print_steps(steps, out),
    }
}

fn print_durations(durations: &Durations, tracker: &Tracker, out: &mut BytesMut) {
    for span in Span::ALL.into_iter().filter(|span| durations.spans().contains(*span)) {
        let groups = groups(durations, span, tracker);
        if groups.is_empty() {
            line(out, format_args!("\n{}: none ended", span.name()));
        }
        for (group, measure) in &groups {
            let label = match group.key() {
                Key::All => String::new(),
                Key::Other => ", other groups".to_owned(),
                Key::Reason(Some(_)) | Key::Connected(_) => format!(", {group}"),
                _ => {
                    let by = durations.split(span).map_or("", By::name);
                    format!(", {by} {}", shortened(&group.to_string()))
                }
            };
            title(&format!("{}{label}", span.name()), measure, out);
            if measure.count() > 0 {
                numbers(measure, out);
            }
            remarks(span, group.key(), measure, out);
            if measure.count() > 0 {
                rows(measure.rows(), out);
            }
        }
    }
}

/// `text` within [`LABEL_WIDTH`] characters.
fn shortened(text: &str) -> String {
    if text.chars().count() <= LABEL_WIDTH {
        return text.to_owned();
    }
    text.chars().take(LABEL_WIDTH - 1).chain(['…']).collect()
}

fn title(name: &str, measure: &Measure, out: &mut BytesMut) {
    let count = measure.count();
    match measure.about() {
        (0, _) => line(out, format_args!("\n{name}: {count}")),
        (_, within_ns) => {
            let within_ms = within_ns.div_ceil(1_000_000);
            line(out, format_args!("\n{name}: {count} (dated to within {within_ms} ms)"));
        }
    }
}

fn numbers(measure: &Measure, out: &mut BytesMut) {
    let ms = |ns: Option<u64>| ns.map_or_else(String::new, |ns| ms_within(ns, MS_WIDTH));
    line(
        out,
        format_args!(
            "  ms: mean {}  p50 {}  p90 {}  p99 {}  max {}",
            ms(measure.mean_ns()),
            ms(measure.quantile_ns(0.5)),
            ms(measure.quantile_ns(0.9)),
            ms(measure.quantile_ns(0.99)),
            ms(measure.max_ns()),
        ),
    );
}

fn remarks(span: Span, key: Key, measure: &Measure, out: &mut BytesMut) {
    not_measured(measure, out);
    let split = matches!(key, Key::Reason(_));
    for (reason, count) in measure.ends().filter(|_| !split && span != Span::Life) {
        let why = match (span, reason) {
            (Span::In(TcpState::FinWait2), EndReason::Expired) => {
                ": no FIN of the peer came (tcp_fin_timeout)"
            }
            (_, EndReason::NeverCreated) => ": no room for TIME_WAIT (tcp_max_tw_buckets)",
            _ => "",
        };
        line(out, format_args!("  {count} ended {}{why}", reason.name()));
    }
}

fn not_measured(measure: &Measure, out: &mut BytesMut) {
    let (at_least, max_ns) = measure.at_least();
    if at_least > 0 {
        let max = ms_within(max_ns, MS_WIDTH);
        line(out, format_args!("  and {at_least} that began before: the longest ≥ {max} ms"));
    }
    if measure.unknown() > 0 {
        line(out, format_args!("  and {} of which no time is known", measure.unknown()));
    }
}

/// The rows, as `print_log2_hist()` of bcc has them.
fn rows(rows: &Rows, out: &mut BytesMut) {
    let scale = rows.scale();
    line(out, format_args!("{:>10}{:14} : {:<8}  distribution", scale.unit(), "", "count"));
    let most = rows.used().map(|(_, count)| count).max().unwrap_or(0).max(1);
    for (row, count) in rows.used() {
        let first = scale.begins(row);
        let last = scale.ends(row).map_or_else(String::new, |last| last.to_string());
        let stars = bar(count, most);
        line(out, format_args!("{first:>10} -> {last:<10} : {count:<8} |{stars:<40}|"));
    }
}

/// A bar for `count` of `most`. What is there at all is seen.
fn bar(count: u64, most: u64) -> String {
    let stars = u128::from(BAR) * u128::from(count) / u128::from(most);
    // At most BAR.
    "*".repeat((stars as usize).max(usize::from(count > 0)))
}

fn print_steps(steps: &Steps, out: &mut BytesMut) {
    for (side, name) in [
        (Side::Local, "closed here first (active close)"),
        (Side::Peer, "closed by the peer first (passive close)"),
    ] {
        line(out, format_args!("\n{name}: {} began", steps.began(side)));
        let mut from = None;
        for (step, measure) in steps.taken().filter(|(step, _)| step.side == side) {
            if from != Some(step.from) {
                line(out, format_args!("  {}: waits for {}", step.from, step.waits_for));
                if from.is_none() {
                    line(
                        out,
                        format_args!(
                            "    {:<43}{:>7}{:>8}{:>8}{:>9}",
                            "ms:", "count", "p50", "p99", "max"
                        ),
                    );
                }
                from = Some(step.from);
            }
            let ms = |ns: Option<u64>, width| ns.map_or("-".to_owned(), |ns| ms_within(ns, width));
            let what = format!("-> {:<11} {}", step.to.name(), step.what);
            line(
                out,
                format_args!(
                    "    {what:<43}{:>7} {:>7} {:>7} {:>8}",
                    measure.count(),
                    ms(measure.quantile_ns(0.5), 7),
                    ms(measure.quantile_ns(0.99), 7),
                    ms(measure.max_ns(), 8),
                ),
            );
            not_measured(measure, out);
            for (reason, count) in measure.ends() {
                line(out, format_args!("      {count} {}", reason.name()));
            }
        }
    }
    line(out, format_args!("\nno FIN of either side (reset, timed out): {}", steps.aborted()));
}

fn line(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = writeln!(out, "{text}");
}
