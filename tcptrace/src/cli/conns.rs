//! `tcptrace conns`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::{ConnsArgs, OutputFormat},
    listen::{self, Snapshots},
    log::say,
    options::wanted,
    origin::Origin,
    target::Target,
};
use tcptrace_stats::conns::Until;
use tcptrace_view::conns::{Columns, ConnsView, Format, Selection};

pub(super) fn run(args: &ConnsArgs) -> Result<ExitCode> {
    let origin = Origin::new(&args.probe, &args.filter, &args.recording)?;
    let selection = selection(args)?;
    let target = Target::open(args.out.as_deref(), args.recording.force)?;
    let view = ConnsView::new(format(args), selection);
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners: true };
    listen::run(origin, snapshots, target, args.duration, view, |view| {
        if view.evicted() > 0 {
            say(&format!("{} connections forgotten in part to bound memory", view.evicted()));
        }
    })
}

fn format(args: &ConnsArgs) -> Format {
    match args.output {
        _ if args.csv => Format::Csv,
        OutputFormat::Csv => Format::Csv,
        OutputFormat::Json => Format::Json,
        OutputFormat::Table => {
            Format::Table(Columns { wide: args.wide, time: args.time, timestamp: args.timestamp })
        }
    }
}

fn selection(args: &ConnsArgs) -> Result<Selection> {
    let min_life = args.min_life.unwrap_or_default();
    Ok(Selection {
        wanted: wanted(&args.select)?,
        min_life_ns: u64::try_from(min_life.as_nanos()).unwrap_or(u64::MAX),
        until: if args.no_time_wait { Until::Close } else { Until::End },
        open: args.open,
        count: args.count,
        header: !args.no_header,
    })
}
