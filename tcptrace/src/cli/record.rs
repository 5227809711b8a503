//! `tcptrace record`, and what `--save` shares with it: the header of a recording.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    args::RecordArgs,
    duration,
    listen::{self, Snapshots},
    options::{only, options},
    origin::{Host, Origin},
    target::Target,
};
use tcptrace_host::{clock, kernel};
use tcptrace_model::filter::Filter;
use tcptrace_probe::{Probe, Unobservable};
use tcptrace_record::{Every, Header, HookInForce, NewFile, Rotation};
use tcptrace_view::Nothing;

/// The least size of a file of `--rotate`, bytes.
const LEAST_BYTES: u64 = 64 << 10;

pub(super) fn run(args: &RecordArgs) -> Result<ExitCode> {
    let options = options(&args.probe, &args.filter)?;
    let only = only(&args.filter)?;
    let rotation = args.rotate.map(|every| Rotation {
        every,
        keep: args.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    });
    let save = Some(NewFile::open(&args.file, args.force, rotation)?);
    let self_test = !args.probe.no_self_test;
    let host = Host { options, only, save, self_test, helper: None, attached: None };
    let origin = Origin::Host(Box::new(host));
    // For all views, whatever they need.
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    listen::run(origin, snapshots, Target::none(), args.duration, Nothing, |_| {})
}

/// Reads `100M`, `1G` (bytes: 64K at least) or `10m`, `1h` (time).
pub(super) fn every(text: &str) -> Result<Every, String> {
    let shift = match text.as_bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        _ if text.parse::<f64>().is_ok() => {
            return Err("give a size (100M, 1G) or a time (10m, 1h), with its unit".to_owned());
        }
        _ => return rotation_time(text),
    };
    let bytes = text[..text.len() - 1].parse().ok().and_then(|n: u64| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= LEAST_BYTES => Ok(Every::Bytes(bytes)),
        _ => Err("a size is a number with K, M or G, and at least 64K".to_owned()),
    }
}

fn rotation_time(text: &str) -> Result<Every, String> {
    let time = duration::parse(text)?;
    if time < Duration::from_secs(1) {
        return Err("a time is at least 1s".to_owned());
    }
    Ok(Every::Time(time))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_from_a_time_by_its_unit() {
        assert_eq!(every("100M"), Ok(Every::Bytes(100 << 20)));
        assert_eq!(every("64K"), Ok(Every::Bytes(64 << 10)));
        assert_eq!(every("10m"), Ok(Every::Time(Duration::from_secs(600))));
        assert_eq!(every("1h"), Ok(Every::Time(Duration::from_secs(3600))));
        for text in ["", "100", "1K", "-1M", "999999999999G", "10ms", "M", "ten", "1.5G"] {
            assert!(every(text).is_err(), "{text}");
        }
    }
}
