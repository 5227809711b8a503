//! Hash tables whose keys strangers have a say in: addresses, ports, names of processes.
//!
//! Who can guess the hash can send connections that all fall into one bucket. So it must not be an
//! unkeyed one, nor one whose key is the same for all: ahash takes its keys from the system's random
//! numbers when the process starts. The standard library's SipHash does too, and is stronger than
//! is needed where nobody gets to see a hash; of the small keys here it takes more than all
//! else that is done for an event. Single numbers have a cheaper one yet: [`ByAddress`]. The kernel
//! chooses addresses and cookies, but a recording says what its writer likes, so that is keyed too.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hasher},
};

/// For keys in which strangers have a say.
pub type ByAnything = ahash::RandomState;

/// Values by keys.
pub type Map<K, V> = HashMap<K, V, ByAnything>;

/// Keys.
pub type Set<K> = HashSet<K, ByAnything>;

/// Values by keys that lie side by side.
pub type Rowed<K, V> = indexmap::IndexMap<K, V, ByAnything>;

/// For a single number: an address or a cookie.
#[derive(Clone, Debug)]
pub struct ByAddress {
    start: u64,
    factor: u64,
}

impl Default for ByAddress {
    fn default() -> Self {
        let keys = ByAnything::new();
        // An even factor would lose bits.
        Self { start: keys.hash_one(0), factor: keys.hash_one(1) | 1 }
    }
}

impl BuildHasher for ByAddress {
    type Hasher = AddressHasher;

    fn build_hasher(&self) -> AddressHasher {
        AddressHasher { state: self.start, factor: self.factor }
    }
}

/// Hashes a number by one multiplication.
#[derive(Debug)]
pub struct AddressHasher {
    state: u64,
    factor: u64,
}

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // Both halves of the product: each bit of the number has a say in the bits that a table looks
        // at, which are the lowest and the highest ones.
        let product = u128::from(self.state ^ n).wrapping_mul(u128::from(self.factor));
        self.state = (product as u64) ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that fall into one bucket by a multiplication with a factor that is known, and
    /// addresses as slabs have them.
    #[test]
    fn nobody_can_choose_numbers_that_collide() {
        let inverse = {
            // Newton's iteration for the inverse of 2^64 / φ.
            let factor = 0x9e37_79b9_7f4a_7c15_u64;
            (0..6).fold(factor, |x, _| x.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(x))))
        };
        let sets: [fn(u64, u64) -> u64; 4] = [
            |i, inverse| inverse.wrapping_mul(i << 52),
            |i, _| i << 52,
            |i, _| 0xffff_8881_0000_0000 + i * 2048,
            |i, _| i,
        ];
        for (which, set) in sets.iter().enumerate() {
            let by = ByAddress::default();
            let mut buckets = [0_u32; 4096];
            (0..4096).for_each(|i| buckets[by.hash_one(set(i, inverse)) as usize % 4096] += 1);
            let most = buckets.iter().max();
            assert!(most < Some(&64), "{most:?} of 4096 numbers of set {which} in one bucket");
        }
    }
}
