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
use tcptrace_track::Tracker;

/// Whoever knows what things are called.
pub trait Names {
    /// The cgroup with this id.
    fn cgroup(&self, id: u64) -> Option<&Cgroup>;
    /// The network namespace with this inode, escaped.
    fn netns(&self, inode: u32) -> Option<String>;
}

impl Names for Tracker {
    fn cgroup(&self, id: u64) -> Option<&Cgroup> {
        self.cgroup(id)
    }

    fn netns(&self, inode: u32) -> Option<String> {
        Some(self.namespaces().short(inode))
    }
}

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

    fn new(key: Key, names: &impl Names) -> Self {
        let name = match key {
            Key::Cgroup(Some(id)) => names.cgroup(id).map(|known| escape(known.name().as_bytes())),
            Key::Netns(Some(inode)) => names.netns(inode),
            _ => None,
        };
        Self { name: name.map(String::into_boxed_str), key }
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
        Self { name: None, key }
    }
}

impl fmt::Display for Group {
    /// Escaped, and `-` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label().as_deref().unwrap_or("-"))
    }
}

/// Names `groups`, of which `names` tells what is known, and adds with `join` what was
/// counted of groups of one name. They come in the order of the first of each.
pub fn named<T>(
    groups: impl IntoIterator<Item = (Key, T)>,
    names: &impl Names,
    join: impl Fn(&mut T, T),
) -> Vec<(Group, T)> {
    let mut named: Vec<(Group, T)> = Vec::new();
    let mut places: HashMap<Box<str>, usize> = HashMap::new();
    for (key, counted) in groups {
        let group = Group::new(key, names);
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
        struct Known([Cgroup; 3]);
        impl Names for Known {
            fn cgroup(&self, id: u64) -> Option<&Cgroup> {
                self.0.get(usize::try_from(id.checked_sub(7)?).ok()?)
            }

            fn netns(&self, inode: u32) -> Option<String> {
                (inode == 3).then(|| "blue (gone)".to_owned())
            }
        }
        let known = Known([below, nginx, hostile]);
        let keys = [Some(8), Some(1), None, Some(7), Some(2), Some(9)].map(Key::Cgroup);
        let groups = keys.into_iter().chain([Key::Other]).map(|key| (key, 1));
        let mut named = named(groups, &known, |sum, more| *sum += more);
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
