//! `--hooks`: what the hooks cost that may be had or not, or that only some connections meet, side
//! by side: those on accept(), each way and without, and those on RSTs, where each connection ends
//! by one.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{
    report::{self, Row},
    rounds::{self, Program, Run, Setting},
    tracer::{Says, Tracer},
};

/// A load, and what was measured under it.
#[derive(Serialize)]
pub struct Measured {
    load: &'static str,
    rows: Vec<Row>,
    runs: Vec<Run>,
    timed_runs: Vec<Run>,
    notes: Vec<String>,
}

/// The same view each time, which only counts.
fn tracers(tcptrace: &Path) -> Vec<Tracer> {
    let ways = [
        ("accept-hook off", "off"),
        ("accept-hook syscall", "syscall"),
        ("accept-hook function", "function"),
    ];
    let command = |way: &str| -> Vec<OsString> {
        let args = ["states", "-o", "json", "--accept-hook", way, "1"];
        [tcptrace.into()].into_iter().chain(args.iter().map(OsString::from)).collect()
    };
    ways.map(|(name, way)| Tracer { name, command: command(way), says: Says::Summary }).into()
}

/// Measures all under both loads, and prints what came of it.
///
/// # Errors
/// If the load does not run. A hook that this host does not allow is noted.
pub fn measure(
    setting: &Setting,
    tcptrace: &Path,
    rounds: usize,
    timed_rounds: usize,
) -> Result<Vec<Measured>> {
    let in_order = one_load("closed in order", setting, tcptrace, rounds, timed_rounds)?;
    let mut aborted = setting.clone();
    aborted.load.push("--aborted".into());
    let aborted = one_load("ended by a RST", &aborted, tcptrace, rounds, timed_rounds)?;
    let all = vec![in_order, aborted];
    let mut stdout = io::stdout().lock();
    for measured in &all {
        write!(stdout, "{}", measured.report()).context("cannot write to stdout")?;
    }
    Ok(all)
}

fn one_load(
    load: &'static str,
    setting: &Setting,
    tcptrace: &Path,
    rounds: usize,
    timed_rounds: usize,
) -> Result<Measured> {
    let tracers = tracers(tcptrace);
    let mut notes = Vec::new();
    let failed = |tracer: &Tracer, error: anyhow::Error| {
        notes.push(format!("{} could not be measured: {error:#}", tracer.name));
    };
    let runs = rounds::interleave(setting, &tracers, rounds, rounds::progress, failed)?;
    let mut timed_runs = Vec::new();
    for _ in 0..timed_rounds {
        for tracer in tracers.iter().filter(|tracer| rounds::ran(&runs, tracer)) {
            timed_runs.push(setting.traced(tracer, true)?);
        }
    }
    let measured = tracers.iter().filter(|tracer| rounds::ran(&runs, tracer));
    let names = [None].into_iter().chain(measured.map(|tracer| Some(tracer.name)));
    let rows = names.map(|name| Row::new(name, &runs, &timed_runs)).collect();
    Ok(Measured { load, rows, runs, timed_runs, notes })
}

impl Measured {
    /// Markdown that reads well as text.
    fn report(&self) -> String {
        let mut text = format!("\nConnections {}:\n\n{}\n", self.load, report::table(&self.rows));
        text += "By program, with what measuring takes itself (some 30 to 75 ns a run):\n\n";
        for row in &self.rows {
            let Some(name) = row.tracer else { continue };
            for (program, runs, ns) in programs(&self.timed_runs, name) {
                text +=
                    &format!("- {name}: {program}: {runs:.1} runs a connection, {ns:.0} ns each\n");
            }
        }
        text.push('\n');
        text.extend(self.notes.iter().map(|note| format!("Note: {note}.\n")));
        text
    }
}

/// Of each program of a tracer, over its timed runs: runs a connection, and ns a run.
fn programs(timed: &[Run], tracer: &str) -> Vec<(String, f64, f64)> {
    let mut sums: Vec<Program> = Vec::new();
    let mut connections = 0;
    for run in timed.iter().filter(|run| run.tracer == Some(tracer)) {
        connections += run.load.connections;
        for one in run.traced.iter().flat_map(|traced| &traced.programs) {
            match sums.iter_mut().find(|sum| sum.name == one.name) {
                Some(sum) => {
                    sum.runs += one.runs;
                    sum.ns += one.ns;
                }
                None => sums.push(one.clone()),
            }
        }
    }
    let rate = |sum: Program| {
        let (runs, ns) = (sum.runs as f64, sum.ns as f64);
        (sum.name, runs / connections as f64, ns / runs)
    };
    sums.into_iter().map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_summed_over_the_runs_of_their_tracer() {
        let run = |tracer, runs, ns| {
            let mut run = report::tests::run(Some(tracer), 10, 0);
            let program = Program { name: "p".to_owned(), runs, ns };
            if let Some(traced) = &mut run.traced {
                traced.programs.push(program);
            }
            run
        };
        let timed = [run("a", 30, 3000), run("b", 1, 1), run("a", 10, 5000)];
        assert_eq!(programs(&timed, "a"), [("p".to_owned(), 2.0, 200.0)]);
    }
}
