//! The size of the ring and when its reader is to be woken.

use aya::{maps::MapType, sys::is_map_supported};
use tcptrace_common::{globals::Wakeup, record::Transition};
use thiserror::Error;

/// A burst of 250 ms at 200,000 transitions a second is 6 MB with the ring's 8-byte headers.
pub const DEFAULT_RING_BYTES: u32 = 8 << 20;

/// What a size may look like.
pub const RING_UNIT_HINT: &str = "bytes, or with K or M";

/// The largest size: the kernel takes a 32-bit number of bytes.
const MAX_RING_BYTES: u64 = 1 << 31;

/// Bytes that a transition takes in the ring (`BPF_RINGBUF_HDR_SZ` and the record).
const SLOT: u32 = 8 + size_of::<Transition>() as u32;

/// A size that the kernel will not take.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadRingSize {
    /// Not a number.
    #[error("'{0}' is not a size: give {RING_UNIT_HINT}, as 8M")]
    NotASize(String),
    /// Not a power of two times the page size.
    #[error(
        "the kernel takes ring sizes of {page} bytes times a power of two, up to {MAX_RING_BYTES}: \
         the next one is {next}"
    )]
    NotAPower {
        /// Bytes of a page.
        page: u64,
        /// The closest size from above that it takes, or the largest.
        next: u64,
    },
}

/// Bytes of a page: the smallest ring.
pub fn page_bytes() -> u32 {
    let asked = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    asked.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(4096)
}

/// Reads a size of `page`-sized units and checks it against what the kernel takes
/// (`ringbuf_map_alloc()`: a power of two and a multiple of the page size).
pub fn parse_ring_size(text: &str, page: u64) -> Result<u32, BadRingSize> {
    let not_a_size = || BadRingSize::NotASize(text.escape_default().to_string());
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| not_a_size())?;
    let bytes = number.checked_mul(unit).ok_or_else(not_a_size)?;
    if bytes.is_power_of_two() && bytes >= page && bytes <= MAX_RING_BYTES {
        return Ok(bytes as u32); // at most 1 << 31
    }
    let next = bytes.checked_next_power_of_two().unwrap_or(MAX_RING_BYTES);
    Err(BadRingSize::NotAPower { page, next: next.clamp(page, MAX_RING_BYTES) })
}

/// Whether this kernel has ring buffer maps (5.8), found out by making one of a page; `None` where
/// it does not let us ask.
pub fn ring_supported() -> Option<bool> {
    is_map_supported(MapType::RingBuf).ok()
}

/// When a ring of `bytes` calls its reader: at a quarter full, looked at often enough that it
/// cannot fill up in between, and at most on every 256th event of a CPU.
pub(super) fn wakeup(bytes: u32) -> Wakeup {
    let slots = (bytes / SLOT).max(1);
    let every = (slots / 16).clamp(1, 256);
    // Down to a power of two, for a mask.
    let every = 1 << every.ilog2();
    Wakeup { every_mask: every - 1, at_bytes: bytes / 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes_and_names_the_next() {
        assert_eq!(parse_ring_size("8M", 4096), Ok(8 << 20));
        assert_eq!(parse_ring_size("4096", 4096), Ok(4096));
        assert_eq!(parse_ring_size("2g", 4096), Ok(1 << 31));
        let next = |text, page| match parse_ring_size(text, page) {
            Err(BadRingSize::NotAPower { next, .. }) => next,
            other => panic!("{other:?}"),
        };
        assert_eq!(next("1000000", 4096), 1 << 20);
        assert_eq!(next("1", 4096), 4096);
        assert_eq!(next("0", 4096), 4096);
        assert_eq!(next("4096", 65536), 65536, "64 KiB pages");
        assert_eq!(next("3G", 4096), 1 << 31);
        for text in ["", "M", "8MB", "-1", "99999999999G"] {
            assert!(matches!(parse_ring_size(text, 4096), Err(BadRingSize::NotASize(_))), "{text}");
        }
    }

    #[test]
    fn the_default_holds_the_burst_that_it_is_sized_for() {
        const { assert!(DEFAULT_RING_BYTES / SLOT >= 200_000 / 4) };
    }

    #[test]
    fn small_rings_are_watched_more_closely() {
        assert_eq!(wakeup(4096), Wakeup { every_mask: 0, at_bytes: 1024 });
        assert_eq!(wakeup(8192), Wakeup { every_mask: 1, at_bytes: 2048 });
        assert_eq!(wakeup(DEFAULT_RING_BYTES), Wakeup { every_mask: 255, at_bytes: 2 << 20 });
    }
}
