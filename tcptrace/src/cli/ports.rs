//! `tcptrace ports`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;

use super::{
    args::{OutputFormat, PortsArgs},
    listen::{self, Snapshots},
    origin::{self, Origin},
    target::Target,
    usage::Usage,
};
use tcptrace_model::filter::Filter;
use tcptrace_probe::TimeWaitChoice;
use tcptrace_view::ports::{Format, PortsView, Shown, Which};

/// How long it listens for the rates, if no interval was asked for.
const ONCE: Duration = Duration::from_secs(2);

pub(super) fn run(args: &PortsArgs) -> Result<ExitCode> {
    if args.filter.localport.is_some() {
        let misuse = "-L: ports are counted by their peer: give -D, --net or -N";
        return Err(Usage(misuse.to_owned()).into());
    }
    if args.probe.time_wait_hook == TimeWaitChoice::Off {
        let misuse = "--time-wait-hook off: most ports are in TIME_WAIT; leave it out";
        return Err(Usage(misuse.to_owned()).into());
    }
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let asked = origin::filter(&args.filter, &args.recording.from)?;
    // Listeners have no peer, and a dual-stack one is IPv6: in the kernel, any other condition
    // would drop those by which it is known what was accepted, and which ports are bound.
    let kept = Filter { netns: asked.netns, ..Filter::default() };
    let mut origin = Origin::with(kept, &args.probe, &args.filter, &args.recording)?;
    let which = if origin.at_end(args.interval.is_none()) { Which::Last } else { Which::All };
    let shown = Shown {
        which,
        every: args.interval.unwrap_or(ONCE),
        count: args.count.or(args.interval.is_none().then_some(1)),
        top: usize::try_from(args.top).unwrap_or(usize::MAX),
        filter: asked,
        header: !args.no_header,
    };
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    listen::run(origin, snapshots, target, None, PortsView::new(format, shown), |_| {})
}
