//! The blocks of a run, one after the other, whatever they come from: files, which can be read more
//! than once, or a stream (a pipe, a FIFO, stdin), which is read once, by a thread, so that nobody who
//! waits for the next block is kept from hearing a signal.
//!
//! Must not decide what a missing or damaged block means. Holds one block; of a stream, three.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    thread,
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::error::RecordingError;
use tcptrace_record::{Block, BlockHead, Contents, Found, Header, ReadError, Reader, Torn};

/// How much of a file is read at once, bytes.
const BUFFER: usize = 1 << 18;

/// Blocks of a stream that wait to be taken.
const WAITING: usize = 2;

/// A file of a recording.
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// How long it was when it was opened, bytes.
    pub(super) bytes: u64,
}

pub(super) fn open(path: &Path) -> Result<Reader<BufReader<File>>, RecordingError> {
    let fail = |error| RecordingError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(|error| fail(error.into()))?;
    Reader::new(BufReader::with_capacity(BUFFER, file)).map_err(fail)
}

/// What comes next.
pub(super) enum Next {
    /// A block, whose contents are to be asked for, passed over or given back.
    Head(BlockHead),
    /// Something that is no block; ask again.
    Damage(String),
    /// A file ended within a block; ask again.
    Torn(String, Torn),
    /// Nothing.
    End,
    /// Nothing yet.
    Later,
}

/// The blocks of a run.
pub(super) enum Blocks {
    Files(Box<Files>),
    Stream(Stream),
}

impl Blocks {
    pub(super) fn next(&mut self) -> Result<Next, RecordingError> {
        match self {
            Self::Files(files) => files.next(),
            Self::Stream(stream) => stream.next(),
        }
    }

    /// The contents of the block whose head came last; `None`: they are damaged, or torn.
    pub(super) fn contents(
        &mut self,
        head: BlockHead,
        block: &mut Block,
    ) -> Result<Option<Next>, RecordingError> {
        match self {
            Self::Files(files) => files.contents(head, block),
            Self::Stream(stream) => {
                if let Some(Message::Block(there)) = stream.arrived.take() {
                    *block = *there;
                }
                Ok(None)
            }
        }
    }

    pub(super) fn pass_over(&mut self, head: BlockHead) -> Result<(), RecordingError> {
        match self {
            Self::Files(files) => files.pass_over(head),
            Self::Stream(stream) => {
                stream.arrived = None;
                Ok(())
            }
        }
    }

    pub(super) fn give_back(&mut self, head: BlockHead) {
        // Of a stream it stays there until its contents are taken.
        if let Self::Files(files) = self
            && let Some((_, reader)) = &mut files.reader
        {
            reader.give_back(head);
        }
    }

    /// What the place that is being read is called.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Files(files) => files.place(),
            Self::Stream(stream) => stream.name.clone(),
        }
    }
}

/// Files of a run, in their order.
pub(super) struct Files {
    pub(super) parts: Vec<Part>,
    /// The file that is being read, by its index, and the next one.
    reader: Option<(usize, Reader<BufReader<File>>)>,
    next_part: usize,
    /// Where in the first file that is read to begin; `None`: at its beginning.
    begin_at: Option<u64>,
}

impl Files {
    pub(super) fn new(parts: Vec<Part>) -> Self {
        Self { parts, reader: None, next_part: 0, begin_at: None }
    }

    /// Begins in this file, at this place of it.
    pub(super) fn begin_at(&mut self, part: usize, at: u64) {
        (self.next_part, self.begin_at) = (part, Some(at));
    }

    /// How many bytes of how many have been read.
    pub(super) fn progress(&self) -> (u64, u64) {
        let sum = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum();
        let all: u64 = sum(&self.parts);
        let read = match &self.reader {
            Some((part, reader)) => sum(&self.parts[..*part]) + reader.position(),
            None => sum(&self.parts[..self.next_part]),
        };
        (read.min(all), all)
    }

    fn place(&self) -> String {
        let at = self.reader.as_ref().map_or(self.next_part, |(part, _)| *part);
        self.parts.get(at).map(|part| part.path.display().to_string()).unwrap_or_default()
    }

    fn fail(&self, part: usize, error: ReadError) -> RecordingError {
        let path = self.parts.get(part).map(|part| part.path.clone()).unwrap_or_default();
        RecordingError::File { path, error }
    }

    fn next(&mut self) -> Result<Next, RecordingError> {
        loop {
            let place = self.place();
            let Some((part, reader)) = &mut self.reader else {
                let Some(part) = self.parts.get(self.next_part) else { return Ok(Next::End) };
                let mut reader = open(&part.path)?;
                if let Some(at) = self.begin_at.take() {
                    reader.go_to(at).map_err(|error| self.fail(self.next_part, error))?;
                }
                self.reader = Some((self.next_part, reader));
                self.next_part += 1;
                continue;
            };
            let part = *part;
            match reader.head() {
                Ok(Found::Head(head)) => return Ok(Next::Head(head)),
                Ok(Found::Damage { at }) => {
                    return Ok(Next::Damage(format!("{place}: damaged at byte {at}")));
                }
                Ok(Found::End) => {
                    let torn = reader.torn();
                    self.reader = None;
                    if let Some(torn) = torn {
                        return Ok(Next::Torn(place, torn));
                    }
                }
                Err(error) => return Err(self.fail(part, error)),
            }
        }
    }

