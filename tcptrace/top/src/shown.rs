//! Which connections are shown: what the filter line says.
//!
//! Must not parse: the language is that of the flags, whose parser is given.

use std::num::NonZeroU64;

use super::stream::Kept;
use tcptrace_model::{
    Change, Found, Moved, Tuple,
    filter::Filter,
    select::{Subject, Wanted},
};

/// A condition on connections. What is not known of one is not what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    filter: Filter,
    wanted: Wanted,
    text: String,
    /// Something is asked of the ends. Kept, since it is asked for each change.
    of_ends: bool,
    /// Something is asked that is no matter of the two ends alone.
    of_owner: bool,
}

impl Shown {
    /// Those with ends and a namespace that `filter` keeps, of whom and how `wanted` says; `text` is
    /// how that was typed.
    pub fn new(filter: Filter, wanted: Wanted, text: String) -> Self {
        let (of_ends, of_owner) = (filter != Filter::default(), wanted != Wanted::default());
        Self { filter, wanted, text, of_ends, of_owner }
    }

    /// As it was typed.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing is asked for.
    pub(super) fn is_all(&self) -> bool {
        !self.of_ends && !self.of_owner
    }

    /// Whether something is asked that is no matter of the two ends alone.
    pub(super) fn wants_owner(&self) -> bool {
        self.of_owner
    }

    /// Whether the ends of a connection are asked for.
    pub(super) fn keeps(&self, tuple: &Tuple, netns: Option<u32>) -> bool {
        !self.of_ends || self.filter.keeps(tuple, netns.unwrap_or(0))
    }

    /// Whether connections are shown whatever their ends are.
    pub(super) fn keeps_all_ends(&self) -> bool {
        !self.of_ends
    }

    pub(super) fn moved(&self, moved: &Moved) -> bool {
        self.keeps(&moved.tuple, moved.netns)
            && (!self.of_owner || self.wanted.matches(moved.into()))
    }

    /// The same, of one that was taken into the stream.
    pub(super) fn kept(&self, kept: &Kept) -> bool {
        let cgroup = kept.cgroup.map(NonZeroU64::get);
        let subject = Subject {
            owner: kept.owner.as_ref(),
            closer: kept.closer.as_ref(),
            holder: None,
            cgroup,
            verdict: kept.verdict,
        };
        self.keeps(&kept.tuple, Some(kept.netns))
            && (!self.of_owner || self.wanted.matches(subject))
    }

    pub(super) fn found(&self, found: &Found) -> bool {
        self.keeps(&found.tuple, found.netns)
            && (!self.of_owner || self.wanted.matches(found.into()))
    }

    /// Whether a change is of a connection that is asked for.
    pub(super) fn change(&self, change: &Change) -> bool {
        match change {
            Change::Moved(moved) => self.moved(moved),
            Change::Found(found) | Change::Gone(found) => self.found(found),
            Change::Retired(_) => false,
        }
    }
}
