//! How much work each program is for the verifier, told in the form that the table of kernels takes.

use anyhow::{Context as _, Result, ensure};
use tcptrace::probe::{
    AcceptBackend, AcceptChoice, Backend, Options, ProbeError, TimeWaitBackend, TimeWaitChoice,
};

use crate::{checks::settle, trace::by, unsupported::Unsupported};

/// A twentieth of what a kernel takes (`BPF_COMPLEXITY_LIMIT_INSNS`): far from it on all. The verifier
/// of 7.3 walks 34,423 for the stand-in of the socket hook, the most of all programs.
const MOST: u32 = 50_000;

/// Loads the programs of one way of listening, and tells of those named `prefix…`.
#[expect(clippy::print_stdout, reason = "facts for the table go the way of the tests' results")]
fn count(options: &Options, prefix: &str, programs: usize) -> Result<()> {
    let probe = match crate::known::probe(options) {
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
    let of_it = |told: Vec<(String, Option<u32>)>| -> Vec<_> {
        told.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect()
    };
    let verified = of_it(probe.verified_instructions());
    ensure!(verified.len() == programs, "{verified:?}");
    for ((program, verified), (_, loaded)) in
        verified.iter().zip(of_it(probe.loaded_instructions()))
    {
        let loaded = loaded.context("how long the program is")?;
        ensure!((1..MOST).contains(&loaded), "{program}: {loaded} instructions");
        let verified = verified.map(|count| format!(" verified={count}")).unwrap_or_default();
        println!("@@vm insns program={program} loaded={loaded}{verified}");
    }
    for (program, verified) in &verified {
        let Some(count) = verified else {
            let why = "how many instructions were verified is not told before 5.16";
            return Err(Unsupported(why.to_owned()).into());
        };
        ensure!((1..MOST).contains(count), "{program}: {count} instructions");
    }
    Ok(())
}

#[test]
fn instructions_of_set_state() {
    for hook in Backend::ALL {
        let programs = match hook {
            Backend::TpBtf => 2, // and the one that stands in for it
            Backend::Tracepoint => 1,
        };
        settle(hook.name(), count(&by(hook), "set_state", programs));
    }
}

#[test]
fn instructions_of_the_resets() {
    for hook in Backend::ALL {
        settle(hook.name(), count(&by(hook), "reset_", 2));
    }
}

fn of_minisocks(backend: TimeWaitBackend) -> Options {
    Options { time_wait: TimeWaitChoice::Only(backend), ..by(Backend::TpBtf) }
}

#[test]
fn instructions_of_the_functions() {
    settle("functions", count(&of_minisocks(TimeWaitBackend::Functions), "twsk_", 4));
}

#[test]
fn instructions_of_the_timers() {
    settle("timers", count(&of_minisocks(TimeWaitBackend::Timers), "tw_", 4));
}

#[test]
fn instructions_of_who_accepts() {
    for backend in [AcceptBackend::Function, AcceptBackend::Syscall] {
        let accept = AcceptChoice::Only(backend);
        let options = Options { accept, ..by(Backend::TpBtf) };
        settle(backend.name(), count(&options, "accept_", 1));
    }
}

#[test]
fn the_iterator_over_open_files_loads() {
    settle("iter/task_file", crate::owners::socket_files().map(drop));
}
