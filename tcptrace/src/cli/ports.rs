//! `tcptrace ports`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;

use super::{
    Usage,
    args::{OutputFormat, PortsArgs},
    listen::{self, Listening, Snapshots},
    options::{only, options},
    target::Target,
};
use crate::{
    model::filter::Filter,
    probe::{Options, TimeWaitChoice},
    view::ports::{Format, PortsView, Shown},
};

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
    let asked = options(&args.probe, &args.filter)?;
    let target = Target::open(args.out.as_deref())?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    // Listeners have no peer, and a dual-stack one is IPv6: in the kernel, any other condition
    // would drop those by which it is known what was accepted, and which ports are bound.
    let options = Options {
        filter: Filter { netns: asked.filter.netns, ..Filter::default() },
        ..asked.clone()
    };
    let shown = Shown {
        every: args.interval.unwrap_or(ONCE),
        count: args.count.or(args.interval.is_none().then_some(1)),
        top: usize::try_from(args.top).unwrap_or(usize::MAX),
        filter: asked.filter,
        header: !args.no_header,
    };
    let snapshots = Snapshots { only: only(&args.filter)?, every: Snapshots::OFTEN, owners: false };
    let listening = Listening { options: &options, self_test: !args.probe.no_self_test };
    listen::run(listening, snapshots, target, None, PortsView::new(format, shown), |_| {})
}
