//! What this host allows a tracer, found out by trying: the value behind `tcptrace check`.
//!
//! Everything is put together here, once; how it is shown is [`show`]'s. Nothing
//! stays attached, and nothing here fails: what cannot be found out is a row that says so.

use serde::Serialize;

use tcptrace_host::{
    caps::{Capabilities, Capability},
    clock,
    kernel::{self, Lockdown},
    mounts,
    pidns::PidNamespace,
    timens::TimeOffsets,
};
use tcptrace_probe::{SocketFiles, btf::Unread};

mod hooks;
mod row;
pub mod show;

pub use row::{Row, Topic, Verdict};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of tcptrace.
    pub tcptrace: String,
    /// The kernel's release; `None` where it cannot be read.
    pub kernel: Option<String>,
    /// Whether live tracing works.
    pub works: bool,
    /// The hook that it would listen by.
    pub hook: Option<String>,
    /// The findings, grouped by topic.
    pub rows: Vec<Row>,
}

impl Report {
    /// Looks at the host and tries each hook: attaches it for a moment, to a ring of one page.
    pub fn make() -> Self {
        let release = kernel::release();
        let hooks = hooks::try_all();
        let mut rows = vec![
            match &release {
                Ok(release) => Row::new(Topic::Kernel, "release", Verdict::Ok, release),
                Err(error) => {
                    Row::new(Topic::Kernel, "release", Verdict::Unknown, error.to_string())
                }
            },
            btf(),
            tracefs(),
            ring(!hooks.attached.is_empty()),
            lockdown(),
            tick(),
            clocks(),
            pid_namespace(),
        ];
        rows.extend(privileges());
        rows.extend(hooks.rows);
        rows.push(open_files(SocketFiles::open().map(drop)));
        let best = hooks.attached.first();
        rows.extend(best.into_iter().flat_map(|best| best.truth.clone()));
        Self {
            tcptrace: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: release.ok(),
            works: best.is_some(),
            hook: best.map(|best| best.backend.name().to_owned()),
            rows,
        }
    }
}

fn btf() -> Row {
    if !kernel::has_btf() {
        return btf_row(Verdict::Lacks, format!("no {} (CONFIG_DEBUG_INFO_BTF)", kernel::BTF))
            .means("only the classic tracepoint is left, which tells less");
    }
    btf_read(tcptrace_probe::btf::readable())
}

fn btf_row(verdict: Verdict, found: String) -> Row {
    Row::new(Topic::Kernel, "BTF", verdict, found)
}

/// The row of a kernel that has BTF, by how much of it could be read.
fn btf_read(read: Result<Option<Unread>, String>) -> Row {
    match read {
        Ok(None) => btf_row(Verdict::Ok, kernel::BTF.to_owned()),
        Ok(Some(unread)) => btf_row(Verdict::Lacks, format!("{} up to {unread}", kernel::BTF))
            .means("what this version needs of the rest is off: rows below that say so"),
        Err(error) => btf_row(Verdict::Unknown, error),
    }
}

fn tracefs() -> Row {
    let row = |verdict, found: String| Row::new(Topic::Kernel, "tracefs", verdict, found);
    match tcptrace_probe::tracefs_mounted() {
        Err(error) => row(Verdict::Unknown, error.to_string()),
        Ok(Some(place)) => {
            let found = format!("mounted at {}", place.display());
            match place.read_dir() {
                Ok(_) => row(Verdict::Ok, found),
                Err(error) => row(Verdict::Lacks, format!("{found}, not readable: {error}"))
                    .means("the classic hook needs CAP_DAC_READ_SEARCH"),
            }
        }
        Ok(None) => {
            let elsewhere = mounts::mounts().map(|mounts| kernel::tracefs(&mounts));
            let found = match elsewhere.as_deref() {
                Ok([place, ..]) => format!("only at {}", place.display()),
                _ => "not mounted".to_owned(),
            };
            row(Verdict::Lacks, found).means(if Lockdown::may_be_confidential() {
                "no classic hook: under lockdown=confidentiality no tracefs is mounted"
            } else {
                "the classic hook mounts it for itself alone: CAP_SYS_ADMIN"
            })
        }
    }
}

/// `proved` is whether a program with a ring could be attached.
fn ring(proved: bool) -> Row {
    let row = |verdict, found| Row::new(Topic::Kernel, "ring buffers", verdict, found);
    match if proved { Some(true) } else { tcptrace_probe::ring_supported() } {
        Some(true) => row(Verdict::Ok, "the kernel has them"),
        Some(false) => {
            row(Verdict::Lacks, "the kernel has none").means("tcptrace needs Linux 5.8 or later")
        }
        None => row(Verdict::Unknown, "the kernel does not let us ask").means("needs CAP_BPF"),
    }
}

fn lockdown() -> Row {
    let row = |verdict, found| Row::new(Topic::Kernel, "lockdown", verdict, found);
    match Lockdown::read() {
        Some(level @ (Lockdown::Off | Lockdown::Integrity)) => row(Verdict::Ok, level.name()),
        Some(level @ Lockdown::Confidentiality) => row(Verdict::Lacks, level.name())
            .means("tracing programs may not read the kernel's memory"),
        None => row(Verdict::Unknown, "not told: no securityfs, or a kernel without lockdown"),
    }
}

