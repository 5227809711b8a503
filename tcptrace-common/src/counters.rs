//! The per-CPU counters beside the ring: what a hook saw, kept back, and could not deliver.
//!
//! For every hook `seen = delivered + filtered + lost`, where `delivered` is counted by the
//! reader. Counted before the reserve, so that a full ring cannot hide an event.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A place in the kernel that tcptrace listens at.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `sock:inet_sock_set_state`, by either way of attaching.
    SetState = 0,
    /// What becomes of minisocks, by either way of listening to them.
    TimeWait = 1,
    /// `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`, of full sockets.
    Reset = 2,
    /// Connections that processes take from listeners.
    Accept = 3,
}

impl Hook {
    /// All hooks, in the order of their index.
    pub const ALL: [Hook; 4] = [Hook::SetState, Hook::TimeWait, Hook::Reset, Hook::Accept];

    /// Programs of a hook that count apart, at most.
    pub const PROGRAMS: u32 = 2;

    /// Elements of the map of counters.
    pub const ELEMENTS: u32 = Self::PROGRAMS * Self::ALL.len() as u32;

    /// Where the counters of one of the hook's programs are, numbered from 0.
    pub const fn element(self, program: u32) -> u32 {
        self as u32 + program * Self::ALL.len() as u32
    }

    /// The word that outputs use for it.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::SetState => "set_state",
            Hook::TimeWait => "time_wait",
            Hook::Reset => "reset",
            Hook::Accept => "accept",
        }
    }
}

/// One CPU's counters of one hook, or of one of its programs ([`Hook::element`]).
///
/// Programs may interrupt each other and, before 6.1, themselves, so each add is an atomic one.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct HookCounters {
    /// Events of the hook's own kind (TCP sockets; the timers of minisocks) that its program ran
    /// for.
    pub seen: u64,
    /// Of those, held back by the filter.
    pub filtered: u64,
    /// Of those, not delivered because the ring was full.
    pub lost: u64,
}

const _: () = assert!(size_of::<HookCounters>() == 24);

/// One CPU's word on the program of the socket hook and the one that stands in for it.
///
/// The kernel skips a program that is already running on the CPU, as where a softirq interrupts it
/// with a transition of another socket: from its recursion counter on, which is before the first
/// instruction of the program, to after its last. So no flag that the program sets can say whether
/// it was run for a transition, but a note of the transition that it was run for can: it puts one on
/// a stack, and the stand-in, which runs after it, takes it off. Where there is none, it was skipped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Guard {
    /// How often the stand-in ran for it: of the runs that the kernel counts as skipped, those
    /// that were not missed.
    pub stood_in: u64,
    /// Where the next note goes, modulo [`Self::NOTES`]. It may rise and rise: what interrupts the
    /// stand-in leaves its note.
    pub top: u64,
    /// How often the program was run.
    pub runs: u64,
    /// The notes.
    pub notes: [Note; Self::NOTES as usize],
}

impl Guard {
    /// So many transitions may come while the stand-in of another is interrupted. A power of two.
    pub const NOTES: u64 = 64;
    /// A note from so many runs ago was left behind, and may be of another socket at the same
    /// address: far more than can come between the two programs.
    pub const STALE: u64 = 1024;
    /// The value of its map, in words of eight bytes.
    pub const WORDS: usize = size_of::<Self>() / 8;
}

const _: () = assert!(size_of::<Guard>() == 24 + 16 * Guard::NOTES as usize);

/// That the program was run for a transition.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Note {
    /// The socket's address; 0: no note.
    pub skaddr: u64,
    /// Its old state, its new one times 256, and which run it was ([`Guard::runs`]) times 65,536.
    pub states_and_run: u64,
}
