//! Takes inputs off on their way to the analysis, for a thread that writes them.
//!
//! Must not hold up who feeds it: where the disk is too slow, a block that finds no room is not
//! kept, and the recording says how many events are missing there, as of any other loss.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use tcptrace_common::counters::Hook;

use super::{
    context,
    encode::Encoder,
    writer::{FileError, Files, Sealed, Writer},
};
use tcptrace_model::{Event, Input, Lost, Snapshot};

/// What may wait for the disk, bytes.
const WAITING_BYTES: usize = 16 << 20;

/// What a block takes beside its contents, about.
const BLOCK_BYTES: usize = 4096;

/// A block is closed at the first tick after so long. Ticks come at least four times a second, so
/// none is older than a second when it is written: nanoseconds.
const CLOSE_AFTER_NS: u64 = 700_000_000;

/// What became of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Inputs that were kept.
    pub inputs: u64,
    /// Events that were not, since the disk was too slow.
    pub gap: u64,
    /// Bytes that were written.
    pub bytes: u64,
}

/// The block that is being filled.
#[derive(Debug, Default)]
struct Open {
    inputs: u32,
    first_ns: u64,
    last_ns: u64,
    missing: Missing,
    opens: bool,
    whole: bool,
}

/// What is missing where a block was not kept.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    /// Events in it, by [`Hook`].
    events: [u64; Hook::ALL.len()],
    /// Events that it said were lost or missed already: whoever drops that loses the loss.
    lost: [u64; Hook::ALL.len()],
    missed: u64,
}

impl Missing {
    fn take(&mut self, input: &Input) {
        match input {
            Input::Event(event) => self.events[hook_of(event) as usize] += 1,
            Input::Lost(lost) => self.lost[lost.hook as usize] += lost.count,
            Input::Missed { count, .. } => self.missed += count,
            _ => {}
        }
    }

    fn add(&mut self, more: &Self) {
        let add = |sums: &mut [u64], counts: &[u64]| {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        };
        add(&mut self.events, &more.events);
        add(&mut self.lost, &more.lost);
        self.missed += more.missed;
    }
}

/// The recording side of an analysis.
pub struct Tap {
    name: String,
    encoder: Encoder,
    open: Open,
    /// The last time that was told.
    now: u64,
    /// Kept until a block takes it along.
    lasting: Vec<Input>,
    /// What blocks had that were not kept, since the last one that was.
    missing: Option<Missing>,
    /// Pieces of a round of snapshots that has a hole are not kept.
    holed_round: bool,
    blocks: Sender<Sealed>,
    /// Bytes that wait for the disk.
    waiting: Arc<AtomicUsize>,
    writer: JoinHandle<Result<u64, FileError>>,
    failed: bool,
    /// The last block, for [`Self::finish`].
    last: Option<Sealed>,
    saved: Saved,
}

fn hook_of(event: &Event) -> Hook {
    match event {
        Event::Transition(_) => Hook::SetState,
        Event::Minisock(_) => Hook::TimeWait,
        Event::Reset(_) => Hook::Reset,
        Event::Accept(_) => Hook::Accept,
    }
}

