//! `--export-dir` and what belongs to it.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::rights::give_up;
use crate::cli::{args::ExportDirArgs, log::say, usage::Usage};
use tcptrace_export::{ExportDir, Exporter, Stream, Way};
use tcptrace_host::{confine, kernel};
use tcptrace_serve::Shelf;

/// The shortest time for a file.
const SHORTEST: Duration = Duration::from_secs(1);

/// What the arguments ask for, if they do.
pub(super) fn export_dir(args: &ExportDirArgs) -> Result<Option<ExportDir>> {
    let Some(path) = &args.export_dir else { return Ok(None) };
    if args.export_every < SHORTEST {
        return Err(Usage("--export-every: at least 1s".to_owned()).into());
    }
    let there = fs::metadata(path)
        .with_context(|| format!("--export-dir {}: it has to be there already", path.display()))?;
    if !there.is_dir() {
        bail!("--export-dir {}: is no directory", path.display());
    }
    Ok(Some(ExportDir {
        path: path.clone(),
        host: kernel::host_name().unwrap_or_default(),
        every: args.export_every,
        addresses: args.export_kernel_addresses,
        keep: args.export_keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
    }))
}

/// Begins to write there. The thread has no capabilities: who may write files there does so as the
/// user that it is.
pub(super) fn start(
    to: ExportDir,
    shelf: &Arc<Shelf>,
    sandbox: bool,
) -> Result<(Exporter, Stream, Way)> {
    let shown = to.path.display().to_string();
    let prepare = move || {
        if sandbox {
            give_up(confine::only_write_files);
        }
    };
    let (exporter, stream, way) = Exporter::start(to, prepare, say).with_context(|| {
        // Root is root no more there.
        let hint = if sandbox {
            ", without capabilities (let it belong to the user that runs this, or give --no-sandbox)"
        } else {
            ""
        };
        format!("--export-dir {shown}: no file can be made there{hint}")
    })?;
    let left = exporter.tally().left();
    if left > 0 {
        say(&format!("{left} unfinished files of killed runs are removed from {shown}"));
    }
    shelf.export(Arc::clone(exporter.tally()));
    Ok((exporter, stream, way))
}
