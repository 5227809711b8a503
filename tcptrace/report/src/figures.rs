//! What is plotted of the facts, and the table behind each plot.
//!
//! A figure's rows are its horizontal axis: row `i` of the table is what the plot has from `i` to
//! `i + 1`. So the page's script needs nothing but the table to say what is under the pointer.

use std::time::Duration;

use super::facts::{Facts, Moment};
use tcptrace_model::{EndReason, Initiator, TcpState};
use tcptrace_stats::{
    closers::Tally,
    counts::COUNTED,
    measure::Measure,
    rows::{Rows, Scale},
};

/// Groups of which there is a bar.
const BARS: usize = 12;

/// A plot, or several over the same rows, and the table behind them.
pub(super) struct Figure {
    /// For links.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What is to be seen in it.
    pub(super) says: String,
    pub(super) panels: Vec<Panel>,
    pub(super) table: Table,
    /// The rows are one after the other in time.
    pub(super) timed: bool,
}

/// Text in rows and columns. The first column names the row.
#[derive(Default)]
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// One plot.
pub(super) struct Panel {
    /// What it is of; empty where the figure's title says it.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) series: Vec<Series>,
    /// So high, pixels.
    pub(super) height: u32,
    /// Names of rows for which there is room below it.
    pub(super) labels: usize,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As steps.
    Lines,
    /// As bars on top of each other.
    Stacked,
    /// As bars beside each other; the values are logarithms to base 10.
    BesideLog,
}

/// A value for each row.
pub(super) struct Series {
    pub(super) name: String,
    /// Which of the colours of the page.
    pub(super) colour: usize,
    pub(super) values: Vec<f64>,
}

/// All figures, in the order in which they are read.
pub(super) fn figures(facts: &Facts) -> Vec<Figure> {
    [states(facts), rates(facts), time_wait(facts), linger(facts), closers(facts)]
        .into_iter()
        .flatten()
        .collect()
}

/// The time of day, UTC.
fn clock(facts: &Facts, moment: &Moment) -> String {
    let real = facts.real_ns(moment.end_ns).and_then(|ns| {
        let at = jiff::Timestamp::from_nanosecond(ns).ok()?;
        let exact = !moment.length_ns.is_multiple_of(1_000_000_000);
        Some(at.strftime(if exact { "%H:%M:%S%.3f" } else { "%H:%M:%S" }).to_string())
    });
    real.unwrap_or_else(|| {
        let since = moment.end_ns.saturating_sub(facts.stretch.0);
        format!("{:.1} s", since as f64 / 1e9)
    })
}

fn states(facts: &Facts) -> Option<Figure> {
    let shown: Vec<(usize, TcpState)> = COUNTED
        .into_iter()
        .enumerate()
        .filter(|(at, _)| facts.timeline.iter().any(|moment| moment.states[*at] > 0))
        .collect();
    let panel = |(colour, &(at, state)): (usize, &(usize, TcpState))| Panel {
        name: state.name().to_owned(),
        kind: Kind::Lines,
        series: vec![Series {
            name: state.name().to_owned(),
            colour,
            values: facts.timeline.iter().map(|moment| moment.states[at] as f64).collect(),
        }],
        height: 130,
        labels: 6,
    };
    let row = |moment: &Moment| {
        let counts = shown.iter().map(|(at, _)| moment.states[*at].to_string());
        std::iter::once(clock(facts, moment)).chain(counts).collect()
    };
    (!shown.is_empty()).then(|| Figure {
        id: "states",
        title: "Connections in each state",
        says: "One plot a state, each with an axis of its own.".to_owned(),
        panels: shown.iter().enumerate().map(panel).collect(),
        table: Table {
            columns: std::iter::once("UTC".to_owned())
                .chain(shown.iter().map(|(_, state)| state.name().to_owned()))
                .collect(),
            rows: facts.timeline.iter().map(row).collect(),
        },
        timed: true,
    })
}

