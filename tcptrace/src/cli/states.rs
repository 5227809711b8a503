//! `tcptrace states`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{
    args::{OutputFormat, StatesArgs},
    by,
    listen::{self, Snapshots},
    log::say,
    origin::{Look, Origin},
    target::Target,
};
use tcptrace_host::clock;
use tcptrace_model::{Input, MinisocksBy, Snapshot};
use tcptrace_pipeline::Analysis;
use tcptrace_source::{
    cgroups::CgroupNames,
    snapshot::{Job, Reader, Scope},
};
use tcptrace_track::Tracker;
use tcptrace_view::{
    View,
    lines::Lines,
    states::{Format, StatesView},
    states_by::StatesByView,
};

pub(super) fn run(args: &StatesArgs) -> Result<ExitCode> {
    let mut origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    args.by.map_or(Ok(()), by::open)?;
    let at_end = origin.at_end(args.interval.is_none());
    let lines = Lines { every: args.interval, count: args.count, at_end };
    let header = !args.no_header;
    match args.by {
        Some(by) => show(args, origin, target, StatesByView::new(by, format, lines, header)),
        None => show(args, origin, target, StatesView::new(format, lines, header)),
    }
}

fn show<V: View>(args: &StatesArgs, origin: Origin, target: Target, view: V) -> Result<ExitCode> {
    let owners = by::needs_holders(args.by);
    let origin = match origin.look(args.interval.is_none(), owners)? {
        Look::Now(scope) => return once(*scope, target, view),
        Look::Along(origin) => origin,
    };
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners };
    listen::run(origin, snapshots, target, None, view, |_| {})
}

/// One look at the kernel's tables, by the same way as the first line of many. Minisocks have no
/// events here, but nothing else has either: they are sockets like others.
pub(super) fn once<V: View>(scope: Scope, target: Target, view: V) -> Result<ExitCode> {
    let clocks = clock::sample().context("cannot read the clock")?;
    let hz = clock::hz().context("cannot read the clock's resolution")?;
    let mut analysis = Analysis::new(Tracker::default(), view);
    analysis.feed(&Input::Begin {
        mono_ns: clocks.mono_ns,
        hz,
        minisocks: MinisocksBy::Nothing,
        resets: false,
    });
    analysis.feed(&Input::Clock(clocks));
    analysis.feed(&Input::Snapshot(Snapshot::Open));
    let round = Job::all(Reader::here(scope)).run().with_names();
    round.remarks().iter().for_each(|remark| say(remark));
    let mut cgroups = CgroupNames::open();
    round.feed(&mut |input| cgroups.pass(&input, &mut |input| analysis.feed(input)));
    let mono_ns = clock::monotonic_ns().context("cannot read the clock")?;
    analysis.feed(&Input::Tick { mono_ns });
    let (output, name) = target.start()?;
    let text = analysis.take_output();
    output.finish(text).with_context(|| format!("cannot write to {name}"))?;
    Ok(ExitCode::SUCCESS)
}
