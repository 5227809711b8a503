//! Opens files that are to be written, for every command that writes one.
//!
//! What is there is not overwritten unless that is asked for, and then replaced rather than written into:
//! who has the old file open keeps it, and a link to it leads to what it led to. Symbolic links are not
//! followed, since whoever may plant one chooses what root overwrites. Nobody but the owner may read it:
//! addresses, names of processes and command lines are in it. Must not write anything itself.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Of a file that is made: the owner reads and writes it.
const MODE: u32 = 0o600;

/// Why a file cannot be written.
#[derive(Debug, Error)]
pub enum OutError {
    /// It is there.
    #[error("{0} exists: give another name, or --force to overwrite it")]
    Exists(PathBuf),
    /// It leads to another file.
    #[error("{0} is a symbolic link, which is not followed: give the name of the file itself")]
    Link(PathBuf),
    /// It is a directory, or a disk.
    #[error("{0} exists and is not a file: give another name")]
    NotAFile(PathBuf),
    /// Another one writes it.
    #[error("{0} is being written by another tcptrace: give another name")]
    Locked(PathBuf),
    /// It is what is read.
    #[error("{0} is what is read: give another name for what is written")]
    Read(PathBuf),
    /// The system's answer.
    #[error("cannot write to {path}: {error}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
}

/// A file that is to be written, and is not yet: a run that fails to begin costs nothing.
#[derive(Debug)]
pub struct OutFile {
    path: PathBuf,
    claim: Claim,
    begun: bool,
}

#[derive(Debug)]
enum Claim {
    /// It was not there.
    New(File),
    /// It is there, and is replaced once writing begins.
    Replaces(File),
    /// A FIFO or a device: it has nothing to lose.
    Device(File),
}

