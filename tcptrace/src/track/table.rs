//! A bounded table of live sockets.
//!
//! Must not grow past its limit: the entry that was added first goes, and is counted.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

/// Hashes the address of a kernel object by one multiplication. Not for keys that a stranger
/// chooses: these are the kernel's.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

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

struct Slot<T> {
    /// Distinguishes the tenants of one key over time.
    serial: u64,
    value: T,
}

/// Values by the address of a kernel object, at most `limit`.
pub(crate) struct Table<T> {
    slots: HashMap<u64, Slot<T>, BuildHasherDefault<AddressHasher>>,
    /// Keys in the order in which they were added; may hold tenants that have left since.
    order: VecDeque<(u64, u64)>,
    limit: usize,
    serial: u64,
    evicted: u64,
}

impl<T> Table<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            slots: HashMap::default(),
            order: VecDeque::new(),
            limit: limit.max(1),
            serial: 0,
            evicted: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many entries had to go to keep the limit.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        self.slots.get(&key).map(|slot| &slot.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.slots.iter().map(|(&key, slot)| (key, &slot.value))
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.slots.get_mut(&key).map(|slot| &mut slot.value)
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.slots.remove(&key).map(|slot| slot.value)
    }

    /// Adds or replaces the entry of `key`. Returns what was evicted for it.
    pub(crate) fn insert(&mut self, key: u64, value: T) -> Option<T> {
        self.serial += 1;
        let serial = self.serial;
        self.slots.insert(key, Slot { serial, value });
        self.order.push_back((key, serial));
        let evicted = if self.slots.len() > self.limit { self.evict_oldest() } else { None };
        // Those that left without being evicted stay in the queue until it is half empty.
        if self.order.len() > 2 * self.slots.len() + 1024 {
            let slots = &self.slots;
            self.order.retain(|(key, serial)| slots.get(key).is_some_and(|s| s.serial == *serial));
        }
        evicted
    }

    fn evict_oldest(&mut self) -> Option<T> {
        while let Some((key, serial)) = self.order.pop_front() {
            if self.slots.get(&key).is_some_and(|slot| slot.serial == serial) {
                self.evicted += 1;
                return self.remove(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tenant_goes_first() {
        let mut table = Table::new(2);
        table.insert(1, 'a');
        table.insert(2, 'b');
        table.insert(1, 'c'); // a new tenant of 1 is younger than 2's
        assert_eq!(table.insert(3, 'd'), Some('b'));
        assert_eq!(table.evicted(), 1);
        assert_eq!(table.get_mut(1), Some(&mut 'c'));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_queue_does_not_outgrow_the_table() {
        let mut table = Table::new(10);
        for key in 0..100_000 {
            table.insert(key, ());
            table.remove(key);
        }
        assert!(table.order.len() <= 1025, "{}", table.order.len());
        assert_eq!(table.evicted(), 0);
    }
}
