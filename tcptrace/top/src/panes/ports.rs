//! How near each path is to running out of local ports, as `tcptrace ports` says it.

use super::{
    super::{
        data::ROWS,
        listing::{Among, Goes, Listing, Row, Tone, cut},
    },
    Look,
};
use tcptrace_stats::ports::{self, Outlook};
use tcptrace_view::{
    number::fit,
    ports::text::{bound_by, describe, free, is_pressed, outlook, rate, taken_by},
    stuck::text::cut as cut_text,
    table::end,
};

/// What it can be ordered by.
pub(in super::super) const SORTS: [&str; 4] = ["runs-out", "taken", "new/s", "fail"];

/// Paths, from the first on, of which it is said who takes their ports: each line takes the place of one.
const NAMED: usize = 3;

/// Columns after the path.
const NUMBERS: usize = 49;

pub(in super::super) fn listing(look: &mut Look<'_>) -> Listing {
    let tracker = look.tracker;
    let mut interval = look.data.ports.interval(look.now_ns, || tracker.census());
    interval.rows.retain(|row| look.shown.keeps(&row.path.tuple(), row.path.netns));
    let taken = |row: &ports::Row| row.live + row.time_wait.unwrap_or(0);
    match look.sort % SORTS.len() {
        1 => interval.rows.sort_by_key(|row| std::cmp::Reverse(taken(row))),
        2 => interval.rows.sort_by(|a, b| b.smoothed.opened.total_cmp(&a.smoothed.opened)),
        3 => interval.rows.sort_by_key(|row| std::cmp::Reverse(row.failed_total)),
        _ => {}
    }
    let more = cut(&mut interval.rows, ROWS);
    let named = interval.rows.len().min(NAMED);
    look.data.ports.name_takers(&mut interval.rows[..named], || tracker.census());
    let path_width = look.width.saturating_sub(NUMBERS).clamp(24, 80);
    let head = format!(
        "{:path_width$}{:>6}{:>6}{:>7}{:>7}{:>7}{:>6}{:>10}",
        "FROM > PEER", "LIVE", "TW", "FREE", "NEW/s", "BACK/s", "FAIL", "RUNS-OUT"
    );
    let rows = interval.rows.iter().map(|row| one(row, path_width)).collect();
    let mut notes = vec![format!(
        "rates of some 10 s, by {}  (s: sort, enter: its connections)",
        SORTS[look.sort % SORTS.len()]
    )];
    let spaces = interval.spaces.iter();
    let width = look.width.max(40) - 2;
    let has_row =
        |space: &ports::Space| interval.rows.iter().any(|row| row.path.netns == space.netns);
    let spaces = spaces.filter(|space| {
        has_row(space) || look.shown.keeps_all_ends() && bound_by(space, width).is_some()
    });
    for space in spaces.take(2) {
        notes.push(describe(space));
        notes.extend(bound_by(space, width));
    }
    let worst = interval.rows.iter().take(named).enumerate();
    for (_, row) in worst.filter(|(at, row)| *at == 0 || is_pressed(row)) {
        let to = format!("> {} ", end(row.path.remote_ip(), row.path.rport));
        let by = taken_by(row, width.saturating_sub(to.chars().count()));
        notes.extend(by.map(|by| to + &by));
    }
    if look.shown.wants_owner() {
        notes.push("ports are of all owners: the filter by owner or end does not count".to_owned());
    }
    if more > 0 {
        notes.push(format!("{more} more paths are not shown: narrow it by a filter"));
    }
    if interval.left_out > 0 {
        notes.push(format!("{} connections in no row: too many peers", interval.left_out));
    }
    Listing { head, rows, notes }
}

fn one(row: &ports::Row, path_width: usize) -> Row {
    let known = |count: Option<u64>, width| count.map_or("-".to_owned(), |n| fit(n, width));
    // At its end is what tells paths apart.
    let to = end(row.path.remote_ip(), row.path.rport);
    let path = format!("{} > {to}", row.path.local_ip());
    let text = format!(
        "{:path_width$}{:>6}{:>6}{:>7}{:>7}{:>7}",
        if path.chars().count() < path_width {
            path
        } else {
            cut_text(&format!("> {to}"), path_width - 1)
        },
        fit(row.live, 6),
        known(row.time_wait, 6),
        free(row),
        rate(row.smoothed.opened),
        rate(row.smoothed.returned),
    );
    let failed = row.failures().map(|(_, total)| total);
    let tone = match row.outlook {
        Outlook::Now => Tone::Bad,
        Outlook::In(_) => Tone::Warn,
        Outlook::Unknown | Outlook::Never => Tone::Plain,
    };
    Row::new(text, Tone::Plain)
        .and(
            format!("{:>6}", known(failed, 6)),
            if failed.is_some_and(|failed| failed > 0) { Tone::Bad } else { Tone::Plain },
        )
        .and(format!("{:>10}", outlook(row.outlook)), tone)
        .leading(Goes::Among(Among::Path(row.path)))
}
