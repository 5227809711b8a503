//! What `/proc` says of a process, of its BPF objects, and of the host.

use std::{
    collections::BTreeSet,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

/// The one number in a file.
pub fn read_number(path: &str) -> Result<u64> {
    read(path)?.trim().parse().with_context(|| format!("{path} does not hold a number"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// A `TcpExt` counter of the calling thread's network namespace.
pub fn tcp_ext(name: &str) -> Result<u64> {
    let path = "/proc/thread-self/net/netstat";
    find_counter(&read(path)?, "TcpExt:", name)
        .with_context(|| format!("{path} has no counter {name}"))
}

/// In pairs of lines, one of names and one of values, each starting with `group`.
fn find_counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name)?;
    value.parse().ok()
}

/// The most memory that the process ever had resident, in bytes.
pub fn peak_rss(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let kib = find_field(&read(&path)?, "VmHWM").with_context(|| format!("{path}: no VmHWM"))?;
    Ok(kib * 1024)
}

/// The thread of tcptrace that writes: it is woken for chunks of output, not by events.
const WRITER: &str = "output";

/// How often the threads of the process have gone to sleep and so were woken, but for the writer.
pub fn sleeps(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
        // a thread may end between the listing and the look
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if !status.starts_with(&format!("Name:\t{WRITER}\n")) {
            sum += find_field(&status, "voluntary_ctxt_switches").unwrap_or(0);
        }
    }
    Ok(sum)
}

/// The number in `NAME:\tNUMBER` with or without a unit behind it.
fn find_field(text: &str, name: &str) -> Option<u64> {
    let rest =
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim_start();
    rest.split_whitespace().next()?.parse().ok()
}

/// The BPF programs that a process holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Programs {
    /// Their ids, held by themselves or through a link.
    pub ids: BTreeSet<u32>,
    /// Whether one is attached: held through a link.
    pub attached: bool,
}

/// Looks through the open files of a process.
pub fn programs(pid: Pid) -> Result<Programs> {
    let path = format!("/proc/{pid}/fdinfo");
    let mut programs = Programs::default();
    for file in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
        // it may be closed between the listing and the look
        let Ok(info) = fs::read_to_string(file?.path()) else { continue };
        programs.add(&info);
    }
    Ok(programs)
}

impl Programs {
    /// `bpf_prog_show_fdinfo()` and `bpf_link_show_fdinfo()` both write `prog_id`.
    fn add(&mut self, info: &str) {
        let Some(id) = find_field(info, "prog_id") else { return };
        self.ids.extend(u32::try_from(id));
        self.attached |= info.lines().any(|line| line.starts_with("link_type:"));
    }
}

/// How long the host is watched at a time.
const WINDOW: Duration = Duration::from_millis(200);
/// The share of its time that a quiet host is idle.
const QUIET: f64 = 0.95;
/// When to go on regardless.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until the CPUs are idle, for five seconds at most; whether they are.
///
/// A run leaves work behind: the kernel dismantles its network namespace with all TIME_WAITs in a
/// kernel thread when it finds the time, and there is no file that tells when it is done. That thread
/// being off the CPU is what matters to the next run, so that is what is waited for.
pub fn settle() -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = CpuTime::now()?;
    while Instant::now() < deadline {
        sleep(WINDOW);
        let now = CpuTime::now()?;
        if now.idle_since(before) >= QUIET {
            return Ok(true);
        }
        before = now;
    }
    Ok(false)
}

/// Ticks of all CPUs since boot.
#[derive(Clone, Copy)]
struct CpuTime {
    idle: u64,
    all: u64,
}

impl CpuTime {
    fn now() -> Result<Self> {
        Self::parse(&read("/proc/stat")?).context("/proc/stat does not start with cpu times")
    }

    /// `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; the guest's times
    /// are in the user's.
    fn parse(stat: &str) -> Option<Self> {
        let times = stat.lines().next()?.strip_prefix("cpu ")?;
        let times: Vec<u64> = times.split_whitespace().flat_map(str::parse).take(8).collect();
        Some(Self { idle: times.get(3)? + times.get(4)?, all: times.iter().sum() })
    }

    fn idle_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.idle.saturating_sub(before.idle) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_the_name_in_its_own_group() {
        let text = "TcpExt: TW TCPTimeWaitOverflow\nTcpExt: 5 7\nIpExt: TW X\nIpExt: 1 2\n";
        assert_eq!(find_counter(text, "TcpExt:", "TCPTimeWaitOverflow"), Some(7));
        assert_eq!(find_counter(text, "IpExt:", "TCPTimeWaitOverflow"), None);
    }

    #[test]
    fn a_field_is_not_mistaken_for_one_that_ends_alike() {
        let status = "VmHWM:\t    2048 kB\nnonvoluntary_ctxt_switches:\t9\n\
                      voluntary_ctxt_switches:\t4\n";
        assert_eq!(find_field(status, "voluntary_ctxt_switches"), Some(4));
        assert_eq!(find_field(status, "VmHWM"), Some(2048));
    }

    #[test]
    fn a_program_without_a_link_is_loaded_but_not_attached() {
        let mut programs = Programs::default();
        programs.add("pos:\t0\nflags:\t02000002\n");
        assert_eq!(programs, Programs::default());
        programs.add("prog_type:\t26\nprog_jited:\t1\nprog_id:\t12\nrun_time_ns:\t0\n");
        assert_eq!(programs, Programs { ids: [12].into(), attached: false });
        programs.add("link_type:\ttracing\nlink_id:\t3\nprog_tag:\tabc\nprog_id:\t13\n");
        assert_eq!(programs, Programs { ids: [12, 13].into(), attached: true });
    }

    #[test]
    fn waiting_for_the_disk_is_idle() {
        let before = CpuTime::parse("cpu  10 0 10 100 0 0 0 0 0 0\n").expect("a cpu line");
        let after = CpuTime::parse("cpu  20 0 20 150 30 0 0 0 7 0\n").expect("a cpu line");
        assert_eq!(after.idle_since(before), 0.8);
    }
}
