//! `--top`: what `tcptrace top` takes beyond `tcptrace states 1`, each in a terminal.
//!
//! The doctor of `top` watches some ten seconds of a minute, so a run has a minute of load. What is
//! compared are the two runs of one round, which come one after the other. A microsecond of CPU
//! time a connection is a percent of a core at 10,000 connections a second.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::pty::{Winsize, openpty};
use serde::Serialize;

use super::{
    proc,
    report::Spread,
    rounds::{Setting, run_load},
    targets::Target,
    tracer::{Says, Tracer},
};

/// A run's load goes on for so long.
const MINUTE: Duration = Duration::from_secs(60);

/// What is compared.
const VIEWS: [(&str, &[&str]); 2] = [("states 1", &["states", "1"]), ("top", &["top"])];

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Taken {
    build: PathBuf,
    round: usize,
    view: &'static str,
    connections: u64,
    /// CPU time of all threads, microseconds for each connection.
    cpu_us: f64,
    quiet: bool,
}

/// All that was measured.
#[derive(Serialize)]
pub struct Measured {
    runs: Vec<Taken>,
    targets: Vec<Target>,
}

/// Measures the builds in turn, so many rounds, and prints what came of it. With `quick`, a run has
/// but one load.
///
/// # Errors
/// A run failed.
pub fn measure(
    setting: &Setting,
    builds: &[&Path],
    rounds: usize,
    quick: bool,
) -> Result<Measured> {
    let length = if quick { Duration::ZERO } else { MINUTE };
    let mut runs = Vec::new();
    for round in 0..rounds.max(1) {
        // Whoever is first has it no better than the other in the long run.
        let mut order: Vec<_> =
            builds.iter().flat_map(|&build| VIEWS.map(|view| (build, view))).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (build, (view, words)) in order {
            let mut command = vec![build.into()];
            command.extend(words.iter().map(Into::into));
            let tracer = Tracer { name: view, command, says: Says::Lines };
            let taken = run(&tracer, setting, build, round, length)
                .with_context(|| format!("under {}", tracer.shown()))?;
            eprintln!("bench: {}: {:.2} us a connection", tracer.shown(), taken.cpu_us);
            runs.push(taken);
        }
    }
    let targets = builds.iter().map(|&build| target(build, &runs)).collect();
    let measured = Measured { runs, targets };
    io::stdout().write_all(measured.report(builds).as_bytes()).context("cannot write to stdout")?;
    Ok(measured)
}

fn run(
    tracer: &Tracer,
    setting: &Setting,
    build: &Path,
    round: usize,
    length: Duration,
) -> Result<Taken> {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).context("cannot make a terminal")?;
    // From the start on: a first screen that nobody reads would be waited for.
    let reader = thread::spawn(move || read_all(terminal.master));
    let mut running = tracer.start_on(terminal.slave, &setting.scratch)?;
    let quiet = proc::settle()?;
    let before = running.usage()?;
    let (began, mut connections) = (Instant::now(), 0);
    loop {
        let load = run_load(&setting.xtask, &setting.load)?;
        ensure!(load.time_wait_overflow == 0, "the load overflowed its TIME_WAITs");
        connections += load.connections;
        if began.elapsed() >= length {
            break;
        }
    }
    // The last load's TIME_WAITs end after it, with its namespace.
    proc::settle()?;
    let cpu = running.usage()?.cpu().saturating_sub(before.cpu());
    running.stop()?;
    drop(running);
    // With the last end of the terminal that the program had, reading it ends.
    let _ = reader.join();
    Ok(Taken {
        build: build.to_owned(),
        round,
        view: tracer.name,
        connections,
        cpu_us: cpu.as_secs_f64() * 1e6 / connections.max(1) as f64,
        quiet,
    })
}

/// Reads what is written to a terminal, as a terminal does, until nobody has it open.
fn read_all(master: OwnedFd) {
    let (mut master, mut buffer) = (File::from(master), [0; 1 << 14]);
    while master.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

fn figures<'a>(
    runs: &'a [Taken],
    build: &'a Path,
    view: &'a str,
) -> impl Iterator<Item = &'a Taken> {
    runs.iter().filter(move |taken| taken.build == build && taken.view == view)
}

/// By how much the second view takes more, in each round.
fn beyond<'a>(runs: &'a [Taken], build: &'a Path) -> impl Iterator<Item = f64> {
    let [(less, _), (more, _)] = VIEWS;
    figures(runs, build, more).filter_map(move |more| {
        let mut same = figures(runs, build, less).filter(|less| less.round == more.round);
        Some(more.cpu_us - same.next()?.cpu_us)
    })
}

fn target(build: &Path, runs: &[Taken]) -> Target {
    let median = Spread::of(beyond(runs, build)).map(|spread| spread.median);
    let what = format!(
        "percent of a core that top takes beyond states at 10,000 connections/s ({})",
        build.display()
    );
    Target::new(what, median, "under 2", |percent| percent < 2.0)
}

impl Measured {
    /// Markdown that reads well as text.
    fn report(&self, builds: &[&Path]) -> String {
        let mut text = "\nPercent of a core for each 10,000 connections a second, over loopback, \
                        in a terminal of 80x24. Medians (least–greatest).\n\n\
                        | tcptrace | states 1 | top | beyond |\n|---|---|---|---|\n"
            .to_owned();
        let cell = |spread: Option<Spread>| spread.map_or("-".to_owned(), |it| format!("{it:.2}"));
        for &build in builds {
            let [states, top] = VIEWS.map(|(view, _)| {
                cell(Spread::of(figures(&self.runs, build, view).map(|taken| taken.cpu_us)))
            });
            let beyond = cell(Spread::of(beyond(&self.runs, build)));
            let _ = writeln!(text, "| {} | {states} | {top} | {beyond} |", build.display());
        }
        text.push('\n');
        text.extend(self.targets.iter().map(|target| format!("- {target}\n")));
        let unquiet = self.runs.iter().filter(|taken| !taken.quiet).count();
        if unquiet > 0 {
            let all = self.runs.len();
            let _ = writeln!(
                text,
                "\nNote: {unquiet} of {all} runs began while something else kept the CPUs busy: \
                 noise."
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(round: usize, view: &'static str, cpu_us: f64) -> Taken {
        Taken { build: "a".into(), round, view, connections: 1, cpu_us, quiet: true }
    }

    #[test]
    fn views_are_compared_within_their_round() {
        let runs = [
            taken(0, "states 1", 3.0),
            taken(0, "top", 4.0),
            taken(1, "top", 9.0),
            taken(1, "states 1", 7.5),
            taken(2, "top", 9.0),
        ];
        let build = Path::new("a");
        assert_eq!(beyond(&runs, build).collect::<Vec<_>>(), [1.0, 1.5]);
        let target = target(build, &runs);
        assert_eq!((target.measured, target.met), (Some(1.25), Some(true)));
        assert_eq!(beyond(&runs, Path::new("b")).count(), 0);
    }
}
