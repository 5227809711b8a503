//! From runs to figures: medians with their ranges.

use std::fmt;

use serde::Serialize;

use super::rounds::Run;

/// The median, the least and the greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` of none.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self { median, min, max })
    }
}

/// With as many decimals as the format asks for: `{:.2}`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        let Self { median, min, max } = self;
        write!(f, "{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

/// One tracer's figures, over its runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The tracer; `None`: untraced.
    pub tracer: Option<&'static str>,
    /// How many runs count.
    pub runs: usize,
    /// How many were left out, because the kernel had no room for all TIME_WAITs.
    pub overflowed: usize,
    /// Connections a second.
    pub rate: Option<Spread>,
    /// The same, of the mean of the untraced runs just before and just after.
    pub ratio: Option<Spread>,
    /// CPU microseconds for a connection, the load's and the tracer's.
    pub cpu_us: Option<Spread>,
    /// The reverse of its ratio to the untraced runs' just before and just after: what `ratio` is
    /// where the load and the tracer have the CPUs to themselves, and steadier where they do not.
    pub cpu_ratio: Option<Spread>,
    /// Nanoseconds in the tracer's BPF programs for a transition.
    pub kernel_ns: Option<Spread>,
    /// CPU-seconds of the tracer for a million transitions.
    pub cpu_seconds: Option<Spread>,
    /// Peak resident memory, MiB.
    pub rss_mib: Option<Spread>,
    /// Wake-ups of the tracer a second.
    pub wakeups: Option<Spread>,
    /// Transitions delivered or filtered, of those that the load made. Above 1 when others on the
    /// host had connections too.
    pub delivered: Option<Spread>,
    /// Transitions lost, and runs of the program that the kernel skipped, in all runs.
    pub lost: Option<u64>,
    /// Bytes of output for a transition.
    pub output_bytes: Option<Spread>,
}

impl Row {
    /// The figures of `tracer` out of all `runs` in their order, and of the `timed` ones.
    pub fn new(tracer: Option<&'static str>, runs: &[Run], timed: &[Run]) -> Self {
        let counts = |run: &&Run| run.tracer == tracer && run.load.time_wait_overflow == 0;
        let own: Vec<&Run> = runs.iter().filter(counts).collect();
        let traced = || own.iter().filter_map(|run| Some((run, run.traced.as_ref()?)));
        let ratios = |figure| {
            let own = (0..runs.len()).filter(|at| tracer.is_some() && counts(&&runs[*at]));
            own.filter_map(move |at| ratio(runs, at, figure))
        };
        let lost = |run: &Run| {
            let delivery = run.traced.as_ref()?.delivery;
            Some(delivery.lost? + delivery.missed.unwrap_or(0))
        };
        Self {
            tracer,
            runs: own.len(),
            overflowed: runs.iter().filter(|run| run.tracer == tracer).count() - own.len(),
            rate: Spread::of(own.iter().map(|run| run.load.rate())),
            ratio: Spread::of(ratios(|run| run.load.rate())),
            cpu_us: Spread::of(own.iter().map(|run| cpu_us(run))),
            cpu_ratio: Spread::of(ratios(cpu_us).map(f64::recip)),
            kernel_ns: Spread::of(timed.iter().filter(counts).filter_map(|run| {
                let ns = run.traced.as_ref()?.kernel_ns?;
                Some(ns as f64 / run.load.transitions as f64)
            })),
            cpu_seconds: Spread::of(
                traced()
                    .map(|(run, traced)| traced.cpu_seconds * 1e6 / run.load.transitions as f64),
            ),
            rss_mib: Spread::of(
                traced().map(|(_, traced)| traced.rss_bytes as f64 / f64::from(1 << 20)),
            ),
            wakeups: Spread::of(traced().map(|(_, traced)| traced.wakeups_per_second)),
            delivered: Spread::of(traced().map(|(run, traced)| {
                let delivery = traced.delivery;
                let handled = delivery.delivered + delivery.filtered.unwrap_or(0);
                handled as f64 / run.load.transitions as f64
            })),
            // sum() of none is not "none lost"
            lost: own.iter().map(|run| lost(run)).sum::<Option<u64>>().filter(|_| !own.is_empty()),
            output_bytes: Spread::of(
                traced()
                    .map(|(run, traced)| traced.output_bytes as f64 / run.load.transitions as f64),
            ),
        }
    }
}

/// CPU microseconds for a connection, the load's and the tracer's.
fn cpu_us(run: &Run) -> f64 {
    let tracer = run.traced.as_ref().map_or(0.0, |traced| traced.cpu_seconds);
    (run.load.cpu_seconds + tracer) * 1e6 / run.load.connections as f64
}

