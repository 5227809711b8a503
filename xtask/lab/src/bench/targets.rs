//! The project's targets, and whether the figures reach them.
//!
//! A report, not a test: what one noisy host measures proves nothing. Rates are held to the floor
//! program's in the same invocation and not to a number, since the host is in both.

use std::fmt;

use serde::Serialize;

use super::{
    latency::Idle,
    report::{Row, Spread},
};

/// One target.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What is held to it.
    pub what: String,
    /// What is to be reached.
    pub goal: String,
    /// What was.
    pub measured: Option<f64>,
    /// Whether that is enough; `None` where it was not measured.
    pub met: Option<bool>,
}

impl Target {
    /// One that `met` says whether `measured` reaches.
    pub(super) fn new(
        what: String,
        measured: Option<f64>,
        goal: &str,
        met: impl Fn(f64) -> bool,
    ) -> Self {
        Self { what, goal: goal.to_owned(), measured, met: measured.map(met) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        let Self { what, goal, measured, .. } = self;
        let measured = measured.map(|figure| format!(": {figure:.3}")).unwrap_or_default();
        write!(f, "{word:<12} {what}{measured} (to reach: {goal})")
    }
}

/// What the targets are set for.
pub struct Names {
    /// The program that only ships records.
    pub floor: &'static str,
    /// Every transition as JSON to a file.
    pub json: &'static str,
    /// A view that only counts.
    pub aggregate: &'static str,
}

/// The targets, over `rows`.
pub fn targets(rows: &[Row], idle: Option<Idle>, names: &Names) -> Vec<Target> {
    let find = |name| rows.iter().find(|row| row.tracer == Some(name));
    let floor = find(names.floor);
    let mut targets = Vec::new();
    for (name, behind, cpu, goals) in [
        (names.json, 0.12, 0.5, ["at most 0.12", "at most 0.5"]),
        (names.aggregate, 0.05, 0.15, ["at most 0.05", "at most 0.15"]),
    ] {
        let row = find(name);
        let median = |figure: fn(&Row) -> Option<Spread>| Some(figure(row?)?.median);
        let floors = |figure: fn(&Row) -> Option<Spread>| Some(figure(floor?)?.median);
        let mut target = |what: &str, measured, goal: &str, met: &dyn Fn(f64) -> bool| {
            targets.push(Target::new(format!("{name}: {what}"), measured, goal, met));
        };
        let gap = floors(|row| row.ratio).zip(median(|row| row.ratio)).map(|(a, b)| a - b);
        target("rate behind the floor's, of untraced", gap, goals[0], &|gap| gap <= behind);
        let lost = row.and_then(|row| row.lost).map(|lost| lost as f64);
        target("transitions lost", lost, "0", &|lost| lost == 0.0);
        let least = row.and_then(|row| row.delivered).map(|delivered| delivered.min);
        target("least share handled", least, "1 at least", &|share| share >= 1.0);
        let seconds = median(|row| row.cpu_seconds);
        target("CPU-seconds a million transitions", seconds, goals[1], &|s| s <= cpu);
        let kernel = median(|row| row.kernel_ns).zip(floors(|row| row.kernel_ns));
        let kernel = kernel.map(|(own, floor)| own / floor);
        target("kernel time, of the floor's", kernel, "at most 1.3", &|times| times <= 1.3);
        let rss = row.and_then(|row| row.rss_mib).map(|rss| rss.max);
        target("peak RSS, MiB", rss, "under 48", &|rss| rss < 48.0);
        let wakeups = row.and_then(|row| row.wakeups).map(|wakeups| wakeups.max);
        target("wake-ups a second under load", wakeups, "under 200", &|w| w < 200.0);
    }
    let what = |what: &str| format!("{}: {what}", names.json);
    let p99 = idle.map(|idle| idle.p99_ms);
    let late = what("p99 from transition to line when idle, ms");
    targets.push(Target::new(late, p99, "under 100", |ms| ms < 100.0));
    let wakeups = idle.map(|idle| idle.wakeups_per_second);
    let awake = what("wake-ups a second when nothing happens");
    targets.push(Target::new(awake, wakeups, "under 200", |w| w < 200.0));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::run;

    #[test]
    fn a_loss_misses_its_target_and_what_was_not_measured_is_neither() {
        let runs = [run(None, 100, 0), run(Some("json"), 60, 0)];
        let rows = [Row::new(Some("json"), &runs, &[])];
        let names = Names { floor: "floor", json: "json", aggregate: "states" };
        let targets = targets(&rows, None, &names);
        let met = |what: &str| {
            targets.iter().find(|target| target.what == what).expect("in the list").met
        };
        assert_eq!(met("json: transitions lost"), Some(false));
        assert_eq!(met("json: peak RSS, MiB"), Some(true));
        assert_eq!(met("json: kernel time, of the floor's"), None);
        assert_eq!(met("states: transitions lost"), None);
    }
}
