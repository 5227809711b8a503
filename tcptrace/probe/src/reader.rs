//! The reading end of the ring: its records, and whether all that were begun have been read.
//!
//! The reader stops at the first record that is not finished, though others behind it may be: to it
//! the ring looks empty then, for as long as the CPU that writes that record does something else (a
//! softirq, or nothing at all where the hypervisor has taken it away). So whether it *is* empty is
//! told by the positions, which the kernel shares on pages of their own. Must not interpret records.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::{AtomicUsize, Ordering},
};

use aya::maps::{MapData, MapError, RingBuf};
use memmap2::{MmapOptions, MmapRaw};

use super::ring::page_bytes;

/// The ring, of which there is to be no other reader.
pub(super) struct RingReader {
    records: RingBuf<MapData>,
    /// The page that begins with `consumer_pos` of `struct bpf_ringbuf`.
    consumer: MmapRaw,
    /// The one that begins with `producer_pos`.
    producer: MmapRaw,
}

/// A place in the ring: bytes that were reserved before it, since the ring was made.
#[derive(Clone, Copy, Debug)]
pub struct Reserved(usize);

impl RingReader {
    pub(super) fn new(map: aya::maps::Map) -> Result<Self, MapError> {
        let records = RingBuf::try_from(map)?;
        let page = u64::from(page_bytes());
        let map = |number: u64| {
            MmapOptions::new()
                .offset(number * page)
                .len(size_of::<AtomicUsize>())
                .map_raw_read_only(&records.as_fd())
                .map_err(MapError::IoError)
        };
        // ringbuf_map_mmap_kern(): the pages are mapped in this order.
        let (consumer, producer) = (map(0)?, map(1)?);
        Ok(Self { records, consumer, producer })
    }

    /// The next record that is finished, if one is next.
    #[inline]
    pub(super) fn next<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.records.next().map(|item| read(&item))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }

    /// Everything that has been reserved by now, finished or not.
    pub(super) fn reserved(&self) -> Reserved {
        Reserved(position(&self.producer))
    }

    /// Whether all of that has been read.
    pub(super) fn has_read(&self, Reserved(until): Reserved) -> bool {
        // They only grow, and may wrap.
        position(&self.consumer).wrapping_sub(until).cast_signed() >= 0
    }
}

/// What `page` begins with.
fn position(page: &MmapRaw) -> usize {
    let page = page.as_ptr().cast::<AtomicUsize>();
    // SAFETY: mapped for as long as `page` is borrowed, aligned to a page, and an `unsigned long`
    // that the kernel reads and writes as a whole (`smp_load_acquire()`, `smp_store_release()`).
    // It is only loaded here: the mapping is read-only.
    unsafe { &*page }.load(Ordering::Acquire)
}
