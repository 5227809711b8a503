//! How long connections stay: TIME_WAIT by why it ended, and one state as a histogram.

use super::super::listing::{Row, Tone};
use tcptrace_model::TcpState;
use tcptrace_stats::{
    durations::{Durations, Span},
    group::Key,
    measure::Measure,
};
use tcptrace_view::number::{fit, ms_within};

/// States whose histogram can be chosen, as long as each is measured.
pub(in super::super) const STATES: [TcpState; 8] = [
    TcpState::CloseWait,
    TcpState::TimeWait,
    TcpState::FinWait2,
    TcpState::FinWait1,
    TcpState::LastAck,
    TcpState::Closing,
    TcpState::Established,
    TcpState::SynSent,
];

/// The pane, in `width` columns and `height` lines.
pub(in super::super) fn rows(
    durations: &Durations,
    chosen: TcpState,
    width: usize,
    height: usize,
) -> Vec<Row> {
    let mut rows = vec![Row::new("TIME_WAIT ENDED", Tone::Head)];
    let time_wait = durations.of(Span::In(TcpState::TimeWait));
    if time_wait.is_empty() {
        rows.push(Row::new("  none so far", Tone::Dim));
    }
    // One line each where there is room, else all in one.
    if height >= 24 {
        for (key, measure) in &time_wait {
            let text = format!("  {:>8} {:18} {}", added(measure), key, numbers(measure));
            rows.push(Row::new(text, tone(key)));
        }
    } else if !time_wait.is_empty() {
        let mut row = Row::default();
        for (key, measure) in &time_wait {
            row = row.and(format!("  {} {key}", added(measure)), tone(key));
        }
        rows.push(row);
    }
    let groups = durations.of(Span::In(chosen));
    let mut groups = groups.into_iter();
    let joined = groups.next().map(|(_, first)| {
        groups.fold(first.clone(), |mut sum, (_, measure)| {
            sum.join(measure);
            sum
        })
    });
    rows.push(Row::default());
    let title = Row::new(format!("IN {chosen}"), Tone::Head);
    let Some(measure) = joined else {
        rows.push(title.and("  none left it so far  (t: another state)", Tone::Dim));
        return rows;
    };
    rows.push(
        title
            .and(format!("  {} left it  ", added(&measure)), Tone::Plain)
            .and("(t: another state)", Tone::Dim),
    );
    if measure.count() > 0 {
        rows.push(Row::new(format!("  ms: {}", numbers(&measure)), Tone::Plain));
    }
    let (at_least, longest_ns) = measure.at_least();
    if at_least > 0 {
        let longest = ms_within(longest_ns, 9);
        let text = format!("  and {at_least} that began before: the longest ≥ {longest} ms");
        rows.push(Row::new(text, Tone::Dim));
    }
    let room = height.saturating_sub(rows.len());
    rows.extend(histogram(&measure, width, room));
    rows
}

fn added(measure: &Measure) -> String {
    fit(measure.added(), 9)
}

fn tone(key: &Key) -> Tone {
    match key {
        Key::Reason(Some(tcptrace_model::EndReason::Expired)) => Tone::Plain,
        _ => Tone::Warn,
    }
}

fn numbers(measure: &Measure) -> String {
    let ms = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| ms_within(ns, 9));
    format!(
        "p50 {}  p90 {}  p99 {}  max {}",
        ms(measure.quantile_ns(0.5)),
        ms(measure.quantile_ns(0.9)),
        ms(measure.quantile_ns(0.99)),
        ms(measure.max_ns()),
    )
}

/// The rows of a histogram. Where there is no room for all, neighbours are joined.
fn histogram(measure: &Measure, width: usize, room: usize) -> Vec<Row> {
    let rows = measure.rows();
    let scale = rows.scale();
    let used: Vec<_> = rows.used().collect();
    if used.is_empty() || room == 0 {
        return Vec::new();
    }
    let joined: Vec<_> = used
        .chunks(used.len().div_ceil(room))
        .filter_map(|some| {
            let (first, last) = (some.first()?.0, some.last()?.0);
            Some((first, last, some.iter().map(|(_, count)| count).sum::<u64>()))
        })
        .collect();
    let most = joined.iter().map(|(.., count)| *count).max().unwrap_or(1).max(1);
    let bar_room = width.saturating_sub(44).clamp(1, 80) as u128;
    let bar = |count: u64| {
        let stars = bar_room * u128::from(count) / u128::from(most);
        "█".repeat((stars as usize).max(usize::from(count > 0)))
    };
    let line = |(first, last, count): (usize, usize, u64)| {
        let end = scale.ends(last).map_or_else(String::new, |end| end.to_string());
        let text = format!(
            "{:>11} -> {end:<11} {:5} {:>8} ",
            scale.begins(first),
            scale.unit(),
            fit(count, 9)
        );
        Row::new(text, Tone::Plain).and(bar(count), Tone::Good)
    };
    joined.into_iter().map(line).collect()
}
