//! What cgroups are called, as far as the source could tell.
//!
//! Must not forget a cgroup when it goes: its sockets' TIME_WAITs outlive it. The oldest goes when
//! there are too many.

use super::table::Table;
use tcptrace_model::Cgroup;

/// Cgroups that are kept in mind. The source tells one again that was seldom enough to be forgotten.
pub const LIMIT: usize = 16_384;

/// Bytes of their paths that are kept in mind, the oldest going first: 500 each, where a container's path
/// in Kubernetes has some 200.
pub const LIMIT_BYTES: usize = 8 << 20;

/// Cgroups by their ids.
pub struct Cgroups {
    table: Table<Cgroup>,
    /// Of their paths.
    bytes: usize,
}

impl Default for Cgroups {
    fn default() -> Self {
        Self { table: Table::new(LIMIT), bytes: 0 }
    }
}

impl Cgroups {
    /// A cgroup was named. It may have been renamed since.
    pub fn name(&mut self, id: u64, path: &str) {
        let cgroup = Cgroup::parse(path);
        self.bytes += path.len();
        let gone = match self.table.get_mut(id) {
            Some(known) => Some(std::mem::replace(known, cgroup)),
            None => self.table.insert(id, cgroup).map(|(_, oldest)| oldest),
        };
        self.bytes -= gone.map_or(0, |gone| gone.path().len());
        while self.bytes > LIMIT_BYTES
            && let Some((_, oldest)) = self.table.evict_oldest()
        {
            self.bytes -= oldest.path().len();
        }
    }

    /// What is known of the cgroup with this id.
    pub fn get(&self, id: u64) -> Option<&Cgroup> {
        self.table.get(id)
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

    #[test]
    fn long_paths_take_the_room_of_others() {
        let mut cgroups = Cgroups::default();
        let long = "/x".repeat(2048);
        let fit = (LIMIT_BYTES / long.len()) as u64;
        for id in 0..2 * fit {
            cgroups.name(id, &long);
            cgroups.name(id, &long);
        }
        assert!(cgroups.get(fit - 1).is_none() && cgroups.get(fit).is_some());
        assert_eq!(cgroups.bytes, LIMIT_BYTES);
    }
}