impl OutFile {
    /// Claims `path`; with `force`, what is there may be replaced.
    ///
    /// # Errors
    /// Why that must not be, or the system's answer.
    pub fn claim(path: &Path, force: bool) -> Result<Self, OutError> {
        let fail = |error| OutError::Open { path: path.to_owned(), error };
        let made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
        let claim = match made {
            Ok(file) => {
                lock(&file, path)?;
                Claim::New(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let kind = fs::symlink_metadata(path).map_err(fail)?.file_type();
                if kind.is_symlink() {
                    return Err(OutError::Link(path.to_owned()));
                }
                if kind.is_fifo() || kind.is_char_device() {
                    let file = plain(OpenOptions::new().write(true), 0).open(path).map_err(fail)?;
                    // Nobody put a file in its place meanwhile.
                    if file.metadata().map_err(fail)?.is_file() {
                        return Err(OutError::Exists(path.to_owned()));
                    }
                    Claim::Device(file)
                } else if kind.is_file() {
                    let file = open_to_lock(path).map_err(fail)?;
                    lock(&file, path)?;
                    if !force {
                        return Err(OutError::Exists(path.to_owned()));
                    }
                    Claim::Replaces(file)
                } else {
                    return Err(OutError::NotAFile(path.to_owned()));
                }
            }
            Err(error) => return Err(fail(error)),
        };
        Ok(Self { path: path.to_owned(), claim, begun: false })
    }

    /// The file, empty and in its place.
    ///
    /// # Errors
    /// The system's answer.
    pub fn begin(mut self) -> Result<File, OutError> {
        let fail = |error| OutError::Open { path: self.path.clone(), error };
        let file = match &self.claim {
            Claim::New(file) | Claim::Device(file) => file.try_clone().map_err(fail)?,
            Claim::Replaces(_) => {
                let beside = tempfile::Builder::new()
                    .prefix(".tcptrace-")
                    .permissions(Permissions::from_mode(MODE))
                    .tempfile_in(directory(&self.path))
                    .map_err(fail)?;
                lock(beside.as_file(), &self.path)?;
                // Takes the place of whatever is there by now, a link included.
                beside.persist(&self.path).map_err(|refused| fail(refused.error))?
            }
        };
        self.begun = true;
        Ok(file)
    }

    /// Refuses what has no contents that could be replaced as a whole.
    ///
    /// # Errors
    /// It is a FIFO or a device.
    pub fn refuse_device(&self) -> Result<(), OutError> {
        match self.claim {
            Claim::Device(_) => Err(OutError::NotAFile(self.path.clone())),
            Claim::New(_) | Claim::Replaces(_) => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is one of the files at `read`.
    pub fn is_one_of(&self, read: &[PathBuf]) -> bool {
        let (Claim::New(file) | Claim::Replaces(file) | Claim::Device(file)) = &self.claim;
        is_one_of(file, read)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if !self.begun && matches!(self.claim, Claim::New(_)) {
            // Nothing was written: nothing is left behind. There is nobody to tell a failure.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `file` is a plain file, and one of those at `read`.
pub fn is_one_of(file: &File, read: &[PathBuf]) -> bool {
    let Ok(own) = file.metadata() else { return false };
    let same = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (own.dev(), own.ino()))
    };
    own.is_file() && read.iter().any(same)
}

/// The directory that a path is in.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// No link is followed, and no FIFO without a writer is waited for.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    plain(OpenOptions::new().read(true), libc::O_NONBLOCK).open(path)
}

fn plain(options: &mut OpenOptions, more: i32) -> &mut OpenOptions {
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | more)
}

/// Takes the file for this process (`flock`), until it is closed. Where the file system has no
/// locks, nothing is refused.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), OutError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(OutError::Locked(path.to_owned())),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_is_not_followed_with_force_or_without() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        for (name, to) in [("to-a-file", &precious), ("to-nothing", &directory.path().join("none"))]
        {
            let link = directory.path().join(name);
            symlink(to, &link).unwrap();
            for force in [false, true] {
                let error = OutFile::claim(&link, force).unwrap_err();
                assert!(matches!(error, OutError::Link(_)), "{error}");
            }
        }
        assert!(!directory.path().join("none").exists());
        // One that is planted between claim and begin is replaced itself.
        let out = directory.path().join("out");
        fs::write(&out, "old").unwrap();
        let claimed = OutFile::claim(&out, true).unwrap();
        fs::remove_file(&out).unwrap();
        symlink(&precious, &out).unwrap();
        claimed.begin().unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert_eq!(fs::read(&out).unwrap(), b"new");
        assert!(fs::symlink_metadata(&out).unwrap().is_file());
    }

    #[test]
    fn a_file_is_replaced_and_what_else_leads_to_it_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (out, other) = (directory.path().join("out"), directory.path().join("other"));
        fs::write(&out, "old").unwrap();
        fs::set_permissions(&out, Permissions::from_mode(0o666)).unwrap();
        fs::hard_link(&out, &other).unwrap();
        assert!(matches!(OutFile::claim(&out, false).unwrap_err(), OutError::Exists(_)));
        drop(OutFile::claim(&out, true).unwrap());
        assert_eq!(fs::read(&out).unwrap(), b"old", "not begun");
        let claimed = OutFile::claim(&out, true).unwrap();
        assert!(claimed.is_one_of(std::slice::from_ref(&other)));
        claimed.begin().unwrap().write_all(b"new").unwrap();
        assert_eq!(
            (fs::read(&out).unwrap(), fs::read(&other).unwrap()),
            ("new".into(), "old".into())
        );
        assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_new_is_for_the_owner_and_is_gone_if_nothing_came_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        drop(OutFile::claim(&out, false).unwrap());
        assert!(!out.exists());
        let claimed = OutFile::claim(&out, false).unwrap();
        assert!(matches!(OutFile::claim(&out, true).unwrap_err(), OutError::Locked(_)));
        drop(claimed.begin().unwrap());
        assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
        let error = OutFile::claim(directory.path(), true).unwrap_err();
        assert!(matches!(error, OutError::NotAFile(_)), "{error}");
        OutFile::claim(Path::new("/dev/null"), false).unwrap().begin().unwrap();
    }
}
