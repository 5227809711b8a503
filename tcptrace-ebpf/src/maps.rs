//! The maps shared with user space. Their names are the contract.

use aya_ebpf::{
    macros::map,
    maps::{Array, LpmTrie, PerCpuArray, RingBuf},
};
use tcptrace_common::{
    counters::{Guard, Hook, HookCounters},
    globals::PORT_WORDS,
};

/// Events on their way to user space. The loader sets the real size.
#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// What each hook saw, held back and lost, by [`Hook::element`].
#[map]
pub(crate) static COUNTERS: PerCpuArray<HookCounters> =
    PerCpuArray::with_max_entries(Hook::ELEMENTS, 0);

/// Whether the program of the socket hook is running on this CPU.
#[map]
pub(crate) static GUARD: PerCpuArray<Guard> = PerCpuArray::with_max_entries(1, 0);

/// One bit a port: the local ports to keep, then the peer's.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS, 0);

/// The prefixes of `--net`; IPv4 as v4-mapped, so 96 bits longer.
#[map]
pub(crate) static NETS: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(1024, 0);
