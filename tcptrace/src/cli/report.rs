//! `tcptrace report`.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::ReportArgs,
    listen::{self, Snapshots},
    origin::{Origin, recorded},
    whole::WholeFile,
};
use tcptrace_report::ReportView;

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode> {
    let recording = recorded(&args.filter, &args.from)?;
    let file = WholeFile::create(&args.out, args.force)?;
    let view = ReportView::new(recording.header().clone());
    let origin = Origin::Recording(Box::new(recording));
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    let mut written = false;
    let ended = listen::run(origin, snapshots, file.target()?, None, view, |view| {
        written = view.written();
    });
    file.keep(written, ended)
}
