//! What is known of one connection, and how long it has been where it is.

use std::num::NonZeroU64;

use super::{
    processes::{People, Processes},
    verdict::Ending,
};
use tcptrace_model::{
    Age, Birth, Change, Closer, CloserFrom, Found, Linger, Opened, Owner, OwnerFrom, SockFacts,
    TcpState, Transition, Tuple,
};

/// Numbers that tell connections apart.
#[derive(Default)]
pub(super) struct Ids(u64);

impl Ids {
    /// One that was not given before; never 0.
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A connection in a state. Small: there may be a million of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conn {
    /// Tells connections apart.
    pub(super) id: u64,
    pub(super) state: TcpState,
    /// When it entered `state`, or the latest moment at which it was known to be in it already.
    pub(super) since_ns: u64,
    /// How sure `since_ns` is.
    entered: PackedEntered,
    /// When it began, or since when it is known to have been there, at the latest.
    begun_ns: u64,
    /// How it began, if that was seen.
    opened: Option<Opened>,
    /// 0 is none, to the kernel too.
    pub(super) cookie: Option<NonZeroU64>,
    pub(super) netns: Option<u32>,
    pub(super) tuple: Tuple,
    pub(super) people: People,
    pub(super) ending: Ending,
    /// Of a minisock, whether its peer has sent TCP timestamps, if that is known.
    pub(super) timestamps: Option<bool>,
    /// Whether it is a subflow of an MPTCP socket, if that is known.
    pub(super) mptcp: Option<bool>,
    /// What the last event told, but for the cookie, the namespace and `mptcp`.
    facts: PackedFacts,
}

/// What is known of the moment at which a state was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It was seen.
    Seen,
    /// It was dated, to within so many nanoseconds.
    Within(u64),
    /// It was before.
    Before,
}

/// [`Entered`] in 8 bytes: to within 0 ns is seen, and to within all of time is before.
#[derive(Clone, Copy, Debug)]
struct PackedEntered(u64);

impl From<Entered> for PackedEntered {
    fn from(entered: Entered) -> Self {
        Self(match entered {
            Entered::Seen => 0,
            Entered::Within(ns) => ns,
            Entered::Before => u64::MAX,
        })
    }
}

impl From<PackedEntered> for Entered {
    fn from(packed: PackedEntered) -> Self {
        match packed.0 {
            0 => Self::Seen,
            u64::MAX => Self::Before,
            ns => Self::Within(ns),
        }
    }
}

/// `Option<SockFacts>` in 16 bytes, without what [`Conn`] knows anyway.
#[derive(Clone, Copy, Debug, Default)]
struct PackedFacts {
    cgroup: Option<NonZeroU64>,
    linger_jiffies: u32,
    err: u16,
    shutdown: u8,
    flags: u8,
}

impl PackedFacts {
    /// There are facts at all.
    const KNOWN: u8 = 1;
    /// The cookie is one of them.
    const COOKIE: u8 = 2;
    const DEAD: u8 = 4;
    const LINGER: u8 = 8;
    const UNACCEPTED: u8 = 16;
    const PEER_FIN: u8 = 32;
    const OWN_PORTS: u8 = 64;

