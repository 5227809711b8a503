//! The connections that are known, by where each is kept.
//!
//! Full sockets by their addresses, minisocks by theirs, and seeds (connections that a snapshot
//! told of and no event yet) by their cookies, minisocks among them by their ends too. Must conclude nothing: `tracker` does that from
//! events, `compare` and `sampling` from snapshots, and each asks for changes here.

use super::{
    conn::{Conn, Entered, Ids},
    listeners::Listeners,
    minisock::{Minisocks, promoted},
    processes::Processes,
    rows::Rows,
    scans::LastScans,
    seed::{Seed, Seeds, holder_of, owner_by},
    table::Table,
};
use tcptrace_model::{Change, Owner, OwnerFrom, SockId, TcpState};

/// Where a connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// By the address of the full socket.
    Full(u64),
    /// By the address of the minisock.
    Mini(u64),
    /// From a snapshot.
    Seed(SockId),
}

/// All connections that are known, but for those whose end is not settled.
pub(super) struct Known {
    pub(super) conns: Table<Conn>,
    pub(super) minisocks: Minisocks,
    pub(super) seeds: Seeds,
    pub(super) ids: Ids,
    pub(super) listeners: Listeners,
    pub(super) scans: LastScans,
    pub(super) processes: Processes,
    limit: usize,
}

