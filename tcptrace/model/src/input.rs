//! What the analysis is fed with, whatever the source: a live host, a recording or a script.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use tcptrace_common::counters::Hook;

use super::{
    counters::NetnsCounters,
    event::{Accept, Minisock, Reset, Transition},
    netns::NetnsName,
    state::TcpState,
    sysctls::NetnsSysctls,
    task::Task,
    tcp_info::SnapInfo,
    tuple::Tuple,
};

/// One thing for the analysis to take in, in the order in which it must be taken in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Hooks are in force from here on.
    Begin {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        mono_ns: u64,
        /// Timer ticks a second, for what the kernel counts in jiffies.
        hz: u32,
        /// What tells of minisocks in this run.
        minisocks: MinisocksBy,
        /// RSTs are reported in this run. (Recordings of versions that did not write this have `true`,
        /// which it was on every kernel that they were made on.)
        resets: bool,
    },
    /// What the kernel reported.
    Event(Event),
    /// How the clocks stand to each other.
    Clock(Clock),
    /// Events that did not arrive.
    Lost(Lost),
    /// Events that the hooks did not see, because the kernel skips a program that is already
    /// running on a CPU: as lost as those of [`Input::Lost`], but never seen, so not in the
    /// account.
    Missed {
        /// How many since the last word on it.
        count: u64,
        /// When that was noticed: all of them happened before. `CLOCK_MONOTONIC`, nanoseconds.
        mono_ns: u64,
    },
    /// A stretch of time of which nothing is known: of a recording that has lost a part. Events in it
    /// are as lost as those of [`Input::Lost`], and nobody counted them.
    Gap(Gap),
    /// What a cgroup is called. Comes before the first event or socket of a snapshot that names it;
    /// where it does not, the cgroup was gone already.
    Cgroup {
        /// As in [`SockFacts::cgroup`](super::SockFacts::cgroup).
        id: u64,
        /// From the root of the cgroup2 hierarchy, `/` for the root itself. Untrusted text: escaped
        /// where it is printed. Bytes that are no UTF-8 are replaced.
        path: Box<str>,
    },
    /// What the kernel's tables hold, at the start or to compare with.
    Snapshot(Snapshot),
    /// A process that a snapshot has told to hold sockets has ended since.
    Exited(Exited),
    /// The sysctls of a network namespace: when it is first reached, and when they have changed.
    Sysctls(Box<NetnsSysctls>),
    /// What a network namespace is called.
    NetnsName(Box<NetnsName>),
    /// The kernel's counters of a network namespace: with each snapshot of all its sockets.
    Counters(Box<NetnsCounters>),
    /// The ring has been emptied: whatever happened before this moment has been told.
    Tick {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        mono_ns: u64,
    },
    /// The source is at its end.
    End(Accounts),
}

impl Input {
    /// The moment that it is of, where it is of one: `CLOCK_MONOTONIC`, nanoseconds.
    pub fn mono_ns(&self) -> Option<u64> {
        Some(match self {
            Self::Begin { mono_ns, .. } | Self::Missed { mono_ns, .. } | Self::Tick { mono_ns } => {
                *mono_ns
            }
            Self::Event(Event::Transition(event)) => event.mono_ns,
            Self::Event(Event::Minisock(event)) => event.mono_ns,
            Self::Event(Event::Reset(event)) => event.mono_ns,
            Self::Event(Event::Accept(event)) => event.mono_ns,
            Self::Clock(clock) => clock.mono_ns,
            Self::Lost(lost) => lost.mono_ns,
            Self::Gap(gap) => gap.mono_ns,
            Self::Snapshot(Snapshot::Begin { mono_ns, .. } | Snapshot::Over { mono_ns, .. }) => {
                *mono_ns
            }
            Self::Snapshot(Snapshot::End(end)) => end.mono_ns,
            Self::Exited(exited) => exited.mono_ns,
            Self::Sysctls(sysctls) => sysctls.mono_ns,
            Self::Counters(counters) => counters.mono_ns,
            Self::NetnsName(named) => named.mono_ns,
            Self::End(accounts) => accounts.mono_ns,
            Self::Cgroup { .. }
            | Self::Snapshot(
                Snapshot::Open
                | Snapshot::OpenMinisocks
                | Snapshot::Socket(_)
                | Snapshot::Info(_)
                | Snapshot::SynQueue(_)
                | Snapshot::Bound(_),
            ) => return None,
        })
    }
}

/// What tells of minisocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinisocksBy {
    /// Hooks, by events.
    Hooks,
    /// Looks at the kernel's tables ([`Snapshot::OpenMinisocks`]), about once a second.
    Looks,
    /// Nothing: a hand-over to one looks like an end.
    Nothing,
}

