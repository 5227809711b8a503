//! A bounded store of values, each of which has a key of its own.
//!
//! Must not grow past its limit: the value that was added first goes, and is counted.

use std::{collections::VecDeque, hash::BuildHasher};

use super::slab::{Keyed, Slab};

struct Tenant<T> {
    /// Distinguishes the tenants of one slot over time. It wraps around, long after the queue has
    /// dropped the tenants that had the same.
    serial: u32,
    value: T,
}

impl<T: Keyed> Keyed for Tenant<T> {
    type Key = T::Key;

    fn key(&self) -> T::Key {
        self.value.key()
    }
}

/// Values by key, at most `limit`.
pub(super) struct Bounded<T, S> {
    tenants: Slab<Tenant<T>, S>,
    /// Slot and serial in the order in which they were added; may hold tenants that have left
    /// since.
    order: VecDeque<(u32, u32)>,
    limit: usize,
    serial: u32,
    evicted: u64,
}

/// Far below what a slot and a serial can count.
const MOST: usize = 1 << 28;

impl<T: Keyed, S: BuildHasher + Default> Bounded<T, S> {
    /// An empty store of at most `limit` values.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            tenants: Slab::default(),
            order: VecDeque::new(),
            limit: limit.clamp(1, MOST),
            serial: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tenants.len()
    }

    /// How many values had to go to keep the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        self.tenants.get(key).map(|tenant| &tenant.value)
    }

    pub(super) fn get_mut(&mut self, key: &T::Key) -> Option<&mut T> {
        self.tenants.get_mut(key).map(|tenant| &mut tenant.value)
    }

    /// All values, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.tenants.iter().map(|tenant| &tenant.value)
    }

    /// All values, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.tenants.iter_mut().map(|tenant| &mut tenant.value)
    }

    pub(super) fn remove(&mut self, key: &T::Key) -> Option<T> {
        self.tenants.remove(key).map(|tenant| tenant.value)
    }

    /// Adds a value, or replaces that with the same key. Returns what was evicted for it.
    pub(super) fn insert(&mut self, value: T) -> Option<T> {
        let full = self.tenants.len() >= self.limit && !self.tenants.contains_key(&value.key());
        let evicted = if full { self.evict_oldest() } else { None };
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let at = self.tenants.insert(Tenant { serial, value });
        self.order.push_back((at, serial));
        // Those that left without being evicted stay in the queue until it is half empty.
        if self.order.len() > 2 * self.tenants.len() + 1024 {
            let tenants = &self.tenants;
            self.order.retain(|&(at, serial)| tenants.at(at).is_some_and(|t| t.serial == serial));
        }
        evicted
    }

    /// Has the value that was added first go, which is counted.
    pub(super) fn evict_oldest(&mut self) -> Option<T> {
        while let Some((at, serial)) = self.order.pop_front() {
            if self.tenants.at(at).is_some_and(|tenant| tenant.serial == serial) {
                self.evicted += 1;
                return self.tenants.remove_at(at).map(|tenant| tenant.value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::hash::ByAddress;

    impl Keyed for u64 {
        type Key = u64;

        fn key(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn the_queue_does_not_outgrow_the_store() {
        let mut store: Bounded<u64, ByAddress> = Bounded::new(10);
        for key in 0..100_000 {
            store.insert(key);
            store.remove(&key);
        }
        assert!(store.order.len() <= 1025, "{}", store.order.len());
        assert_eq!(store.evicted(), 0);
    }
}
