//! Where in the files of a recording a moment is, by the heads of their blocks.

use super::{
    blocks::{Part, open},
    error::RecordingError,
};
use tcptrace_model::moment::Moment;
use tcptrace_record::{BlockHead, Found, Header};

/// Every block's head, and where it is: the file, by its number in the list, and the place in it.
pub(super) struct Index(pub(super) Vec<(usize, u64, BlockHead)>);

impl Index {
    /// Reads the heads in `parts`. What is damaged is passed over: it is reported when it is read.
    pub(super) fn of(parts: &[Part]) -> Result<Self, RecordingError> {
        let mut index = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let fail = |error| RecordingError::File { path: part.path.clone(), error };
            let mut reader = open(&part.path)?;
            loop {
                match reader.head().map_err(fail)? {
                    Found::Head(head) => {
                        index.push((at, reader.position(), head));
                        reader.skip(head).map_err(fail)?;
                    }
                    Found::Damage { .. } => {}
                    Found::End => break,
                }
            }
        }
        Ok(Self(index))
    }

    /// The first and the last block.
    pub(super) fn ends(&self) -> Option<(&BlockHead, &BlockHead)> {
        let (_, _, first) = self.0.first()?;
        let (_, _, last) = self.0.last()?;
        Some((first, last))
    }

    /// When it begins and ends: `CLOCK_REALTIME`, nanoseconds.
    pub(super) fn realtime_ns(&self, header: &Header) -> Option<(i128, i128)> {
        let (first, last) = self.ends()?;
        // The first block may have been closed before the clocks were told.
        let offset = match first.realtime_offset_ns {
            0 => header.realtime_offset_ns,
            offset => offset,
        };
        Some((i128::from(first.first_ns) + i128::from(offset), real(last.last_ns, last)))
    }

    /// A moment as `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) fn mono_ns(&self, moment: Moment, header: &Header) -> Option<u64> {
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
    pub(super) index: Index,
    pub(super) header: Header,
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
