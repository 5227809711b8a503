//! `tcptrace export`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;

use super::{
    args::{ExportArgs, ExportFormat, TableChoice},
    listen::{self, Snapshots},
    log::say,
    origin::{Origin, recorded},
    target::{Target, is_stdout},
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
    let to_stdout = is_stdout(&args.out);
    if to_stdout && format == Format::Parquet && io::stdout().is_terminal() {
        let misuse =
            "--out -: stdout is a terminal, and Parquet is not text: redirect it to a file";
        return Err(Usage(misuse.to_owned()).into());
    }
    let file = match to_stdout {
        true => None,
        false => Some(WholeFile::create(&args.out, args.force, &recording.files())?),
    };
    let target = file.as_ref().map_or_else(|| Ok(Target::stdout()), WholeFile::target)?;
    let view = ExportView::new(table, format, recording.header().clone(), args.kernel_addresses);
    let origin = Origin::Recording(Box::new(recording));
    let snapshots = Snapshots { every: Snapshots::SELDOM, owners: true };
    let mut finished = Ok(false);
    let ended = listen::run(origin, snapshots, target, None, view, |view| {
        finished = view.finished();
        say(&format!("{} {} in {}", view.count(), table.name(), args.out.display()));
        if view.evicted() > 0 {
            say(&format!("{} connections forgotten in part to bound memory", view.evicted()));
        }
    });
    match file {
        Some(file) => file.keep(finished?, ended),
        None => finished.map_err(Into::into).and(ended),
    }
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
