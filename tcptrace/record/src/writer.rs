//! The files of a recording, and the thread's side of writing them.
//!
//! A block is written whole or, where that fails, taken back: what is there can always be read.
//! Data reach the disk (`fdatasync`) once a second and at the end of a file, so that also a loss
//! of power costs no more than that.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;
use zstd::bulk::Compressor;

use super::{
    context::Context,
    encode::Encoder,
    frame::{AFTER_GAP, BlockHead, CONTEXT, HEAD_BYTES, Header, WHOLE},
    outfile::{OutError, OutFile, directory, lock, open_to_lock},
};
use tcptrace_model::Input;

/// On zstd's own scale, whose numbers below 0 are the fast ones. Of a churn's inputs, 15 bytes each as
/// they are, level 1 leaves 6.6 for 60 instructions a byte, and this one 8.4 for 36.
const LEVEL: i32 = -3;

/// Between two that reach the disk for certain.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What still holds is said again no sooner: nanoseconds.
const CONTEXT_EVERY_NS: u64 = 10_000_000_000;

/// Why a recording cannot be written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be begun.
    #[error(transparent)]
    Out(#[from] OutError),
    /// The system's answer later.
    #[error("cannot go on recording to {path}: {error}; what was recorded until then can be read")]
    Write {
        /// Which file.
        path: PathBuf,
        /// The answer.
        error: io::Error,
    },
}

/// When another file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// When one would be larger than so many bytes.
    Bytes(u64),
    /// When one has been written to for so long.
    Time(Duration),
}

/// How a recording is spread over files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// When another file is begun.
    pub every: Every,
    /// How many are kept; `None`: all.
    pub keep: Option<usize>,
}

/// The name of a file of a recording that has several: `FILE.000001`.
pub fn part_path(base: &Path, part: u64) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{part:06}"));
    name.into()
}

/// The files that a rotation under this name has left, in their order.
pub fn parts(base: &Path) -> Vec<PathBuf> {
    let Some(name) = base.file_name().map(|name| name.as_encoded_bytes()) else {
        return Vec::new();
    };
    let number = |file: &std::ffi::OsStr| -> Option<u64> {
        let digits = file.as_encoded_bytes().strip_prefix(name)?.strip_prefix(b".")?;
        let all_digits = digits.len() >= 6 && digits.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
    };
    let entries = fs::read_dir(directory(base)).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| number(&entry.file_name())).collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|part| part_path(base, part)).collect()
}

/// A recording to be: its first file is claimed, and what is there stays as it is.
#[derive(Debug)]
pub struct NewFile {
    base: PathBuf,
    rotation: Option<Rotation>,
    to: To,
    /// Files of an earlier rotation under the same name.
    old: Vec<PathBuf>,
}

/// Where the first bytes go.
#[derive(Debug)]
enum To {
    File(OutFile),
    /// What is not ours to empty or to take back from: stdout.
    Stream(File),
}

impl NewFile {
    /// Claims it. What is there already stays until [`Self::begin`]: a run that fails to listen must
    /// not cost an earlier recording.
    ///
    /// # Errors
    /// It exists and `force` is not given, it is being written, or it cannot be opened.
    pub fn open(base: &Path, force: bool, rotation: Option<Rotation>) -> Result<Self, FileError> {
        let path = match rotation {
            Some(_) => part_path(base, 1),
            None => base.to_owned(),
        };
        let old = if rotation.is_some() { parts(base) } else { Vec::new() };
        if let Some(first) = old.first()
            && !force
        {
            return Err(OutError::Exists(first.clone()).into());
        }
        for part in &old {
            if let Ok(file) = open_to_lock(part) {
                lock(&file, part)?;
            }
        }
        let to = To::File(OutFile::claim(&path, force)?);
        Ok(Self { base: base.to_owned(), rotation, to, old })
    }

    /// One that goes to `stream`, which has a name for messages.
    pub fn stream(stream: File, name: &str) -> Self {
        Self { base: name.into(), rotation: None, to: To::Stream(stream), old: Vec::new() }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.base.display().to_string()
    }

