//! Values by keys of which the same few come again and again.
//!
//! To hash a key takes longer than to compare it, and to copy one that was only just put together
//! takes longer than both. So those that were asked for last are compared first, where they are.
//! Must not know what is counted.

use std::hash::Hash;

use tcptrace_model::hash::Rowed;

/// Values by keys, side by side: where they are is in a table of numbers.
#[derive(Clone, Debug)]
pub(super) struct Keyed<K, V> {
    map: Rowed<K, V>,
    /// Where the last two are that were asked for. They may have gone since.
    last: [usize; 2],
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self { map: Rowed::default(), last: [0, 1] }
    }
}

impl<K: Copy + Eq + Hash, V> Keyed<K, V> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The value of a key, if there is one. Does not note that it was asked for.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.place(key)?;
        Some(&mut self.map[at])
    }

    /// The value of a key, which is `new` if there is none.
    pub(super) fn of(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        let at = self.place(key).unwrap_or_else(|| self.map.insert_full(*key, new()).0);
        &mut self.map[at]
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.map.insert(key, value);
    }

    fn place(&mut self, key: &K) -> Option<usize> {
        let [first, second] = self.last;
        let is_at = |at: usize| self.map.get_index(at).is_some_and(|(known, _)| known == key);
        if is_at(first) {
            return Some(first);
        }
        let at = if is_at(second) { second } else { self.map.get_index_of(key)? };
        self.last = [at, first];
        Some(at)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter()
    }

    /// All values, to be changed, in no order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.values_mut()
    }

    /// Keeps those that are to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.map.retain(|_, value| keep(value));
    }

    /// Hands all of them out, in no order, and is empty then.
    pub(super) fn take(&mut self) -> Vec<(K, V)> {
        self.map.drain(..).collect()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.map.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_is_a_map() {
        let (mut keyed, mut map) = (Keyed::<u64, u64>::default(), HashMap::new());
        let mut random = 1_u64;
        for n in 0..100_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Mostly one of a few.
            let key = (random >> 40) % if random >> 62 == 0 { 1000 } else { 3 };
            match (random >> 32) % 1000 {
                0 => {
                    keyed.retain(|value| value % 2 == 0);
                    map.retain(|_, value| *value % 2 == 0);
                }
                1 if n % 10 == 0 => {
                    let taken: HashMap<_, _> = keyed.take().into_iter().collect();
                    assert_eq!(taken, std::mem::take(&mut map));
                }
                2 => assert_eq!(keyed.get(&key), map.get(&key)),
                5 => {
                    keyed.insert(key, n);
                    map.insert(key, n);
                }
                3 => assert_eq!(keyed.get_mut(&key), map.get_mut(&key)),
                4 => {
                    keyed.values_mut().for_each(|value| *value += 1);
                    map.values_mut().for_each(|value| *value += 1);
                }
                _ => {
                    *keyed.of(&key, || 7) += n;
                    *map.entry(key).or_insert(7) += n;
                }
            }
            assert_eq!(keyed.len(), map.len());
        }
        assert!(map.len() > 10);
        assert_eq!(keyed.iter().map(|(key, value)| (*key, *value)).collect::<HashMap<_, _>>(), map);
        keyed.clear();
        assert_eq!((keyed.len(), keyed.get_mut(&1)), (0, None));
    }
}
