//! `tcptrace export`.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use super::{
    args::{ExportArgs, ExportFormat, TableChoice},
    listen::{self, Snapshots},
    log::say,
    origin::{Origin, recorded},
    usage::Usage,
    whole::WholeFile,
};
use tcptrace_export::{ExportView, Format, Table};

pub(super) fn run(args: &ExportArgs) -> Result<ExitCode> {
    let format = format(args)?;
    let table = match args.table {
        TableChoice::Transitions => Table::Transitions,
        TableChoice::Connections => Table::Connections,
    };
    let recording = recorded(&args.filter, &args.from)?;
    let file = WholeFile::create(&args.out, args.force)?;
    let view = ExportView::new(table, format, recording.header().clone());
    let origin = Origin::Recording(Box::new(recording));
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners: true };
    let mut finished = Ok(false);
    let ended = listen::run(origin, snapshots, file.target()?, None, view, |view| {
        finished = view.finished();
        say(&format!("{} {} in {}", view.count(), table.name(), args.out.display()));
        if view.evicted() > 0 {
            say(&format!("{} connections forgotten in part to bound memory", view.evicted()));
        }
    });
    file.keep(finished?, ended)
}

fn format(args: &ExportArgs) -> Result<Format, Usage> {
    match (args.format, &args.out) {
        (Some(ExportFormat::Parquet), _) => Ok(Format::Parquet),
        (Some(ExportFormat::Csv), _) => Ok(Format::Csv),
        (Some(ExportFormat::Ndjson), _) => Ok(Format::Ndjson),
        (None, out) => by_name(out).ok_or_else(|| {
            let name = out.to_string_lossy().escape_default().to_string();
            Usage(format!(
                "--out {name}: the format is told by .parquet, .csv, .ndjson or .jsonl, or by \
                 --format"
            ))
        }),
    }
}

fn by_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "parquet" => Some(Format::Parquet),
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        _ => None,
    }
}
