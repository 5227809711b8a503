//! What a round of snapshots has, to be matched with what is known.

use super::{
    conn::{Conn, has_listeners_ends},
    slab::Slab,
};
use tcptrace_model::{SnapSocket, Tuple, hash::Map};

/// Sockets of a round by cookie, and by their ends once one without a cookie is looked for.
#[derive(Default)]
pub(super) struct Rows {
    by_cookie: Slab<(u32, SnapSocket)>,
    by_ends: Option<Map<Tuple, Vec<u64>>>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }

    /// Adds a row of a dump of `netns`. Of two with one cookie the later counts.
    pub(super) fn insert(&mut self, netns: u32, row: SnapSocket) {
        self.by_cookie.insert(row.cookie, (netns, row));
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u32, SnapSocket)> {
        self.by_cookie.iter().map(|(_, row)| row)
    }

    /// The one with this cookie.
    pub(super) fn get(&self, cookie: u64) -> Option<&SnapSocket> {
        self.by_cookie.get(cookie).map(|(_, row)| row)
    }

    /// Those that were not taken out.
    pub(super) fn into_iter(self) -> impl Iterator<Item = (u64, (u32, SnapSocket))> {
        self.by_cookie.into_iter()
    }

    /// Takes out the row of a connection that is known.
    pub(super) fn take(&mut self, conn: &Conn) -> Option<(u32, SnapSocket)> {
        let fits = |row: &(u32, SnapSocket)| conn.netns.is_none_or(|netns| netns == row.0);
        let cookie = match conn.cookie() {
            Some(cookie) => cookie,
            None if has_listeners_ends(conn.state, &conn.tuple) => return None,
            None => self.find(conn, fits)?,
        };
        self.by_cookie.get(cookie).filter(|row| fits(row))?;
        self.by_cookie.remove(cookie)
    }

    /// Of several with the same ends (listeners with `SO_REUSEPORT`) rather one in the same state.
    fn find(&mut self, conn: &Conn, fits: impl Fn(&(u32, SnapSocket)) -> bool) -> Option<u64> {
        let by_cookie = &self.by_cookie;
        let by_ends = self.by_ends.get_or_insert_with(|| {
            let mut by_ends: Map<Tuple, Vec<u64>> = Map::default();
            for (cookie, (_, row)) in by_cookie.iter() {
                by_ends.entry(row.tuple).or_default().push(cookie);
            }
            by_ends
        });
        let candidates = by_ends.get(&conn.tuple)?.iter().copied().filter_map(|cookie| {
            let row = by_cookie.get(cookie).filter(|row| fits(row))?;
            Some((row.1.state != conn.state, cookie))
        });
        candidates.min().map(|(_, cookie)| cookie)
    }
}
