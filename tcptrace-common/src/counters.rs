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

    /// Programs of a hook that count apart, at most: those that may interrupt each other, as a
    /// softirq that receives a RST interrupts a process that sends one.
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
/// A program never nests in itself on one CPU (the kernel skips that run and counts it as a
/// recursion miss), so plain adds are exact.
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
/// with a transition of another socket. Then the stand-in, which is attached beside it, runs.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Guard {
    /// 1 while the program is running.
    pub running: u64,
    /// How often the stand-in ran for it: of the runs that the kernel counts as skipped, those
    /// that were not missed.
    pub stood_in: u64,
}

const _: () = assert!(size_of::<Guard>() == 16);
