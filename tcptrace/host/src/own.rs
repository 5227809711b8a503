//! What this process itself uses.

use std::{fs, io};

use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::{SysconfVar, sysconf},
};

use super::clock;

/// CPU, memory and files of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnUse {
    /// CPU time of all its threads, in user space and in the kernel, seconds.
    pub cpu_s: f64,
    /// What is in memory of it, bytes.
    pub resident_bytes: u64,
    /// Open files.
    pub open_fds: u64,
    /// When it was started: seconds since 1970.
    pub started_s: f64,
}

impl OwnUse {
    /// Reads it. What `/proc` does not tell is 0.
    pub fn read() -> Self {
        let cpu_s = getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
            let seconds =
                |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            seconds(usage.user_time()) + seconds(usage.system_time())
        });
        Self {
            cpu_s,
            resident_bytes: resident_bytes().unwrap_or(0),
            open_fds: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64 - 1),
            started_s: started_s().unwrap_or(0.0),
        }
    }
}

fn known(name: SysconfVar) -> io::Result<u64> {
    let value = sysconf(name)?.and_then(|value| u64::try_from(value).ok());
    value.ok_or_else(|| io::Error::other("the kernel does not tell"))
}

/// The second number of `statm`, in pages.
fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm is not understood"))?;
    Ok(pages * known(SysconfVar::PAGE_SIZE)?)
}

/// The 22nd field of `stat`, ticks since the boot.
fn started_s() -> io::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let ticks = start_ticks(&stat);
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/self/stat is not understood"))?;
    let per_s = known(SysconfVar::CLK_TCK)?;
    Ok(clock::start_times_from_ns()? as f64 / 1e9 + ticks as f64 / per_s as f64)
}

/// A process may have any name, spaces and brackets among it: fields are counted behind that.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let own = OwnUse::read();
        assert!(own.resident_bytes > 100_000 && own.open_fds >= 3, "{own:?}");
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..600.0).contains(&(now - own.started_s)), "{own:?} at {now}");
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a) b (c) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22));
        assert_eq!(start_ticks(""), None);
    }
}
