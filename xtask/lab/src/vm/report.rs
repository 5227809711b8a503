//! The tables: kernel × test, for the terminal and for the documentation. Pure, but for the one
//! function that rewrites the file.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, time::Duration};

use super::serial::{End, Outcome, Transcript};

/// What became of one kernel.
#[derive(Debug)]
pub struct Report {
    /// The line that was asked for, or the release of one's own kernel.
    pub label: String,
    pub release: Option<String>,
    pub state: State,
    pub notes: Vec<String>,
}

/// How far it came.
#[derive(Debug)]
pub enum State {
    NotAvailable(String),
    /// It is not known whether there is such a kernel, or it could not be fetched.
    NotFetched(String),
    /// It should have booted and did not come so far.
    Broken(String),
    Ran(Run),
}

/// A boot that was tried.
#[derive(Debug)]
pub struct Run {
    pub transcript: Transcript,
    pub wall: Duration,
    /// Why it counts as failed, apart from its tests.
    pub trouble: Option<String>,
    pub log: PathBuf,
    /// What the log says about the trouble.
    pub excerpt: Vec<String>,
}

impl Report {
    /// Whether the kernel booted and everything in it went well.
    pub fn passed(&self) -> bool {
        matches!(&self.state, State::Ran(run) if run.trouble.is_none() && run.failed() == 0)
    }

    /// Whether something went wrong; a kernel that is not to be had has not failed.
    pub fn failed(&self) -> bool {
        !self.passed() && !matches!(self.state, State::NotAvailable(_))
    }

    fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Ran(run) => Some(run),
            State::NotAvailable(_) | State::NotFetched(_) | State::Broken(_) => None,
        }
    }

    /// Why there was nothing to boot, if so: then nothing is known of the product.
    pub fn absent(&self) -> Option<&str> {
        match &self.state {
            State::NotAvailable(why) | State::NotFetched(why) => Some(why),
            State::Broken(_) | State::Ran(_) => None,
        }
    }

    /// The tests that failed, if all else went well.
    pub fn failures(&self) -> Vec<&str> {
        let run = self.run().filter(|run| run.trouble.is_none());
        let tests = run.into_iter().flat_map(|run| &run.transcript.tests);
        tests
            .filter(|test| test.outcome == Outcome::Failed)
            .map(|test| test.name.as_str())
            .collect()
    }

    /// How it ended, on one line.
    pub fn verdict(&self) -> String {
        let (word, why) = self.result();
        let tally = self.run().map(|run| format!(" ({}; {})", run.tally(), run.log.display()));
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        format!("{word}{why}{}", tally.unwrap_or_default())
    }

    /// One word and, if it is not `ok`, a reason.
    fn result(&self) -> (&'static str, Option<&str>) {
        match &self.state {
            State::NotAvailable(why) => ("not available", Some(why)),
            State::NotFetched(why) => ("NOT FETCHED", Some(why)),
            State::Broken(why) => ("FAILED", Some(why)),
            State::Ran(run) => match &run.trouble {
                Some(why) => ("FAILED", Some(why)),
                None if run.failed() > 0 => ("FAILED", None),
                None => ("ok", None),
            },
        }
    }
}

impl Run {
    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.transcript.tests.iter().filter(|test| wanted(&test.outcome)).count()
    }

    fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed | Outcome::Unfinished))
    }

    /// `12 ok, 1 FAILED, 2 not available`.
    fn tally(&self) -> String {
        let counts = [
            (self.count(|outcome| *outcome == Outcome::Ok), "ok"),
            (self.failed(), "FAILED"),
            (self.count(|outcome| matches!(outcome, Outcome::Unavailable(_))), "not available"),
            (self.count(|outcome| matches!(outcome, Outcome::Ignored(_))), "ignored"),
        ];
        let parts: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
    }

    fn guest_time(&self) -> String {
        match self.transcript.end {
            End::Exited { uptime, .. } => format!("{:.1} s", uptime.as_secs_f64()),
            End::Panicked(_) | End::Silent => "-".to_owned(),
        }
    }
}

/// A table: its first row is the head.
type Table = Vec<Vec<String>>;

fn summary(reports: &[Report]) -> Table {
    let mut table =
        vec![["kernel", "release", "result", "tests", "wall", "guest"].map(str::to_owned).to_vec()];
    for report in reports {
        let release = report.release.clone().unwrap_or_else(|| "-".to_owned());
        let mut row = vec![report.label.clone(), release, report.result().0.to_owned()];
        match report.run() {
            Some(run) => row.extend([
                run.tally(),
                format!("{:.1} s", run.wall.as_secs_f64()),
                run.guest_time(),
            ]),
            None => row.extend(["-", "-", "-"].map(str::to_owned)),
        }
        table.push(row);
    }
    table
}

