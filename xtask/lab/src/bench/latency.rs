//! From the transition to its line, on a host where little happens: when a reader that sleeps the
//! longest is the latest.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{rounds::run_load, tracer::Tracer};

/// How long the tracer is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(2);

/// What a tracer does when there is little to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Idle {
    /// Lines that were timed.
    pub lines: usize,
    /// Milliseconds from the transition (its `mono_ns`) to the arrival of its line in a pipe.
    pub p50_ms: f64,
    /// The same: 99 of 100 lines were not later.
    pub p99_ms: f64,
    /// The same: the latest.
    pub max_ms: f64,
    /// How often it was woken each second while nothing happened.
    pub wakeups_per_second: f64,
    /// Milliseconds of CPU that it took each second while nothing happened.
    pub cpu_ms_per_second: f64,
}

/// Watches `tracer` (which must print JSON transitions) while nothing happens, and then through
/// `connections` single connections, 50 to 70 ms apart.
pub fn measure(tracer: &Tracer, xtask: &Path, scratch: &Path, connections: u32) -> Result<Idle> {
    let mut running = tracer.start_piped(scratch)?;
    let stdout = running.stdout().context("no pipe from the tracer")?;
    let reader = thread::spawn(move || arrivals(stdout));

    // The pause before lets the tracer finish what it does when it starts.
    thread::sleep(IDLE);
    let before = running.usage()?;
    thread::sleep(IDLE);
    let after = running.usage()?;

    let load = ["--spaced", "--threads", "1", "--connections"].map(OsString::from);
    let load = [load.as_slice(), &[connections.to_string().into()]].concat();
    let report = run_load(xtask, &load)?;
    running.stop()?;
    let Ok(arrivals) = reader.join() else { bail!("the thread that reads the lines panicked") };
    let mut delays = arrivals?;
    delays.sort_by(f64::total_cmp);
    let lines = delays.len();
    if (lines as u64) < report.transitions {
        bail!("{lines} lines for {} transitions", report.transitions);
    }
    let at = |share: f64| delays[((lines as f64 * share).ceil() as usize).clamp(1, lines) - 1];
    Ok(Idle {
        lines,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        wakeups_per_second: after.wakeups_per_second(&before),
        cpu_ms_per_second: after.cpu().saturating_sub(before.cpu()).as_secs_f64() * 1e3
            / IDLE.as_secs_f64(),
    })
}

/// The delay of every transition's line, in milliseconds.
fn arrivals(pipe: impl Read) -> Result<Vec<f64>> {
    #[derive(Deserialize)]
    struct Line {
        r#type: String,
        mono_ns: Option<String>,
    }
    let mut pipe = BufReader::new(pipe);
    let mut delays = Vec::new();
    let mut text = String::new();
    while pipe.read_line(&mut text)? > 0 {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let line: Line = serde_json::from_str(&text).with_context(|| format!("{text:?}"))?;
        text.clear();
        if let ("transition", Some(mono_ns)) = (line.r#type.as_str(), line.mono_ns) {
            let happened = Duration::from_nanos(mono_ns.parse().context("mono_ns")?);
            delays.push((now.as_secs_f64() - happened.as_secs_f64()) * 1e3);
        }
    }
    Ok(delays)
}
