//! Connections that were there before the hooks, from a snapshot.
//!
//! The hooks are attached first and the snapshot is taken after, so that nothing falls between;
//! events of the time between the two are told after it. A socket of the snapshot is therefore
//! held here until an event of it comes: if that starts from the state of the snapshot, it
//! carries on from there; if not, it is from before and says where the socket was, and later
//! ones will bring it to where the snapshot saw it. Either way it is counted once.

use std::collections::HashMap;

use super::conn::Conn;
use crate::model::Tuple;

/// Seeds by cookie, and by their ends for events that have no cookie.
#[derive(Default)]
pub(super) struct Seeds {
    by_cookie: HashMap<u64, Conn>,
    by_tuple: HashMap<Tuple, u64>,
}

impl Seeds {
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }

    pub(super) fn insert(&mut self, cookie: u64, conn: Conn) -> Option<Conn> {
        self.by_tuple.insert(conn.tuple, cookie);
        self.by_cookie.insert(cookie, conn)
    }

    /// Takes out the seed of a socket that an event is about.
    pub(super) fn take(
        &mut self,
        cookie: Option<u64>,
        tuple: &Tuple,
        netns: Option<u32>,
    ) -> Option<Conn> {
        if self.by_cookie.is_empty() {
            return None;
        }
        let cookie = match cookie {
            Some(cookie) => cookie,
            None => *self.by_tuple.get(tuple)?,
        };
        let conn = self.by_cookie.get(&cookie)?;
        if matches!((conn.netns, netns), (Some(a), Some(b)) if a != b) {
            return None;
        }
        let conn = self.by_cookie.remove(&cookie)?;
        if self.by_tuple.get(&conn.tuple) == Some(&cookie) {
            self.by_tuple.remove(&conn.tuple);
        }
        Some(conn)
    }

    /// Takes out those that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64, &Conn) -> bool) -> Vec<Conn> {
        let out: Vec<u64> = self
            .by_cookie
            .iter()
            .filter(|(cookie, conn)| !keep(**cookie, conn))
            .map(|(&cookie, _)| cookie)
            .collect();
        out.into_iter()
            .filter_map(|cookie| {
                let conn = *self.by_cookie.get(&cookie)?;
                self.take(Some(cookie), &conn.tuple, conn.netns)
            })
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Conn)> {
        self.by_cookie.iter().map(|(&cookie, conn)| (cookie, conn))
    }
}