/// What became of the events, from the hook to here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Accounts {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// How long the hooks have been in force.
    pub seconds: f64,
    /// TCP events that the hooks saw.
    pub seen: u64,
    /// Of those, handed to the analysis.
    pub delivered: u64,
    /// Of those, not asked for.
    pub filtered: u64,
    /// Of those, dropped because the ring was full.
    pub lost: u64,
    /// Events that the hooks did not see, because the kernel skips a program that is already
    /// running on a CPU; `None` where it does not count them (before 5.12).
    pub missed: Option<u64>,
    /// Of those delivered, records that could not be understood.
    pub malformed: u64,
    /// What a recording has lost of all this; nothing of a live run.
    pub gaps: Gaps,
}

/// Gaps of a recording, and whether both of its ends are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// How many.
    pub count: u64,
    /// How long they are in all, nanoseconds.
    pub ns: u64,
    /// The beginning of the run or its end is not there: files were removed, the writer was stopped
    /// or is still writing. What came then is in no count.
    pub partial: bool,
}

impl Gaps {
    /// Whether all that was recorded is there.
    pub const fn complete(&self) -> bool {
        self.count == 0 && !self.partial
    }
}

impl Accounts {
    /// `seen` less what became of it: 0, or the account is wrong.
    pub fn balance(&self) -> i128 {
        i128::from(self.seen)
            - i128::from(self.delivered)
            - i128::from(self.filtered)
            - i128::from(self.lost)
    }
}

/// What the kernel reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A full socket changed its state.
    Transition(Transition),
    /// Something happened to a minisock.
    Minisock(Minisock),
    /// A RST was sent or received.
    Reset(Reset),
    /// A process took a connection from a listener.
    Accept(Accept),
}

/// A piece of what inet_diag dumps tell. They come in rounds: [`Snapshot::Open`] (or
/// [`Snapshot::OpenMinisocks`]), then for each namespace [`Snapshot::Begin`], its sockets and [`Snapshot::End`], then [`Snapshot::Over`].
///
/// Events go on meanwhile. Those told between the opening and the first tick after the end of a
/// round explain what in it is not as it was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A round of dumps is about to begin.
    Open,
    /// A round of dumps of minisocks alone is about to begin: a look at those that no hook tells
    /// of. With [`MinisocksBy::Looks`] a round of everything is such a look too.
    OpenMinisocks,
    /// The dump of one namespace begins.
    Begin {
        /// `CLOCK_MONOTONIC`, nanoseconds: events before may be reflected in it, and later ones
        /// too.
        mono_ns: u64,
        /// Inode of the namespace.
        netns: u32,
    },
    /// A socket or minisock.
    Socket(SnapSocket),
    /// The timer and the progress of a socket that was reported before, in the same dump: of those in
    /// a state that should pass, and of others that seem to wait for their peer.
    Info(Box<SnapInfo>),
    /// The SYN queues at one local port, in the namespace whose sockets are being told.
    SynQueue(SynQueue),
    /// A local port that sockets are bound to and do nothing else with, in the namespace whose sockets
    /// are being told. Whether such ports are told at all, [`SnapshotEnd::lists_bound`] says.
    Bound(Box<BoundPort>),
    /// The dump of the namespace is complete.
    End(SnapshotEnd),
    /// The round is over: the namespaces that were found have been told.
    Over {
        /// `CLOCK_MONOTONIC`, nanoseconds: no later event is reflected in it.
        mono_ns: u64,
        /// Whether these were all sockets of all namespaces that can be reached, rather than of
        /// new ones, or minisocks alone.
        all: bool,
    },
}

/// What is told of a dump as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// The kernel warned that it lacks some sockets.
    pub lacks_some: bool,
    /// What has no events.
    pub unseen: Unseen,
    /// The kernel lists sockets that are bound and neither connected nor listening, as
    /// [`Snapshot::Bound`] (6.8). Where it does not, that there is none of these says nothing. `false`
    /// in recordings of versions that did not ask for them.
    pub lists_bound: bool,
}

/// Connections in states that no hook tells of: their number as of a snapshot is all that is
/// known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// In the SYN queue (`request_sock`), which is SYN_RECV.
    pub syn_queue: u32,
    /// Minisocks in FIN_WAIT2, where their timers are not watched; else 0.
    pub fin_wait2: u32,
    /// Minisocks in TIME_WAIT, likewise.
    pub time_wait: u32,
}

/// Connections in SYN_RECV that have no socket yet (`request_sock`), at one port: also a child of TCP
/// Fast Open that was not accepted yet, which a dump does not tell from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynQueue {
    /// Local port, host order.
    pub lport: u16,
    /// How many.
    pub waiting: u32,
    /// To how many of them the SYN-ACK was sent more than once.
    pub resent: u32,
}

/// A local port that sockets are bound to, by bind(), which neither listen nor are connected: they are
/// in CLOSE, and no event tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    /// Local port, host order.
    pub lport: u16,
    /// How many sockets: several, where they are bound to different addresses, or share the port
    /// (`SO_REUSEADDR`, `SO_REUSEPORT`).
    pub sockets: u32,
    /// Who has the first of them open; `None` where that was not asked for, or could not be found.
    pub holder: Option<Holder>,
}

