//! What writer and reader of a block both remember of it, so that an event says only what is new.
//!
//! It begins anew with each block, so that each can be read without those before.

use std::net::Ipv6Addr;

use super::wire::{Cursor, Malformed};
use tcptrace_model::Task;

/// Sockets, tasks, addresses or places of one block: more do not fit, and the next block begins.
pub(super) const LIMIT: usize = 1 << 16;

/// A namespace, and the cgroup where that is known.
pub(super) type Place = (u32, Option<u64>);

/// The memory of a block, with what each side keeps of a socket.
#[derive(Debug)]
pub(super) struct Scene<S> {
    /// The time of the last input that had one.
    pub(super) now: u64,
    /// The last address that was new.
    pub(super) addr: u64,
    /// The last cookie that was new.
    pub(super) cookie: u64,
    pub(super) jiffies: u64,
    pub(super) slots: Vec<S>,
    pub(super) tasks: Vec<Task>,
    pub(super) addrs: Vec<Ipv6Addr>,
    pub(super) places: Vec<Place>,
}

impl<S> Default for Scene<S> {
    fn default() -> Self {
        Self {
            now: 0,
            addr: 0,
            cookie: 0,
            jiffies: 0,
            slots: Vec::new(),
            tasks: Vec::new(),
            addrs: Vec::new(),
            places: Vec::new(),
        }
    }
}

impl<S> Scene<S> {
    /// Forgets all, and begins at `now`.
    pub(super) fn clear(&mut self, now: u64) {
        self.slots.clear();
        self.tasks.clear();
        self.addrs.clear();
        self.places.clear();
        (self.now, self.addr, self.cookie, self.jiffies) = (now, 0, 0, 0);
    }

    /// Whether another event might not fit.
    pub(super) fn is_full(&self) -> bool {
        let lens = [self.slots.len(), self.tasks.len(), self.addrs.len(), self.places.len()];
        lens.into_iter().any(|len| len + 2 > LIMIT)
    }
}

/// Reads an index into `list`, or the value itself where it is new, by `read`.
#[inline]
pub(super) fn listed<'a, T: Copy>(
    from: &mut Cursor<'a>,
    list: &mut Vec<T>,
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Malformed>,
) -> Result<(u32, T), Malformed> {
    let index = from.u64()?;
    if let Some(index) = index.checked_sub(1) {
        let value = usize::try_from(index).ok().and_then(|index| list.get(index).copied());
        // The list is no longer than `LIMIT`.
        return Ok((index as u32, value.ok_or(Malformed("a reference to nothing"))?));
    }
    if list.len() >= LIMIT {
        return Err(Malformed("too many things in a block"));
    }
    let value = read(from)?;
    list.push(value);
    Ok((list.len() as u32 - 1, value))
}
