//! One module for each place in the kernel that is listened at.

mod accept;
mod minisock;
mod reset;
mod set_state;
mod time_wait;
mod twsk;

/// What a program on a classic tracepoint returns: pass the event on. 0 would take it away from
/// every other perf user on the host (`perf_trace_run_bpf_submit()`), such as a `perf stat`.
const PASS_ON: u32 = 1;
