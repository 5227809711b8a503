//! The filter's sets as the kernel side has them: read-only globals and maps.

use aya_ebpf::maps::lpm_trie::Key;
use tcptrace_common::{
    filter::{Facts, Rules, Verdict, verdict},
    globals::PORT_WORDS,
};

use crate::{
    globals::global,
    maps::{NETS, PORTS},
};

/// The filter that was set when the object was loaded.
pub(crate) struct InForce;

impl Rules for InForce {
    #[inline(always)]
    fn conditions(&self) -> u32 {
        global!(filter.conditions)
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        global!(filter.netns)
    }

    #[inline(always)]
    fn keeps_lport(&self, port: u16) -> bool {
        marked(0, port)
    }

    #[inline(always)]
    fn keeps_rport(&self, port: u16) -> bool {
        marked(PORT_WORDS, port)
    }

    #[inline(always)]
    fn in_nets(&self, addr: &[u32; 4]) -> bool {
        // SAFETY: any 16 bytes are both.
        let bytes = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(*addr) };
        NETS.get(Key::new(128, bytes)).is_some()
    }
}

/// Whether a connection whose two ends are set passes the filter; `facts` is not asked where there
/// is none.
#[inline(always)]
pub(crate) fn passes(facts: impl FnOnce() -> Facts) -> bool {
    InForce.conditions() == 0 || verdict(&InForce, &facts()) == Verdict::Pass
}

/// One bit of the `PORTS` map; `base` is the first word of the side.
#[inline(always)]
fn marked(base: u32, port: u16) -> bool {
    match PORTS.get(base + u32::from(port >> 6)) {
        Some(word) => word & (1 << (port & 63)) != 0,
        None => false,
    }
}
