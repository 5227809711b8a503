//! A file that is there as a whole or not at all: written beside its place, and moved there at the
//! end.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::{Builder, NamedTempFile};

use super::{exit::EXIT_INTERRUPTED, log::say, target::Target};
use tcptrace_record::{OutError, OutFile, outfile::directory};
use tcptrace_source::recording::RecordingError;

/// Such a file, not at its place yet. Dropped, it leaves nothing.
pub(super) struct WholeFile {
    beside: NamedTempFile,
    path: PathBuf,
    force: bool,
}

impl WholeFile {
    /// Begins one for `path`, where there must be nothing yet; with `force`, at most a file, which must
    /// not be one of those that are `read`.
    ///
    /// # Errors
    /// There is something, or the directory cannot be written to.
    pub(super) fn create(path: &Path, force: bool, read: &[PathBuf]) -> Result<Self> {
        match OutFile::claim(path, force) {
            // Nothing is to be there until it is whole.
            Ok(claimed) if claimed.is_one_of(read) => {
                return Err(OutError::Read(path.to_owned()).into());
            }
            Ok(claimed) => claimed.refuse_device()?,
            Err(refused) => return Err(refused.into()),
        }
        let shown = path.display();
        // For the owner alone, as any file that is written.
        let beside = Builder::new()
            .prefix(".tcptrace-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory(path))
            // Without the name beside it, which nobody gave.
            .map_err(|error| {
                let why = anyhow::Error::from(error);
                anyhow!("cannot write to {shown}: {}", why.root_cause())
            })?;
        Ok(Self { beside, path: path.to_owned(), force })
    }

    /// Where to write what is to be in it.
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub(super) fn target(&self) -> Result<Target> {
        let file = self.beside.as_file().try_clone();
        let name = self.path.display().to_string();
        Ok(Target::file(file.with_context(|| format!("cannot write to {name}"))?, name))
    }

    /// Moves it to its place, if the run that `ended` wrote all of it: `whole`. What a damaged
    /// recording held before the damage is kept too.
    ///
    /// # Errors
    /// What the run ended with; or it cannot be moved there.
    pub(super) fn keep(self, whole: bool, ended: Result<ExitCode>) -> Result<ExitCode> {
        match ended {
            Ok(code) if whole => self.persist().map(|()| code),
            Ok(_) => {
                say(&format!("interrupted: {} is not written", self.path.display()));
                Ok(ExitCode::from(EXIT_INTERRUPTED))
            }
            Err(error) if whole && error.is::<RecordingError>() => self.persist().and(Err(error)),
            Err(error) => Err(error),
        }
    }

    fn persist(self) -> Result<()> {
        let Self { beside, path, force } = self;
        let cannot = || format!("cannot write to {}", path.display());
        beside.as_file().sync_all().with_context(cannot)?;
        let moved = if force { beside.persist(&path) } else { beside.persist_noclobber(&path) };
        match moved {
            Ok(_) => Ok(()),
            Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} was made meanwhile: give another name, or --force", path.display())
            }
            Err(refused) => Err(refused.error).with_context(cannot),
        }
    }
}
