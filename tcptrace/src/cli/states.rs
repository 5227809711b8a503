//! `tcptrace states`.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result};

use super::{
    Usage,
    args::{OutputFormat, StatesArgs},
    listen::{self, Snapshots},
    log::say,
    options::{only, options},
    target::Target,
};
use crate::{
    host::{clock, netns::Netns},
    model::{Input, Snapshot, filter::Filter},
    pipeline::Analysis,
    probe::Options,
    source::snapshot::{Job, Scope},
    stats::group::By,
    track::Tracker,
    view::{
        View,
        states::{Format, Lines, StatesView},
        states_by::StatesByView,
    },
};

pub(super) fn run(args: &StatesArgs) -> Result<ExitCode> {
    let options = options(&args.probe, &args.filter)?;
    let only = only(&args.filter)?;
    let target = Target::open(args.out.as_deref())?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let lines = Lines { every: args.interval, count: args.count };
    let header = !args.no_header;
    match args.by {
        Some(By::Reason) => {
            let misuse =
                "--by reason: a connection that is open has none: owner, port, peer, netns";
            Err(Usage(misuse.to_owned()).into())
        }
        Some(by) => {
            show(args, &options, only, target, StatesByView::new(by, format, lines, header))
        }
        None => show(args, &options, only, target, StatesView::new(format, lines, header)),
    }
}

fn show<V: View>(
    args: &StatesArgs,
    options: &Options,
    only: Option<Netns>,
    target: Target,
    view: V,
) -> Result<ExitCode> {
    if args.interval.is_none() {
        return once(only, options.filter.clone(), target, view);
    }
    let snapshots = Snapshots { only, every: Snapshots::OFTEN };
    listen::run(options, snapshots, target, None, view, |_| {})
}

/// One look at the kernel's tables, by the same way as the first line of many.
fn once<V: View>(only: Option<Netns>, filter: Filter, target: Target, view: V) -> Result<ExitCode> {
    let clocks = clock::sample().context("cannot read the clock")?;
    let hz = clock::hz().context("cannot read the clock's resolution")?;
    let mut analysis = Analysis::new(Tracker::default(), view);
    analysis.feed(&Input::Begin { mono_ns: clocks.mono_ns, hz, sampled: false });
    analysis.feed(&Input::Clock(clocks));
    analysis.feed(&Input::Snapshot(Snapshot::Open));
    // Minisocks have no events here, but nothing else has either: they are sockets like others.
    let round = Job::all(Arc::new(Scope { only, filter, minisocks_told: true })).run();
    round.remarks().iter().for_each(|remark| say(remark));
    round.feed(&mut |input| analysis.feed(&input));
    let mono_ns = clock::monotonic_ns().context("cannot read the clock")?;
    analysis.feed(&Input::Tick { mono_ns });
    let (output, name) = target.start()?;
    let text = analysis.take_output();
    output.finish(text).with_context(|| format!("cannot write to {name}"))?;
    Ok(ExitCode::SUCCESS)
}
