//! Reading one number anywhere in the kernel's memory, by `bpf_probe_read_kernel()`. What it means is its
//! reader's business.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Numbers that any bytes are.
pub(crate) trait Number: Copy + Default {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for [u32; 4] {}

/// The number at `offset` bytes behind `base`; 0 if that is no readable memory.
#[inline(always)]
pub(crate) fn peek<T: Number>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    let source = base.wrapping_add(u64::from(offset)) as *const _;
    // SAFETY: the destination is as long as told, and the helper checks the source and clears the
    // destination when it fails.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, source) };
    value
}
