//! `tcptrace record`: records what happens on this host, and shows nothing.

use std::process::ExitCode;

use anyhow::Result;

use super::{
    args::RecordArgs,
    listen::{self, Snapshots},
    options::{only, options},
    origin::{Host, Origin},
    target::Target,
};
use tcptrace_record::{NewFile, Rotation};
use tcptrace_view::Nothing;

pub(super) fn run(args: &RecordArgs) -> Result<ExitCode> {
    let options = options(&args.probe, &args.filter)?;
    let only = only(&args.filter)?;
    let rotation = args.rotate.map(|every| Rotation {
        every,
        keep: args.keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    });
    let save = Some(NewFile::open(&args.file, args.force, rotation)?);
    let self_test = !args.probe.no_self_test;
    let (helper, attached, on_hangup) = (None, None, None);
    let host = Host { options, only, save, self_test, helper, attached, on_hangup };
    let origin = Origin::Host(Box::new(host));
    // For all views, whatever they need.
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    listen::run(origin, snapshots, Target::none(), args.duration, Nothing, |_| {})
}
