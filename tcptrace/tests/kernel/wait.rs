//! Waiting for a condition with a deadline: no test here sleeps and hopes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long any one step may take before its test fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Between two checks of a condition, at first.
const SHORTEST: Duration = Duration::from_micros(500);

/// The same, at most.
const LONGEST: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers `Some`, for at most [`DEADLINE`].
///
/// # Errors
/// What `probe` failed with, or that `what` did not come.
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > DEADLINE {
            bail!("waited {DEADLINE:?} for {what}: it did not come");
        }
        // A check may read a whole table of the kernel, which all tests that wait have to share a CPU
        // for; what took long anyway may be noticed a sixteenth later.
        thread::sleep((start.elapsed() / 16).clamp(SHORTEST, LONGEST));
    }
}