/// Tests in rows, kernels that ran in columns.
fn matrix(reports: &[Report], times: bool) -> Table {
    let ran: Vec<_> = reports.iter().filter_map(|r| Some((&r.label, r.run()?))).collect();
    let mut names: Vec<_> =
        ran.iter().flat_map(|(_, run)| &run.transcript.tests).map(|test| &test.name).collect();
    names.sort();
    names.dedup();
    let mut head = vec!["test".to_owned()];
    head.extend(ran.iter().map(|(label, _)| (*label).clone()));
    let mut table = vec![head];
    for name in names {
        let mut row = vec![name.clone()];
        for (_, run) in &ran {
            let test = run.transcript.tests.iter().find(|test| test.name == *name);
            row.push(match test {
                // Never reached, or not in this binary: nothing is known.
                None => "-".to_owned(),
                Some(test) => {
                    let word = word(&test.outcome);
                    match test.time {
                        Some(time) if times => format!("{word} {:.1}s", time.as_secs_f64()),
                        _ => word.to_owned(),
                    }
                }
            });
        }
        table.push(row);
    }
    table
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Failed => "FAILED",
        Outcome::Ignored(_) => "ignored",
        Outcome::Unavailable(_) => "not available",
        Outcome::Unfinished => "UNFINISHED",
    }
}

/// Programs in rows; on each kernel in columns how many instructions the verifier walked through
/// and how many it left to run. A kernel that does not tell the first has `loads` in its place.
fn instructions(reports: &[Report]) -> Table {
    let ran: Vec<_> = reports.iter().filter_map(|r| Some((&r.label, r.run()?))).collect();
    let mut counts: BTreeMap<&str, BTreeMap<usize, String>> = BTreeMap::new();
    for (column, (_, run)) in ran.iter().enumerate() {
        for fact in run.transcript.facts.iter().filter(|fact| fact.kind == "insns") {
            let value = |key| fact.values.get(key).map(String::as_str);
            if let (Some(program), Some(loaded)) = (value("program"), value("loaded")) {
                let cell = format!("{} / {loaded}", value("verified").unwrap_or("loads"));
                counts.entry(program).or_default().insert(column, cell);
            }
        }
    }
    let mut head = vec!["instructions verified / loaded".to_owned()];
    head.extend(ran.iter().map(|(label, _)| (*label).clone()));
    let mut table = vec![head];
    for (program, columns) in counts {
        let mut row = vec![program.to_owned()];
        row.extend((0..ran.len()).map(|n| columns.get(&n).map_or("-", String::as_str).to_owned()));
        table.push(row);
    }
    table
}

/// Everything, for a terminal.
pub fn terminal(reports: &[Report]) -> String {
    let mut out = String::new();
    for table in [summary(reports), matrix(reports, true), instructions(reports)] {
        if table.len() > 1 {
            aligned(&mut out, &table);
            out.push('\n');
        }
    }
    for report in reports {
        details(&mut out, report);
    }
    out
}

fn aligned(out: &mut String, table: &Table) {
    let width =
        |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..table[0].len()).map(width).collect();
    for row in table {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
}

/// What the tables have no room for: reasons, notes, other facts, the end of a failed log.
fn details(out: &mut String, report: &Report) {
    let mut lines = Vec::new();
    let (result, reason) = report.result();
    if result != "ok" {
        lines.push(match reason {
            Some(reason) => format!("{result}: {reason}"),
            None => result.to_owned(),
        });
    }
    lines.extend(report.notes.iter().cloned());
    if let Some(run) = report.run() {
        for test in &run.transcript.tests {
            match &test.outcome {
                Outcome::Unavailable(why) => {
                    lines.push(format!("{}: not available: {why}", test.name));
                }
                Outcome::Failed | Outcome::Unfinished => {
                    lines.push(format!("{}: {}", test.name, word(&test.outcome)));
                    lines.extend(test.output.iter().map(|line| format!("  | {line}")));
                }
                Outcome::Ok | Outcome::Ignored(_) => {}
            }
        }
        lines.extend(run.transcript.faults.iter().map(|fault| format!("kernel fault: {fault}")));
        for fact in run.transcript.facts.iter().filter(|fact| fact.kind != "insns") {
            let values: Vec<_> =
                fact.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
            lines.push(format!("{}: {}", fact.kind, values.join(" ")));
        }
        if report.failed() {
            lines.push(format!("log: {}", run.log.display()));
            lines.extend(run.excerpt.iter().map(|line| format!("  | {line}")));
        }
    }
    for line in lines {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}: {line}", report.label);
    }
}

/// What works on which kernel, for the README.
pub fn overview(reports: &[Report]) -> String {
    let mut out = String::new();
    let mut kernels = vec![["kernel", "release", "result", "tests"].map(str::to_owned).to_vec()];
    for (row, report) in summary(reports).into_iter().skip(1).zip(reports) {
        let mut row = row[..4].to_vec();
        if !report.passed() {
            row[2] = format!("**{}**", row[2]);
        }
        kernels.push(row);
    }
    put_table(&mut out, &kernels);
    out
}