fn tick() -> Row {
    let row = |verdict, found: String| Row::new(Topic::Kernel, "timer tick", verdict, found);
    match clock::hz() {
        Ok(hz) => row(Verdict::Ok, format!("{hz} Hz"))
            .means("what the kernel counts in ticks: SO_LINGER's time"),
        Err(error) => row(Verdict::Unknown, error.to_string()),
    }
}

fn clocks() -> Row {
    let row = |verdict, found: String| Row::new(Topic::Kernel, "clock", verdict, found);
    match TimeOffsets::read() {
        Ok(offsets) if offsets.monotonic_ns == 0 => {
            row(Verdict::Ok, "CLOCK_MONOTONIC is the kernel's own".to_owned())
        }
        Ok(offsets) => {
            let seconds = offsets.monotonic_ns as f64 / 1e9;
            row(Verdict::Ok, format!("in a time namespace, {seconds:+} s from the kernel's"))
                .means("the offset is applied: times are the kernel's")
        }
        Err(error) => row(Verdict::Lacks, error.to_string())
            .means("tcptrace cannot compare its clock with the kernel's and does not start"),
    }
}

fn pid_namespace() -> Row {
    let row = |verdict, found: String| Row::new(Topic::Kernel, "PID namespace", verdict, found);
    match PidNamespace::of_proc() {
        Ok(PidNamespace::First) => {
            row(Verdict::Ok, "the first one: PIDs are the host's".to_owned())
        }
        Ok(PidNamespace::Other(inode)) => row(Verdict::Ok, format!("pid:[{inode}]"))
            .means("PIDs are those of /proc here; processes outside of it are shown as foreign"),
        Err(error) => row(Verdict::Unknown, error.to_string())
            .means("processes that events name are shown as foreign"),
    }
}

/// The row of the iterator that tells who has which sockets open, by whether it could be loaded.
fn open_files(opened: Result<(), String>) -> Row {
    let row = |verdict, found: String| Row::new(Topic::Hooks, "iter/task_file", verdict, found);
    match opened {
        Ok(()) => row(Verdict::Ok, "loads".to_owned()).means(
            "the kernel tells who holds existing sockets, of all users' processes; /proc is \
                 read only where that is quicker (few open files, once) and shows as much",
        ),
        Err(reason) => row(Verdict::Refused, reason).means(
            "who holds existing sockets is searched for in /proc: slower, and needs \
             CAP_SYS_PTRACE for other users' processes",
        ),
    }
}

/// What each capability buys.
const BUYS: [(Capability, &str); 7] = [
    (Capability::Bpf, "loads programs, makes the ring: nothing works without"),
    (Capability::Perfmon, "attaches programs: nothing works without"),
    (
        Capability::SysAdmin,
        "stands in for both; sockets of other network namespaces; mounts tracefs",
    ),
    (Capability::DacReadSearch, "tracefs, for the classic hook; names of cgroups at once"),
    (Capability::SysPtrace, "of other users' processes: owners from before, and -N by them"),
    (Capability::Syslog, "addresses in /proc/kallsyms: TIME_WAIT is followed by them"),
    (Capability::SysResource, "before 5.11: locked memory for the maps"),
];

fn privileges() -> Vec<Row> {
    let row =
        |name: String, verdict, found: &str| Row::new(Topic::Privileges, name, verdict, found);
    let held = match Capabilities::effective() {
        Ok(held) => held,
        Err(error) => {
            return vec![row("capabilities".to_owned(), Verdict::Unknown, &error.to_string())];
        }
    };
    let missing = held.missing_for_tracing();
    BUYS.into_iter()
        .map(|(capability, buys)| {
            let name = capability.to_string();
            let includes = matches!(capability, Capability::Bpf | Capability::Perfmon)
                && !missing.contains(&capability);
            match held.has(capability) {
                true => row(name, Verdict::Ok, "held"),
                false if includes => row(name, Verdict::Ok, "included in CAP_SYS_ADMIN"),
                false => row(name, Verdict::Lacks, "not held"),
            }
            .means(buys)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_holders_come_from_is_said_with_the_reason() {
        let row = open_files(Ok(()));
        assert_eq!(row.verdict, Verdict::Ok);
        assert!(row.means.unwrap().contains("of all users' processes"));
        let row = open_files(Err("EPERM".to_owned()));
        assert_eq!((row.verdict, &*row.found), (Verdict::Refused, "EPERM"));
        assert!(row.means.unwrap().contains("searched for in /proc"));
    }

    #[test]
    fn btf_that_is_read_in_part_is_no_ok() {
        assert_eq!(btf_read(Ok(None)).verdict, Verdict::Ok);
        let part = btf_read(Ok(Some(Unread { id: 7, kind: 23 })));
        assert_eq!(part.verdict, Verdict::Lacks);
        assert!(part.found.contains("up to type 7") && part.found.contains("kind 23"), "{part:?}");
        let none = btf_read(Err("malformed BTF: bad magic".to_owned()));
        assert_eq!(none.verdict, Verdict::Unknown);
        assert!(none.found.contains("bad magic"));
    }
}
