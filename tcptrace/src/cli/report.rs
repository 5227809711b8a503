//! `tcptrace report`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::ReportArgs,
    listen::{self, Snapshots},
    origin::{Origin, recorded},
    target::{Target, is_stdout},
    whole::WholeFile,
};
use tcptrace_report::ReportView;

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let recording = recorded(&args.filter, &args.from)?;
    let file = match is_stdout(&args.out) {
        true => None,
        false => Some(WholeFile::create(&args.out, args.force, &recording.files())?),
    };
    let target = file.as_ref().map_or_else(|| Ok(Target::stdout()), WholeFile::target)?;
    let view = ReportView::new(recording.header().clone());
    let origin = Origin::Recording(Box::new(recording));
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    let mut written = false;
    let ended = listen::run(origin, snapshots, target, None, view, |view| {
        written = view.written();
    });
    match file {
        Some(file) => file.keep(written, ended),
        None => ended,
    }
}
