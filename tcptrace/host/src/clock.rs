//! The host's clocks.

use std::io;

use nix::time::{ClockId, clock_getres, clock_gettime};

use tcptrace_model::Clock;

const NS: i64 = 1_000_000_000;

fn read(clock: ClockId) -> io::Result<i64> {
    let now = clock_gettime(clock)?;
    Ok(now.tv_sec() * NS + now.tv_nsec())
}

/// `CLOCK_MONOTONIC` in nanoseconds: the clock of `bpf_ktime_get_ns()`.
pub fn monotonic_ns() -> io::Result<u64> {
    Ok(read(ClockId::CLOCK_MONOTONIC)? as u64)
}

/// When the host was booted: `CLOCK_REALTIME`, nanoseconds.
pub fn boot_time_ns() -> io::Result<i64> {
    Ok(read(ClockId::CLOCK_REALTIME)? - read(ClockId::CLOCK_BOOTTIME)?)
}

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu_ns() -> io::Result<u64> {
    Ok(read(ClockId::CLOCK_THREAD_CPUTIME_ID)? as u64)
}

/// How the wall clock stands to the monotonic one, from the closest of a few tries.
pub fn sample() -> io::Result<Clock> {
    let mut best: Option<(i64, Clock)> = None;
    for _ in 0..5 {
        let before = read(ClockId::CLOCK_MONOTONIC)?;
        let real = read(ClockId::CLOCK_REALTIME)?;
        let after = read(ClockId::CLOCK_MONOTONIC)?;
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