    fn contents(
        &mut self,
        head: BlockHead,
        block: &mut Block,
    ) -> Result<Option<Next>, RecordingError> {
        let place = self.place();
        let Some((part, reader)) = &mut self.reader else { return Ok(Some(Next::End)) };
        let part = *part;
        match reader.contents(head, block) {
            Ok(Contents::Whole) => Ok(None),
            Ok(Contents::Damaged { at }) => {
                Ok(Some(Next::Damage(format!("{place}: damaged at byte {at}"))))
            }
            // The next call tells of it.
            Ok(Contents::Torn) => {
                let torn = reader.torn();
                self.reader = None;
                Ok(Some(torn.map_or(Next::End, |torn| Next::Torn(place, torn))))
            }
            Err(error) => Err(self.fail(part, error)),
        }
    }

    fn pass_over(&mut self, head: BlockHead) -> Result<(), RecordingError> {
        let Some((part, reader)) = &mut self.reader else { return Ok(()) };
        let part = *part;
        reader.skip(head).map_err(|error| self.fail(part, error))
    }
}

/// What the thread that reads a stream hands over.
enum Message {
    Block(Box<Block>),
    Damage(u64),
    Torn(Torn),
    Failed(ReadError),
}

/// A recording that comes through a pipe.
pub(super) struct Stream {
    name: String,
    messages: mpsc::Receiver<Message>,
    arrived: Option<Message>,
    ended: bool,
}

impl Stream {
    /// Reads the header, which may have to be waited for, and starts the thread that reads the rest.
    ///
    /// # Errors
    /// It is no recording, or no thread is to be had.
    pub(super) fn start(
        name: String,
        from: impl Read + Send + 'static,
    ) -> Result<(Self, Header), RecordingError> {
        let fail = |error| RecordingError::File { path: name.clone().into(), error };
        // Little at a time: what has come is to be shown, however little it is.
        let reader = Reader::new(BufReader::with_capacity(1 << 16, from)).map_err(fail)?;
        let header = reader.header().clone();
        let (hand, messages) = mpsc::channel(WAITING);
        let run = move || hand_over(reader, &hand);
        thread::Builder::new()
            .name("stream".into())
            .spawn(run)
            .map_err(|error: io::Error| fail(error.into()))?;
        Ok((Self { name, messages, arrived: None, ended: false }, header))
    }

    /// Waits until there is something to be read, or the end.
    pub(super) async fn ready(&mut self) {
        if self.arrived.is_some() || self.ended {
            return;
        }
        self.arrived = self.messages.recv().await;
        self.ended = self.arrived.is_none();
    }

    fn next(&mut self) -> Result<Next, RecordingError> {
        if self.arrived.is_none() && !self.ended {
            match self.messages.try_recv() {
                Ok(message) => self.arrived = Some(message),
                Err(TryRecvError::Empty) => return Ok(Next::Later),
                Err(TryRecvError::Disconnected) => self.ended = true,
            }
        }
        if let Some(Message::Block(block)) = &self.arrived {
            return Ok(Next::Head(block.head));
        }
        match self.arrived.take() {
            Some(Message::Damage(at)) => {
                Ok(Next::Damage(format!("{}: damaged at byte {at}", self.name)))
            }
            Some(Message::Torn(torn)) => Ok(Next::Torn(self.name.clone(), torn)),
            Some(Message::Failed(error)) => {
                self.ended = true;
                Err(RecordingError::File { path: self.name.clone().into(), error })
            }
            Some(Message::Block(_)) | None => Ok(Next::End),
        }
    }
}

/// Reads until the end, or until nobody takes it any more.
fn hand_over(mut reader: Reader<impl Read>, hand: &mpsc::Sender<Message>) {
    loop {
        let found = reader.head();
        let message = match found {
            Ok(Found::Head(head)) => {
                let mut block = Box::<Block>::default();
                match reader.contents(head, &mut block) {
                    Ok(Contents::Whole) => Message::Block(block),
                    Ok(Contents::Damaged { at }) => Message::Damage(at),
                    Ok(Contents::Torn) => continue,
                    Err(error) => Message::Failed(error),
                }
            }
            Ok(Found::Damage { at }) => Message::Damage(at),
            Ok(Found::End) => match reader.torn() {
                Some(torn) => Message::Torn(torn),
                None => return,
            },
            Err(error) => Message::Failed(error),
        };
        let is_last = matches!(message, Message::Torn(_) | Message::Failed(_));
        if hand.blocking_send(message).is_err() || is_last {
            return;
        }
    }
}
