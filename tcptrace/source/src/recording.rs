//! Inputs from a recording: the files of one run, in their order, as one, or a stream.
//!
//! Hands out what was recorded as it was, but for what a filter or a stretch of time leaves out. What is
//! missing (a file, a damaged block, what the disk was too slow for) is an [`Input::Gap`], and is counted
//! at the end. Must not conclude anything from what it hands out. Holds one block at a time.

mod blocks;
mod error;
mod gap;
mod index;
mod open;
mod quota;

use std::path::PathBuf;

use tcptrace_model::moment::Moment;

use self::{
    blocks::{Blocks, Files, Next},
    gap::{Holes, moment, said},
    index::Index,
    open::{files, stream, stream_name},
    quota::Quota,
};
pub use error::RecordingError;
pub use index::Extent;

use super::refilter::Refilter;
use tcptrace_model::{Accounts, Gap, GapBecause, Gaps, Input, Snapshot, filter::Filter};
use tcptrace_record::{Block, Decoder, Header, Item, Memory, Torn};

/// What is shown begins at a moment; the analysis begins so much earlier, at the next place where
/// that can be: nanoseconds. Long enough for whatever is in TIME_WAIT, and then some.
const WARM_UP_NS: u64 = 600_000_000_000;

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

/// A recording that is being read.
pub struct Recording {
    blocks: Blocks,
    /// Of the first file.
    header: Header,
    block: Block,
    memory: Memory,
    /// The block is not read to its end.
    in_block: bool,
    /// The number that the next block is to have.
    expected: Option<u64>,
    /// A block of the context that is to be handed out: the first ones, and those after a gap.
    wants_context: bool,
    holes: Holes,
    /// Pieces of a round of snapshots that has a hole are left out.
    holed_round: bool,
    /// The block before which it was said that the disk was too slow.
    gap_told_before: Option<u64>,
    realtime_offset_ns: i64,
    quota: Quota,
    refilter: Refilter,
    since_ns: Option<u64>,
    until_ns: Option<u64>,
    shown: bool,
    counted: Counted,
    /// The beginning of the run is not there.
    headless: bool,
    stopped: bool,
    says_end: bool,
    ended: bool,
    failure: Option<RecordingError>,
    remarks: Vec<String>,
    unknown: u64,
    gap: u64,
}

/// Remarks on gaps that are made one by one.
const GAPS_SAID: u64 = 20;

