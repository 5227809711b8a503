//! Values by a number that the kernel chose: the address of an object, or a cookie.
//!
//! For a million of them: a value lies in a vector, and the hash table holds no more than its
//! index there. Must not be keyed by what a stranger chooses: the hash is a single
//! multiplication.

use std::hash::Hasher as _;

use hashbrown::HashTable;
use tcptrace_model::hash::AddressHasher;

fn hash(key: u64) -> u64 {
    let mut hasher = AddressHasher::default();
    hasher.write_u64(key);
    hasher.finish()
}

struct Slot<T> {
    key: u64,
    /// Nothing in a slot that is free.
    value: Option<T>,
}

/// Values by key.
pub(super) struct Slab<T> {
    /// Where the value of a key is in `slots`.
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    /// Indices of free slots.
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { index: HashTable::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn find(&self, key: u64) -> Option<u32> {
        self.index.find(hash(key), |&at| self.slots[at as usize].key == key).copied()
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.at(self.find(key)?)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let at = self.find(key)?;
        self.slots[at as usize].value.as_mut()
    }

    pub(super) fn contains_key(&self, key: u64) -> bool {
        self.find(key).is_some()
    }

    /// The value at an index that `insert` returned; `None` if it has left since, another's if
    /// that has come there.
    pub(super) fn at(&self, at: u32) -> Option<&T> {
        self.slots.get(at as usize)?.value.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.slots.iter().filter_map(|slot| Some((slot.key, slot.value.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.slots.iter_mut().filter_map(|slot| Some((slot.key, slot.value.as_mut()?)))
    }

    /// All keys and values.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, T)> {
        self.slots.into_iter().filter_map(|slot| Some((slot.key, slot.value?)))
    }

    /// Adds or replaces the value of `key`. Returns where it is. Up to 2³² values.
    pub(super) fn insert(&mut self, key: u64, value: T) -> u32 {
        if let Some(at) = self.find(key) {
            self.slots[at as usize].value = Some(value);
            return at;
        }
        let slot = Slot { key, value: Some(value) };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert_unique(hash(key), at, |&at| hash(self.slots[at as usize].key));
        at
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let slots = &self.slots;
        let entry = self.index.find_entry(hash(key), |&at| slots[at as usize].key == key).ok()?;
        let (at, _) = entry.remove();
        self.free.push(at);
        self.slots[at as usize].value.take()
    }

    /// Removes the value at an index.
    pub(super) fn remove_at(&mut self, at: u32) -> Option<(u64, T)> {
        let slot = self.slots.get(at as usize).filter(|slot| slot.value.is_some())?;
        let key = slot.key;
        Some((key, self.remove(key)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map() {
        // Against the map of the standard library, with keys that come again and again.
        let mut slab = Slab::default();
        let mut map = std::collections::HashMap::new();
        let mut random = 1_u64;
        for value in 0..100_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 40) % 1000 * 64;
            match random >> 62 {
                0 | 1 => {
                    let at = slab.insert(key, value);
                    map.insert(key, value);
                    assert_eq!(slab.at(at), Some(&value));
                }
                2 => assert_eq!(slab.remove(key), map.remove(&key)),
                _ => assert_eq!(slab.get(key), map.get(&key)),
            }
            assert_eq!(slab.len(), map.len());
        }
        assert!(slab.slots.len() <= 1000, "free slots are used again: {}", slab.slots.len());
        let mut all: Vec<_> = slab.iter().map(|(key, &value)| (key, value)).collect();
        all.sort_unstable();
        let mut expected: Vec<_> = map.into_iter().collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
        assert_eq!(slab.into_iter().count(), expected.len());
    }
}
