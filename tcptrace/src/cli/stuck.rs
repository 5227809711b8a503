//! `tcptrace stuck`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{OutputFormat, StuckArgs},
    by,
    listen::{self, Snapshots},
    origin::{Look, Origin},
    states::once,
    target::Target,
    usage::Usage,
};
use tcptrace_model::{StateSet, TcpState};
use tcptrace_stats::stuck::{STATES, Wanted};
use tcptrace_view::{lines::Lines, states::Format, stuck::StuckView};

pub(super) fn run(args: &StuckArgs) -> Result<ExitCode> {
    let wanted = wanted(args)?;
    let mut origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let at_end = origin.at_end(args.interval.is_none());
    let lines = Lines { every: args.interval, count: args.count, at_end };
    let view = StuckView::new(wanted, format, lines, !args.no_header);
    let origin = match origin.look(args.interval.is_none(), true)? {
        Look::Now(scope) => return once(*scope, target, view),
        Look::Along(origin) => origin,
    };
    // Who has a socket open is told as of the last round: that is not to be older than a line.
    let every = args.interval.map_or(Snapshots::OFTEN, |every| every.min(Snapshots::OFTEN));
    let snapshots = Snapshots { every, owners: true };
    listen::run(origin, snapshots, target, None, view, |_| {})
}

fn wanted(args: &StuckArgs) -> Result<Wanted, Usage> {
    by::open(args.by)?;
    let named = match args.state.as_slice() {
        [] => StateSet::all(),
        some => some.iter().fold(StateSet::EMPTY, |all, &one| all.union(one)),
    };
    let here: Vec<TcpState> = STATES.into_iter().filter(|&state| named.contains(state)).collect();
    if here.is_empty() {
        let names: Vec<&str> = STATES.iter().map(|state| state.name()).collect();
        let misuse =
            format!("--state: none of these is a state that should pass: {}", names.join(", "));
        return Err(Usage(misuse));
    }
    Ok(Wanted {
        states: StateSet::from_iter(here),
        older: args.older,
        by: args.by,
        top: usize::try_from(args.top).unwrap_or(usize::MAX),
    })
}