/// What came by.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    begin_ns: Option<u64>,
    last_ns: u64,
    events: u64,
    lost: u64,
    missed: u64,
    gaps: Gaps,
    /// Of these gaps, those for which the recording is to blame.
    broken: Gaps,
    /// Of [`Refilter::filtered`], what came before.
    filtered_before: u64,
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
        let mut remarks = Vec::new();
        let (blocks, header) = match stream(paths)? {
            Some((stream, header)) => {
                if stretch != Stretch::default() {
                    return Err(RecordingError::Stream(stream_name(&paths[0])));
                }
                (Blocks::Stream(stream), header)
            }
            None => {
                let parts = files(paths, &mut remarks)?;
                let header = parts.first().map(|part| part.header.clone()).unwrap_or_default();
                (Blocks::Files(Box::new(Files::new(parts))), header)
            }
        };
        let headless = header.part > 1;
        let mut recording = Self {
            blocks,
            block: Block::default(),
            memory: Memory::default(),
            in_block: false,
            expected: (!headless).then_some(0),
            wants_context: true,
            holes: Holes::new(header.mono_ns),
            holed_round: false,
            gap_told_before: None,
            realtime_offset_ns: header.realtime_offset_ns,
            quota: Quota::default(),
            refilter: Refilter::new(filter),
            since_ns: None,
            until_ns: None,
            shown: true,
            counted: Counted::default(),
            headless,
            header,
            stopped: false,
            says_end: false,
            ended: false,
            failure: None,
            remarks,
            unknown: 0,
            gap: 0,
        };
        if stretch != Stretch::default() {
            recording.narrow(stretch)?;
        }
        if recording.headless && recording.since_ns.is_none() {
            recording.remarks.push(format!(
                "the recording begins with file {} of its run: those before it are not there (--keep \
                 removes them)",
                recording.header.part
            ));
        }
        Ok(recording)
    }

    /// How and where it was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes of how many have been read; of a stream nobody knows how many there are.
    pub fn progress(&self) -> Option<(u64, u64)> {
        match &self.blocks {
            Blocks::Files(files) => Some(files.progress()),
            Blocks::Stream(_) => None,
        }
    }

    /// Has it said which moment its end is, for who shows that alone.
    pub fn say_end(&mut self) {
        self.says_end = true;
    }
    /// The files that are read.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.blocks {
            Blocks::Files(files) => files.parts.iter().map(|part| part.path.clone()).collect(),
            Blocks::Stream(_) => Vec::new(),
        }
    }

    /// Whether it comes through a pipe: what is not there yet may be waited for.
    pub fn is_stream(&self) -> bool {
        matches!(self.blocks, Blocks::Stream(_))
    }

    /// Waits until [`Self::feed`] has something to hand out.
    pub async fn ready(&mut self) {
        match &mut self.blocks {
            Blocks::Stream(stream) if !self.in_block && !self.ended => stream.ready().await,
            _ => {}
        }
    }

    /// Has it end with what was handed out so far.
    pub fn stop(&mut self) {
        self.stopped = true;
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
            if self.stopped {
                self.end(None, sink);
                return false;
            }
            match self.next_input() {
                Ok(Got::Input(input)) => self.tell(input, sink),
                Ok(Got::Later) => return true,
                Ok(Got::End) => {
                    if let Some(gap) = self.holes.last_gap() {
                        self.tell(Input::Gap(gap), sink);
                    }
                    if !self.ended {
                        self.end(None, sink);
                    }
                }
                Err(error) => {
                    self.failure = Some(error);
                    self.end(None, sink);
                }
            }
        }
        !self.ended
    }

    fn tell(&mut self, mut input: Input, sink: &mut dyn FnMut(Cue)) {
        if !self.quota.admits(&mut input) {
            return;
        }
        if let Input::Snapshot(snapshot) = &input {
            self.holed_round &= !matches!(snapshot, Snapshot::Open | Snapshot::OpenMinisocks);
            if self.holed_round {
                return;
            }
        }
        if let Some(at) = input.mono_ns() {
            if let (Input::Gap(gap), Some(until)) = (&input, self.until_ns)
                && gap.from_ns < until
                && until < at
            {
                self.tell(Input::Gap(Gap { mono_ns: until, ..*gap }), sink);
                return self.end(None, sink);
            }
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
            Input::Gap(gap) => self.note(*gap),
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
        let whole = self.since_ns.is_none() && !self.headless;
        let headless = self.headless && self.since_ns.is_none();
        let endless = accounts.is_none() && self.until_ns.is_none() && self.failure.is_none();
        self.counted.gaps.partial = headless || endless;
        let gaps = self.counted.gaps;
        match accounts {
            Some(accounts) if whole => {
                // What was delivered then, and is not here: lost between the tap and this reader.
                let here = self.counted.events + accounts.malformed;
                let missing = match gaps.count {
                    0 => 0,
                    _ => accounts.delivered.saturating_sub(here).max(self.gap),
                };
                let delivered = accounts.delivered.saturating_sub(missing);
                let lost = accounts.lost + accounts.delivered - delivered;
                self.refilter
                    .pass(Input::End(Accounts { delivered, lost, gaps, ..accounts }), &mut |e| {
                        sink(Cue::Input(e))
                    });
            }
            _ => sink(Cue::Input(Input::End(self.count(accounts)))),
        }
        if endless {
            self.remarks.push(
                "the recording has no end: it was stopped, is still being written, or its last file \
                 is missing; what came is counted, what was filtered is not known"
                    .to_owned(),
            );
        }
        if self.says_end {
            let end_ns = accounts.map_or(self.counted.last_ns, |accounts| accounts.mono_ns);
            self.remarks.push(format!(
                "as of {}, the end of {}",
                moment(end_ns, self.realtime_offset_ns),
                if self.until_ns.is_some() { "what --until left" } else { "the recording" }
            ));
        }
        if gaps.count > GAPS_SAID {
            self.remarks.push(format!("{} more gaps", gaps.count - GAPS_SAID));
        }
        let broken = self.counted.broken;
        if broken.count > 0 && self.failure.is_none() {
            self.failure = Some(RecordingError::Gaps { count: broken.count, ns: broken.ns });
        }
        if self.gap > 0 {
            self.remarks.push(format!(
                "{} events were not recorded, since the disk was too slow: they count as lost",
                self.gap
            ));
        }
        if self.quota.left_out() > 0 {
            self.remarks.push(format!(
                "{} inputs were left out to bound memory: no host has so many namespaces, ports or \
                 sysctls",
                self.quota.left_out()
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
        let Counted { begin_ns, last_ns, events, lost, missed, gaps, filtered_before, .. } =
            self.counted;
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
            gaps,
        }
    }

    /// Counts a gap, and says where it is.
    fn note(&mut self, gap: Gap) {
        let add = |gaps: &mut Gaps| {
            gaps.count += 1;
            gaps.ns = gaps.ns.saturating_add(gap.ns());
        };
        add(&mut self.counted.gaps);
        if gap.because != GapBecause::SlowDisk {
            add(&mut self.counted.broken);
        }
        if self.counted.gaps.count <= GAPS_SAID {
            self.remarks.push(said(&gap, self.realtime_offset_ns));
        }
    }

    /// Notes damage, which becomes a gap if blocks turn out to be missing.
    fn damage(&mut self, what: &str, of: Option<(u64, u64)>) {
        if self.counted.gaps.count < GAPS_SAID && self.remarks.len() < 2 * GAPS_SAID as usize {
            self.remarks.push(format!("{what}: left out"));
        }
        self.holes.damage(of);
        self.wants_context = true;
    }

    /// Notes a file that ends within a block: its writer was stopped then, or it was cut off.
    fn torn(&mut self, place: &str, torn: Torn) {
        self.holes.cut();
        self.remarks.push(format!(
            "{place}: the last {} bytes are of a block that was not written to its end, and are left \
             out",
            torn.bytes
        ));
    }

    /// The gap up to `until`, after which something is known again.
    fn gap_to(&mut self, until_ns: u64, because: GapBecause) -> Gap {
        self.holed_round = true;
        self.wants_context = true;
        self.holes.gap_to(until_ns, because)
    }

    fn next_input(&mut self) -> Result<Got, RecordingError> {
        loop {
            if !self.in_block {
                match self.next_block()? {
                    Step::Block => {}
                    Step::Gap(gap) => return Ok(Got::Input(Input::Gap(gap))),
                    Step::Later => return Ok(Got::Later),
                    Step::End => return Ok(Got::End),
                }
            }
            match Decoder::new(&self.block.bytes, &mut self.memory).next_item() {
                Ok(Some(Item::Input(Input::Begin { .. })))
                    if self.block.head.is_context() && self.counted.begin_ns.is_some() => {}
                Ok(Some(Item::Input(input))) => {
                    self.holes.know(input.mono_ns());
                    return Ok(Got::Input(input));
                }
                Ok(Some(Item::Unknown)) => self.unknown += 1,
                Ok(None) => {
                    self.in_block = false;
                    self.holes.know(Some(self.block.head.last_ns));
                }
                Err(what) => {
                    // The rest of it.
                    self.in_block = false;
                    let place = self.blocks.place();
                    self.damage(
                        &format!("{place}: {what}"),
                        Some((self.block.head.first_ns, self.block.head.last_ns)),
                    );
                    if !self.block.head.is_context() {
                        // As if it were missing.
                        self.expected = Some(self.block.head.number);
                    }
                }
            }
        }
    }

    /// Goes on to the next block that counts.
    fn next_block(&mut self) -> Result<Step, RecordingError> {
        loop {
            let head = match self.blocks.next()? {
                Next::Head(head) => head,
                Next::Damage(what) => {
                    self.damage(&what, None);
                    continue;
                }
                Next::Torn(place, torn) => {
                    self.torn(&place, torn);
                    continue;
                }
                Next::End => return Ok(Step::End),
                Next::Later => return Ok(Step::Later),
            };
            if self.expected.is_some_and(|expected| expected < head.number) {
                // To be read once the gap has been told.
                self.blocks.give_back(head);
                self.expected = Some(head.number);
                return Ok(Step::Gap(self.gap_to(head.first_ns, GapBecause::Missing)));
            }
            if head.is_context() {
                if !self.wants_context && !head.is_after_gap() {
                    self.blocks.pass_over(head)?;
                    continue;
                }
            } else if head.is_after_gap() && self.gap_told_before != Some(head.number) {
                self.blocks.give_back(head);
                self.gap_told_before = Some(head.number);
                return Ok(Step::Gap(self.gap_to(head.first_ns, GapBecause::SlowDisk)));
            }
            if let Some(instead) = self.blocks.contents(head, &mut self.block)? {
                match instead {
                    Next::Damage(what) => self.damage(&what, Some((head.first_ns, head.last_ns))),
                    Next::Torn(place, torn) => self.torn(&place, torn),
                    _ => {}
                }
                continue;
            }
            self.memory.begin(head.first_ns);
            self.in_block = true;
            self.realtime_offset_ns = match head.realtime_offset_ns {
                0 => self.realtime_offset_ns,
                offset => offset,
            };
            if !head.is_context() {
                // What was damaged before it was no block that counts.
                self.holes.no_more();
                self.wants_context = false;
                self.gap += head.gap;
                self.expected = Some(head.number.saturating_add(1));
            }
            return Ok(Step::Block);
        }
    }

    /// How far it goes, whatever stretch of it is read.
    ///
    /// # Errors
    /// A file cannot be read, or it is a stream, of which nobody knows.
    pub fn extent(&self) -> Result<Extent, RecordingError> {
        Ok(Extent { index: self.index()?, header: self.header.clone() })
    }

    fn index(&self) -> Result<Index, RecordingError> {
        match &self.blocks {
            Blocks::Files(files) => Index::of(&files.parts),
            Blocks::Stream(_) => Err(RecordingError::Stream(self.blocks.place())),
        }
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
                if let Blocks::Files(files) = &mut self.blocks {
                    files.begin_at(part, at);
                }
                self.expected = None;
            }
        }
        Ok(())
    }
}

/// What comes next.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are inputs, which a box would cost an allocation each"
)]
enum Got {
    Input(Input),
    /// Nothing yet.
    Later,
    End,
}

/// What came of looking for the next block.
enum Step {
    /// It is there.
    Block,
    /// Those before it are not.
    Gap(Gap),
    /// Nothing yet.
    Later,
    /// There is none.
    End,
}
