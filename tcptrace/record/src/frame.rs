//! The frame of a recording: the header of the file, the head of each block.
//!
//! All numbers are little-endian. The header of the file is JSON, so that it can be read without
//! tcptrace, and so that a later version may say more in it.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use serde::{Deserialize, Serialize};
use tcptrace_model::text::harmless;

/// What a recording begins with. Not text, and damaged by whatever takes it for text.
pub(super) const MAGIC: [u8; 8] = *b"\x89TCPT\r\n\x1a";

/// The version of the format. A version can be read by all tcptraces since the one that brought it.
pub const VERSION: u32 = 1;

/// The longest header, bytes.
const MAX_HEADER: u32 = 1 << 20;

/// The most that a block holds, bytes, before compression and after.
pub(super) const MAX_BLOCK: u32 = 4 << 20;

/// What a block begins with.
pub(super) const BLOCK_MAGIC: [u8; 4] = *b"tcpB";

/// Length of [`BlockHead`] in the file.
pub(super) const HEAD_BYTES: usize = 72;

/// Length of what comes before the text of the header.
pub const FIXED_BYTES: usize = 20;

/// Says again what still holds: for who begins to read here, or after a gap.
pub(super) const CONTEXT: u32 = 1 << 0;
/// A round of snapshots of everything ended in it, which began `back` blocks before.
pub(super) const WHOLE: u32 = 1 << 1;
/// Inputs before it were not kept, since the disk was too slow.
pub(super) const AFTER_GAP: u32 = 1 << 2;

/// Where and how a recording was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Version of the tcptrace that wrote it.
    pub tcptrace: String,
    /// The same in all files of one run, and in no other.
    pub run: String,
    /// Which of the files of its run this is, from 1.
    pub part: u64,
    /// Name of the host.
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    /// When the host was booted: `CLOCK_REALTIME`, nanoseconds.
    pub boot_time_ns: i64,
    /// When the file was begun: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC` then, nanoseconds.
    pub realtime_offset_ns: i64,
    /// What listened.
    pub hooks: Vec<HookInForce>,
    /// What could not be observed, and why.
    pub not_observable: Vec<String>,
    /// The command line.
    pub command: Vec<String>,
    /// What was kept; none: everything.
    pub filter: Vec<String>,
}

/// One of the things to listen to, and how that was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookInForce {
    /// To what.
    pub of: String,
    /// The way that was taken; `None`: none was.
    pub by: Option<String>,
    /// Better ways, and why each was refused.
    pub refused: Vec<String>,
}

/// Why a file's beginning cannot be read.
#[derive(Debug)]
pub(super) enum BadHeader {
    Io(io::Error),
    Empty,
    NotOurs,
    Torn,
    Damaged,
    Newer(u32),
}

impl Header {
    /// Without what could harm a terminal, a table or a page: whoever wrote the file chose its words.
    fn made_harmless(mut self) -> Self {
        let safe = |text: &mut String| {
            if let Cow::Owned(safe) = harmless(text) {
                *text = safe;
            }
        };
        let Self { tcptrace, run, host, kernel, hooks, not_observable, command, filter, .. } =
            &mut self;
        let lists = [not_observable, command, filter].into_iter().flatten();
        let hooks = hooks.iter_mut().flat_map(|hook| {
            [&mut hook.of].into_iter().chain(&mut hook.by).chain(&mut hook.refused)
        });
        [tcptrace, run, host, kernel].into_iter().chain(lists).chain(hooks).for_each(safe);
        self
    }

    /// Which boot of the host it was made in; `None` where that could not be read.
    pub fn boot_id(&self) -> Option<&str> {
        // `run` begins with it.
        self.run.split('/').next().filter(|boot| !boot.is_empty())
    }