    fn new(facts: &SockFacts) -> Self {
        let flag = |of, bit| if of { bit } else { 0 };
        let (linger, linger_jiffies) = match facts.linger {
            Linger::Off => (false, 0),
            Linger::Jiffies(jiffies) => (true, jiffies),
        };
        Self {
            cgroup: facts.cgroup.and_then(NonZeroU64::new),
            linger_jiffies,
            err: facts.err,
            shutdown: facts.shutdown,
            flags: Self::KNOWN
                | flag(facts.cookie.is_some(), Self::COOKIE)
                | flag(facts.dead, Self::DEAD)
                | flag(facts.unaccepted, Self::UNACCEPTED)
                | flag(facts.peer_fin, Self::PEER_FIN)
                | flag(facts.own_ports, Self::OWN_PORTS)
                | flag(linger, Self::LINGER),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Conn {
    /// A connection of which no more is known.
    pub(super) fn new(
        id: u64,
        state: TcpState,
        since_ns: u64,
        entered: Entered,
        tuple: Tuple,
    ) -> Self {
        Self {
            id,
            state,
            since_ns,
            entered: entered.into(),
            begun_ns: since_ns,
            opened: None,
            cookie: None,
            netns: None,
            tuple,
            people: People::default(),
            ending: Ending::default(),
            mptcp: None,
            timestamps: None,
            facts: PackedFacts::default(),
        }
    }

    /// How and when it began, if that was seen.
    pub(super) fn birth(&self) -> Option<Birth> {
        self.opened.map(|opened| Birth { mono_ns: self.begun_ns, opened })
    }

    /// Its beginning was seen.
    pub(super) fn born(&mut self, birth: Birth) {
        (self.begun_ns, self.opened) = (birth.mono_ns, Some(birth.opened));
    }

    /// Its beginning was not seen: it is known to have been there since `since_ns`.
    pub(super) fn known_since(&mut self, since_ns: u64) {
        (self.begun_ns, self.opened) = (since_ns, None);
    }

    /// It is what `full` has handed over to.
    pub(super) fn begins_as(&mut self, full: &Self) {
        (self.begun_ns, self.opened) = (full.begun_ns, full.opened);
    }

    /// Nanoseconds that it is known to have been there before it entered its state.
    pub(super) fn before_ns(&self) -> u64 {
        self.since_ns.saturating_sub(self.begun_ns)
    }

    /// It enters a state.
    pub(super) fn enter(&mut self, state: TcpState, since_ns: u64, entered: Entered) {
        self.state = state;
        self.since_ns = since_ns;
        self.entered = entered.into();
    }

    /// An event of it told `sock`. Cookie, namespace and whether it is a subflow stay known where it
    /// does not tell them.
    pub(super) fn set_sock(&mut self, sock: Option<&SockFacts>) {
        let Some(sock) = sock else {
            self.facts = PackedFacts::default();
            return;
        };
        self.cookie = sock.cookie.and_then(NonZeroU64::new).or(self.cookie);
        self.netns = Some(sock.netns);
        self.mptcp = sock.mptcp.or(self.mptcp);
        self.facts = PackedFacts::new(sock);
    }

    /// A snapshot told its cgroup.
    pub(super) fn set_cgroup(&mut self, cgroup: Option<NonZeroU64>) {
        self.facts.cgroup = cgroup;
    }

    /// As the last event told them.
    pub(super) fn sock(&self) -> Option<SockFacts> {
        let facts = &self.facts;
        facts.has(PackedFacts::KNOWN).then(|| SockFacts {
            cookie: self.cookie().filter(|_| facts.has(PackedFacts::COOKIE)),
            netns: self.netns.unwrap_or(0),
            cgroup: facts.cgroup.map(NonZeroU64::get),
            err: facts.err,
            shutdown: facts.shutdown,
            dead: facts.has(PackedFacts::DEAD),
            unaccepted: facts.has(PackedFacts::UNACCEPTED),
            peer_fin: facts.has(PackedFacts::PEER_FIN),
            own_ports: facts.has(PackedFacts::OWN_PORTS),
            linger: if facts.has(PackedFacts::LINGER) {
                Linger::Jiffies(facts.linger_jiffies)
            } else {
                Linger::Off
            },
            mptcp: self.mptcp,
        })
    }

    /// The cookie, if it is known.
    pub(super) fn cookie(&self) -> Option<u64> {
        self.cookie.map(NonZeroU64::get)
    }

    /// Time in the present state, at `now`.
    pub(super) fn age(&self, now: u64, last_loss: Option<u64>) -> Age {
        match last_loss {
            // The events of a leave and a return may be among the lost. With a cookie it is the
            // same socket, and only SYN_SENT can be entered twice in the life of one.
            Some(loss)
                if loss >= self.since_ns
                    && (self.cookie.is_none() || self.state == TcpState::SynSent) =>
            {
                at_least(loss, now)
            }
            _ => {
                let ns = now.saturating_sub(self.since_ns);
                match self.entered.into() {
                    Entered::Seen => Age::Exactly(ns),
                    Entered::Within(within_ns) => Age::About { ns, within_ns },
                    Entered::Before => at_least(self.since_ns, now),
                }
            }
        }
    }

    /// As the values that say that it is known, or not known any more.
    pub(super) fn found(&self, mono_ns: u64, who: &Processes) -> Found {
        Found {
            id: self.id,
            mono_ns,
            state: self.state,
            tuple: self.tuple,
            netns: self.netns,
            birth: self.birth(),
            owner: who.owner(self.people.owner),
            closer: who.closer(self.people.closer),
            holder: who.holder(self.people.holder),
            cookie: self.cookie(),
            cgroup: self.facts.cgroup.map(NonZeroU64::get),
            mptcp: self.mptcp,
            timestamps: self.timestamps,
            queues: None,
            retransmits: None,
        }
    }

    /// That it is not known any more.
    pub(super) fn gone(&self, mono_ns: u64, who: &Processes) -> Change {
        Change::Gone(self.found(mono_ns, who))
    }
}

/// A lower bound, if there is one: "at least nothing" says nothing.
pub(super) fn at_least(since: u64, now: u64) -> Age {
    match now.checked_sub(since) {
        Some(ns) if ns > 0 => Age::AtLeast(ns),
        _ => Age::Unknown,
    }
}

/// Whether two cookies are known and not the same.
pub(super) fn differ(a: Option<u64>, b: Option<u64>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if a != b)
}

/// Whether a socket in `state` with these ends is a child that still has those of its listener: up
/// to 6.12 it gets its own right after LISTEN→SYN_RECV has been told (`tcp_v4_syn_recv_sock()`).
pub(super) fn has_listeners_ends(state: TcpState, tuple: &Tuple) -> bool {
    state == TcpState::SynRecv && tuple.rport == 0
}

/// `SEND_SHUTDOWN` of `sk_shutdown`.
const SEND_SHUTDOWN: u8 = 2;
const ECONNABORTED: u16 = 103;

/// The owner, where the task on the CPU is in a system call on this very socket.
pub(super) fn owner_of(event: &Transition, closer: Option<&Closer>) -> Option<Owner> {
    use TcpState::*;
    let from = match (event.old, event.new) {
        (Close, SynSent) => OwnerFrom::Connect,
        (Close, Listen) => OwnerFrom::Listener,
        // Who closes what others have opened is its owner only where they were not seen to. Who
        // destroys it or ends its listener has never had it.
        _ => {
            let closer = closer.filter(|closer| closer.from != CloserFrom::SockDestroy)?;
            let unaccepted = event.sock.is_some_and(|sock| sock.unaccepted);
            return (!unaccepted).then_some(Owner { task: closer.task, from: OwnerFrom::Close });
        }
    };
    Some(Owner { task: event.task, from })
}

/// The closer, where the task on the CPU has a FIN or RST sent by this transition of `conn`, which
/// is still as it was before.
pub(super) fn closer_of(event: &Transition, conn: &Conn) -> Option<Closer> {
    use TcpState::*;
    let err = event.sock.map(|sock| sock.err);
    let from = match (event.old, event.new) {
        // A shutdown() in SYN_RECV waits for the handshake to end (6.9, commit 94062790aedb), and
        // whoever is on the CPU then has nothing to do with it.
        (Established, FinWait1) if conn.facts.shutdown & SEND_SHUTDOWN != 0 => return None,
        (_, FinWait1) | (CloseWait, LastAck) => CloserFrom::Fin,
        // tcp_abort() by a process that asked for it (tcp_diag_destroy()).
        (Established | CloseWait | SynRecv | FinWait1 | FinWait2, Close)
            if err == Some(ECONNABORTED) =>
        {
            CloserFrom::SockDestroy
        }
        // close() that resets, connect(AF_UNSPEC), the close of a listener: nobody else ends a
        // socket that is held, without an error, before its own FIN.
        (Established | CloseWait | SynRecv | FinWait1, Close)
            if event.sock.is_some_and(|sock| sock.err == 0 && !sock.dead) =>
        {
            CloserFrom::Rst
        }
        _ => return None,
    };
    // A file whose last reference goes in a thread of the kernel is closed by a worker
    // (delayed_fput()), and so are subflows of MPTCP: it is not known for whom.
    (!event.task.is_kernel).then_some(Closer { task: event.task, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> Conn {
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        let tuple = Tuple { laddr: any, raddr: any, lport: 1, rport: 2, v6_socket: true };
        Conn::new(1, TcpState::Established, 1, Entered::Before, tuple)
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let facts = SockFacts {
            cookie: Some(7),
            netns: 5,
            cgroup: Some(8),
            err: 104,
            shutdown: 3,
            dead: true,
            unaccepted: false,
            peer_fin: true,
            own_ports: true,
            linger: Linger::Jiffies(0),
            mptcp: Some(true),
        };
        let none = SockFacts { cookie: None, cgroup: None, netns: 0, ..facts };
        let off = SockFacts { dead: false, linger: Linger::Off, ..facts };
        let jiffies = SockFacts { linger: Linger::Jiffies(u32::MAX), ..facts };
        for sock in [Some(facts), Some(none), Some(off), Some(jiffies), None] {
            let mut conn = conn();
            conn.set_sock(sock.as_ref());
            assert_eq!(conn.sock(), sock);
        }
        for entered in [Entered::Seen, Entered::Within(4_000_000), Entered::Before] {
            assert_eq!(Entered::from(PackedEntered::from(entered)), entered);
        }
    }

    #[test]
    fn cookie_and_namespace_stay_known_but_were_not_told() {
        let mut conn = conn();
        (conn.cookie, conn.netns) = (NonZeroU64::new(7), Some(5));
        conn.set_sock(None);
        assert_eq!((conn.cookie(), conn.netns, conn.sock()), (Some(7), Some(5), None));
        let facts = SockFacts {
            cookie: None,
            netns: 5,
            cgroup: None,
            err: 0,
            shutdown: 0,
            dead: false,
            unaccepted: true,
            peer_fin: false,
            own_ports: false,
            linger: Linger::Off,
            mptcp: None,
        };
        conn.set_sock(Some(&facts));
        assert_eq!((conn.cookie(), conn.sock()), (Some(7), Some(facts)));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Conn>() <= 136, "{}", size_of::<Conn>());
    }
}
