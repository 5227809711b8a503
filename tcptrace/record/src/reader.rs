//! Reads one file of a recording, block by block.

use std::io::{self, Read, Seek, SeekFrom};

use thiserror::Error;
use zstd::bulk::Decompressor;

use super::{
    frame::{BadHeader, BlockHead, HEAD_BYTES, Header, MAX_BLOCK, VERSION, read_all},
    wire::Malformed,
};

/// Why a recording, or the rest of it, cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system's answer.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is something else.
    #[error("it is not a recording of tcptrace")]
    NotOurs,
    /// It ends before its first block.
    #[error("it ends within its header: nothing was recorded")]
    Headless,
    /// The header is not what was written.
    #[error("its header is damaged")]
    HeaderDamaged,
    /// It is of a later version.
    #[error(
        "it is of format version {0}, this tcptrace reads up to {VERSION}: take a newer tcptrace"
    )]
    Newer(u32),
    /// A block is not what was written.
    #[error("it is damaged at byte {at}{}: what comes after it is not read", why(.what))]
    Damaged {
        /// Where the block begins.
        at: u64,
        /// What is wrong, where its sum was right.
        what: Option<Malformed>,
    },
}

fn why(what: &Option<Malformed>) -> String {
    what.map_or_else(String::new, |what| format!(" ({what})"))
}

impl From<BadHeader> for ReadError {
    fn from(bad: BadHeader) -> Self {
        match bad {
            BadHeader::Io(error) => Self::Io(error),
            BadHeader::Empty => Self::Empty,
            BadHeader::NotOurs => Self::NotOurs,
            BadHeader::Torn => Self::Headless,
            BadHeader::Damaged => Self::HeaderDamaged,
            BadHeader::Newer(version) => Self::Newer(version),
        }
    }
}

/// The end of a file whose writer was stopped in the middle of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where the block begins.
    pub at: u64,
    /// How much of it there is, bytes.
    pub bytes: u64,
}

/// The contents of a block.
#[derive(Debug, Default)]
pub struct Block {
    /// What it says of itself.
    pub head: BlockHead,
    /// Its inputs, for a [`Decoder`](super::Decoder).
    pub bytes: Vec<u8>,
    packed: Vec<u8>,
}

/// A recording that is being read.
pub struct Reader<R> {
    from: R,
    header: Header,
    /// Where the next block begins.
    at: u64,
    torn: Option<Torn>,
    unpack: Decompressor<'static>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let (header, at) = Header::read(&mut from)?;
        Ok(Self { from, header, at, torn: None, unpack: Decompressor::new()? })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the next block begins, bytes.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What of a block was left at the end, once that has been reached.
    pub fn torn(&self) -> Option<Torn> {
        self.torn
    }

    /// The head of the next block, which [`Self::contents`] must read or [`Self::skip`] pass over.
    /// `None` at the end, also at a torn one.
    pub fn head(&mut self) -> Result<Option<BlockHead>, ReadError> {
        let mut bytes = [0; HEAD_BYTES];
        let got = read_all(&mut self.from, &mut bytes)?;
        if got < HEAD_BYTES {
            self.tear(got);
            return Ok(None);
        }
        match BlockHead::parse(&bytes) {
            Some(head) => Ok(Some(head)),
            None => Err(ReadError::Damaged { at: self.at, what: None }),
        }
    }

    /// The contents of the block with this head, into `block`. `false` if it is torn.
    pub fn contents(&mut self, head: BlockHead, block: &mut Block) -> Result<bool, ReadError> {
        block.head = head;
        block.bytes.clear();
        block.packed.clear();
        // At most MAX_BLOCK, as the head was checked.
        block.packed.resize(head.packed as usize, 0);
        let got = read_all(&mut self.from, &mut block.packed)?;
        if got < block.packed.len() {
            self.tear(HEAD_BYTES + got);
            return Ok(false);
        }
        let damaged = ReadError::Damaged { at: self.at, what: None };
        if crc32fast::hash(&block.packed) != head.sum {
            return Err(damaged);
        }
        debug_assert!(head.unpacked <= MAX_BLOCK);
        block.bytes.reserve_exact(head.unpacked as usize);
        // It writes no more than there is room for.
        match self.unpack.decompress_to_buffer(&block.packed, &mut block.bytes) {
            Ok(len) if len == head.unpacked as usize => {}
            _ => return Err(damaged),
        }
        self.at += (HEAD_BYTES + got) as u64;
        Ok(true)
    }

    /// What is wrong in the block that was read last, which its sum did not show.
    pub fn malformed(&self, head: &BlockHead, what: Malformed) -> ReadError {
        let len = HEAD_BYTES as u64 + u64::from(head.packed);
        ReadError::Damaged { at: self.at.saturating_sub(len), what: Some(what) }
    }

    fn tear(&mut self, bytes: usize) {
        self.torn = (bytes > 0).then_some(Torn { at: self.at, bytes: bytes as u64 });
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over the contents of the block with this head.
    pub fn skip(&mut self, head: BlockHead) -> Result<(), ReadError> {
        self.from.seek(SeekFrom::Current(head.packed.into()))?;
        self.at += HEAD_BYTES as u64 + u64::from(head.packed);
        Ok(())
    }

    /// Goes to where a block begins.
    pub fn go_to(&mut self, at: u64) -> Result<(), ReadError> {
        self.from.seek(SeekFrom::Start(at))?;
        self.at = at;
        self.torn = None;
        Ok(())
    }
}
