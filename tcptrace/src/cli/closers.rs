//! `tcptrace closers`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{ClosersArgs, OutputFormat},
    by,
    listen::{self, Snapshots},
    origin::Origin,
    target::Target,
    usage::Usage,
};
use tcptrace_stats::{
    closers::{Closers, DEFAULT_LIMIT},
    group::By,
};
use tcptrace_view::{
    closers::{ClosersView, Order},
    lines::Lines,
    states::Format,
};

pub(super) fn run(args: &ClosersArgs) -> Result<ExitCode> {
    if args.by == Some(By::Reason) {
        let misuse = "--by reason: that is `tcptrace hist time-wait`; here: owner, closer, port, peer, \
             netns, unit";
        return Err(Usage(misuse.to_owned()).into());
    }
    by::ended(args.by)?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let top = args.top.map(|top| usize::try_from(top).unwrap_or(usize::MAX));
    let view = ClosersView::new(
        Closers::new(args.by, DEFAULT_LIMIT),
        Order { sort: args.sort, top },
        format,
        Lines { every: args.interval, count: args.count, at_end: false },
        !args.no_header,
    );
    let owners = matches!(args.by, None | Some(By::Owner));
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners };
    listen::run(origin, snapshots, target, args.duration, view, |_| {})
}
