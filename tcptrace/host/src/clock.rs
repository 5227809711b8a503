//! The host's clocks, as the kernel has them: in a time namespace `CLOCK_MONOTONIC` and
//! `CLOCK_BOOTTIME` are read without its offsets ([`super::timens`]), so that they can be compared
//! with the time stamps of events. Nobody else may read these two.

use std::io;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_getres, clock_gettime};

use super::timens::TimeOffsets;
use tcptrace_model::Clock;

const NS: i64 = 1_000_000_000;

/// `NSEC_PER_SEC / USER_HZ`, by which `/proc` counts.
const USER_TICK_NS: i64 = 10_000_000;

fn read(clock: ClockId) -> io::Result<i64> {
    let now = clock_gettime(clock)?;
    Ok(now.tv_sec().saturating_mul(NS).saturating_add(now.tv_nsec()))
}

/// Those of this process, which cannot change while it runs.
fn offsets() -> io::Result<TimeOffsets> {
    static OFFSETS: OnceLock<TimeOffsets> = OnceLock::new();
    if let Some(&offsets) = OFFSETS.get() {
        return Ok(offsets);
    }
    let offsets = TimeOffsets::read()?;
    Ok(*OFFSETS.get_or_init(|| offsets))
}

fn read_monotonic() -> io::Result<i64> {
    Ok(read(ClockId::CLOCK_MONOTONIC)?.saturating_sub(offsets()?.monotonic_ns))
}

/// The kernel's `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns()`.
///
/// # Errors
/// The offsets of a time namespace cannot be read.
pub fn monotonic_ns() -> io::Result<u64> {
    Ok(read_monotonic()?.max(0) as u64)
}

/// When the host was booted: `CLOCK_REALTIME`, nanoseconds.
///
/// # Errors
/// As [`monotonic_ns`].
pub fn boot_time_ns() -> io::Result<i64> {
    Ok(start_times_from_ns()?.saturating_add(offsets()?.boottime_ns))
}

/// The moment that `/proc/PID/stat` counts start times from, as it shows them to this process
/// (`timens_add_boottime_ns()`): `CLOCK_REALTIME`, nanoseconds.
///
/// # Errors
/// A clock cannot be read.
pub fn start_times_from_ns() -> io::Result<i64> {
    Ok(read(ClockId::CLOCK_REALTIME)? - read(ClockId::CLOCK_BOOTTIME)?)
}

/// A `starttime` of `/proc/PID/stat` as the kernel itself has it: in a time namespace the file has
/// the offset of `CLOCK_BOOTTIME` on it (`timens_add_boottime_ns()`). Both in units of 10 ms.
pub fn kernel_start_time(ticks: u64) -> u64 {
    let offset_ns = offsets().map_or(0, |offsets| offsets.boottime_ns);
    ticks.saturating_add_signed(-(offset_ns / USER_TICK_NS))
}

/// The same of a `start_boottime` of the kernel's, in nanoseconds.
pub(crate) fn kernel_start_ticks(boottime_ns: u64) -> u64 {
    boottime_ns / USER_TICK_NS.unsigned_abs()
}

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> io::Result<u64> {
    Ok(read(ClockId::CLOCK_THREAD_CPUTIME_ID)? as u64)
}

/// How the wall clock stands to the monotonic one, from the closest of a few tries.
pub fn sample() -> io::Result<Clock> {
    let mut best: Option<(i64, Clock)> = None;
    for _ in 0..5 {
        let before = read_monotonic()?;
        let real = read(ClockId::CLOCK_REALTIME)?;
        let after = read_monotonic()?;
        let mono = before + (after - before) / 2;
        if best.is_none_or(|(width, _)| after - before < width) {
            let clock = Clock { mono_ns: after as u64, realtime_offset_ns: real - mono };
            best = Some((after - before, clock));
        }
    }
    best.map(|(_, clock)| clock).ok_or_else(|| io::Error::other("no clock"))
}

/// Timer ticks a second (`CONFIG_HZ`), for what the kernel counts in jiffies: the resolution of
/// a coarse clock is one tick (`ktime_get_coarse_*`, `KTIME_LOW_RES` = `TICK_NSEC`).
pub fn hz() -> io::Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let ns = tick.tv_sec() * NS + tick.tv_nsec();
    if ns <= 0 {
        return Err(io::Error::other("the coarse clock has no resolution"));
    }
    Ok(((NS + ns / 2) / ns) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_one_that_kernels_are_built_with() {
        assert!([100, 250, 300, 1000].contains(&hz().unwrap()));
    }

    #[test]
    fn the_wall_clock_is_found_from_the_monotonic_one() {
        let clock = sample().unwrap();
        let real = clock.mono_ns as i64 + clock.realtime_offset_ns;
        let now = read(ClockId::CLOCK_REALTIME).unwrap();
        assert!((now - real).abs() < NS, "{now} {real}");
    }
}