/// The tables for the documentation: without times, which differ from run to run.
pub fn markdown(reports: &[Report]) -> String {
    let mut out = overview(reports);
    for table in [matrix(reports, false), instructions(reports)] {
        put_table(&mut out, &table);
    }
    let reasons = reasons(reports);
    for (what, kernels) in &reasons {
        let _ = writeln!(out, "- {}: {what}", kernels.join(", "));
    }
    if !reasons.is_empty() {
        out.push('\n');
    }
    out
}

fn put_table(out: &mut String, table: &Table) {
    if table.len() <= 1 {
        return;
    }
    for (index, row) in table.iter().enumerate() {
        let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if index == 0 {
            let _ = writeln!(out, "|{}", " --- |".repeat(row.len()));
        }
    }
    out.push('\n');
}

/// Why something is not available, each with the kernels that it is true of.
fn reasons(reports: &[Report]) -> BTreeMap<String, Vec<&str>> {
    let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for report in reports {
        let mut add = |what: String| reasons.entry(what).or_default().push(&report.label);
        match &report.state {
            State::NotAvailable(why) => add(format!("not available: {why}")),
            State::NotFetched(_) | State::Broken(_) => {}
            State::Ran(run) => {
                for test in &run.transcript.tests {
                    if let Outcome::Unavailable(why) = &test.outcome {
                        add(format!("`{}` not available: {why}", test.name));
                    }
                }
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::{super::serial, *};

    fn ran(label: &str, log: &str, trouble: Option<&str>) -> Report {
        let run = Run {
            transcript: serial::read(log.lines(), "n"),
            wall: Duration::from_millis(6200),
            trouble: trouble.map(str::to_owned),
            log: PathBuf::from("target/x.log"),
            excerpt: trouble.map(|_| "the last line".to_owned()).into_iter().collect(),
        };
        Report {
            label: label.to_owned(),
            release: Some(format!("{label}.0-1")),
            state: State::Ran(run),
            notes: Vec::new(),
        }
    }

    fn absent(label: &str) -> Report {
        let state = State::NotAvailable("the mirror has none".to_owned());
        Report { label: label.to_owned(), release: None, state, notes: Vec::new() }
    }

    fn reports() -> Vec<Report> {
        vec![
            ran(
                "5.10",
                "test a::timer ... ok <1.25s>\n@@vm insns program=p verified=9 loaded=7\n@@vm-exit n 0 64.5",
                None,
            ),
            ran(
                "6.1",
                "@@vm insns program=p loaded=7\n\
                 test a::fentry ... left: 1\nFAILED\ntest a::timer ... ok\n@@vm-exit n 101 1.0",
                None,
            ),
            ran("6.18", "test a::timer ... ", Some("panic: oh")),
            absent("7.3"),
        ]
    }

    #[test]
    fn only_what_ran_well_has_passed() {
        let reports = reports();
        let passed: Vec<_> = reports.iter().map(Report::passed).collect();
        let failed: Vec<_> = reports.iter().map(Report::failed).collect();
        assert_eq!(passed, [true, false, false, false]);
        assert_eq!(failed, [false, true, true, false]);
    }

    #[test]
    fn the_terminal_shows_kernels_tests_counts_and_reasons() {
        let expected = "\
kernel  release   result         tests           wall   guest
5.10    5.10.0-1  ok             1 ok            6.2 s  64.5 s
6.1     6.1.0-1   FAILED         1 ok, 1 FAILED  6.2 s  1.0 s
6.18    6.18.0-1  FAILED         1 FAILED        6.2 s  -
7.3     -         not available  -               -      -

test       5.10     6.1     6.18
a::fentry  -        FAILED  -
a::timer   ok 1.2s  ok      UNFINISHED

instructions verified / loaded  5.10   6.1        6.18
p                               9 / 7  loads / 7  -

6.1: FAILED
6.1: a::fentry: FAILED
6.1:   | left: 1
6.1: log: target/x.log
6.18: FAILED: panic: oh
6.18: a::timer: UNFINISHED
6.18: log: target/x.log
6.18:   | the last line
7.3: not available: the mirror has none
";
        assert_eq!(terminal(&reports()), expected);
    }

    #[test]
    fn the_documentation_has_results_and_reasons_without_times() {
        let text = markdown(&reports());
        assert!(text.contains("| a::timer | ok | ok | UNFINISHED |"), "{text}");
        assert!(text.contains("| 7.3 | - | **not available** | - |"), "{text}");
        assert!(text.contains("- 7.3: not available: the mirror has none\n"), "{text}");
        assert!(!text.contains("1.2s"), "{text}");

        assert!(text.starts_with(&overview(&reports())), "the README has the beginning of it");
    }
}