    /// Empties it and writes the header.
    ///
    /// # Errors
    /// The system's answer; the file is left empty.
    pub fn begin(self, header: Header) -> Result<Files, FileError> {
        let Self { base, rotation, to, old } = self;
        let (path, file, is_stream) = match to {
            To::File(claimed) => {
                let path = claimed.path().to_owned();
                for part in old.iter().filter(|part| **part != path) {
                    // What cannot be removed is of another run, and a reader says so.
                    let _ = fs::remove_file(part);
                }
                (path, claimed.begin()?, false)
            }
            To::Stream(stream) => (base.clone(), stream, true),
        };
        let is_regular = !is_stream && is_regular(&file);
        let mut files = Files {
            base,
            rotation,
            header,
            path,
            file,
            is_regular,
            part: 1,
            len: 0,
            began: Instant::now(),
            synced: Instant::now(),
            earlier: VecDeque::new(),
            bytes: 0,
        };
        files.write_header()?;
        if is_regular {
            sync_directory(&files.path);
        }
        Ok(files)
    }
}

fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// The name of a new file is to survive too. Where that cannot be, its contents still may.
fn sync_directory(path: &Path) {
    let _ = File::open(directory(path)).and_then(|directory| directory.sync_all());
}

/// The files of a recording that is being written.
#[derive(Debug)]
pub struct Files {
    base: PathBuf,
    rotation: Option<Rotation>,
    header: Header,
    path: PathBuf,
    file: File,
    /// What was written can be taken back, and synchronised.
    is_regular: bool,
    part: u64,
    /// Up to here the file is whole.
    len: u64,
    began: Instant,
    synced: Instant,
    /// Files of this run that are complete.
    earlier: VecDeque<PathBuf>,
    /// In all files.
    bytes: u64,
}

impl Files {
    /// What the recording is called.
    pub fn name(&self) -> String {
        self.base.display().to_string()
    }

    fn write_header(&mut self) -> Result<(), FileError> {
        self.header.part = self.part;
        let header = self.header.to_bytes();
        self.append(&[&header])
    }

    /// Appends `pieces` whole, or takes back what was written of them.
    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), FileError> {
        let written = pieces.iter().try_for_each(|piece| self.file.write_all(piece));
        if let Err(error) = written {
            if self.is_regular {
                // If this fails too, a reader finds a torn block at the end, and says so.
                let _ = self.file.set_len(self.len);
                let _ = self.file.sync_data();
            }
            return Err(FileError::Write { path: self.path.clone(), error });
        }
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.len += len as u64;
        self.bytes += len as u64;
        Ok(())
    }

    fn is_over(&self, more: usize) -> bool {
        match self.rotation.map(|rotation| rotation.every) {
            None => false,
            Some(Every::Bytes(most)) => self.len + more as u64 > most,
            Some(Every::Time(longest)) => self.began.elapsed() >= longest,
        }
    }

    /// Goes on in another file, which begins at `mono_ns`.
    fn rotate(&mut self, mono_ns: u64, realtime_offset_ns: Option<i64>) -> Result<(), FileError> {
        self.sync()?;
        let path = part_path(&self.base, self.part + 1);
        // What is there by now is not this run's: the beginning saw none.
        let file = OutFile::claim(&path, false)?.begin()?;
        self.earlier.push_back(std::mem::replace(&mut self.path, path));
        (self.file, self.len, self.part) = (file, 0, self.part + 1);
        self.began = Instant::now();
        self.header.mono_ns = mono_ns;
        self.header.realtime_offset_ns =
            realtime_offset_ns.unwrap_or(self.header.realtime_offset_ns);
        self.write_header()?;
        if let Some(keep) = self.rotation.and_then(|rotation| rotation.keep) {
            while self.earlier.len() + 1 > keep
                && let Some(oldest) = self.earlier.pop_front()
            {
                // What cannot be removed stays: the recording is worth more than the room.
                let _ = fs::remove_file(oldest);
            }
        }
        sync_directory(&self.path);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.synced = Instant::now();
        if !self.is_regular {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| FileError::Write { path: self.path.clone(), error })
    }
}

/// A block that is to be packed and written.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) bytes: Vec<u8>,
    pub(super) inputs: u32,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// Of its inputs, and of those of blocks that were not kept, what still holds.
    pub(super) lasting: Vec<Input>,
    /// Events before it that were not kept; `None`: it follows on the one before.
    pub(super) gap: Option<u64>,
    /// A round of snapshots was opened in it.
    pub(super) opens: bool,
    /// One of everything ended in it.
    pub(super) whole: bool,
}

