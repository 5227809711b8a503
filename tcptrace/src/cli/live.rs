//! `tcptrace live`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{LiveArgs, OutputFormat},
    listen::{self, Snapshots},
    log::say,
    options::wanted,
    origin::Origin,
    target::Target,
};
use tcptrace_model::StateSet;
use tcptrace_view::live::{Columns, Format, LiveView, Selection, WIDTH_WITH_OWNER};

pub(super) fn run(args: &LiveArgs) -> Result<ExitCode> {
    let origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let selection = selection(args)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let view = LiveView::new(format(args, &target), selection);
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners: true };
    listen::run(origin, snapshots, target, args.duration, view, |view| {
        if view.left_out() > 0 {
            say(&format!("{} left out by --rate-limit", view.left_out()));
        }
    })
}

fn format(args: &LiveArgs, target: &Target) -> Format {
    match args.output {
        _ if args.csv => Format::Csv,
        OutputFormat::Csv => Format::Csv,
        OutputFormat::Json => Format::Json,
        OutputFormat::Table => Format::Table(Columns {
            wide: args.wide,
            owner: target.columns().is_some_and(|columns| columns >= WIDTH_WITH_OWNER),
            time: args.time,
            timestamp: args.timestamp,
            color: target.colored(args.color),
        }),
    }
}

fn selection(args: &LiveArgs) -> Result<Selection> {
    let states = match args.state.as_slice() {
        [] => StateSet::all(),
        some => some.iter().fold(StateSet::EMPTY, |all, &one| all.union(one)),
    };
    Ok(Selection {
        states,
        wanted: wanted(&args.select)?,
        rate_limit: args.rate_limit,
        count: args.count,
        header: !args.no_header,
    })
}