impl Known {
    /// At most `limit` full sockets, as many minisocks and as many seeds.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            conns: Table::new(limit),
            minisocks: Minisocks::new(limit),
            seeds: Seeds::default(),
            ids: Ids::default(),
            listeners: Listeners::default(),
            scans: LastScans::default(),
            processes: Processes::default(),
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len() + self.minisocks.len() + self.seeds.len()
    }

    /// How many had to go, or were not taken up, to keep the limits.
    pub(super) fn evicted(&self) -> u64 {
        self.conns.evicted() + self.minisocks.evicted() + self.listeners.left_out()
    }

    /// Calls `f` with each, and with whether it is a minisock.
    pub(super) fn each(&self, mut f: impl FnMut(Place, &Conn, bool)) {
        self.conns.iter().for_each(|(addr, conn)| f(Place::Full(addr), conn, false));
        self.minisocks.iter().for_each(|(addr, conn)| f(Place::Mini(addr), conn, true));
        self.seeds.iter().for_each(|seed| f(Place::Seed(seed.sock_id()), &seed.conn(), seed.mini));
    }

    /// Takes up who holds the sockets that `rows` has, and the local ports of those that connect, of those that have not been closed since the
    /// dump of their namespace began, which `began_ns` says.
    pub(super) fn take_rows(&mut self, rows: &mut Rows, began_ns: impl Fn(u32) -> Option<u64>) {
        use TcpState::SynSent;
        let Self { conns, seeds, processes, .. } = self;
        for conn in conns.iter_mut().map(|(_, conn)| conn) {
            let Some(row) = rows.of(conn) else { continue };
            let holder = holder_of(row);
            conn.people.owner = processes.better(conn.people.owner, holder.map(owner_by));
            let told = |netns| began_ns(netns).is_some_and(|began_ns| conn.since_ns < began_ns);
            if conn.netns.is_none_or(told) {
                conn.people.holder = holder.and_then(|holder| processes.keep_holder(holder));
                // A local port that the kernel chose in connect() comes with no event before the next.
                if conn.tuple.lport == 0 && (conn.state, row.state) == (SynSent, SynSent) {
                    conn.tuple = conn.tuple.completed_by(&row.tuple);
                }
            }
        }
        for seed in seeds.iter_mut().filter(|seed| !seed.mini) {
            if let Some(row) = rows.full(seed.cookie) {
                seed.people.holder =
                    holder_of(row).and_then(|holder| processes.keep_holder(holder));
            }
        }
    }

    /// Drops the processes that no connection names any more, if they are many. `others` shows
    /// connections that are kept elsewhere.
    pub(super) fn forget_processes<'a>(&mut self, others: impl Iterator<Item = &'a Conn>) {
        if !self.processes.are_many() {
            return;
        }
        let mut processes = std::mem::take(&mut self.processes);
        processes.keep_only(|mark| {
            self.each(|_, conn, _| mark(conn.people));
            others.for_each(|conn| mark(conn.people));
        });
        self.processes = processes;
    }

    /// Takes up the namespace of a connection of which it was not known.
    pub(super) fn set_netns(&mut self, place: Place, netns: u32) {
        if let Place::Full(addr) = place
            && let Some(conn) = self.conns.get_mut(addr)
        {
            conn.netns = Some(netns);
        }
    }

    /// Whether there is room for a socket of a snapshot.
    pub(super) fn has_room(&self) -> bool {
        self.seeds.len() < self.limit
    }

    /// Takes up a socket of a snapshot, for which there must be room.
    pub(super) fn plant(&mut self, mut seed: Seed, now: u64, out: &mut impl FnMut(Change)) {
        seed.id = self.ids.next();
        if let Some(owner) = self.processes.owner(seed.people.owner)
            && seed.state == TcpState::Listen
        {
            let owner = Owner { from: OwnerFrom::Listener, ..owner };
            self.listeners.insert(seed.cookie, Some(seed.netns), &seed.tuple, owner);
        }
        // A cookie is of one namespace. Another's row with the same one can only be made up.
        if let Some(replaced) = self.seeds.remove(&seed.sock_id()) {
            out(replaced.conn().gone(now, &self.processes));
        }
        out(Change::Found(seed.conn().found(now, &self.processes)));
        self.seeds.insert(seed);
    }

    /// Forgets what is kept there, and says nothing of it.
    pub(super) fn forget(&mut self, place: Place) {
        match place {
            Place::Full(addr) => drop(self.conns.remove(addr)),
            Place::Mini(addr) => drop(self.minisocks.remove(addr)),
            Place::Seed(id) => drop(self.seeds.remove(&id)),
        }
    }

    /// The minisock kept there went from FIN_WAIT2 to TIME_WAIT at `at_ns`, to within so much.
    pub(super) fn promote(
        &mut self,
        place: Place,
        at_ns: u64,
        within_ns: u64,
        out: &mut impl FnMut(Change),
    ) {
        let entered = Entered::Within(within_ns.max(self.minisocks.jiffy_ns()));
        let who = &self.processes;
        match place {
            Place::Mini(addr) => {
                if let Some(conn) = self.minisocks.get_mut(addr) {
                    promoted(conn, addr, at_ns, entered, who, out);
                }
            }
            Place::Seed(id) => {
                if let Some(mut seed) = self.seeds.remove(&id) {
                    let mut conn = seed.conn();
                    // The address of its minisock is not known.
                    promoted(&mut conn, 0, at_ns, entered, who, out);
                    (seed.state, seed.since_ns) = (conn.state, at_ns);
                    self.seeds.insert(seed);
                }
            }
            Place::Full(_) => {}
        }
    }

    /// Two rounds had nothing of what is kept there, the last one from `now` on. If that is a
    /// minisock whose timer was due by then, says that it has ended; false if there is another
    /// reason.
    pub(super) fn end_untold(
        &mut self,
        place: Place,
        now: u64,
        out: &mut impl FnMut(Change),
    ) -> bool {
        match place {
            Place::Mini(addr) => self.minisocks.end_untold(addr, now, &self.processes, out),
            Place::Full(_) | Place::Seed(_) => false,
        }
    }

    /// The addresses of the full sockets whose cookies are known, by what a minisock that took over
    /// from each would be told apart by.
    pub(super) fn full_by_minisock(&self) -> impl Iterator<Item = (SockId, u64)> {
        let of = |conn: &Conn| Some(SockId::Mini(conn.cookie()?, conn.tuple));
        self.conns.iter().filter_map(move |(addr, conn)| Some((of(conn)?, addr)))
    }
}