/// Packs blocks and writes them.
pub(super) struct Writer {
    files: Files,
    pack: Compressor<'static>,
    packed: Vec<u8>,
    context: Context,
    /// When what still holds was last said: in front of the block with this number.
    context_at: Option<(u64, u64)>,
    /// Where a reader is to begin for the round of snapshots that was opened last.
    round_from: u64,
    /// Blocks so far.
    number: u64,
}

impl Writer {
    pub(super) fn new(files: Files) -> io::Result<Self> {
        Ok(Self {
            files,
            pack: Compressor::new(LEVEL)?,
            packed: Vec::new(),
            context: Context::default(),
            context_at: None,
            round_from: 0,
            number: 0,
        })
    }

    pub(super) fn write(&mut self, sealed: Sealed) -> Result<(), FileError> {
        let Sealed { bytes, inputs, first_ns, last_ns, lasting, gap, opens, whole } = sealed;
        self.pack(&bytes)?;
        let fresh = self.files.is_over(HEAD_BYTES + self.packed.len());
        if fresh {
            self.files.rotate(first_ns, self.context.realtime_offset_ns())?;
        }
        let long_ago = self
            .context_at
            .is_none_or(|(at_ns, _)| first_ns.saturating_sub(at_ns) >= CONTEXT_EVERY_NS);
        // What the block itself says comes after.
        if self.number > 0 && (fresh || gap.is_some() || (opens && long_ago)) {
            let packed = std::mem::take(&mut self.packed);
            self.write_context(first_ns, gap.is_some())?;
            self.packed = packed;
        }
        lasting.into_iter().for_each(|input| self.context.take(input));
        if opens {
            self.round_from = self.context_at.map_or(0, |(_, number)| number);
        }
        let back = u32::try_from(self.number - self.round_from).ok();
        let mut head = self.head(&bytes, inputs, first_ns, last_ns);
        if whole && let Some(back) = back {
            (head.flags, head.back) = (head.flags | WHOLE, back);
        }
        if let Some(gap) = gap {
            (head.flags, head.gap) = (head.flags | AFTER_GAP, gap);
        }
        self.files.append(&[&head.to_bytes(), &self.packed])?;
        self.number += 1;
        if self.files.synced.elapsed() >= SYNC_EVERY {
            self.files.sync()?;
        }
        Ok(())
    }

    /// How many bytes were written.
    pub(super) fn bytes(&self) -> u64 {
        self.files.bytes
    }

    /// All is written. Gives the number of bytes.
    pub(super) fn finish(mut self) -> Result<u64, FileError> {
        self.files.sync()?;
        Ok(self.files.bytes)
    }

    fn write_context(&mut self, mono_ns: u64, after_gap: bool) -> Result<(), FileError> {
        self.context_at = Some((mono_ns, self.number));
        let mut encoder = Encoder::default();
        encoder.begin(mono_ns);
        let mut count = 0;
        let mut blocks = Vec::new();
        for input in self.context.inputs(mono_ns) {
            encoder.put(&input);
            count += 1;
            if encoder.is_full() {
                blocks.push((encoder.take(), count));
                encoder.begin(mono_ns);
                count = 0;
            }
        }
        if count > 0 {
            blocks.push((encoder.take(), count));
        }
        for (bytes, count) in blocks {
            self.pack(&bytes)?;
            let mut head = self.head(&bytes, count, mono_ns, mono_ns);
            head.flags = if after_gap { CONTEXT | AFTER_GAP } else { CONTEXT };
            self.files.append(&[&head.to_bytes(), &self.packed])?;
        }
        Ok(())
    }

    fn pack(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        match self.pack.compress_to_buffer(bytes, &mut self.packed) {
            Ok(_) => Ok(()),
            Err(error) => Err(FileError::Write { path: self.files.path.clone(), error }),
        }
    }

    fn head(&self, bytes: &[u8], inputs: u32, first_ns: u64, last_ns: u64) -> BlockHead {
        BlockHead {
            flags: 0,
            packed: self.packed.len() as u32,
            unpacked: bytes.len() as u32,
            sum: crc32fast::hash(&self.packed),
            first_ns,
            last_ns,
            realtime_offset_ns: self.context.realtime_offset_ns().unwrap_or(0),
            number: self.number,
            gap: 0,
            inputs,
            back: 0,
        }
    }
}
