//! How much work each program is for the verifier, told in the form that the table of kernels takes.

use anyhow::{Result, ensure};
use tcptrace::probe::{
    AcceptBackend, AcceptChoice, Backend, Options, Probe, ProbeError, TimeWaitBackend,
    TimeWaitChoice,
};

use crate::{checks::settle, trace::by, unsupported::Unsupported};

/// A hundredth of what a kernel takes (`BPF_COMPLEXITY_LIMIT_INSNS`): far from it on all.
const MOST: u32 = 10_000;

/// Loads the programs of one way of listening, and tells of those named `prefix…`.
fn count(hook: Backend, time_wait: TimeWaitChoice, prefix: &str, programs: usize) -> Result<()> {
    count_of(&Options { time_wait, ..by(hook) }, prefix, programs)
}

#[expect(clippy::print_stdout, reason = "facts for the table go the way of the tests' results")]
fn count_of(options: &Options, prefix: &str, programs: usize) -> Result<()> {
    let probe = match Probe::start(options) {
        Err(
            ProbeError::TimeWait { backend: TimeWaitBackend::Functions, reason }
            | ProbeError::Accept { backend: AcceptBackend::Function, reason },
        ) if reason.contains("Operation not permitted")
            && std::env::var_os("VM_TEST").is_none() =>
        {
            return Err(Unsupported(reason).into());
        }
        probe => probe?,
    };
    let told = probe.verified_instructions();
    let of_it: Vec<_> = told.iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    ensure!(of_it.len() == programs, "{told:?}");
    for (program, count) in of_it {
        let Some(count) = count else {
            return Err(Unsupported("the kernel does not tell before 5.16".to_owned()).into());
        };
        println!("@@vm insns program={program} count={count}");
        ensure!((1..MOST).contains(count), "{program}: {count} instructions");
    }
    Ok(())
}

#[test]
fn instructions_of_set_state() {
    for hook in Backend::ALL {
        settle(hook.name(), count(hook, TimeWaitChoice::Off, "set_state", 1));
    }
}

#[test]
fn instructions_of_resets() {
    for hook in Backend::ALL {
        settle(hook.name(), count(hook, TimeWaitChoice::Off, "reset_", 2));
    }
}

#[test]
fn instructions_of_accepts() {
    // The variant for the other shape of the function is not loaded.
    for backend in AcceptBackend::ALL {
        let accept = AcceptChoice::Only(backend);
        let options = Options { accept, ..by(Backend::TpBtf) };
        settle(backend.name(), count_of(&options, "accept_", 1));
    }
}

#[test]
fn instructions_of_the_functions() {
    let only = TimeWaitChoice::Only(TimeWaitBackend::Functions);
    settle("functions", count(Backend::TpBtf, only, "twsk_", 4));
}

#[test]
fn instructions_of_the_timers() {
    let only = TimeWaitChoice::Only(TimeWaitBackend::Timers);
    settle("timers", count(Backend::TpBtf, only, "tw_", 4));
}
