//! Why a recording cannot be read.

use std::path::PathBuf;

use thiserror::Error;

use tcptrace_record::ReadError;

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// A file cannot be opened, or is none, or is damaged.
    #[error("cannot read {path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// The files do not belong together.
    #[error("{0} and {1} are of different runs: give the files of one")]
    Runs(PathBuf, PathBuf),
    /// It has gaps: what could be read was handed out.
    #[error(
        "the recording has {count} gaps, {:.3} s in all: what happened then is not known", *ns as f64 / 1e9
    )]
    Gaps {
        /// How many files or blocks are missing or damaged, those next to each other as one.
        count: u64,
        /// How long they are, nanoseconds.
        ns: u64,
    },
    /// It comes through a pipe, which is read once, from its beginning.
    #[error("{0} is no file that can be read again: save it first (cat > FILE), then read that")]
    Stream(String),
    /// Nobody sends a recording there.
    #[error(
        "stdin is a terminal: pipe a recording into -r - (tcptrace record - | tcptrace live -r -)"
    )]
    Terminal,
    /// A stream is a recording of its own.
    #[error("-r {0}: a pipe has all of a recording: give no other file")]
    Several(String),
    /// Nothing is in the stretch that was asked for.
    #[error("nothing was recorded from --since to --until: the recording goes from {0} to {1}")]
    Nothing(String, String),
}
