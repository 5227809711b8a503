//! Inputs from a recording: the files of one run, in their order, as one.
//!
//! Hands out what was recorded as it was, but for what a filter or a stretch of time leaves out.
//! What is missing (a file, a block that the disk was too slow for, the end) is told as a loss, or
//! in [`Recording::take_remarks`]. Holds one block at a time.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use thiserror::Error;

use tcptrace_model::moment::Moment;

use super::refilter::Refilter;
use tcptrace_model::{Accounts, Input, filter::Filter};
use tcptrace_record::{Block, BlockHead, Decoder, Header, Item, Memory, ReadError, Reader, parts};

/// What is shown begins at a moment; the analysis begins so much earlier, at the next place where
/// that can be: nanoseconds. Long enough for whatever is in TIME_WAIT, and then some.
const WARM_UP_NS: u64 = 600_000_000_000;

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
    /// Nothing is in the stretch that was asked for.
    #[error("nothing was recorded from --since to --until: the recording goes from {0} to {1}")]
    Nothing(String, String),
}

/// What a recording hands out.
#[derive(Clone, Debug, PartialEq)]
pub enum Cue {
    /// From before the moment from which on it is to be shown: for the tracker alone.
    Early(Input),
    /// What is to be shown.
    Input(Input),
}

/// A part of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stretch {
    /// From when on; `None`: the beginning.
    pub since: Option<Moment>,
    /// Up to when; `None`: the end.
    pub until: Option<Moment>,
}

/// A file of a recording.
struct Part {
    path: PathBuf,
    header: Header,
    /// How long it was when it was opened, bytes; 0 where that is not known (a pipe).
    bytes: u64,
}

/// A recording that is being read.
pub struct Recording {
    parts: Vec<Part>,
    /// Of the first file.
    header: Header,
    /// The file that is being read, by its index, and the next one.
    reader: Option<(usize, Reader<BufReader<File>>)>,
    next_part: usize,
    /// Where in the first file that is read to begin; `None`: at its beginning.
    begin_at: Option<u64>,
    block: Block,
    memory: Memory,
    /// The block is not read to its end.
    in_block: bool,
    /// The number that the next block is to have.
    expected: Option<u64>,
    /// A block of the context that is to be handed out: the first ones, and those after a gap.
    wants_context: bool,
    refilter: Refilter,
    since_ns: Option<u64>,
    until_ns: Option<u64>,
    shown: bool,
    counted: Counted,
    ended: bool,
    failure: Option<RecordingError>,
    remarks: Vec<String>,
    unknown: u64,
    gap: u64,
}

/// What came by.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    begin_ns: Option<u64>,
    last_ns: u64,
    events: u64,
    lost: u64,
    missed: u64,
    /// Of [`Refilter::filtered`], what came before.
    filtered_before: u64,
}

fn open(path: &Path) -> Result<Reader<BufReader<File>>, RecordingError> {
    let fail = |error| RecordingError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(|error| fail(error.into()))?;
    Reader::new(BufReader::with_capacity(1 << 18, file)).map_err(fail)
}

/// Every block's head, and where it is.
struct Index(Vec<(usize, u64, BlockHead)>);

impl Index {
    /// The first and the last block.
    fn ends(&self) -> Option<(&BlockHead, &BlockHead)> {
        let (_, _, first) = self.0.first()?;
        let (_, _, last) = self.0.last()?;
        Some((first, last))
    }

    /// When it begins and ends: `CLOCK_REALTIME`, nanoseconds.
    fn realtime_ns(&self, header: &Header) -> Option<(i128, i128)> {
        let (first, last) = self.ends()?;
        // The first block may have been closed before the clocks were told.
        let offset = match first.realtime_offset_ns {
            0 => header.realtime_offset_ns,
            offset => offset,
        };
        Some((i128::from(first.first_ns) + i128::from(offset), real(last.last_ns, last)))
    }

    /// A moment as `CLOCK_MONOTONIC`, nanoseconds.
    fn mono_ns(&self, moment: Moment, header: &Header) -> Option<u64> {
        let (begin, end) = self.realtime_ns(header)?;
        let at = moment.realtime_ns(begin, end);
        let found = self.0.iter().find(|(_, _, head)| real(head.last_ns, head) >= at);
        let (_, _, head) = found.or(self.0.last())?;
        Some(u64::try_from(at - i128::from(head.realtime_offset_ns)).unwrap_or(0))
    }
}

