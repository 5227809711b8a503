//! What namespaces were told to be called, so that only what has changed is told again.
//!
//! Says that one is gone only after a list that was complete. Reads nothing itself.

use std::collections::HashMap;

use tcptrace_model::NetnsName;

use crate::dump::Round;

/// Namespaces that are kept in mind; of more, nothing is told: they are shown by their inodes.
const LIMIT: usize = 4096;

/// By inode, what was told last.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<u32, NetnsName>);

impl Round {
    /// The same with the names of all its namespaces, for a reader that was told none yet.
    #[must_use]
    pub fn with_names(mut self) -> Self {
        Told::default().compare(&mut self);
        self
    }
}

impl Told {
    /// Puts into `round` what it has to tell.
    pub(super) fn compare(&mut self, round: &mut Round) {
        if round.minisocks_alone {
            return;
        }
        for space in &round.spaces {
            // One that is only said to be gone.
            if round.there.as_ref().is_some_and(|there| !there.contains(&space.netns)) {
                continue;
            }
            let now = NetnsName::new(round.over_ns, space.netns, space.name.as_deref(), false)
                .at(space.path.as_deref());
            let before = self.0.get(&space.netns);
            let same = before.is_some_and(|was| {
                was.name() == now.name() && was.path() == now.path() && !was.gone
            });
            // Without a name it is its inode, which nobody needs to be told.
            if same || before.is_none() && now.name().is_none() {
                continue;
            }
            if self.0.len() < LIMIT || before.is_some() {
                self.0.insert(space.netns, now.clone());
                round.names.push(now);
            }
        }
        let Some(there) = round.there.as_ref().filter(|_| round.all) else { return };
        for (netns, told) in &mut self.0 {
            if !there.contains(netns) && !told.gone {
                (told.gone, told.mono_ns) = (true, round.over_ns);
                round.names.push(told.clone());
            }
        }
        if self.0.len() >= LIMIT {
            self.0.retain(|_, told| !told.gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{Of, Order, Space};

    fn round(spaces: &[(u32, &str)], there: Option<&[u32]>) -> Round {
        let order = Order { of: Of::All, minisocks_told: true, told: Default::default() };
        let space = |(netns, name): &(u32, &str)| Space {
            name: (!name.is_empty()).then(|| (*name).into()),
            ..Space::gone(*netns, 1)
        };
        Round {
            all: true,
            spaces: spaces.iter().map(space).collect(),
            there: there.map(|there| there.iter().copied().collect()),
            over_ns: 7,
            ..Round::nothing(&order)
        }
    }

    #[test]
    fn only_what_has_changed_is_told_and_gone_only_what_a_complete_list_lacks() {
        let mut told = Told::default();
        let mut tell = |spaces: &[(u32, &str)], there: Option<&[u32]>| -> Vec<_> {
            let mut round = round(spaces, there);
            told.compare(&mut round);
            let name = |it: &NetnsName| (it.netns, it.name().unwrap_or("-").to_owned(), it.gone);
            round.names.iter().map(name).collect()
        };
        let one = |netns, name: &str, gone| vec![(netns, name.to_owned(), gone)];
        assert_eq!(tell(&[(5, "blue"), (6, "")], Some(&[5, 6])), one(5, "blue", false));
        assert_eq!(tell(&[(5, "blue"), (6, "")], Some(&[5, 6])), []);
        assert_eq!(tell(&[(5, "red"), (6, "")], Some(&[5, 6])), one(5, "red", false));
        // It may be among those that could not be looked at, or be there and refuse.
        assert_eq!(tell(&[(6, "")], None), []);
        assert_eq!(tell(&[(6, "")], Some(&[5, 6])), []);
        assert_eq!(tell(&[(6, "")], Some(&[6])), one(5, "red", true));
        assert_eq!(tell(&[(6, "")], Some(&[6])), []);
        // That its sockets are gone is told of it later, and brings no name.
        assert_eq!(tell(&[(6, ""), (5, "")], Some(&[6])), []);
        assert_eq!(tell(&[(6, ""), (5, "")], Some(&[5, 6])), one(5, "-", false));
    }
}
