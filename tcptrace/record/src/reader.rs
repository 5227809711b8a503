//! Reads one file of a recording, block by block.
//!
//! Blocks stand alone: behind one that is damaged, reading goes on with the next. It is found by what a
//! head begins with and the sum that it ends with. Must not hold more than one block.

use std::{
    collections::VecDeque,
    io::{self, Read, Seek, SeekFrom},
};

use thiserror::Error;
use zstd::bulk::Decompressor;

use super::{
    frame::{BLOCK_MAGIC, BadHeader, BlockHead, HEAD_BYTES, Header, MAX_BLOCK, VERSION, read_all},
    wire::Malformed,
};

/// Of damaged blocks, what is searched for others that begin within, bytes.
const SEARCHABLE: u64 = 64 << 20;

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
    #[error("the block at byte {at} is damaged{}", why(.what))]
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

/// What there is at a place where a block is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The head of a block, of which the contents come next.
    Head(BlockHead),
    /// So many bytes that are no block; another one may come behind them.
    Damage {
        /// Where they begin.
        at: u64,
    },
    /// The end of the file, or less than a block.
    End,
}

/// What came of reading the contents of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They are in the block.
    Whole,
    /// They are not what was written; another block may come behind them.
    Damaged {
        /// Where the block begins.
        at: u64,
    },
    /// The file ends in them.
    Torn,
}

/// A recording that is being read.
pub struct Reader<R> {
    from: R,
    header: Header,
    /// Where the next block begins.
    at: u64,
    /// Bytes from there on that were read already.
    ahead: VecDeque<u8>,
    /// A head that was read and given back.
    given_back: Option<BlockHead>,
    torn: Option<Torn>,
    /// Bytes of damaged blocks that may still be searched for blocks within: a recording that was made
    /// for that could have each searched again and again.
    searchable: u64,
    unpack: Decompressor<'static>,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn new(mut from: R) -> Result<Self, ReadError> {
        let (header, at) = Header::read(&mut from)?;
        let unpack = Decompressor::new()?;
        let ahead = VecDeque::new();
        Ok(Self {
            from,
            header,
            at,
            ahead,
            given_back: None,
            torn: None,
            searchable: SEARCHABLE,
            unpack,
        })
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

    /// As many bytes as there are, up to the length of `to`.
    fn fill(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let there = self.ahead.len().min(to.len());
        for (to, byte) in to.iter_mut().zip(self.ahead.drain(..there)) {
            *to = byte;
        }
        Ok(there + read_all(&mut self.from, &mut to[there..])?)
    }

    /// The head of the next block, which [`Self::contents`] must read, [`Self::pass_over`] leave out or
    /// [`Self::give_back`] take back. After [`Found::Damage`] it is to be asked again.
    ///
    /// # Errors
    /// The system's answer.
    pub fn head(&mut self) -> Result<Found, ReadError> {
        if let Some(head) = self.given_back.take() {
            return Ok(Found::Head(head));
        }
        let mut bytes = [0; HEAD_BYTES];
        let got = self.fill(&mut bytes)?;
        if got < HEAD_BYTES {
            if got > 0 {
                self.torn = Some(Torn { at: self.at, bytes: got as u64 });
            }
            return Ok(Found::End);
        }
        if let Some(head) = BlockHead::parse(&bytes) {
            return Ok(Found::Head(head));
        }
        let at = self.at;
        self.put_ahead(&bytes);
        self.find_next()?;
        Ok(Found::Damage { at })
    }

    /// Takes a head back: it is handed out again.
    pub fn give_back(&mut self, head: BlockHead) {
        self.given_back = Some(head);
    }

    fn put_ahead(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().rev() {
            self.ahead.push_front(byte);
        }
    }