/// A moment of a block as `CLOCK_REALTIME`, nanoseconds.
fn real(mono_ns: u64, head: &BlockHead) -> i128 {
    i128::from(mono_ns) + i128::from(head.realtime_offset_ns)
}

/// How far a recording goes, and where in it a moment is.
pub struct Extent {
    index: Index,
    header: Header,
}

impl Extent {
    /// Its beginning and end, `CLOCK_MONOTONIC`, nanoseconds; `None`: it is empty.
    pub fn ends_ns(&self) -> Option<(u64, u64)> {
        self.index.ends().map(|(first, last)| (first.first_ns, last.last_ns))
    }

    /// A moment of it, `CLOCK_MONOTONIC`, nanoseconds.
    pub fn mono_ns(&self, moment: Moment) -> Option<u64> {
        self.index.mono_ns(moment, &self.header)
    }
}

impl Recording {
    /// Opens the files at `paths`, in any order. A path that is none but the name of a rotation
    /// (`FILE` for `FILE.000001` and so on) stands for all that are left of that.
    ///
    /// # Errors
    /// One of them cannot be read, or they are not of one run.
    pub fn open(
        paths: &[PathBuf],
        filter: Filter,
        stretch: Stretch,
    ) -> Result<Self, RecordingError> {
        let mut all = Vec::new();
        for path in paths {
            let rotated = if path.exists() { Vec::new() } else { parts(path) };
            if rotated.is_empty() { all.push(path.clone()) } else { all.extend(rotated) }
        }
        let mut parts = Vec::new();
        let mut remarks = Vec::new();
        let alone = all.len() == 1;
        for path in all {
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
                Err(error) => return Err(error),
            }
        }
        parts.sort_by_key(|part| part.header.part);
        parts.dedup_by_key(|part| (part.header.run.clone(), part.header.part));
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].header.run != pair[1].header.run) {
            return Err(RecordingError::Runs(pair[0].path.clone(), pair[1].path.clone()));
        }
        let header = parts.first().map(|part| part.header.clone()).unwrap_or_default();
        let mut recording = Self {
            parts,
            header,
            reader: None,
            next_part: 0,
            begin_at: None,
            block: Block::default(),
            memory: Memory::default(),
            in_block: false,
            expected: None,
            wants_context: true,
            refilter: Refilter::new(filter),
            since_ns: None,
            until_ns: None,
            shown: true,
            counted: Counted::default(),
            ended: false,
            failure: None,
            remarks,
            unknown: 0,
            gap: 0,
        };
        if stretch != Stretch::default() {
            recording.narrow(stretch)?;
        }
        Ok(recording)
    }

    /// How and where it was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes of how many have been read.
    pub fn progress(&self) -> (u64, u64) {
        let sum = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum();
        let all: u64 = sum(&self.parts);
        let read = match &self.reader {
            Some((part, reader)) => sum(&self.parts[..*part]) + reader.position(),
            None if self.ended => all,
            None => 0,
        };
        (read.min(all), all)
    }

    /// What is to be said of it that the inputs do not tell.
    pub fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Why it ended before its end: damage, of which the rest could not be read.
    pub fn take_failure(&mut self) -> Option<RecordingError> {
        self.failure.take()
    }

    /// Hands out at most `limit` more; `false` when that was all. The last one is an
    /// [`Input::End`], whatever the recording ends with.
    pub fn feed(&mut self, limit: usize, sink: &mut dyn FnMut(Cue)) -> bool {
        for _ in 0..limit {
            if self.ended {
                return false;
            }
            match self.next_input() {
                Ok(Some(input)) => self.tell(input, sink),
                Ok(None) => self.end(None, sink),
                Err(error) => {
                    self.failure = Some(error);
                    self.end(None, sink);
                }
            }
        }
        !self.ended
    }

    fn tell(&mut self, input: Input, sink: &mut dyn FnMut(Cue)) {
        if let Some(at) = input.mono_ns() {
            if self.until_ns.is_some_and(|until| at > until) && !matches!(input, Input::Clock(_)) {
                self.end(None, sink);
                return;
            }
            if !self.shown && self.since_ns.is_none_or(|since| at >= since) {
                self.shown = true;
                self.counted = Counted {
                    begin_ns: self.since_ns,
                    filtered_before: self.refilter.filtered(),
                    ..Counted::default()
                };
            }
            self.counted.last_ns = self.counted.last_ns.max(at);
        }
        match &input {
            Input::Begin { mono_ns, .. } if self.shown => self.counted.begin_ns = Some(*mono_ns),
            Input::Event(_) => self.counted.events += 1,
            Input::Lost(lost) => self.counted.lost += lost.count,
            Input::Missed { count, .. } => self.counted.missed += count,
            Input::End(accounts) => return self.end(Some(*accounts), sink),
            _ => {}
        }
        let shown = self.shown;
        self.refilter.pass(input, &mut |input| {
            sink(if shown { Cue::Input(input) } else { Cue::Early(input) });
        });
    }

    /// Tells the end, with the account of the run if that is of what was told, else with a count.
    fn end(&mut self, accounts: Option<Accounts>, sink: &mut dyn FnMut(Cue)) {
        self.ended = true;
        let whole = self.since_ns.is_none();
        match accounts {
            Some(accounts) if whole => {
                // Lost between the tap and the disk.
                let delivered = accounts.delivered.saturating_sub(self.gap);
                let lost = accounts.lost + accounts.delivered - delivered;
                self.refilter.pass(
                    Input::End(Accounts { delivered, lost, ..accounts }),
                    &mut |e| {
                        sink(Cue::Input(e));
                    },
                );
            }
            _ => sink(Cue::Input(Input::End(self.count(accounts)))),
        }
        if accounts.is_none() && self.until_ns.is_none() && self.failure.is_none() {
            self.remarks.push(
                "the recording has no end: it was stopped, or is still being written; what came \
                 is counted, what was filtered is not known"
                    .to_owned(),
            );
        }
        if self.gap > 0 {
            self.remarks.push(format!(
                "{} events were not recorded, since the disk was too slow: they count as lost",
                self.gap
            ));
        }
        if self.unknown > 0 {
            self.remarks.push(format!(
                "{} inputs are of a kind that this version does not know, and were left out",
                self.unknown
            ));
        }
    }

    fn count(&self, accounts: Option<Accounts>) -> Accounts {
        let Counted { begin_ns, last_ns, events, lost, missed, filtered_before } = self.counted;
        let mono_ns = accounts.map_or(last_ns, |accounts| accounts.mono_ns);
        // What the gate held may have passed since.
        let filtered = self.refilter.filtered().saturating_sub(filtered_before);
        Accounts {
            mono_ns,
            seconds: mono_ns.saturating_sub(begin_ns.unwrap_or(mono_ns)) as f64 / 1e9,
            seen: events + lost,
            delivered: events.saturating_sub(filtered),
            filtered: filtered.min(events),
            lost,
            missed: Some(missed),
            malformed: 0,
        }
    }

    fn next_input(&mut self) -> Result<Option<Input>, RecordingError> {
        loop {
            if self.in_block {
                match Decoder::new(&self.block.bytes, &mut self.memory).next_item() {
                    Ok(Some(Item::Input(Input::Begin { .. })))
                        if self.block.head.is_context() && self.counted.begin_ns.is_some() => {}
                    Ok(Some(Item::Input(input))) => return Ok(Some(input)),
                    Ok(Some(Item::Unknown)) => self.unknown += 1,
                    Ok(None) => self.in_block = false,
                    Err(what) => {
                        let Some((part, reader)) = &self.reader else { return Ok(None) };
                        let error = reader.malformed(&self.block.head, what);
                        return Err(self.fail(*part, error));
                    }
                }
                continue;
            }
            match self.next_block()? {
                Step::Block => {}
                Step::Hole(at) => return Ok(Some(Input::Missed { count: 0, mono_ns: at })),
                Step::End => return Ok(None),
            }
        }
    }

    fn fail(&self, part: usize, error: ReadError) -> RecordingError {
        let path = self.parts.get(part).map(|part| part.path.clone()).unwrap_or_default();
        RecordingError::File { path, error }
    }

    fn next_block(&mut self) -> Result<Step, RecordingError> {
        let Some((part, mut reader)) = self.reader.take() else {
            let Some(part) = self.parts.get(self.next_part) else { return Ok(Step::End) };
            let mut reader = open(&part.path)?;
            if let Some(at) = self.begin_at.take() {
                reader.go_to(at).map_err(|error| self.fail(self.next_part, error))?;
            }
            self.reader = Some((self.next_part, reader));
            self.next_part += 1;
            return self.next_block();
        };
        let step = self.read_block(part, &mut reader).map_err(|error| self.fail(part, error))?;
        match step {
            Some(step) => {
                self.reader = Some((part, reader));
                Ok(step)
            }
            None => {
                if let Some(torn) = reader.torn() {
                    let path = self.parts.get(part).map(|part| part.path.display().to_string());
                    self.remarks.push(format!(
                        "{}: the last {} bytes are of a block that was not written to its end, \
                         and are left out",
                        path.unwrap_or_default(),
                        torn.bytes
                    ));
                }
                Ok(if self.next_part < self.parts.len() { self.next_block()? } else { Step::End })
            }
        }
    }

    /// Reads the next block that counts; `None` at the end of the file.
    fn read_block(
        &mut self,
        part: usize,
        reader: &mut Reader<BufReader<File>>,
    ) -> Result<Option<Step>, ReadError> {
        while let Some(head) = reader.head()? {
            if head.is_context() {
                let hole = self.expected.is_some_and(|expected| expected != head.number);
                if !self.wants_context && !hole && !head.is_after_gap() {
                    reader.skip(head)?;
                    continue;
                }
            } else if self.expected.is_some_and(|expected| expected < head.number) {
                // To be read once the hole has been told.
                reader.go_to(reader.position())?;
                self.expected = Some(head.number);
                self.wants_context = true;
                let path = self.parts.get(part).map(|part| part.path.display().to_string());
                self.remarks.push(format!(
                    "what was recorded right before {} is missing: not all files of the run are \
                     there",
                    path.unwrap_or_default()
                ));
                return Ok(Some(Step::Hole(head.first_ns)));
            }
            if !reader.contents(head, &mut self.block)? {
                break;
            }
            self.memory.begin(head.first_ns);
            self.in_block = true;
            if !head.is_context() {
                self.wants_context = false;
                self.gap += head.gap;
                self.expected = Some(head.number + 1);
            }
            return Ok(Some(Step::Block));
        }
        Ok(None)
    }

    /// How far it goes, whatever stretch of it is read.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn extent(&self) -> Result<Extent, RecordingError> {
        Ok(Extent { index: self.index()?, header: self.header.clone() })
    }

    fn index(&self) -> Result<Index, RecordingError> {
        let mut index = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            let mut reader = open(&part.path)?;
            loop {
                let position = reader.position();
                match reader.head() {
                    Ok(Some(head)) => {
                        index.push((at, position, head));
                        reader.skip(head).map_err(|error| self.fail(at, error))?;
                    }
                    // What is damaged is told when it is read.
                    Ok(None) | Err(ReadError::Damaged { .. }) => break,
                    Err(error) => return Err(self.fail(at, error)),
                }
            }
        }
        Ok(Index(index))
    }

    /// Leaves out what is not in the stretch.
    fn narrow(&mut self, stretch: Stretch) -> Result<(), RecordingError> {
        let index = self.index()?;
        let Some((first, last)) = index.ends() else { return Ok(()) };
        let mono = |moment: Moment| index.mono_ns(moment, &self.header).unwrap_or(0);
        self.since_ns = stretch.since.map(mono).filter(|&since| since > first.first_ns);
        self.until_ns = stretch.until.map(mono);
        let since = self.since_ns.unwrap_or(0);
        if since > last.last_ns
            || self.until_ns.is_some_and(|until| until < first.first_ns || until <= since)
        {
            let shown = |ns: i128| {
                jiff::Timestamp::from_nanosecond(ns)
                    .map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"))
            };
            let (begin, end) = index.realtime_ns(&self.header).unwrap_or_default();
            return Err(RecordingError::Nothing(shown(begin), shown(end)));
        }
        if self.since_ns.is_some() {
            self.shown = false;
            let by = since.saturating_sub(WARM_UP_NS);
            let whole = index.0.iter().rev().find_map(|(_, _, head)| {
                (head.last_ns <= by).then(|| head.whole_since()).flatten()
            });
            // The context in front of that block.
            let start = whole.and_then(|number| {
                index.0.iter().find(|(_, _, head)| head.is_context() && head.number == number)
            });
            if let Some(&(part, at, _)) = start {
                (self.next_part, self.begin_at) = (part, Some(at));
            }
        }
        Ok(())
    }
}

/// What came of looking for the next block.
enum Step {
    /// It is there.
    Block,
    /// Those before it are not; it begins at this time.
    Hole(u64),
    /// There is none.
    End,
}
