//! What cgroups are called, as far as the source could tell.
//!
//! Must not forget a cgroup when it goes: its sockets' TIME_WAITs outlive it. The oldest goes when
//! there are too many.

use super::table::Table;
use tcptrace_model::Cgroup;

/// Cgroups that are kept in mind. The source tells one again that was seldom enough to be forgotten.
pub const LIMIT: usize = 16_384;

/// Cgroups by their ids.
pub struct Cgroups(Table<Cgroup>);

impl Default for Cgroups {
    fn default() -> Self {
        Self(Table::new(LIMIT))
    }
}

impl Cgroups {
    /// A cgroup was named. It may have been renamed since.
    pub fn name(&mut self, id: u64, path: &str) {
        let cgroup = Cgroup::parse(path);
        match self.0.get_mut(id) {
            Some(known) => *known = cgroup,
            None => drop(self.0.insert(id, cgroup)),
        }
    }

    /// What is known of the cgroup with this id.
    pub fn get(&self, id: u64) -> Option<&Cgroup> {
        self.0.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_holds_and_the_oldest_goes() {
        let mut cgroups = Cgroups::default();
        for id in 0..LIMIT as u64 {
            cgroups.name(id, "/a.service");
        }
        cgroups.name(1, "/b.service");
        assert_eq!(cgroups.get(0).map(Cgroup::name), Some("a.service"));
        cgroups.name(LIMIT as u64, "/");
        assert_eq!(cgroups.get(0), None);
        assert_eq!(cgroups.get(1).map(Cgroup::name), Some("b.service"));
    }
}
