//! Recordings: what making one costs beside printing, how large it is, and how fast it is read.
//!
//! User time, since the kernel's part is the same for all who listen. `record` and `live -o json` run
//! under the same load in turn; what is read afterwards is the last recording.

use std::{ffi::OsString, fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde::Serialize;

use crate::child::bound;

use super::{
    proc,
    rounds::{Setting, run_load},
    targets::Target,
    tracer::{Says, Tracer},
};

/// Times that a recording is read.
const READS: usize = 3;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// User seconds of `record` for a million transitions: the median of the runs.
    pub record_user_s: f64,
    /// The same of `live -o json`.
    pub json_user_s: f64,
    /// Bytes of the recording for each transition of the load.
    pub bytes_a_transition: f64,
    /// Transitions of the load that `closers -r` takes in for each second of CPU time: the best of
    /// some runs.
    pub replayed_a_second: f64,
    /// Size of the Parquet table of transitions, of the recording's.
    pub parquet_transitions: f64,
    /// The same of connections.
    pub parquet_connections: f64,
    /// All runs began on a quiet host.
    pub quiet: bool,
}

/// Measures, with so many runs of each.
///
/// # Errors
/// A run failed, or lost events: then it tells nothing.
pub fn measure(tcptrace: &Path, setting: &Setting, rounds: usize) -> Result<Recorded> {
    let file = setting.scratch.join("recording.tcptrace");
    let command = |words: &[&str]| -> Vec<OsString> {
        [tcptrace.into()].into_iter().chain(words.iter().map(Into::into)).collect()
    };
    let path = file.to_str().context("the scratch directory's name is no text")?;
    let record = Tracer {
        name: "record",
        command: command(&["record", path, "--force"]),
        says: Says::Summary,
    };
    let json =
        Tracer { name: "live", command: command(&["live", "-o", "json"]), says: Says::Summary };
    let (mut of_record, mut of_json) = (Vec::new(), Vec::new());
    let (mut quiet, mut transitions) = (true, 0);
    for _ in 0..rounds.max(1) {
        let (user, load, was_quiet) = run(&json, setting)?;
        of_json.push(user / millions(load));
        quiet &= was_quiet;
        let (user, load, was_quiet) = run(&record, setting)?;
        of_record.push(user / millions(load));
        quiet &= was_quiet;
        transitions = load;
    }
    let bytes = fs::metadata(&file)?.len() as f64;
    let mut best = f64::INFINITY;
    for _ in 0..READS {
        best = best.min(user_and_system(|| read(tcptrace, &["closers", "-r", path]))?);
    }
    let table = |name: &str| -> Result<f64> {
        let out = setting.scratch.join(format!("{name}.parquet"));
        let to = out.to_str().context("the scratch directory's name is no text")?;
        read(tcptrace, &["export", "-r", path, "--table", name, "--out", to, "--force"])?;
        Ok(fs::metadata(&out)?.len() as f64 / bytes)
    };
    Ok(Recorded {
        record_user_s: median(of_record),
        json_user_s: median(of_json),
        bytes_a_transition: bytes / transitions as f64,
        replayed_a_second: transitions as f64 / best,
        parquet_transitions: table("transitions")?,
        parquet_connections: table("connections")?,
        quiet,
    })
}

fn millions(transitions: u64) -> f64 {
    transitions as f64 / 1e6
}

/// The user time of a tracer's whole life, the transitions of its load, and whether the host was
/// quiet.
fn run(tracer: &Tracer, setting: &Setting) -> Result<(f64, u64, bool)> {
    let context = || format!("under {}", tracer.shown());
    let mut running = tracer.start(&setting.scratch).with_context(context)?;
    let quiet = proc::settle()?;
    let load = run_load(&setting.xtask, &setting.load).with_context(context)?;
    ensure!(load.time_wait_overflow == 0, "the load overflowed its TIME_WAITs");
    // The load has ended: until the tracer has, no other child is waited for.
    let before = user_seconds()?;
    running.stop().with_context(context)?;
    Ok((user_seconds()? - before, load.transitions, quiet))
}

fn read(tcptrace: &Path, arguments: &[&str]) -> Result<()> {
    let output = bound(tcptrace, "KILL")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", tcptrace.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// CPU seconds of the children that `work` runs.
fn user_and_system(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let seconds = || -> Result<f64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
    };
    let before = seconds()?;
    work()?;
    Ok(seconds()? - before)
}

fn user_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(usage.user_time().num_microseconds() as f64 / 1e6)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What recordings are held to; `None`: they were not measured.
pub fn targets(recorded: Option<&Recorded>) -> Vec<Target> {
    let target = |what: &str, measured: Option<f64>, goal: &str, met: &dyn Fn(f64) -> bool| {
        Target::new(format!("recordings: {what}"), measured, goal, met)
    };
    let of = |figure: fn(&Recorded) -> f64| recorded.map(figure);
    vec![
        target(
            "user time of record, of live -o json's",
            of(|it| it.record_user_s / it.json_user_s),
            "at most 0.5",
            &|share| share <= 0.5,
        ),
        target("bytes a transition", of(|it| it.bytes_a_transition), "at most 20", &|bytes| {
            bytes <= 20.0
        }),
        target(
            "million transitions replayed a second",
            of(|it| it.replayed_a_second / 1e6),
            "at least 2",
            &|millions| millions >= 2.0,
        ),
        target(
            "Parquet table of transitions, of the recording",
            of(|it| it.parquet_transitions),
            "at most 2",
            &|times| times <= 2.0,
        ),
        target(
            "Parquet table of connections, of the recording",
            of(|it| it.parquet_connections),
            "at most 2",
            &|times| times <= 2.0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        assert!(targets(None).iter().all(|target| target.met.is_none()));
        let recorded = Recorded {
            record_user_s: 0.7,
            json_user_s: 1.0,
            bytes_a_transition: 9.0,
            replayed_a_second: 1e6,
            parquet_transitions: 1.5,
            parquet_connections: 2.5,
            quiet: true,
        };
        let met: Vec<_> = targets(Some(&recorded)).iter().map(|target| target.met).collect();
        assert_eq!(met, [Some(false), Some(true), Some(false), Some(true), Some(false)]);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
