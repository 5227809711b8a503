//! What network namespaces are called, as far as the source could tell.
//!
//! The one place where names are escaped. Must not forget a namespace when it goes: what is told of its
//! connections may come later. The oldest goes when there are too many, and is its inode again.

use tcptrace_model::{Input, NetnsName, task::escape};

use super::table::Table;

/// Namespaces whose names are kept in mind: as many as the source looks at.
pub const LIMIT: usize = 4096;

struct Known {
    name: Option<Box<str>>,
    /// Of plain characters alone.
    path: Option<Box<str>>,
    gone: bool,
}

/// Names by the inode of the namespace.
pub struct Namespaces(Table<Known>);

impl Default for Namespaces {
    fn default() -> Self {
        Self(Table::new(LIMIT))
    }
}

impl Namespaces {
    /// Takes in what an input tells of them.
    pub fn input(&mut self, input: &Input) {
        if let Input::NetnsName(named) = input {
            self.take(named);
        }
    }

    fn take(&mut self, named: &NetnsName) {
        let name = named.name().map(|name| escape(name.as_bytes()).into());
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let path = named.path().filter(|path| path.starts_with('/') && path.chars().all(plain));
        let now = Known { name, path: path.map(Into::into), gone: named.gone };
        match self.0.get_mut(named.netns.into()) {
            Some(known) => *known = now,
            None => drop(self.0.insert(named.netns.into(), now)),
        }
    }

    fn known(&self, netns: u32) -> Option<&Known> {
        self.0.get(netns.into())
    }

    /// Its name, escaped, if it has one.
    pub fn name(&self, netns: u32) -> Option<&str> {
        self.known(netns)?.name.as_deref()
    }

    /// A file that leads to it, if one is known that a shell takes as it is.
    pub fn path(&self, netns: u32) -> Option<&str> {
        self.known(netns).filter(|known| !known.gone)?.path.as_deref()
    }

    /// Its name, else its inode; and whether it is gone.
    pub fn short(&self, netns: u32) -> String {
        let gone = if self.is_gone(netns) { " (gone)" } else { "" };
        match self.name(netns) {
            Some(name) => format!("{name}{gone}"),
            None => format!("{netns}{gone}"),
        }
    }

    /// Its name and its inode; and whether it is gone.
    pub fn long(&self, netns: u32) -> String {
        match (self.name(netns), self.is_gone(netns)) {
            (Some(name), false) => format!("{name} ({netns})"),
            (Some(name), true) => format!("{name} ({netns}, gone)"),
            (None, _) => self.short(netns),
        }
    }

    fn is_gone(&self, netns: u32) -> bool {
        self.known(netns).is_some_and(|known| known.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_namespace_holds_and_names_are_escaped() {
        let mut namespaces = Namespaces::default();
        let tell = |namespaces: &mut Namespaces, netns, name, gone| {
            namespaces.input(&Input::NetnsName(Box::new(NetnsName::new(1, netns, name, gone))));
        };
        assert_eq!((namespaces.short(5), namespaces.long(5)), ("5".into(), "5".into()));
        tell(&mut namespaces, 5, Some("\u{1b}[2Jblue\u{202e}"), false);
        assert_eq!(namespaces.name(5), Some("\\x1b[2Jblue\\u{202e}"));
        tell(&mut namespaces, 5, Some("blue"), false);
        assert_eq!((namespaces.short(5), namespaces.long(5)), ("blue".into(), "blue (5)".into()));
        tell(&mut namespaces, 5, Some("blue"), true);
        assert_eq!(namespaces.short(5), "blue (gone)");
        assert_eq!(namespaces.long(5), "blue (5, gone)");
        // What is pasted into a shell has nothing in it that a shell would take apart.
        for (path, plain) in
            [("/run/netns/blue", true), ("/run/netns/$(reboot)", false), ("a b", false)]
        {
            let named = NetnsName::new(1, 5, Some("blue"), false).at(Some(path));
            namespaces.input(&Input::NetnsName(Box::new(named)));
            assert_eq!(namespaces.path(5), plain.then_some(path));
        }
        // Its inode is another's by now.
        tell(&mut namespaces, 5, None, false);
        assert_eq!((namespaces.name(5), namespaces.long(5)), (None, "5".into()));
        tell(&mut namespaces, 5, None, true);
        assert_eq!(
            (namespaces.short(5), namespaces.long(5)),
            ("5 (gone)".into(), "5 (gone)".into())
        );
        for netns in 6..6 + LIMIT as u32 {
            tell(&mut namespaces, netns, Some("x"), false);
        }
        assert_eq!((namespaces.short(5), namespaces.short(6)), ("5".into(), "x".into()));
    }
}
