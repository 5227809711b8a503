//! Which processes have to do with the connections: who owns, closed and holds them.
//!
//! A connection keeps numbers, and what these stand for is here once: there may be a million
//! connections, and few processes. Must not grow with processes that are gone: what no connection
//! names any more is dropped when there is twice as much as there was.

use std::{
    collections::{VecDeque, hash_map::Entry},
    hash::Hash,
    marker::PhantomData,
    num::NonZeroU32,
};

use tcptrace_model::{Closer, Comm, Holder, Owner, OwnerFrom, Task, hash::Map};

/// Processes whose first name is remembered; the one that was seen first is forgotten for another.
const NAMES: usize = 1 << 14;

/// Processes of which it is remembered that they have ended: a round that was under way then may name
/// them once more.
const ENDED: usize = 1024;

/// Values that may be kept before any is looked for that nobody names.
const FEW: usize = 4096;

/// Values that are remembered beside the table of all.
const RECENT: usize = 4;

/// A number that stands for a value.
#[derive(Debug)]
pub(super) struct Id<T>(NonZeroU32, PhantomData<fn() -> T>);

impl<T> Id<T> {
    fn new(index: usize) -> Option<Self> {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new)?;
        Some(Self(number, PhantomData))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Id<T> {}

impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// Who has to do with one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct People {
    /// Who opened or accepted it.
    pub(super) owner: Option<Id<Owner>>,
    /// Who closed it from here.
    pub(super) closer: Option<Id<Closer>>,
    /// Who has it open, as the last snapshot had that, unless somebody has closed it since.
    pub(super) holder: Option<Id<Holder>>,
}

/// Values, each once.
struct Kept<T> {
    values: Vec<Option<T>>,
    index_of: Map<T, u32>,
    free: Vec<u32>,
    /// Where the last few are: mostly it is one of them, and the table is hashed with a secret.
    recent: [u32; RECENT],
    oldest: usize,
    /// How many were in use when that was asked last.
    used: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            index_of: Map::default(),
            free: Vec::new(),
            recent: [u32::MAX; RECENT],
            oldest: 0,
            used: 0,
        }
    }
}

impl<T: Copy + Eq + Hash> Kept<T> {
    fn get(&self, id: Option<Id<T>>) -> Option<T> {
        self.values.get(id?.index()).copied().flatten()
    }

    /// The number of `value`; `None` only if there are more values than a number can count.
    fn keep(&mut self, value: T) -> Option<Id<T>> {
        let is_it = |index: &&u32| self.values.get(**index as usize) == Some(&Some(value));
        if let Some(&index) = self.recent.iter().find(is_it) {
            return Id::new(index as usize);
        }
        let index = match self.index_of.entry(value) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let index = match self.free.pop() {
                    Some(index) => index,
                    None => {
                        let index = u32::try_from(self.values.len()).ok()?;
                        self.values.push(None);
                        index
                    }
                };
                self.values[index as usize] = Some(value);
                *new.insert(index)
            }
        };
        self.recent[self.oldest] = index;
        self.oldest = (self.oldest + 1) % RECENT;
        Id::new(index as usize)
    }

    fn is_large(&self) -> bool {
        self.index_of.len() > 2 * self.used.max(FEW)
    }

    /// Drops all but those that `used` says of.
    fn drop_unused(&mut self, used: &[bool]) {
        self.index_of.clear();
        self.free.clear();
        // Each index has a number, or `keep` would not have put it there.
        for (index, slot) in (0..).zip(&mut self.values) {
            if used.get(index as usize) != Some(&true) {
                *slot = None;
                self.free.push(index);
            } else if let Some(value) = *slot {
                self.index_of.entry(value).or_insert(index);
            }
        }
        self.recent = [u32::MAX; RECENT];
        self.used = self.index_of.len();
    }

    /// Replaces values by what `with` makes of them, or by nothing.
    fn change(&mut self, with: impl Fn(&T) -> Option<T>) {
        for (index, slot) in (0..).zip(&mut self.values) {
            let Some(value) = *slot else { continue };
            let now = with(&value);
            if now == Some(value) {
                continue;
            }
            *slot = now;
            self.index_of.remove(&value);
            if let Some(now) = now {
                // Another number may stand for the same already.
                self.index_of.entry(now).or_insert(index);
            }
        }
        self.recent = [u32::MAX; RECENT];
    }
}

/// The name by which a process is called.
struct Named {
    execs: u16,
    comm: Comm,
}

