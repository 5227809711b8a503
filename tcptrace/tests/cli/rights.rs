//! `tcptrace serve`: what its threads may do once it listens.

use std::fs;

use crate::{
    net::Netns,
    run::{can_trace, until},
    serve::{Serving, churn, sum},
};

/// What a thread may do.
#[derive(Debug)]
pub struct Thread {
    pub name: String,
    pub permitted: u64,
    effective: u64,
    confined: bool,
}

impl Thread {
    /// Whether it has given up all that it will: the filter of system calls comes last.
    pub fn is_confined(&self) -> bool {
        self.confined
    }

    /// It holds `kept` and nothing else, and has a filter of system calls.
    #[track_caller]
    pub fn has_given_up(&self, kept: u64) {
        assert_eq!((self.permitted, self.effective), (kept, kept), "{self:?}");
        assert!(self.confined, "{self:?}");
    }
}

/// What the threads of a process may do.
pub fn threads(pid: u32) -> Vec<Thread> {
    let thread = |directory: fs::DirEntry| {
        // One that has just ended has none.
        let status = fs::read_to_string(directory.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        Some(Thread {
            name: field("Name:"),
            permitted: set("CapPrm:") | set("CapInh:") | set("CapAmb:"),
            effective: set("CapEff:"),
            confined: field("NoNewPrivs:") == "1" && field("Seccomp:") == "2",
        })
    };
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| thread(task.unwrap())).collect()
}

/// Before 5.19 bpf() takes CAP_BPF for whatever it is, unless unprivileged_bpf_disabled is 0.
fn needed_to_trace() -> u64 {
    let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
    let numbers: Vec<u32> = release.split(['.', '-']).flat_map(str::parse).take(2).collect();
    let disabled = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    let disabled = disabled.is_ok_and(|value| value.trim() != "0");
    if numbers < vec![5, 19] && disabled { 1 << 39 } else { 0 }
}

#[test]
fn what_is_not_needed_any_more_is_given_up() {
    if !can_trace() {
        return;
    }
    let netns = Netns::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    // All threads that there can be; nobody listens there.
    let more = ["--otlp", "http://127.0.0.1:4318", "--export-dir"];
    let more = [&more[..], &[directory.path().to_str().unwrap()]].concat();
    let serving = Serving::of(&netns, &more);
    let pid = serving.running.pid();
    // The one that takes the self-test's hooks off has no part in it, and ends by itself.
    let threads = until("the hooks of the self-test to be off", || {
        let threads = threads(pid);
        (!threads.iter().any(|thread| thread.name == "trial")).then_some(threads)
    });
    for name in ["http", "otlp", "export"] {
        assert!(threads.iter().any(|thread| thread.name == name), "{threads:?}");
    }
    // Those of the helper process are elsewhere: helper::.
    for thread in &threads {
        thread.has_given_up(needed_to_trace());
    }
    // It goes on all the same: a whole round of snapshots, and minisocks looked at.
    netns.run(|| churn(20));
    until("what happened", || {
        let samples = serving.metrics();
        let alive = sum(&samples, "tcptrace_connections{", "time_wait");
        (alive == 20.0).then_some(())
    });
}
