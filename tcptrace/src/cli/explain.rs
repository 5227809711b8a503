//! `tcptrace explain`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use super::{args::ExplainArgs, usage::Usage};
use crate::explain;

pub(super) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let text = match &args.word {
        None => explain::list(),
        Some(word) => {
            let found = explain::find(word).map_err(|error| Usage(error.to_string()))?;
            explain::print(&found)
        }
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
