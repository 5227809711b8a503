//! `tcptrace check`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use super::{
    args::{CheckArgs, ReportFormat},
    exit::EXIT_HOST,
};
use crate::check::{Report, show};

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode> {
    let report = Report::make();
    let text = match args.output {
        ReportFormat::Table => show::table(&report),
        ReportFormat::Json => show::json(&report).context("cannot write JSON")?,
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // The answer is in the exit code too.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot write to stdout");
        }
        _ => {}
    }
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::from(EXIT_HOST) })
}
