//! Who closes first, how, and what TIME_WAIT that costs, as `tcptrace closers` ranks them.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    super::{
        data::ROWS,
        listing::{Among, Goes, Listing, Row, Tone, cut},
    },
    Look,
};
use tcptrace_model::{Initiator, TcpState};
use tcptrace_stats::{
    closers::Tally,
    group::{self, Key},
    named::Group,
};
use tcptrace_view::closers::{
    Sort, neither_end, ratio,
    text::{ends, label, percent, tenths, whole},
};

/// The columns that it can be ordered by.
pub(in super::super) const SORTS: [Sort; 6] =
    [Sort::Closed, Sort::Local, Sort::Remote, Sort::Else, Sort::Failed, Sort::TwNow];

/// Columns after the name.
const NUMBERS: usize = 55;

/// How many ended in each group, a second: since the look before.
#[derive(Debug, Default)]
pub(in super::super) struct Rates {
    at_ns: u64,
    closed: HashMap<Key, u64>,
    per_s: HashMap<Key, f64>,
}

impl Rates {
    fn update<'a>(&mut self, now_ns: u64, groups: impl Iterator<Item = (Key, &'a Tally)>) {
        let seconds = now_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        if seconds < 0.9 {
            return;
        }
        let closed: HashMap<Key, u64> = groups.map(|(key, tally)| (key, tally.closed())).collect();
        let rate = |(key, now): (&Key, &u64)| {
            let before = self.closed.get(key).copied().unwrap_or(0);
            (*key, now.saturating_sub(before) as f64 / seconds)
        };
        self.per_s = closed.iter().map(rate).collect();
        self.closed = closed;
        self.at_ns = now_ns;
    }
}

pub(in super::super) fn listing(look: &mut Look<'_>, rates: &mut Rates) -> Listing {
    let mut alive: HashMap<Key, u64> = HashMap::new();
    let census = look.tracker.census().filter(|found| found.state == TcpState::TimeWait);
    for found in census.filter(|found| look.shown.found(found)) {
        *alive.entry(group::service(&found)).or_default() += 1;
    }
    rates.update(look.now_ns, look.data.closers.so_far());
    let nothing = Tally::default();
    let mut groups: Vec<(Key, &Tally)> = look.data.closers.so_far().collect();
    let silent = alive.keys().filter(|key| !groups.iter().any(|(known, _)| known == *key));
    let silent: Vec<_> = silent.map(|key| (*key, &nothing)).collect();
    groups.extend(silent);
    let all: u64 = groups.iter().map(|(_, tally)| tally.closed()).sum();
    let sort = SORTS[look.sort % SORTS.len()];
    let alive_of = |key: &Key| alive.get(key).copied().unwrap_or(0);
    groups.sort_by_cached_key(|(key, tally)| {
        let by = match sort {
            Sort::TwNow => u128::from(alive_of(key)),
            sort => sort.of(tally),
        };
        (Reverse(by), Reverse(tally.closed()), Reverse(alive_of(key)), *key)
    });
    let more = cut(&mut groups, ROWS);
    let name_width = look.width.saturating_sub(NUMBERS).clamp(20, 60);
    let rows = groups.into_iter().map(|(key, tally)| {
        let closed = tally.closed();
        let share = |count: u64| percent(ratio(count as f64, closed as f64));
        let failed = tally.failed();
        let text = format!(
            "{:name_width$}{:>8}{:>8}{:>6}{:>6}{:>7}{:>5}{:>7}",
            label(&Group::from(key), name_width - 1),
            whole(closed, 8),
            tenths(rates.per_s.get(&key).copied().unwrap_or(0.0), 8),
            percent(ratio(closed as f64, all as f64)),
            share(tally.by(Some(Initiator::Local))),
            share(tally.by(Some(Initiator::Remote))),
            share(neither_end(tally)),
            whole(alive_of(&key), 7),
        );
        let mut detail = String::new();
        ends(tally, &mut detail);
        let tone = if failed > 0 { Tone::Warn } else { Tone::Plain };
        let row = Row::new(text, Tone::Plain).and(format!("{:>8}", whole(failed, 8)), tone);
        Row { detail: detail.lines().map(str::to_owned).collect(), ..row }
            .leading(Goes::Among(Among::Service(key)))
    });
    let head = format!(
        "{:name_width$}{:>8}{:>8}{:>6}{:>6}{:>7}{:>5}{:>7}{:>8}",
        "PROCESS :PORT", "CLOSED", "/S", "SHARE", "LOCAL", "REMOTE", "ELSE", "TW NOW", "FAILED"
    );
    let rows = rows.collect();
    let since = look.now_ns.saturating_sub(look.data.counted_from_ns) / 1_000_000_000;
    let mut notes = vec![format!(
        "of {since} s, by {}; LOCAL, REMOTE: who closed first  (s: sort, c: count anew)",
        sort.name()
    )];
    if more > 0 {
        notes.push(format!("{more} more groups are not shown: narrow it by a filter"));
    }
    Listing { head, rows, notes }
}
