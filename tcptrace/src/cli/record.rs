//! `tcptrace record`: records what happens on this host, and shows nothing.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use super::{
    args::RecordArgs,
    listen::{self, Snapshots},
    options::{only, options},
    origin::{Host, Origin},
    target::{Target, is_stdout},
    usage::Usage,
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
    let save = Some(match is_stdout(&args.file) {
        true => stdout(rotation)?,
        false => NewFile::open(&args.file, args.force, rotation)?,
    });
    let self_test = !args.probe.no_self_test;
    let (helper, attached, on_hangup) = (None, None, None);
    let host = Host { options, only, save, self_test, helper, attached, on_hangup };
    let origin = Origin::Host(Box::new(host));
    // For all views, whatever they need.
    let snapshots = Snapshots { every: Snapshots::OFTEN, owners: true };
    listen::run(origin, snapshots, Target::none(), args.duration, Nothing, |_| {})
}

/// A recording to stdout: to a pipe, at whose other end somebody reads it.
fn stdout(rotation: Option<Rotation>) -> Result<NewFile> {
    if rotation.is_some() {
        return Err(
            Usage("--rotate: stdout is one stream: give the name of a file".to_owned()).into()
        );
    }
    let stdout = io::stdout();
    if stdout.is_terminal() {
        let misuse = "record -: stdout is a terminal, and a recording is not text: give a file, or a \
                      pipe (tcptrace record - | tcptrace live -r -)";
        return Err(Usage(misuse.to_owned()).into());
    }
    let stream = stdout.as_fd().try_clone_to_owned().context("cannot write to stdout")?;
    Ok(NewFile::stream(stream.into(), "stdout"))
}
