//! What a network namespace is called, as a value.

use serde::{Deserialize, Serialize};

/// Bytes of a name that are kept: as many as the name of a file may have (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;

/// Bytes of the path of a file that leads to one (`/run/netns/`, and a name).
pub const PATH_BYTES: usize = 512;

/// What a network namespace is called, and whether it can still be found: when it is first reached, and
/// when that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsName {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Its inode.
    pub netns: u32,
    name: Option<Box<str>>,
    path: Option<Box<str>>,
    /// Neither a mount nor a process leads to it any more. Sockets that a process of another namespace
    /// holds may keep it alive.
    pub gone: bool,
}

impl NetnsName {
    /// Keeps [`NAME_BYTES`] of the name at most.
    #[must_use]
    pub fn new(mono_ns: u64, netns: u32, name: Option<&str>, gone: bool) -> Self {
        let name = name.filter(|name| !name.is_empty());
        let cut = |name: &str| name[..name.floor_char_boundary(NAME_BYTES)].into();
        Self { mono_ns, netns, name: name.map(cut), path: None, gone }
    }

    /// The same, with a file that leads to it: one that is longer than [`PATH_BYTES`] is none.
    #[must_use]
    pub fn at(self, path: Option<&str>) -> Self {
        let path = path.filter(|path| !path.is_empty() && path.len() <= PATH_BYTES);
        Self { path: path.map(Into::into), ..self }
    }

    /// A file that leads to it: a mount, or `/proc/PID/ns/net`. Untrusted text.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The name that `ip netns` shows, else that of a container, or of a process in it with its number.
    /// Untrusted text: escaped where it is taken in (`track::namespaces`).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_not_cut_within_a_character() {
        let long = NetnsName::new(0, 1, Some(&"ä".repeat(200)), false);
        assert_eq!(long.name().map(str::len), Some(254));
        assert_eq!(NetnsName::new(0, 1, Some(""), false).name(), None);
    }
}
