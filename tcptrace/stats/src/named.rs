//! Groups as they are called.
//!
//! A key has the id of a cgroup, which is all that one change tells. Its name may come later, and
//! one unit may have had several cgroups: each restart of a service makes a new one. So groups are
//! named, and those of one name joined, when they are printed.
//!
//! Must not keep anything.

use std::{collections::HashMap, fmt};

use super::group::Key;
use tcptrace_model::{Cgroup, task::escape};

/// A group and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Escaped; where the key does not tell it.
    name: Option<Box<str>>,
    /// Of several the first.
    key: Key,
}

impl Group {
    /// Those for which there was no room.
    pub const OTHER: Self = Self { name: None, key: Key::Other };

    fn new(key: Key, cgroup: Option<&Cgroup>) -> Self {
        Self { name: cgroup.map(|cgroup| escape(cgroup.name().as_bytes()).into()), key }
    }

    /// The key, of a group of several cgroups that of the one with the lowest id.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The name, escaped; `None` for [`Key::All`] and where it is not known. A cgroup without a
    /// name is called by its id.
    pub fn label(&self) -> Option<String> {
        self.name.as_ref().map(ToString::to_string).or_else(|| self.key.label())
    }
}

impl From<Key> for Group {
    fn from(key: Key) -> Self {
        Self::new(key, None)
    }
}

impl fmt::Display for Group {
    /// Escaped, and `-` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label().as_deref().unwrap_or("-"))
    }
}

/// Names `groups`, of whose cgroups `cgroup` tells what is known, and adds with `join` what was
/// counted of groups of one name. They come in the order of the first of each.
pub fn named<'a, T>(
    groups: impl IntoIterator<Item = (Key, T)>,
    cgroup: impl Fn(u64) -> Option<&'a Cgroup>,
    join: impl Fn(&mut T, T),
) -> Vec<(Group, T)> {
    let mut named: Vec<(Group, T)> = Vec::new();
    let mut places: HashMap<Box<str>, usize> = HashMap::new();
    for (key, counted) in groups {
        let known = match key {
            Key::Cgroup(Some(id)) => cgroup(id),
            _ => None,
        };
        let group = Group::new(key, known);
        let place = group.name.as_ref().map(|name| places.entry(name.clone()));
        let known = place.map(|place| *place.or_insert(named.len()));
        match known.and_then(|at| named.get_mut(at)) {
            Some((first, sum)) => {
                first.key = first.key.min(key);
                join(sum, counted);
            }
            None => named.push((group, counted)),
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_one_name_are_one_group_and_the_nameless_stay_apart() {
        let nginx = Cgroup::parse("/system.slice/nginx.service");
        let below = Cgroup::parse("/system.slice/nginx.service/worker");
        let hostile = Cgroup::parse("/system.slice/\u{1b}[2J\u{202e}.service");
        let cgroup = |id| match id {
            7 => Some(&below),
            8 => Some(&nginx),
            9 => Some(&hostile),
            _ => None,
        };
        let keys = [Some(8), Some(1), None, Some(7), Some(2), Some(9)].map(Key::Cgroup);
        let groups = keys.into_iter().chain([Key::Other]).map(|key| (key, 1));
        let mut named = named(groups, cgroup, |sum, more| *sum += more);
        named.sort();
        let shown: Vec<_> =
            named.iter().map(|(group, count)| (group.to_string(), *count)).collect();
        let expected = [
            ("-", 1),
            ("cgroup 1", 1),
            ("cgroup 2", 1),
            ("(other)", 1),
            ("\\x1b[2J\\u{202e}.service", 1),
            ("nginx.service", 2),
        ];
        assert_eq!(shown, expected.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(named[5].0.key(), Key::Cgroup(Some(7)));
        assert_eq!(named[0].0.label(), None);
    }
}
