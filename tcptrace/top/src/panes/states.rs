//! How many are in each state, what came and went, and how that was over the last minutes.

use super::{
    super::{
        history::History,
        listing::{Among, Goes, Listing, Row, Tone},
    },
    signed,
};
use tcptrace_stats::counts::{COUNTED, Flow};
use tcptrace_view::{closers::text::tenths, number::fit};

/// Columns before the bars.
const BEFORE: usize = 49;

/// From nothing to the most.
pub(in super::super) const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The states: how many are in each `now`, or were at the last sample where that is not told, and
/// what happened between the last two. The one that grows stands out.
pub(in super::super) fn listing(
    history: &History,
    now: Option<[Flow; COUNTED.len()]>,
    width: usize,
) -> Listing {
    let present = now.or(history.last().map(|sample| sample.flows));
    let parts = width.saturating_sub(BEFORE + 1).min(300);
    let seconds = if parts > 60 { 300 } else { 120 };
    let head = format!(
        "{:12} {:>8} {:>8} {:>9} {:>8} LAST {} MIN",
        "STATE",
        "NOW",
        "CHANGE",
        "IN/S",
        "OUT/S",
        seconds / 60
    );
    let growing = history.growing();
    let rows = COUNTED.into_iter().enumerate().map(|(index, state)| {
        let now = history.last().map(|sample| sample.flows[index]);
        let before = history.before().map(|sample| sample.flows[index]);
        let seconds_between = history.last().zip(history.before()).map_or(1.0, |(last, before)| {
            last.mono_ns.saturating_sub(before.mono_ns).max(1) as f64 / 1e9
        });
        let grows = growing == Some(index);
        let change = now.zip(before).map(|(now, before)| now.now as i64 - before.now as i64);
        let per_s = |of: fn(&Flow) -> u64| {
            now.zip(before).map_or("-".to_owned(), |(now, before)| {
                tenths(of(&now).saturating_sub(of(&before)) as f64 / seconds_between, 8)
            })
        };
        let text = format!(
            "{:12} {:>8} {:>8} {:>9} {:>8} ",
            format!("{state}{}", if grows { "▲" } else { "" }),
            present.map_or("-".to_owned(), |flows| fit(flows[index].now, 9)),
            change.map_or("-".to_owned(), |change| signed(change, "")),
            per_s(|flow| flow.entered),
            per_s(|flow| flow.left),
        );
        let idle = now.is_none_or(|now| now == Flow::default());
        let tone = match (grows, idle) {
            (true, _) => Tone::Bad,
            (_, true) => Tone::Dim,
            _ => Tone::Plain,
        };
        let bars = bars(&history.parts(index, seconds, parts));
        let row = Row::new(text, tone).and(bars, if grows { Tone::Bad } else { Tone::Good });
        row.leading(Goes::Among(Among::State(state)))
    });
    Listing { head, rows: rows.collect(), notes: Vec::new() }
}

/// One bar a count, the highest for the most of all. What is there at all is seen.
fn bars(counts: &[Option<u64>]) -> String {
    let most = counts.iter().flatten().max().copied().unwrap_or(0).max(1);
    let bar = |count: &Option<u64>| match count {
        None | Some(0) => BARS[0],
        Some(count) => {
            let level = (u128::from(*count) * 8).div_ceil(u128::from(most));
            BARS.get(level as usize).copied().unwrap_or('█')
        }
    };
    counts.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_at_all_is_seen() {
        assert_eq!(bars(&[None, Some(0), Some(1), Some(500), Some(1000)]), "  ▁▄█");
        assert_eq!(bars(&[Some(0)]), " ");
        assert_eq!(bars(&[Some(u64::MAX)]), "█");
        assert_eq!(bars(&[]), "");
    }
}
