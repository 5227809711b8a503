//! Fills in the kernel object's read-only globals and filter maps.

use aya::{
    Ebpf,
    maps::{Array, LpmTrie, MapError, lpm_trie::Key},
};
use tcptrace_common::{
    filter::Rules as _,
    globals::{self, Globals, PORT_WORDS, TracepointLayout},
};

use super::ring;
use tcptrace_model::filter::Filter;

/// The filter for the kernel side. `has_cookies`: this kernel's namespaces have cookies that programs
/// can read, by which they are told apart for good; else inodes have to do.
pub(super) fn filter(filter: &Filter, has_cookies: bool) -> globals::Filter {
    let cookie = filter.netns_cookie.filter(|_| has_cookies);
    globals::Filter {
        netns: cookie.unwrap_or(filter.netns()),
        conditions: filter.conditions(),
        netns_by_cookie: u32::from(cookie.is_some()),
    }
}

/// The globals for one attempt to load the object, but for the filter, the offsets from BTF and the
/// features.
pub(super) fn globals(ring_bytes: u32, tracepoint: TracepointLayout) -> Globals {
    Globals { tracepoint, wakeup: ring::wakeup(ring_bytes), ..Globals::UNSET }
}

/// Writes the filter's sets into the maps. To be called before a program is attached, so that no
/// event is judged by half a filter.
pub(super) fn fill_filter_maps(ebpf: &mut Ebpf, filter: &Filter) -> Result<(), MapError> {
    if filter.lports.is_some() || filter.rports.is_some() {
        let mut ports = Array::<_, u64>::try_from(map(ebpf, "PORTS")?)?;
        let sides = [(0, &filter.lports), (PORT_WORDS, &filter.rports)];
        for (base, set) in sides {
            let words = set.iter().flat_map(|set| set.words());
            for (index, &word) in (base..).zip(words) {
                if word != 0 {
                    ports.set(index, word, 0)?;
                }
            }
        }
    }
    if !filter.nets.is_empty() {
        let mut nets = LpmTrie::<_, [u8; 16], u8>::try_from(map(ebpf, "NETS")?)?;
        for net in &filter.nets {
            nets.insert(&Key::new(net.bits.into(), net.addr.octets()), 1, 0)?;
        }
    }
    Ok(())
}

/// A map of the object by name.
pub(super) fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map, MapError> {
    ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
}

/// Globals as bytes for the loader.
pub(super) fn as_bytes(globals: &Globals) -> &[u8] {
    zerocopy::IntoBytes::as_bytes(globals)
}
