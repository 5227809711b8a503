//! The header of a recording: this host, this run, and what its hooks can tell.

use anyhow::{Context as _, Result};

use tcptrace_host::{clock, kernel};
use tcptrace_model::filter::Filter;
use tcptrace_probe::{Probe, Unobservable};
use tcptrace_record::{Header, HookInForce};

/// What a recording says of itself, of what `probe` is to tell.
pub(super) fn header(probe: &Probe, filter: &Filter) -> Result<Header> {
    let clocks = clock::sample().context("cannot read the clock")?;
    let boot = kernel::boot_id().unwrap_or_default();
    Ok(Header {
        tcptrace: env!("CARGO_PKG_VERSION").to_owned(),
        run: format!("{boot}/{}/{}", clocks.mono_ns, std::process::id()),
        part: 1,
        host: kernel::host_name().unwrap_or_default(),
        kernel: kernel::release().unwrap_or_default(),
        boot_time_ns: clock::boot_time_ns().context("cannot read the clock")?,
        mono_ns: clocks.mono_ns,
        realtime_offset_ns: clocks.realtime_offset_ns,
        hooks: hooks(probe),
        not_observable: probe.unobservable().iter().map(lack).collect(),
        command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        filter: filter.words(),
    })
}

fn lack(lack: &Unobservable) -> String {
    format!("{}: {}", lack.fact.name(), lack.why)
}

fn refused<W: ToString>(refusals: &[(W, String)]) -> Vec<String> {
    refusals.iter().map(|(way, why)| format!("{}: {why}", way.to_string())).collect()
}

fn hooks(probe: &Probe) -> Vec<HookInForce> {
    let hook = |of: &str, by: Option<String>, refused: Vec<String>| HookInForce {
        of: of.to_owned(),
        by,
        refused,
    };
    let (resets, no_resets) = match probe.resets() {
        Ok(()) => (Some(probe.backend().to_string()), Vec::new()),
        Err(why) => (None, vec![why.to_owned()]),
    };
    vec![
        hook(
            "transitions",
            Some(probe.backend().to_string()),
            probe.refusals().iter().map(ToString::to_string).collect(),
        ),
        hook(
            "time-wait",
            probe.time_wait().map(|way| way.to_string()),
            refused(probe.time_wait_refusals()),
        ),
        hook("resets", resets, no_resets),
        hook(
            "accepts",
            probe.accept().map(|way| way.to_string()),
            refused(probe.accept_refusals()),
        ),
    ]
}