/// A figure of the run at `at`, of the mean of its untraced neighbours'.
fn ratio(runs: &[Run], at: usize, figure: fn(&Run) -> f64) -> Option<f64> {
    let untraced = |run: &&Run| run.tracer.is_none();
    let before = runs[..at].iter().rev().find(untraced);
    let after = runs[at + 1..].iter().find(untraced);
    let around: Vec<f64> = [before, after]
        .into_iter()
        .flatten()
        .filter(|run| run.load.time_wait_overflow == 0)
        .map(figure)
        .collect();
    let mean = around.iter().sum::<f64>() / around.len() as f64;
    (!around.is_empty()).then(|| figure(&runs[at]) / mean)
}

/// The table, as Markdown that reads well as text.
pub fn table(rows: &[Row]) -> String {
    let heads = [
        "tracer",
        "connections/s",
        "of untraced",
        "by CPU time",
        "CPU µs/connection",
        "kernel ns/transition",
        "CPU s/million",
        "RSS MiB",
        "wake-ups/s",
        "delivered",
        "lost",
    ];
    let mut lines = vec![heads.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 11] = std::array::from_fn(width);
    let render = |cells: &[String; 11]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} |"));
        format!("|{}\n", padded.collect::<String>())
    };
    let rule = format!("|{}\n", widths.map(|width| format!("{}|", "-".repeat(width + 2))).concat());
    let mut table = render(&lines[0]);
    table.push_str(&rule);
    table.extend(lines[1..].iter().map(render));
    table
}

fn cells(row: &Row) -> [String; 11] {
    let show = |spread: Option<Spread>, decimals: usize| {
        spread.map_or("–".to_owned(), |spread| format!("{spread:.decimals$}"))
    };
    let delivered = row.delivered.map_or("–".to_owned(), |delivered| {
        if delivered.min >= 1.0 { "all".to_owned() } else { format!("{delivered:.3}") }
    });
    [
        row.tracer.unwrap_or("untraced").to_owned(),
        show(row.rate, 0),
        show(row.ratio, 2),
        show(row.cpu_ratio, 2),
        show(row.cpu_us, 1),
        show(row.kernel_ns, 0),
        show(row.cpu_seconds, 3),
        show(row.rss_mib, 1),
        show(row.wakeups, 0),
        delivered,
        row.lost.map_or("–".to_owned(), |lost| lost.to_string()),
    ]
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::bench::{
        churn,
        rounds::Traced,
        tracer::{self, Delivery},
    };

    /// A run of one second with `rate` connections and, when traced, one lost transition.
    pub fn run(tracer: Option<&'static str>, rate: u64, time_wait_overflow: u64) -> Run {
        let traced = tracer.map(|_| Traced {
            cpu_seconds: 0.001,
            rss_bytes: 3 << 20,
            wakeups_per_second: 100.0,
            delivery: Delivery {
                delivered: rate * 10,
                lost: Some(1),
                ..tracer::Delivery::default()
            },
            output_bytes: 0,
            kernel_ns: None,
            programs: Vec::new(),
        });
        let load = churn::Report {
            connections: rate,
            transitions: rate * 10,
            seconds: 1.0,
            cpu_seconds: 1.0,
            time_wait_overflow,
        };
        Run { tracer, load, quiet: true, traced }
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!(spread, Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(format!("{:.1}", spread.expect("not empty")), "3.0 (1.0–9.0)");
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_run_is_compared_with_its_neighbours_and_not_where_time_waits_overflowed() {
        let runs = [
            run(None, 100, 0),
            run(Some("a"), 60, 0),
            run(None, 140, 0),
            run(Some("a"), 1, 5),
            run(None, 1, 5),
            run(Some("a"), 70, 0),
            run(None, 100, 0),
        ];
        let row = Row::new(Some("a"), &runs, &[]);
        assert_eq!((row.runs, row.overflowed), (2, 1));
        assert_eq!(row.ratio, Some(Spread { median: 0.6, min: 0.5, max: 0.7 }));
        // a second of CPU in each run: 100 and 140 connections around 60, none counted around 70
        let by_cpu = |connections: f64| (1.0 / 100.0 + 1.0 / 140.0) / 2.0 / (1.001 / connections);
        let cpu_ratio = row.cpu_ratio.expect("two runs");
        assert!((cpu_ratio.min - by_cpu(60.0)).abs() < 1e-9, "{cpu_ratio:?}");
        assert!((cpu_ratio.max - 0.7 / 1.001).abs() < 1e-9, "{cpu_ratio:?}");
        assert_eq!(row.lost, Some(2));
        let untraced = Row::new(None, &runs, &[]);
        assert_eq!((untraced.runs, untraced.overflowed), (3, 1));
        assert_eq!(untraced.ratio, None);
        assert_eq!(Row::new(Some("b"), &runs, &[]).lost, None);
    }
}