/// The processes.
#[derive(Default)]
pub(super) struct Processes {
    owners: Kept<Owner>,
    closers: Kept<Closer>,
    holders: Kept<Holder>,
    /// By number and start.
    names: Map<(u32, u32), Named>,
    /// The keys of `names`, in the order in which they came.
    named: VecDeque<(u32, u32)>,
    /// Those that have ended last, by number and start, and in which order they were told.
    ended: Map<(u32, u32), ()>,
    ended_order: VecDeque<(u32, u32)>,
}

impl Processes {
    /// Whose a connection is.
    pub(super) fn owner(&self, id: Option<Id<Owner>>) -> Option<Owner> {
        self.owners.get(id)
    }

    /// Who closed it from here.
    pub(super) fn closer(&self, id: Option<Id<Closer>>) -> Option<Closer> {
        self.closers.get(id)
    }

    /// Who has it open.
    pub(super) fn holder(&self, id: Option<Id<Holder>>) -> Option<Holder> {
        self.holders.get(id)
    }

    /// Keeps an owner.
    pub(super) fn keep_owner(&mut self, owner: Owner) -> Option<Id<Owner>> {
        let task = self.called(owner.task);
        self.owners.keep(Owner { task, ..owner })
    }

    /// Keeps a closer.
    pub(super) fn keep_closer(&mut self, closer: Closer) -> Option<Id<Closer>> {
        let task = self.called(closer.task);
        self.closers.keep(Closer { task, ..closer })
    }

    /// Keeps a holder, less what has ended.
    pub(super) fn keep_holder(&mut self, holder: Holder) -> Option<Id<Holder>> {
        let has_ended = |task: &Task| self.ended.contains_key(&(task.tgid, task.started));
        let mut ended = [holder.task, holder.first].into_iter().filter(has_ended);
        let holder = ended.try_fold(holder, |left, task| left.without(task.tgid, task.started))?;
        let (task, first) = (self.called(holder.task), self.called(holder.first));
        self.holders.keep(Holder { task, first, ..holder })
    }

    /// Of two words on whose a connection is, the one that holds: a later one only where it says
    /// more.
    pub(super) fn better(
        &mut self,
        known: Option<Id<Owner>>,
        later: Option<Owner>,
    ) -> Option<Id<Owner>> {
        let Some(later) = later else { return known };
        let rank = |owner: Owner| match owner.from {
            OwnerFrom::Connect | OwnerFrom::Accept => 3,
            OwnerFrom::Close | OwnerFrom::Snapshot => 2,
            OwnerFrom::Listener => 1,
        };
        match self.owner(known) {
            Some(owner) if rank(owner) >= rank(later) => known,
            _ => self.keep_owner(later),
        }
    }

    /// `task` by the name of its process: the one that the process had when it was first seen, so
    /// that it stays one group whatever it calls itself later (`PR_SET_NAME`). After an exec() it is
    /// another program, and is named anew.
    fn called(&mut self, task: Task) -> Task {
        let Task { tgid, started, execs, comm, .. } = task;
        // Not to be told from a later process of the same number, or not the process's name.
        if started == 0 || !task.is_led || task.is_kernel {
            return task;
        }
        // /proc does not tell how often exec() was called: what it names may be about to be
        // another program.
        if execs == 0 {
            let named = self.names.get(&(tgid, started));
            return Task { comm: named.map_or(comm, |named| named.comm), ..task };
        }
        match self.names.entry((tgid, started)) {
            Entry::Occupied(mut named) => {
                let named = named.get_mut();
                if named.execs != execs {
                    *named = Named { execs, comm };
                }
                Task { comm: named.comm, ..task }
            }
            Entry::Vacant(new) => {
                new.insert(Named { execs, comm });
                self.named.push_back((tgid, started));
                if self.named.len() > NAMES
                    && let Some(oldest) = self.named.pop_front()
                {
                    self.names.remove(&oldest);
                }
                task
            }
        }
    }

    /// A process has ended: it holds nothing any more.
    pub(super) fn ended(&mut self, tgid: u32, started: u32) {
        self.holders.change(|holder| holder.without(tgid, started));
        if self.ended.insert((tgid, started), ()).is_none() {
            self.ended_order.push_back((tgid, started));
            if self.ended_order.len() > ENDED
                && let Some(first) = self.ended_order.pop_front()
            {
                self.ended.remove(&first);
            }
        }
    }

