//! What has been too long in a state that should pass, as `tcptrace stuck` says it.

use std::cmp::Reverse;

use super::{
    super::listing::{Among, Goes, Listing, Row, Tone},
    Look, conns, signed,
};
use tcptrace_stats::{
    conns::least_ns,
    stuck::{Count, Section, Whose},
};
use tcptrace_view::{
    number::bytes_short,
    stuck::{
        say,
        text::{age, cut},
    },
};

/// What it can be ordered by.
pub(in super::super) const SORTS: [&str; 3] = ["stuck", "oldest", "growth"];

/// Columns after the name.
const NUMBERS: usize = 47;

pub(in super::super) fn listing(look: &mut Look<'_>) -> Listing {
    let shown = look.shown;
    let report = look.data.survey.report_of(look.now_ns, look.tracker, |found| shown.found(found));
    let name_width = look.width.saturating_sub(NUMBERS).clamp(20, 60);
    let head = format!(
        "{:name_width$}{:>8}{:>8}{:>8}{:>9}{:>7}{:>7}",
        "OWNER", "STUCK", "ALL", "GROWTH", "OLDEST", "UNREAD", "UNSENT"
    );
    let mut rows = Vec::new();
    for of in report.sections.iter().filter(|of| of.is_problem()) {
        section(look.sort, of, name_width, &mut rows);
    }
    for syn in &report.syn_queues {
        let full = syn.accept_full() == Some(true);
        if syn.queue.resent > 0 || full {
            let accept = syn.accept.map_or_else(String::new, |queues| {
                format!(", accept queue {}/{}", queues.unread, queues.unsent)
            });
            let text = format!(
                "SYN_RECV :{} in {}: {} wait, {} with the SYN-ACK resent{accept}",
                syn.queue.lport,
                look.tracker.namespaces().short(syn.netns),
                syn.queue.waiting,
                syn.queue.resent
            );
            rows.push(Row::new(text, if full { Tone::Bad } else { Tone::Warn }));
        }
    }
    if !report.oldest.is_empty() {
        rows.push(Row::default());
        rows.push(Row::new(conns::head(look.width), Tone::Head));
        for stuck in &report.oldest {
            let (found, unit) = (&stuck.found, stuck.unit.as_deref());
            let row = conns::row(found, stuck.age, stuck.held, stuck.bytes, unit, look.width);
            rows.push(row);
            if let Some(detail) = say::detail(stuck, look.now_ns) {
                rows.push(Row::new(format!("         {detail}"), Tone::Dim));
            }
        }
    }
    let sort = SORTS[look.sort % SORTS.len()];
    let below = say::below(&report, "", |_| None);
    let mut notes = vec![match (rows.is_empty(), below.is_empty()) {
        (true, true) => "nothing is stuck".to_owned(),
        (true, false) => "no connection is past its threshold yet".to_owned(),
        (false, _) => format!("by {sort}  (s: sort, enter: its connections)"),
    }];
    notes.extend(below);
    Listing { head, rows, notes }
}

fn section(sort: usize, of: &Section, name_width: usize, rows: &mut Vec<Row>) {
    rows.push(Row::new(say::heading(of), Tone::Head));
    // Of groups that are not stuck only those of a section that is not: it may be a leak.
    let some = |count: &Count| count.stuck > 0 || of.stuck == 0;
    let mut groups: Vec<(Whose, Count)> =
        of.groups.iter().filter(|(_, count)| some(count)).copied().collect();
    match sort % SORTS.len() {
        1 => groups.sort_by_key(|(_, count)| Reverse(count.oldest.map_or(0, least_ns))),
        2 => groups.sort_by_key(|(_, count)| Reverse(count.change().unwrap_or(0))),
        _ => {}
    }
    for (whose, count) in groups {
        let name = whose.label().unwrap_or_else(|| "-".to_owned());
        let goes = Goes::Among(Among::Stuck(of.state, of.cause, whose));
        rows.push(group(&name, &count, name_width).leading(goes));
    }
    let (more, count) = &of.rest;
    if *more > 0 && some(count) {
        rows.push(group(&format!("({more} more)"), count, name_width));
    }
}

fn group(name: &str, count: &Count, name_width: usize) -> Row {
    // A sum over some of them is a lower bound.
    let bytes = |sum: u64| match count.looked_at {
        0 => "-".to_owned(),
        some if some < count.stuck => format!("≥{}", bytes_short(sum)),
        _ => bytes_short(sum),
    };
    let change = count.change();
    let grows = change.is_some_and(|change| change > 0);
    let text = format!(
        "{:name_width$}{:>8}{:>8}",
        cut(&format!("  {name}"), name_width - 1),
        count.stuck,
        count.all
    );
    let growth = change.map_or("-".to_owned(), |change| signed(change, ""));
    Row::new(text, Tone::Plain)
        .and(format!("{growth:>8}"), if grows { Tone::Bad } else { Tone::Plain })
        .and(
            format!(
                "{:>9}{:>7}{:>7}",
                count.oldest.map_or("-".to_owned(), age),
                bytes(count.unread),
                bytes(count.unsent)
            ),
            Tone::Plain,
        )
}
