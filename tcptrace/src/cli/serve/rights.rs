//! What `serve` gives up once it is set up: capabilities and system calls, a thread at a time.

use std::io;

use super::super::log::say;
use tcptrace_common::counters::Hook;
use tcptrace_host::{caps::Capability, confine};
use tcptrace_probe::Probe;

/// What the tracing thread may keep, the least that works first. It reads maps and runs a program
/// that is loaded, which takes an open file and no more since 5.19 (c8644cd0efe7, "bpf: refine
/// kernel.unprivileged_bpf_disabled behaviour"); before, where that sysctl is not 0, any bpf() takes
/// CAP_BPF, or CAP_SYS_ADMIN, which stands for it. The ring is memory. Nothing else takes any: the
/// tables are read by the helper process.
pub(super) const KEPT: [&[Capability]; 3] = [&[], &[Capability::Bpf], &[Capability::SysAdmin]];

/// Gives up what a thread does not need that only works with what is open. What cannot be given up
/// is said, and no reason not to run.
pub(super) fn give_up(filter: fn() -> io::Result<()>) {
    told("capabilities are not given up", confine::keep_only(&[]));
    told("system calls are not filtered", filter());
}

/// The same once the hooks are on, of the thread that reads what they tell.
pub(super) fn give_up_but_tracing(probe: &Probe) {
    // All of bpf() is allowed or refused alike.
    let works = || probe.totals(Hook::SetState).is_ok();
    told("capabilities are not given up", confine::keep_fewest(&KEPT, works));
    told("system calls are not filtered", confine::only_trace());
}

pub(super) fn told(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        say(&format!("{what}: {error}"));
    }
}
