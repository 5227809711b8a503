//! What is kept of each connection that goes on, by its id, bounded.
//!
//! What costs is not the hashing but memory that was not touched for long. So a record stays where
//! it is put, a place that was freed is taken again at once, and of the last ids it is known side
//! by side which place each has: ids are given in order, and most connections are short. Must be
//! keyed by nothing but the tracker's ids.

use std::collections::VecDeque;

use tcptrace_track::Table;

/// Of so many of the last ids the places lie side by side: a MiB.
const LAST: usize = 1 << 18;

/// No place.
const NONE: u32 = u32::MAX;

/// Records by id.
pub(super) struct Records<T> {
    places: Vec<T>,
    /// Places that were freed, the last one first to be taken again.
    free: Vec<u32>,
    /// The places of the last ids, [`NONE`] for those without.
    last: VecDeque<u32>,
    /// The first of the last ids.
    first: u64,
    /// The places of the ids before them.
    old: Table<u32>,
    limit: usize,
}

impl<T: Copy + Default> Records<T> {
    /// At most `limit` records, but one at the least.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            last: VecDeque::new(),
            first: 0,
            old: Table::new(limit),
            limit: limit.clamp(1, NONE as usize),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// How many had to go to keep the limit.
    pub(super) fn evicted(&self) -> u64 {
        self.old.evicted()
    }

    /// Which of the last ids it is, or one that is still to come; `None`: one before them.
    fn index(&self, id: u64) -> Option<usize> {
        id.checked_sub(self.first).map(|at| usize::try_from(at).unwrap_or(usize::MAX))
    }

    fn place(&self, id: u64) -> Option<u32> {
        match self.index(id) {
            Some(at) => self.last.get(at).copied().filter(|&place| place != NONE),
            None => self.old.get(id).copied(),
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        self.places.get(self.place(id)? as usize)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let place = match self.index(id) {
            Some(at) => std::mem::replace(self.last.get_mut(at)?, NONE),
            None => self.old.remove(id)?,
        };
        let record = *self.places.get(place as usize)?;
        self.free.push(place);
        Some(record)
    }

    /// The record of a connection, which may be its first.
    pub(super) fn of(&mut self, id: u64) -> &mut T {
        let place = self.place(id).unwrap_or_else(|| self.add(id));
        &mut self.places[place as usize]
    }

    fn add(&mut self, id: u64) -> u32 {
        while self.len() >= self.limit {
            self.evict();
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = T::default();
                place
            }
            None => {
                self.places.push(T::default());
                (self.places.len() - 1) as u32
            }
        };
        self.reach(id);
        match self.index(id).and_then(|at| self.last.get_mut(at)) {
            Some(of_id) => *of_id = place,
            None => {
                // None is evicted: it has room for as many as there are records.
                self.old.insert(id, place);
            }
        }
        place
    }

    /// Has the last ids reach up to `id`, if it is after them.
    fn reach(&mut self, id: u64) {
        if self.index(id).is_some_and(|at| at - self.last.len().min(at) >= LAST) {
            // A leap: over connections that were there before and have not moved.
            while self.age() {}
            self.first = id;
        }
        while self.index(id).is_some_and(|at| at >= self.last.len()) {
            if self.last.len() >= LAST {
                self.age();
            }
            self.last.push_back(NONE);
        }
    }

    /// The first of the last ids becomes an old one; false if there is none.
    fn age(&mut self) -> bool {
        let Some(place) = self.last.pop_front() else { return false };
        if place != NONE {
            // None is evicted: it has room for as many as there are records.
            self.old.insert(self.first, place);
        }
        self.first += 1;
        true
    }

    /// Has the oldest go, which is counted.
    fn evict(&mut self) {
        while self.old.is_empty() && self.age() {}
        if let Some((_, place)) = self.old.evict_oldest() {
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_map_of_ids_that_come_about_in_order() {
        let mut records: Records<u64> = Records::new(1 << 20);
        let mut map = std::collections::HashMap::new();
        let mut random = 1_u64;
        let mut last = 0_u64;
        for value in 0..400_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly one of the last, at times one of long ago, and now and then a leap.
            last += match random >> 60 {
                0..14 => 1,
                _ if value % 50_000 < 8 => 2 * LAST as u64,
                _ => 0,
            };
            let span = if random & 7 == 0 { 1 << 20 } else { 20 };
            let id = last.saturating_sub((random >> 20) % span);
            if random & 16 == 0 {
                assert_eq!(records.remove(id), map.remove(&id));
            } else {
                *records.of(id) += value;
                *map.entry(id).or_default() += value;
            }
            assert_eq!(records.get(id), map.get(&id));
        }
        assert!(records.old.len() > 1000 && records.len() - records.old.len() > 1000);
        assert_eq!((records.len(), records.evicted()), (map.len(), 0));
        assert!(map.iter().all(|(id, value)| records.get(*id) == Some(value)));
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        for limit in [1_u64, 2, 100] {
            let mut records: Records<u64> = Records::new(limit as usize);
            (1..=5000).for_each(|id| *records.of(id) = id);
            assert_eq!((records.len() as u64, records.evicted()), (limit, 5000 - limit));
            assert!((5001 - limit..=5000).all(|id| records.get(id) == Some(&id)));
            assert_eq!(records.get(5000 - limit), None);
            assert_eq!(records.places.len() as u64, limit, "places are used again");
        }
    }

    #[test]
    fn what_is_known_of_ids_is_bounded_too() {
        let mut records: Records<u64> = Records::new(1 << 20);
        for id in 1..2 * LAST as u64 {
            *records.of(id) = id;
            assert_eq!(records.remove(id), Some(id));
        }
        let room = (records.places.len(), records.last.len(), records.old.len());
        assert_eq!(room, (1, LAST, 0));
    }
}
