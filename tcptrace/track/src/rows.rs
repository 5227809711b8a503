//! What a round of snapshots has, to be matched with what is known.

use super::{
    conn::{Conn, has_listeners_ends},
    ends::{ByEnds, Ends},
    slab::{Keyed, Slab},
};
use tcptrace_model::{SnapSocket, SockId, hash::ByAnything};

/// A socket of a dump.
pub(super) struct Row {
    /// Inode of the namespace.
    pub(super) netns: u32,
    pub(super) socket: SnapSocket,
}

impl Row {
    fn ends(&self) -> Ends {
        let SnapSocket { tuple, state, .. } = self.socket;
        Ends { tuple, mini: self.socket.is_mini(), state, netns: self.netns }
    }
}

impl Keyed for Row {
    type Key = SockId;

    fn key(&self) -> SockId {
        self.socket.id()
    }
}

/// Sockets of a round by what tells them apart, and by their ends once one without a cookie is
/// looked for.
#[derive(Default)]
pub(super) struct Rows {
    rows: Slab<Row, ByAnything>,
    by_ends: Option<ByEnds>,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a row of a dump of `netns`. Of two of one socket the later counts.
    pub(super) fn insert(&mut self, netns: u32, socket: SnapSocket) {
        // A dump that is not over is not asked for ends.
        self.by_ends = None;
        self.rows.insert(Row { netns, socket });
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// That of the full socket with this cookie.
    pub(super) fn full(&self, cookie: u64) -> Option<&SnapSocket> {
        self.rows.get(&SockId::Full(cookie)).map(|row| &row.socket)
    }

    /// That of a full socket that is known.
    pub(super) fn of(&mut self, conn: &Conn) -> Option<&SnapSocket> {
        let at = match conn.cookie() {
            Some(cookie) => self.rows.find(&SockId::Full(cookie))?,
            None if has_listeners_ends(conn.state, &conn.tuple) => return None,
            None => self.find(conn, false)?,
        };
        let row = self.rows.at(at)?;
        let is_it = conn.netns.is_none_or(|netns| netns == row.netns) && !row.socket.is_mini();
        is_it.then_some(&row.socket)
    }

    /// Those that were not taken out.
    pub(super) fn into_iter(self) -> impl Iterator<Item = Row> {
        self.rows.into_iter()
    }

    /// Takes out the row of a connection that is known as a full socket or as a minisock. Of a full
    /// socket that has handed over, with nothing told of that, it is that of the minisock.
    pub(super) fn take(&mut self, conn: &Conn, mini: bool) -> Option<Row> {
        let at = match conn.cookie() {
            Some(cookie) => {
                let handed_over = SockId::Mini(cookie, conn.tuple);
                let full = (!mini).then(|| self.rows.find(&SockId::Full(cookie))).flatten();
                full.or_else(|| self.rows.find(&handed_over))?
            }
            None if has_listeners_ends(conn.state, &conn.tuple) => return None,
            None => self.find(conn, mini)?,
        };
        let row = self.rows.at(at)?;
        if conn.netns.is_some_and(|netns| netns != row.netns) {
            return None;
        }
        if let Some(by_ends) = &mut self.by_ends {
            by_ends.remove(row.ends(), at);
        }
        self.rows.remove_at(at)
    }

    /// Of several with the same ends (listeners with `SO_REUSEPORT`) rather one in the same state.
    fn find(&mut self, conn: &Conn, mini: bool) -> Option<u32> {
        let rows = &self.rows;
        let by_ends = self.by_ends.get_or_insert_with(|| {
            let mut by_ends = ByEnds::default();
            rows.indexed().for_each(|(at, row)| by_ends.insert(row.ends(), at));
            by_ends
        });
        let find = |mini| by_ends.find(&conn.tuple, mini, conn.state, conn.netns);
        find(mini).or_else(|| (!mini).then(|| find(true)).flatten())
    }
}