    /// Whether [`Self::keep_only`] would be worth its while.
    pub(super) fn are_many(&self) -> bool {
        self.owners.is_large() || self.closers.is_large() || self.holders.is_large()
    }

    /// Drops what none of those names that `each` shows.
    pub(super) fn keep_only(&mut self, each: impl FnOnce(&mut dyn FnMut(People))) {
        fn mark<T>(used: &mut [bool], id: Option<Id<T>>) {
            if let Some(used) = id.and_then(|id| used.get_mut(id.index())) {
                *used = true;
            }
        }
        let mut owners = vec![false; self.owners.values.len()];
        let mut closers = vec![false; self.closers.values.len()];
        let mut holders = vec![false; self.holders.values.len()];
        each(&mut |people| {
            mark(&mut owners, people.owner);
            mark(&mut closers, people.closer);
            mark(&mut holders, people.holder);
        });
        self.owners.drop_unused(&owners);
        self.closers.drop_unused(&closers);
        self.holders.drop_unused(&holders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::CloserFrom;

    fn task(tgid: u32, execs: u16, comm: &str) -> Task {
        Task { execs, ..Task::process(tgid, 0, 100, Comm::from(comm)) }
    }

    fn owner(task: Task) -> Owner {
        Owner { task, from: OwnerFrom::Connect }
    }

    #[test]
    fn a_process_keeps_the_name_that_it_had_first() {
        let mut processes = Processes::default();
        let mut called = |task: Task| {
            let id = processes.keep_owner(owner(task));
            processes.owner(id).map(|owner| owner.task.comm.to_string()).unwrap()
        };
        assert_eq!(called(task(7, 1, "one")), "one");
        assert_eq!(called(task(7, 1, "two")), "one", "PR_SET_NAME");
        assert_eq!(called(task(8, 1, "two")), "two");
        assert_eq!(called(Task { started: 101, ..task(7, 1, "two") }), "two", "another process");
        assert_eq!(called(task(7, 2, "three")), "three", "exec()");
        assert_eq!(called(task(7, 0, "four")), "three", "as /proc has it");
        let thread = Task { is_led: false, ..task(7, 1, "pool-0") };
        assert_eq!(called(thread), "pool-0", "nothing better is known");
        assert_eq!(called(task(9, 0, "sh")), "sh");
        assert_eq!(called(task(9, 1, "nc")), "nc", "between fork() and exec()");
    }

    #[test]
    fn ten_thousand_processes_cost_no_more_than_those_that_connections_name() {
        let mut processes = Processes::default();
        let mut conn = People::default();
        for tgid in 1..=100_000 {
            let one = task(tgid, 1, "worker");
            let id = processes.keep_owner(owner(one));
            let closer = Closer { task: one, from: CloserFrom::Fin };
            let closer = processes.keep_closer(closer);
            if tgid == 5 {
                (conn.owner, conn.closer) = (id, closer);
            }
            if processes.are_many() {
                processes.keep_only(|mark| mark(conn));
            }
            assert!(processes.owners.values.len() <= 2 * FEW + 1);
        }
        assert!(processes.names.len() <= NAMES && processes.named.len() <= NAMES);
        assert_eq!(processes.owner(conn.owner), Some(owner(task(5, 1, "worker"))));
        assert_eq!(processes.closer(conn.closer).map(|closer| closer.task.tgid), Some(5));
    }

    #[test]
    fn who_has_ended_holds_nothing() {
        let mut processes = Processes::default();
        let (parent, child) = (task(7, 1, "parent"), task(8, 1, "child"));
        let alone = processes.keep_holder(Holder::one(child));
        let both = Holder { task: child, first: parent, holders: 2 };
        let shared = processes.keep_holder(both);
        let three = processes.keep_holder(Holder { holders: 3, ..both });
        processes.ended(9, 100);
        processes.ended(8, 99);
        assert_eq!(processes.holder(shared), Some(both), "others have ended");
        processes.ended(8, 100);
        assert_eq!(processes.holder(alone), None);
        assert_eq!(processes.holder(shared), Some(Holder::one(parent)));
        assert_eq!(processes.holder(three), Some(Holder { holders: 2, ..Holder::one(parent) }));
        // The number stays theirs until no connection names it, and the value is found again.
        assert!(processes.keep_holder(Holder::one(parent)) == shared);
        assert!(processes.keep_holder(Holder::one(child)) != alone);
        processes.keep_only(|_| {});
        assert_eq!(processes.holder(shared), None);
    }
}