/// A socket in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapSocket {
    /// Its state; of a minisock the substate.
    pub state: TcpState,
    /// The two ends.
    pub tuple: Tuple,
    /// Its cookie; the dump gives it one if it had none.
    pub cookie: u64,
    /// Of a minisock, milliseconds until its timer is to run.
    pub minisock_expires_ms: Option<u32>,
    /// What a full socket tells beside that; `None` of a minisock. Apart, because there may be a
    /// million minisocks.
    pub full: Option<Box<SnapFull>>,
}

/// A full socket in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapFull {
    /// Of the open file; 0 where no process holds one: an orphan, or not accepted yet.
    pub inode: u32,
    /// User who made it, or its listener. 0 also where no process holds it.
    pub uid: u32,
    /// Its two queues.
    pub queues: Queues,
    /// Id of its cgroup (v2): of the process that made it, or of its listener's. `None` before 5.8,
    /// and where the kernel has no cgroups.
    pub cgroup: Option<NonZeroU64>,
    /// Who holds it; `None` where that was not asked for, or could not be found.
    pub holder: Option<Holder>,
    /// Milliseconds that it has been in its state, at the least, by the end of its dump; `None`
    /// where the kernel remembers nothing that says so, or was not asked: it is only of what no
    /// snapshot has told of before.
    pub in_state_ms: Option<NonZeroU64>,
}

/// The two queues of a full socket (`idiag_rqueue`, `idiag_wqueue`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queues {
    /// Bytes received and not read yet, a FIN counted as one. Of a listener, connections that wait
    /// for accept().
    pub unread: u32,
    /// Bytes written and not acknowledged, those not sent yet among them, a SYN and a FIN counted as
    /// one each. Of a listener, the limit of the queue for accept().
    pub unsent: u32,
}

/// Processes that have a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Of several the process that was started last: the child that serves the connection, rather
    /// than its parent that kept a copy. Its first thread.
    pub task: Task,
    /// Of several the one that was started first: the parent of a pre-forking server.
    pub first: Task,
    /// How many processes have it open.
    pub holders: u32,
}

impl Holder {
    /// One process.
    pub const fn one(task: Task) -> Self {
        Self { task, first: task, holders: 1 }
    }

    /// What is left of it when a process has ended, which is one of the two that are named or none;
    /// `None` where nobody is known any more to have it open.
    pub fn without(self, tgid: u32, started: u32) -> Option<Self> {
        let gone = |task: &Task| task.tgid == tgid && task.started == started;
        match (gone(&self.task), gone(&self.first)) {
            (false, false) => Some(self),
            _ if self.holders <= 1 => None,
            // Of more than two the ones between are not known by name.
            (true, true) => None,
            (true, false) => Some(Self { task: self.first, holders: self.holders - 1, ..self }),
            (false, true) => Some(Self { first: self.task, holders: self.holders - 1, ..self }),
        }
    }

    /// Of several the one that was started first, which is not the one that is named.
    pub fn also(&self) -> Option<Task> {
        (self.holders > 1 && !self.first.same_process(&self.task)).then_some(self.first)
    }
}

/// A process that had sockets open has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// When that was noticed: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// The process.
    pub tgid: u32,
    /// Its start, as in [`Task`]: its number may be another's by now.
    pub started: u32,
}

/// Offset between the clocks at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, nanoseconds.
    pub realtime_offset_ns: i64,
}

/// Events of one hook that were lost since the last word on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where.
    pub hook: Hook,
    /// How many.
    pub count: u64,
    /// When that was noticed: all of them happened before. `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
}

/// A stretch of time of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last moment before it that is known of: `CLOCK_MONOTONIC`, nanoseconds.
    pub from_ns: u64,
    /// The first one after it.
    pub mono_ns: u64,
    /// Why.
    pub because: GapBecause,
}

impl Gap {
    /// How long it is, nanoseconds.
    pub const fn ns(&self) -> u64 {
        self.mono_ns.saturating_sub(self.from_ns)
    }
}

/// Why nothing is known of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapBecause {
    /// A file of the recording is missing.
    Missing,
    /// A part of it is damaged.
    Damaged,
    /// It was not recorded, since the disk was too slow.
    SlowDisk,
}

impl GapBecause {
    /// The word for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing-file",
            Self::Damaged => "damaged",
            Self::SlowDisk => "slow-disk",
        }
    }

    /// For people.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Missing => "a file of the recording is missing",
            Self::Damaged => "the recording is damaged there",
            Self::SlowDisk => "the disk was too slow to record it",
        }
    }
}

impl Lost {
    /// Whether they were of RSTs.
    pub fn is_of_resets(&self) -> bool {
        self.hook == Hook::Reset
    }
}