    /// What a file begins with.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = Vec::with_capacity(FIXED_BYTES + text.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes);
        sum.update(&text);
        bytes.extend_from_slice(&sum.finalize().to_le_bytes());
        bytes.extend_from_slice(&text);
        bytes
    }

    /// Reads what a file begins with; says how long that was.
    pub(super) fn read(from: &mut impl Read) -> Result<(Self, u64), BadHeader> {
        let mut fixed = [0; FIXED_BYTES];
        let got = read_all(from, &mut fixed).map_err(BadHeader::Io)?;
        if got == 0 {
            return Err(BadHeader::Empty);
        }
        let magic = MAGIC.len().min(got);
        if fixed[..magic] != MAGIC[..magic] {
            return Err(BadHeader::NotOurs);
        }
        if got < FIXED_BYTES {
            return Err(BadHeader::Torn);
        }
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&fixed[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let (version, len) = (word(8), word(12));
        if len > MAX_HEADER {
            return Err(BadHeader::Damaged);
        }
        let mut text = vec![0; len as usize];
        if read_all(from, &mut text).map_err(BadHeader::Io)? < text.len() {
            return Err(BadHeader::Torn);
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&fixed[..16]);
        sum.update(&text);
        if sum.finalize() != word(16) {
            return Err(BadHeader::Damaged);
        }
        if version != VERSION {
            return Err(BadHeader::Newer(version));
        }
        let header: Self = serde_json::from_slice(&text).map_err(|_| BadHeader::Damaged)?;
        let header = header.made_harmless();
        Ok((header, FIXED_BYTES as u64 + u64::from(len)))
    }
}

/// What a block begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHead {
    pub(super) flags: u32,
    /// Length of what follows, bytes.
    pub(super) packed: u32,
    /// Its length once it is unpacked, bytes.
    pub(super) unpacked: u32,
    /// CRC-32 of what follows.
    pub(super) sum: u32,
    /// What its times count from: `CLOCK_MONOTONIC`, nanoseconds.
    pub first_ns: u64,
    /// The last time in it.
    pub last_ns: u64,
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC` at its end, nanoseconds.
    pub realtime_offset_ns: i64,
    /// How many blocks of the run came before, those of a [context](Self::is_context) not counted.
    pub number: u64,
    /// Events before it that were not kept.
    pub gap: u64,
    /// How many inputs it has.
    pub inputs: u32,
    /// How many blocks before this the round of snapshots began that ended in it.
    pub(super) back: u32,
}

impl BlockHead {
    /// Whether it says again what still holds: to be passed over by who has read what was before.
    pub fn is_context(&self) -> bool {
        self.flags & CONTEXT != 0
    }

    /// Whether inputs before it were not kept.
    pub fn is_after_gap(&self) -> bool {
        self.flags & AFTER_GAP != 0
    }

    /// The number of the block at which to begin, to have a whole round of snapshots by the end of
    /// this one.
    pub fn whole_since(&self) -> Option<u64> {
        if self.flags & WHOLE == 0 {
            return None;
        }
        self.number.checked_sub(self.back.into())
    }

    /// What a block begins with.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&BLOCK_MAGIC);
        for word in [self.flags, self.packed, self.unpacked, self.sum, self.inputs, self.back] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.first_ns, self.last_ns, self.number, self.gap] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.realtime_offset_ns.to_le_bytes());
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        head
    }

    /// Reads it; `None` if these bytes are none.
    pub(super) fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(long)
        };
        let whole = bytes[..4] == BLOCK_MAGIC && crc32fast::hash(&bytes[..68]) == word(68);
        let head = Self {
            flags: word(4),
            packed: word(8),
            unpacked: word(12),
            sum: word(16),
            inputs: word(20),
            back: word(24),
            first_ns: long(28),
            last_ns: long(36),
            number: long(44),
            gap: long(52),
            realtime_offset_ns: long(60) as i64,
        };
        (whole && head.packed <= MAX_BLOCK && head.unpacked <= MAX_BLOCK).then_some(head)
    }
}

/// Fills `to` as far as there is something, and says how far that was.
pub(super) fn read_all(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < to.len() {
        match from.read(&mut to[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
