//! A dense store of values, each of which has a key of its own.
//!
//! For a million of them: a value lies in a vector, and the hash table holds no more than its
//! index there; the key is not stored a second time.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;

/// A value that knows its key, which does not change while it is stored.
pub(super) trait Keyed {
    type Key: Eq + Hash;

    fn key(&self) -> Self::Key;
}

/// Values by key.
pub(super) struct Slab<T, S> {
    /// Where the value of a key is in `slots`.
    index: HashTable<u32>,
    slots: Vec<Option<T>>,
    /// Indices of free slots.
    free: Vec<u32>,
    hasher: S,
}

impl<T, S: Default> Default for Slab<T, S> {
    fn default() -> Self {
        Self { index: HashTable::new(), slots: Vec::new(), free: Vec::new(), hasher: S::default() }
    }
}

impl<T, S> Slab<T, S> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The value at an index that `insert` returned; `None` if it has left since, another's if
    /// that has come there.
    pub(super) fn at(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    /// All values with their indices.
    pub(super) fn indexed(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(at, slot)| Some((at, slot.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }

    /// All values.
    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().flatten()
    }
}

impl<T: Keyed, S: BuildHasher> Slab<T, S> {
    /// Where the value of `key` is.
    pub(super) fn find(&self, key: &T::Key) -> Option<u32> {
        let is = |&at: &u32| self.slots[at as usize].as_ref().is_some_and(|v| v.key() == *key);
        self.index.find(self.hasher.hash_one(key), is).copied()
    }

    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        self.at(self.find(key)?)
    }

    pub(super) fn get_mut(&mut self, key: &T::Key) -> Option<&mut T> {
        let at = self.find(key)?;
        self.slots[at as usize].as_mut()
    }

    pub(super) fn contains_key(&self, key: &T::Key) -> bool {
        self.find(key).is_some()
    }

    /// Adds a value, or replaces that with the same key. Returns where it is. Up to 2³² values.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let key = value.key();
        if let Some(at) = self.find(&key) {
            self.slots[at as usize] = Some(value);
            return at;
        }
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(value);
                at
            }
            None => {
                self.slots.push(Some(value));
                (self.slots.len() - 1) as u32
            }
        };
        let Self { index, slots, hasher, .. } = self;
        // Every index in the table is of a slot that has a value.
        let rehash =
            |&at: &u32| slots[at as usize].as_ref().map_or(0, |v| hasher.hash_one(v.key()));
        index.insert_unique(hasher.hash_one(&key), at, rehash);
        at
    }

    pub(super) fn remove(&mut self, key: &T::Key) -> Option<T> {
        let slots = &self.slots;
        let is = |&at: &u32| slots[at as usize].as_ref().is_some_and(|v| v.key() == *key);
        let (at, _) = self.index.find_entry(self.hasher.hash_one(key), is).ok()?.remove();
        self.free.push(at);
        self.slots[at as usize].take()
    }

    /// Removes the value at an index.
    pub(super) fn remove_at(&mut self, at: u32) -> Option<T> {
        let key = self.at(at)?.key();
        self.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::hash::ByAddress;

    impl Keyed for (u64, u32) {
        type Key = u64;

        fn key(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn it_is_a_map() {
        // Against the map of the standard library, with keys that come again and again.
        let mut slab: Slab<_, ByAddress> = Slab::default();
        let mut map = std::collections::HashMap::new();
        let mut random = 1_u64;
        for value in 0..100_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 40) % 1000 * 64;
            match random >> 62 {
                0 | 1 => {
                    let at = slab.insert((key, value));
                    map.insert(key, value);
                    assert_eq!(slab.at(at), Some(&(key, value)));
                }
                2 => assert_eq!(slab.remove(&key), map.remove_entry(&key)),
                _ => assert_eq!(slab.get(&key).map(|(_, value)| value), map.get(&key)),
            }
            assert_eq!(slab.len(), map.len());
        }
        assert!(slab.slots.len() <= 1000, "free slots are used again: {}", slab.slots.len());
        let mut all: Vec<_> = slab.iter().copied().collect();
        all.sort_unstable();
        let mut expected: Vec<_> = map.into_iter().collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
        assert_eq!(slab.into_iter().count(), expected.len());
    }
}
