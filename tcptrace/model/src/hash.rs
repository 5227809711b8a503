//! Hash tables whose keys strangers have a say in: addresses, ports, names of processes.
//!
//! Who can guess the hash can send connections that all fall into one bucket. So it must not be an
//! unkeyed one, nor one whose key is the same for all: ahash takes its keys from the system's random
//! numbers when the process starts. The standard library's SipHash does too, and is stronger than
//! is needed where nobody gets to see a hash; of the small keys here it takes more than all
//! else that is done for an event. Numbers that the kernel alone chooses have a cheaper one yet:
//! [`AddressHasher`].

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// For keys in which strangers have a say.
pub type ByAnything = ahash::RandomState;

/// For numbers that the kernel alone chooses.
pub type ByAddress = BuildHasherDefault<AddressHasher>;

/// Values by keys.
pub type Map<K, V> = HashMap<K, V, ByAnything>;

/// Keys.
pub type Set<K> = HashSet<K, ByAnything>;

/// Values by keys that lie side by side.
pub type Rowed<K, V> = indexmap::IndexMap<K, V, ByAnything>;

/// Hashes a number of the kernel's by one multiplication.
#[derive(Default)]
pub struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // Fibonacci hashing; slab objects are aligned, so the low bits alone say nothing.
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