impl Tap {
    /// Starts the thread that writes to `files`.
    ///
    /// # Errors
    /// There is no room for a thread or for zstd.
    pub fn start(files: Files) -> io::Result<Self> {
        let name = files.name();
        let (blocks, queue) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&waiting);
        let mut writer = Writer::new(files)?;
        let run = move || {
            let queue: Receiver<Sealed> = queue;
            for sealed in queue {
                let len = BLOCK_BYTES + sealed.bytes.len();
                match writer.write(sealed) {
                    Ok(()) => {}
                    // Whoever read the pipe has enough: no error, but an end.
                    Err(FileError::Write { error, .. })
                        if error.kind() == io::ErrorKind::BrokenPipe =>
                    {
                        return Ok(writer.bytes());
                    }
                    Err(error) => return Err(error),
                }
                written.fetch_sub(len, Ordering::Relaxed);
            }
            writer.finish()
        };
        let writer = thread::Builder::new().name("recording".into()).spawn(run)?;
        Ok(Self {
            name,
            encoder: Encoder::default(),
            open: Open::default(),
            now: 0,
            lasting: Vec::new(),
            missing: None,
            holed_round: false,
            blocks,
            waiting,
            writer,
            failed: false,
            last: None,
            saved: Saved::default(),
        })
    }

    /// What the recording is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the recording has ended before its time; [`Self::finish`] says why.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes one input in.
    pub fn put(&mut self, input: &Input) {
        if self.failed {
            return;
        }
        let at = input.mono_ns();
        if let Input::Snapshot(snapshot) = input {
            self.holed_round &= !matches!(snapshot, Snapshot::Open | Snapshot::OpenMinisocks);
            if self.holed_round {
                return;
            }
            self.open.opens |= matches!(snapshot, Snapshot::Open);
            self.open.whole |= matches!(snapshot, Snapshot::Over { all: true, .. });
        }
        if self.open.inputs == 0 {
            self.begin(at.unwrap_or(self.now));
        }
        if let Some(at) = at {
            self.now = at;
            self.open.last_ns = self.open.last_ns.max(at);
        }
        self.open.missing.take(input);
        if context::lasts(input) {
            self.lasting.push(input.clone());
        }
        self.encoder.put(input);
        self.open.inputs += 1;
        let old = matches!(input, Input::Tick { .. })
            && self.now.saturating_sub(self.open.first_ns) >= CLOSE_AFTER_NS;
        let end = matches!(input, Input::End(_));
        if self.encoder.is_full() || old || end {
            self.close(end);
        }
    }

    /// Begins a block, with what is missing before it.
    fn begin(&mut self, now: u64) {
        (self.open.first_ns, self.open.last_ns) = (now, now);
        self.encoder.begin(now);
        let Some(missing) = self.missing else { return };
        let counts = missing.events.iter().zip(missing.lost).map(|(events, lost)| events + lost);
        for (hook, count) in Hook::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.encoder.put(&Input::Lost(Lost { hook, count, mono_ns: now }));
                self.open.inputs += 1;
            }
        }
        if missing.missed > 0 {
            self.encoder.put(&Input::Missed { count: missing.missed, mono_ns: now });
            self.open.inputs += 1;
        }
    }

    /// Hands the block to the writer.
    fn close(&mut self, end: bool) {
        let Open { inputs, first_ns, last_ns, missing, opens, whole } =
            std::mem::take(&mut self.open);
        let gap = self.missing.map(|missing| missing.events.iter().sum());
        let sealed = Sealed {
            bytes: self.encoder.take(),
            inputs,
            first_ns,
            last_ns,
            lasting: std::mem::take(&mut self.lasting),
            gap,
            opens,
            whole,
        };
        if end {
            // Kept even if there is no room.
            self.kept(inputs, gap);
            self.last = Some(sealed);
            return;
        }
        let len = BLOCK_BYTES + sealed.bytes.len();
        if self.waiting.load(Ordering::Relaxed) + len > WAITING_BYTES {
            self.lasting = sealed.lasting;
            self.holed_round = true;
            self.missing.get_or_insert_default().add(&missing);
            return;
        }
        self.waiting.fetch_add(len, Ordering::Relaxed);
        match self.blocks.send(sealed) {
            Ok(()) => self.kept(inputs, gap),
            Err(_) => self.failed = true,
        }
    }

    fn kept(&mut self, inputs: u32, gap: Option<u64>) {
        self.saved.inputs += u64::from(inputs);
        self.saved.gap += gap.unwrap_or(0);
        self.missing = None;
    }

    /// Waits until everything is written.
    ///
    /// Blocks as long as the disk does; to be called where that may be interrupted.
    ///
    /// # Errors
    /// Why the recording ended before its time.
    pub fn finish(mut self) -> Result<Saved, FileError> {
        if self.open.inputs > 0 && self.last.is_none() {
            self.close(true);
        }
        if let Some(last) = self.last.take() {
            // Fails only when the writer has ended; joining it says why.
            let _ = self.blocks.send(last);
        }
        drop(self.blocks);
        match self.writer.join() {
            Ok(bytes) => Ok(Saved { bytes: bytes?, ..self.saved }),
            Err(_) => Err(FileError::Write {
                path: self.name.into(),
                error: io::Error::other("the writing thread panicked"),
            }),
        }
    }
}
