//! A bounded table of live sockets.
//!
//! Must not grow past its limit: the entry that was added first goes, and is counted.

use std::collections::VecDeque;

use super::slab::Slab;

struct Tenant<T> {
    /// Distinguishes the tenants of one slot over time. It wraps around, long after the queue has
    /// dropped the tenants that had the same.
    serial: u32,
    value: T,
}

/// Values by the address of a kernel object, at most `limit`.
pub struct Table<T> {
    tenants: Slab<Tenant<T>>,
    /// Slot and serial in the order in which they were added; may hold tenants that have left
    /// since.
    order: VecDeque<(u32, u32)>,
    limit: usize,
    serial: u32,
    evicted: u64,
}

/// Far below what a slot and a serial can count.
const MOST: usize = 1 << 28;

impl<T> Table<T> {
    /// An empty table of at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self {
            tenants: Slab::default(),
            order: VecDeque::new(),
            limit: limit.clamp(1, MOST),
            serial: 0,
            evicted: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries had to go to keep the limit.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The entry of `key`.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.tenants.get(key).map(|tenant| &tenant.value)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.tenants.iter().map(|(key, tenant)| (key, &tenant.value))
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.tenants.iter_mut().map(|(key, tenant)| (key, &mut tenant.value))
    }

    /// The entry of `key`, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.tenants.get_mut(key).map(|tenant| &mut tenant.value)
    }

    /// Takes the entry of `key` out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.tenants.remove(key).map(|tenant| tenant.value)
    }

    /// Adds or replaces the entry of `key`. Returns what was evicted for it.
    pub fn insert(&mut self, key: u64, value: T) -> Option<(u64, T)> {
        let full = self.tenants.len() >= self.limit && !self.tenants.contains_key(key);
        let evicted = if full { self.evict_oldest() } else { None };
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let at = self.tenants.insert(key, Tenant { serial, value });
        self.order.push_back((at, serial));
        // Those that left without being evicted stay in the queue until it is half empty.
        if self.order.len() > 2 * self.tenants.len() + 1024 {
            let tenants = &self.tenants;
            self.order.retain(|&(at, serial)| tenants.at(at).is_some_and(|t| t.serial == serial));
        }
        evicted
    }

    /// Has the entry that was added first go, which is counted.
    pub fn evict_oldest(&mut self) -> Option<(u64, T)> {
        while let Some((at, serial)) = self.order.pop_front() {
            if self.tenants.at(at).is_some_and(|tenant| tenant.serial == serial) {
                self.evicted += 1;
                return self.tenants.remove_at(at).map(|(key, tenant)| (key, tenant.value));
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
        assert_eq!(table.insert(3, 'd'), Some((2, 'b')));
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