/// What is counted in a piece of the timeline, and what it is called.
type Counted = (&'static str, fn(&Moment) -> u64);

fn rates(facts: &Facts) -> Option<Figure> {
    let of: [Counted; 4] = [
        ("transitions", |moment| moment.transitions),
        ("opened", |moment| moment.opened),
        ("closed", |moment| moment.closed),
        ("lost events", |moment| moment.lost),
    ];
    let a_second =
        |moment: &Moment, count: u64| count as f64 / (moment.length_ns.max(1) as f64 / 1e9);
    let there: Vec<_> = of
        .into_iter()
        .enumerate()
        .filter(|(_, (_, get))| facts.timeline.iter().any(|moment| get(moment) > 0))
        .collect();
    let panel = |&(colour, (name, get)): &(usize, Counted)| Panel {
        name: name.to_owned(),
        kind: Kind::Lines,
        series: vec![Series {
            name: name.to_owned(),
            colour,
            values: facts.timeline.iter().map(|moment| a_second(moment, get(moment))).collect(),
        }],
        height: 130,
        labels: 6,
    };
    let row = |moment: &Moment| {
        let rates = of.iter().map(|(_, get)| format!("{:.1}", a_second(moment, get(moment))));
        std::iter::once(clock(facts, moment)).chain(rates).collect()
    };
    (!there.is_empty()).then(|| Figure {
        id: "rates",
        title: "Transitions, opens and closes a second",
        says: "A connection is closed when it goes into TIME_WAIT or, where there is none, to \
               CLOSE."
            .to_owned(),
        panels: there.iter().map(panel).collect(),
        table: Table {
            columns: std::iter::once("UTC")
                .chain(of.map(|(name, _)| name))
                .map(str::to_owned)
                .collect(),
            rows: facts.timeline.iter().map(row).collect(),
        },
        timed: true,
    })
}

/// A row of a histogram, in words.
fn range(scale: Scale, row: usize) -> String {
    let unit = Duration::from_micros(scale.unit_us());
    let shown = |n: u64| {
        let time = unit.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
        match time.as_micros() {
            us @ 0..1_000 => format!("{us} µs"),
            us @ 1_000..1_000_000 => format!("{} ms", us / 1_000),
            us => format!("{} s", us as f64 / 1e6),
        }
    };
    match scale.ends(row) {
        Some(end) => format!("{}–{}", shown(scale.begins(row)), shown(end + 1)),
        None => format!("≥ {}", shown(scale.begins(row))),
    }
}

fn time_wait(facts: &Facts) -> Option<Figure> {
    let all = facts.time_wait.iter().map(|(_, measure)| measure).fold(None, |sum, measure| {
        let mut sum: Measure = sum.unwrap_or_else(|| Measure::new(true));
        sum.join(measure);
        Some(sum)
    })?;
    let scale = all.rows().scale();
    let used: Vec<usize> = all.rows().used().map(|(row, _)| row).collect();
    let (first, rows) = (used.first().copied()?, used.len());
    let of = |rows_of: Option<&Rows>| {
        let mut values = vec![0; rows];
        for (row, count) in rows_of.into_iter().flat_map(Rows::used) {
            if let Some(value) = row.checked_sub(first).and_then(|at| values.get_mut(at)) {
                *value = count;
            }
        }
        values
    };
    let name = |reason: Option<EndReason>| reason.map_or("not known", EndReason::name).to_owned();
    let counts: Vec<(String, Vec<u64>)> = facts
        .time_wait
        .iter()
        .map(|(reason, measure)| (name(*reason), of(measure.rows_of(scale))))
        .collect();
    let series = counts.iter().enumerate().map(|(colour, (name, counts))| Series {
        name: name.clone(),
        colour,
        values: counts.iter().map(|&count| count as f64).collect(),
    });
    let bounds: u64 = facts.time_wait.iter().map(|(_, measure)| measure.at_least().0).sum();
    let says = match bounds {
        0 => String::new(),
        bounds => format!(
            " {bounds} more began before the hooks were on: of these only a least is \
                           known, and they are not in it."
        ),
    };
    Some(Figure {
        id: "time-wait",
        title: "How long TIME_WAIT lasted, and why it ended",
        says: format!(
            "The kernel ends it after 60 s; what ended earlier was reused, reset or killed.{says}"
        ),
        panels: vec![Panel {
            name: String::new(),
            kind: Kind::Stacked,
            series: series.collect(),
            height: 260,
            labels: 6,
        }],
        table: Table {
            columns: std::iter::once("lasted".to_owned())
                .chain(counts.iter().map(|(name, _)| name.clone()))
                .collect(),
            rows: (0..rows)
                .map(|row| {
                    let of_reason = counts.iter().map(|(_, counts)| counts[row].to_string());
                    std::iter::once(range(scale, first + row)).chain(of_reason).collect()
                })
                .collect(),
        },
        timed: false,
    })
}

/// Milliseconds, for people.
fn ms(ns: Option<u64>) -> String {
    ns.map_or_else(|| "–".to_owned(), |ns| format!("{:.3}", ns as f64 / 1e6))
}

fn linger(facts: &Facts) -> Option<Figure> {
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    let measured: Vec<_> = facts.linger.iter().filter(|(_, measure)| measure.count() > 0).collect();
    let series = quantiles.iter().enumerate().map(|(colour, (name, quantile))| Series {
        name: (*name).to_owned(),
        colour,
        values: measured
            .iter()
            // From a microsecond on.
            .map(|(_, measure)| {
                (measure.quantile_ns(*quantile).unwrap_or(0).max(1_000) as f64 / 1e6).log10()
            })
            .collect(),
    });
    let row = |(span, measure): &(tcptrace_stats::durations::Span, Measure)| {
        let (bounds, longest_ns) = measure.at_least();
        let of = quantiles.map(|(_, quantile)| ms(measure.quantile_ns(quantile)));
        let longest = match bounds {
            0 => ms(measure.max_ns()),
            _ if measure.max_ns().unwrap_or(0) > longest_ns => ms(measure.max_ns()),
            _ => format!("≥{}", ms(Some(longest_ns))),
        };
        [span.name().to_owned(), measure.count().to_string()]
            .into_iter()
            .chain(of)
            .chain([longest, bounds.to_string()])
            .collect()
    };
    (!facts.linger.is_empty()).then(|| Figure {
        id: "linger",
        title: "How long connections linger in the states of closing",
        says: "Milliseconds, on a logarithmic axis. CLOSE_WAIT is the time that the program here \
               takes to close, FIN_WAIT2 that of the peer's."
            .to_owned(),
        panels: vec![Panel {
            name: "ms".to_owned(),
            kind: Kind::BesideLog,
            series: if measured.is_empty() { Vec::new() } else { series.collect() },
            height: 240,
            labels: 8,
        }],
        table: Table {
            columns: ["state", "measured", "p50 ms", "p90 ms", "p99 ms", "longest ms", "only ≥"]
                .map(str::to_owned)
                .to_vec(),
            // Those with a bar first: the plot has them in the same order.
            rows: facts
                .linger
                .iter()
                .filter(|(_, measure)| measure.count() > 0)
                .chain(facts.linger.iter().filter(|(_, measure)| measure.count() == 0))
                .map(row)
                .collect(),
        },
        timed: false,
    })
}

fn closers(facts: &Facts) -> Option<Figure> {
    let sides: [(&str, Option<Initiator>); 5] = [
        ("this host first", Some(Initiator::Local)),
        ("the peer first", Some(Initiator::Remote)),
        ("both at once", Some(Initiator::Both)),
        ("neither", Some(Initiator::None)),
        ("not known", None),
    ];
    let shown: Vec<_> =
        facts.closers.iter().filter(|(_, tally)| tally.closed() > 0).take(BARS).collect();
    let series = sides.iter().enumerate().map(|(colour, (name, side))| Series {
        name: (*name).to_owned(),
        colour,
        values: shown.iter().map(|(_, tally)| tally.by(*side) as f64).collect(),
    });
    let how = |tally: &Tally| {
        let mut ways: Vec<(&str, u64)> = Vec::new();
        for (ending, count) in tally.endings() {
            match ways.iter_mut().find(|(name, _)| *name == ending.how.name()) {
                Some((_, sum)) => *sum += count,
                None => ways.push((ending.how.name(), count)),
            }
        }
        let ways: Vec<_> = ways.iter().map(|(name, count)| format!("{name} {count}")).collect();
        ways.join(", ")
    };
    let row = |(group, tally): &(tcptrace_stats::named::Group, Tally)| {
        let least = if tally.at_least() { "≥" } else { "" };
        [group.to_string(), tally.closed().to_string()]
            .into_iter()
            .chain(sides.map(|(_, side)| tally.by(side).to_string()))
            .chain([
                tally.failed().to_string(),
                tally.alive().to_string(),
                format!("{least}{:.1}", tally.time_wait_ns() as f64 / 1e9),
                how(tally),
            ])
            .collect()
    };
    (!facts.closers.is_empty()).then(|| Figure {
        id: "closers",
        title: "Who closes first",
        says: "By process and service: the process whose FIN or RST left first from here, or the \
               owner where none did. “:80” is a service here, “→:443” one at the peer. Who closes \
               first has the TIME_WAIT."
            .to_owned(),
        panels: vec![Panel {
            name: String::new(),
            kind: Kind::Stacked,
            series: if shown.is_empty() { Vec::new() } else { series.collect() },
            height: 260,
            labels: 6,
        }],
        table: Table {
            columns: ["process and service", "closed"]
                .into_iter()
                .chain(sides.map(|(name, _)| name))
                .chain(["failed connects", "TIME_WAITs now", "TIME_WAIT s", "how"])
                .map(str::to_owned)
                .collect(),
            rows: facts.closers.iter().take(200).map(row).collect(),
        },
        timed: false,
    })
}
