//! A bounded table of live sockets, by the address of the kernel's object.
//!
//! Must not grow past its limit: the entry that was added first goes, and is counted.

use super::{bounded::Bounded, slab::Keyed};
use tcptrace_model::hash::ByAddress;

struct Entry<T> {
    key: u64,
    value: T,
}

impl<T> Keyed for Entry<T> {
    type Key = u64;

    fn key(&self) -> u64 {
        self.key
    }
}

/// Values by the address of a kernel object, at most `limit`.
pub struct Table<T>(Bounded<Entry<T>, ByAddress>);

impl<T> Table<T> {
    /// An empty table of at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self(Bounded::new(limit))
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries had to go to keep the limit.
    pub fn evicted(&self) -> u64 {
        self.0.evicted()
    }

    /// The entry of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.0.get(&key).map(|entry| &entry.value)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.0.iter().map(|entry| (entry.key, &entry.value))
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.0.iter_mut().map(|entry| (entry.key, &mut entry.value))
    }

    /// The entry of `key`, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.0.get_mut(&key).map(|entry| &mut entry.value)
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.0.remove(&key).map(|entry| entry.value)
    }

    /// Adds or replaces the entry of `key`. Returns what was evicted for it.
    pub fn insert(&mut self, key: u64, value: T) -> Option<(u64, T)> {
        self.0.insert(Entry { key, value }).map(|entry| (entry.key, entry.value))
    }

    /// Has the entry that was added first go, which is counted.
    pub fn evict_oldest(&mut self) -> Option<(u64, T)> {
        self.0.evict_oldest().map(|entry| (entry.key, entry.value))
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
        assert_eq!(table.insert(3, 'd'), Some((2, 'b')));
        assert_eq!(table.evicted(), 1);
        assert_eq!(table.get_mut(1), Some(&mut 'c'));
        assert_eq!(table.len(), 2);
    }
}
