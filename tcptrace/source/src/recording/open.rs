//! Opens what `-r` names: files of one run, the name of a rotation, or a stream.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use super::{
    blocks::{Part, Stream, open},
    error::RecordingError,
};
use tcptrace_record::{Header, ReadError, parts};

/// What `-r PATH` is called where that is a stream.
pub(super) fn stream_name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

/// The stream, if `paths` are one: `-`, or what is no file.
pub(super) fn stream(paths: &[PathBuf]) -> Result<Option<(Stream, Header)>, RecordingError> {
    let is_stdin = |path: &PathBuf| path == Path::new("-");
    let is_stream = |path: &PathBuf| {
        is_stdin(path) || fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir())
    };
    let Some(path) = paths.iter().find(|path| is_stream(path)) else { return Ok(None) };
    let name = stream_name(path);
    if paths.len() > 1 {
        return Err(RecordingError::Several(name));
    }
    if !is_stdin(path) {
        let file = File::open(path)
            .map_err(|error| RecordingError::File { path: path.clone(), error: error.into() })?;
        return Stream::start(name, file).map(Some);
    }
    if io::stdin().is_terminal() {
        return Err(RecordingError::Terminal);
    }
    Stream::start(name, io::stdin()).map(Some)
}

/// The files at `paths`, in the order of their run.
pub(super) fn files(
    paths: &[PathBuf],
    remarks: &mut Vec<String>,
) -> Result<Vec<Part>, RecordingError> {
    let mut all = Vec::new();
    for path in paths {
        let rotated = if path.exists() { Vec::new() } else { parts(path) };
        if rotated.is_empty() {
            all.push((path.clone(), false));
        } else {
            all.extend(rotated.into_iter().map(|path| (path, true)));
        }
    }
    let mut parts = Vec::new();
    let alone = all.len() == 1;
    for (path, of_rotation) in all {
        match open(&path) {
            Ok(reader) => {
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                parts.push(Part { header: reader.header().clone(), path, bytes });
            }
            // The writer was stopped as it began the file.
            Err(RecordingError::File {
                error: error @ (ReadError::Empty | ReadError::Headless),
                ..
            }) if !alone => remarks.push(format!("{} is left out: {error}", path.display())),
            // What it held is missing then, which the numbers of the blocks show.
            Err(RecordingError::File {
                error: error @ (ReadError::HeaderDamaged | ReadError::NotOurs),
                ..
            }) if !alone && of_rotation => {
                remarks.push(format!("{} is left out: {error}", path.display()));
            }
            Err(error) => return Err(error),
        }
    }
    parts.sort_by_key(|part| part.header.part);
    parts.dedup_by_key(|part| (part.header.run.clone(), part.header.part));
    if let Some(pair) = parts.windows(2).find(|pair| pair[0].header.run != pair[1].header.run) {
        return Err(RecordingError::Runs(pair[0].path.clone(), pair[1].path.clone()));
    }
    Ok(parts)
}