    /// Goes on to the next place at which a whole head begins, behind the present one, or to the end.
    fn find_next(&mut self) -> io::Result<()> {
        let mut window = [0; HEAD_BYTES];
        let mut filled = self.fill(&mut window)?;
        loop {
            // The rest of a window that is not full is the end: nothing whole begins in it.
            let next = window[1..filled].iter().position(|&byte| byte == BLOCK_MAGIC[0]);
            let step = next.map_or(filled, |next| next + 1);
            window.copy_within(step..filled, 0);
            filled -= step;
            self.at += step as u64;
            filled += self.fill(&mut window[filled..])?;
            if filled < HEAD_BYTES {
                // Bytes that belong to no block are damage too, not a block that was torn.
                self.at += filled as u64;
                return Ok(());
            }
            if BlockHead::parse(&window).is_some() {
                self.put_ahead(&window);
                return Ok(());
            }
        }
    }

    /// The contents of the block with this head, into `block`.
    ///
    /// # Errors
    /// The system's answer.
    pub fn contents(&mut self, head: BlockHead, block: &mut Block) -> Result<Contents, ReadError> {
        block.head = head;
        block.bytes.clear();
        // At most MAX_BLOCK, as the head was checked.
        block.packed.resize(head.packed as usize, 0);
        let got = self.fill(&mut block.packed)?;
        let at = self.at;
        let whole = got == block.packed.len();
        if whole && self.unpack_to(head, block) {
            self.at += (HEAD_BYTES + got) as u64;
            return Ok(Contents::Whole);
        }
        if let Some(left) = self.searchable.checked_sub(got as u64) {
            // Bytes may be missing in it, and the next block may begin within.
            self.searchable = left;
            self.put_ahead(&block.packed[..got]);
            self.put_ahead(&head.to_bytes());
            self.find_next()?;
        } else {
            self.at += (HEAD_BYTES + got) as u64;
            return Ok(if whole { Contents::Damaged { at } } else { Contents::Torn });
        }
        let more = !self.ahead.is_empty();
        if !whole && !more {
            self.torn = Some(Torn { at, bytes: (HEAD_BYTES + got) as u64 });
            return Ok(Contents::Torn);
        }
        Ok(Contents::Damaged { at })
    }

    /// Whether the contents are what the head says.
    fn unpack_to(&mut self, head: BlockHead, block: &mut Block) -> bool {
        if crc32fast::hash(&block.packed) != head.sum {
            return false;
        }
        debug_assert!(head.unpacked <= MAX_BLOCK);
        block.bytes.reserve_exact(head.unpacked as usize);
        // It writes no more than there is room for.
        let unpacked = self.unpack.decompress_to_buffer(&block.packed, &mut block.bytes);
        unpacked.is_ok_and(|len| len == head.unpacked as usize)
    }

    /// Passes over the contents of the block with this head, without looking at them.
    ///
    /// # Errors
    /// The system's answer.
    pub fn pass_over(&mut self, head: BlockHead) -> Result<(), ReadError> {
        let len = u64::from(head.packed);
        let there = self.ahead.len().min(head.packed as usize);
        self.ahead.drain(..there);
        let rest = len - there as u64;
        let passed = io::copy(&mut self.from.by_ref().take(rest), &mut io::sink())?;
        let got = (HEAD_BYTES + there) as u64 + passed;
        if passed < rest {
            self.torn = Some(Torn { at: self.at, bytes: got });
        }
        self.at += got;
        Ok(())
    }

    /// What is wrong in the block that was read last, which its sum did not show.
    pub fn malformed(&self, head: &BlockHead, what: Malformed) -> ReadError {
        let len = HEAD_BYTES as u64 + u64::from(head.packed);
        ReadError::Damaged { at: self.at.saturating_sub(len), what: Some(what) }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over the contents of the block with this head, of which the head was read last.
    ///
    /// # Errors
    /// The system's answer.
    pub fn skip(&mut self, head: BlockHead) -> Result<(), ReadError> {
        self.go_to(self.at + HEAD_BYTES as u64 + u64::from(head.packed))
    }

    /// Goes to where a block begins.
    ///
    /// # Errors
    /// The system's answer.
    pub fn go_to(&mut self, at: u64) -> Result<(), ReadError> {
        // What was read ahead is behind the place where the file is.
        self.from.seek(SeekFrom::Start(at))?;
        self.ahead.clear();
        self.given_back = None;
        self.at = at;
        self.torn = None;
        Ok(())
    }
}
