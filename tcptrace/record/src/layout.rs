//! The numbers that stand in a block for kinds of inputs and for what is in them: see
//! docs/RECORDING.md. Shared by [`super::encode`] and [`super::decode`].

use tcptrace_model::{RstReason, Stopper};

/// A transition: the other bits say what is in it.
pub(super) const TRANSITION: u8 = 0x80;
pub(super) const SAME_TUPLE: u8 = 1 << 0;
pub(super) const SAME_TASK: u8 = 1 << 1;
pub(super) const HAS_SOCK: u8 = 1 << 2;
pub(super) const SAME_SOCK: u8 = 1 << 3;
pub(super) const HAS_TOTALS: u8 = 1 << 4;
pub(super) const KEY_UNKNOWN: u8 = 1 << 5;
pub(super) const BUCKETS_FULL: u8 = 1 << 6;

pub(super) const MINISOCK: u8 = 1;
pub(super) const RESET: u8 = 2;
pub(super) const ACCEPT: u8 = 3;
pub(super) const TICK: u8 = 4;
pub(super) const SOCKET: u8 = 5;

/// Of `SockFacts`.
pub(super) const DEAD: u8 = 1 << 0;
pub(super) const UNACCEPTED: u8 = 1 << 1;
pub(super) const PEER_FIN: u8 = 1 << 2;
pub(super) const LINGERS: u8 = 1 << 3;
/// Of `SockFacts` and `Minisock`.
pub(super) const SAME_COOKIE: u8 = 1 << 4;
pub(super) const HAS_COOKIE: u8 = 1 << 5;
pub(super) const SAME_PLACE: u8 = 1 << 6;
/// Of `SockFacts`.
pub(super) const OWN_PORTS: u8 = 1 << 7;
/// Of `Minisock`.
pub(super) const SAME_ENDS: u8 = 1 << 0;
pub(super) const TIMESTAMPS_TOLD: u8 = 1 << 1;
pub(super) const TIMESTAMPS: u8 = 1 << 2;

/// Of `SnapSocket`.
pub(super) const EXPIRES: u8 = 1 << 0;
pub(super) const FULL: u8 = 1 << 1;
pub(super) const CGROUP: u8 = 1 << 2;
pub(super) const HOLDER: u8 = 1 << 3;
pub(super) const IN_STATE: u8 = 1 << 4;

/// The numbers that stand for these: their index here and 1, 0 for none.
pub(super) const STOPPERS: [Stopper; 5] =
    [Stopper::StateProcess, Stopper::Receive, Stopper::Connect, Stopper::Abort, Stopper::Purge];
pub(super) const REASONS: [RstReason; 8] = [
    RstReason::AbortOnData,
    RstReason::AbortOnClose,
    RstReason::AbortOnLinger,
    RstReason::AbortOnMemory,
    RstReason::TcpState,
    RstReason::KeepaliveTimeout,
    RstReason::DisconnectWithData,
    RstReason::Other,
];
