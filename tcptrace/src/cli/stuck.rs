//! `tcptrace stuck`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    Usage,
    args::{OutputFormat, StuckArgs},
    listen::{self, Listening, Snapshots},
    options::{only, options},
    states::once,
    target::Target,
};
use crate::{
    model::{StateSet, TcpState},
    source::{owners::Owners, snapshot::Scope},
    stats::{
        group::By,
        stuck::{STATES, Wanted},
    },
    view::{
        states::{Format, Lines},
        stuck::StuckView,
    },
};

pub(super) fn run(args: &StuckArgs) -> Result<ExitCode> {
    let wanted = wanted(args)?;
    let options = options(&args.probe, &args.filter)?;
    let only = only(&args.filter)?;
    let target = Target::open(args.out.as_deref())?;
    let format = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let lines = Lines { every: args.interval, count: args.count };
    let view = StuckView::new(wanted, format, lines, !args.no_header);
    if args.interval.is_none() {
        let (filter, owners) = (options.filter, Some(Owners::default()));
        return once(Scope { only, filter, minisocks_told: true, owners }, target, view);
    }
    let snapshots = Snapshots { only, every: Snapshots::OFTEN, owners: true };
    let listening = Listening { options: &options, self_test: !args.probe.no_self_test };
    listen::run(listening, snapshots, target, None, view, |_| {})
}

fn wanted(args: &StuckArgs) -> Result<Wanted, Usage> {
    if args.by == By::Reason {
        let misuse = "--by reason: a connection that is open has none: owner, port, peer, netns";
        return Err(Usage(misuse.to_owned()));
    }
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
