//! What passes between the two processes: frames of postcard, each after its length.
//!
//! No length is believed: a frame longer than [`MAX_FRAME`] is an error before anything is
//! allocated for it, and so is what cannot be decoded or does not fill its frame. Both ends are the
//! same program, so the format has no version.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read, Write},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use tcptrace_model::{
    BoundPort, NetnsCounters, NetnsSysctls, SnapInfo, SnapSocket, SnapshotEnd, SynQueue,
};

/// Bytes of a frame, at most. The longest that is sent is [`SOCKETS`] of some 130 bytes.
pub(super) const MAX_FRAME: usize = 1 << 20;

/// Sockets, infos, SYN queues or bound ports in a frame.
pub(super) const SOCKETS: usize = 4096;

/// Bytes of all frames of a round, at most: two million sockets, of which the tracker takes one.
pub(super) const MAX_ROUND: usize = 256 << 20;

/// The length of a frame comes first: so many bytes, the lowest first.
const PREFIX: usize = size_of::<u32>();

/// A part of a round. For each namespace there are [`Self::Space`], its sockets, infos, SYN queues
/// and bound ports, and [`Self::End`]; then remarks, and [`Self::Over`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Piece {
    Space {
        netns: u32,
        began_ns: u64,
        name: Option<Box<str>>,
        path: Option<Box<str>>,
        sysctls: Option<Box<NetnsSysctls>>,
        counters: Option<Box<NetnsCounters>>,
    },
    Sockets(Vec<SnapSocket>),
    Infos(Vec<SnapInfo>),
    SynQueues(Vec<SynQueue>),
    Bound(Vec<BoundPort>),
    End(SnapshotEnd),
    Remark(String),
    Over {
        all: bool,
        over_ns: u64,
        cpu_ns: u64,
        /// Not more than a list of namespaces has.
        there: Option<BTreeSet<u32>>,
        used: Used,
    },
}

/// What the helper itself uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Used {
    /// CPU time since its start, seconds.
    pub(super) cpu_s: f64,
    /// What is in memory of it, bytes.
    pub(super) resident_bytes: u64,
}

/// What is asked about a cgroup.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct CgroupAsked {
    pub(super) id: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) now: u64,
}

/// Why a frame could not be sent or received.
#[derive(Debug, Error)]
pub(super) enum WireError {
    #[error("the other end has closed")]
    Closed,
    #[error("a frame of {0} bytes, which is more than there may be")]
    TooLong(usize),
    #[error("a frame that makes no sense ({0})")]
    Malformed(postcard::Error),
    #[error("a frame in the wrong place")]
    Misplaced,
    #[error("more than a round may have")]
    TooMuch,
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Self::Closed
            }
            // What a timeout is to who reads and writes.
            ErrorKind::WouldBlock => Self::Io(io::Error::new(ErrorKind::TimedOut, "no answer")),
            _ => Self::Io(error),
        }
    }
}

/// Frames over a stream, whose memory is used again.
#[derive(Debug)]
pub(super) struct Frames<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S> Frames<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Gives memory back.
    pub(super) fn rest(&mut self) {
        self.buffer = Vec::new();
    }
}

impl<S: Write> Frames<S> {
    /// Sends `value`, and says how many bytes that took.
    pub(super) fn send(&mut self, value: &impl Serialize) -> Result<usize, WireError> {
        self.buffer.clear();
        self.buffer.resize(PREFIX, 0);
        let bytes = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(value, bytes).map_err(WireError::Malformed)?;
        let length = self.buffer.len() - PREFIX;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        // At most MAX_FRAME.
        self.buffer[..PREFIX].copy_from_slice(&(length as u32).to_le_bytes());
        self.stream.write_all(&self.buffer)?;
        Ok(self.buffer.len())
    }
}

impl<S: Read> Frames<S> {
    /// Receives a value, and says how many bytes that took.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, usize), WireError> {
        let mut length = [0; PREFIX];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer)?;
        match postcard::take_from_bytes(&self.buffer) {
            Ok((value, [])) => Ok((value, PREFIX + length)),
            Ok((_, rest)) => Err(WireError::TooLong(length + rest.len())),
            Err(error) => Err(WireError::Malformed(error)),
        }
    }
}
