//! The values that everything else speaks of.
//!
//! Pure: no I/O, no clock, no allocation in the hot types, no dependency on how an event was
//! obtained.

pub mod cgroup;
pub mod change;
pub mod counters;
pub mod event;
pub mod filter;
pub mod hash;
pub mod input;
pub mod moment;
pub mod netns;
pub mod script;
pub mod select;
pub mod sock_id;
pub mod state;
pub mod sysctls;
pub mod task;
pub mod tcp_info;
pub mod text;
pub mod tuple;
pub mod verdict;

pub use cgroup::Cgroup;
pub use change::{
    Age, Birth, Change, Closer, CloserFrom, EndReason, Found, Moved, Opened, Owner, OwnerFrom,
    Retired,
};
pub use counters::{NetStat, NetnsCounters, SockStat};
pub use event::{
    Accept, AtClose, Linger, Minisock, MinisockEvent, Reset, ResetDirection, RstReason, SockFacts,
    Stopper, Totals, Transition,
};
pub use input::{
    Accounts, BoundPort, Clock, Event, Exited, Gap, GapBecause, Gaps, Holder, Input, Lost,
    MinisocksBy, Queues, SnapFull, SnapSocket, Snapshot, SnapshotEnd, SynQueue, Unseen,
};
pub use netns::NetnsName;
pub use sock_id::SockId;
pub use state::{StateSet, TcpState};
pub use sysctls::{NetnsSysctls, PortRange, Sysctl, Sysctls};
pub use task::{Comm, ProcessName, Task};
pub use tcp_info::{SnapInfo, TcpInfo, Timer, Wait, WaitFor};
pub use tuple::{Family, Tuple};
pub use verdict::{DropWhy, How, Initiator, RstWhy, Timeout, UnknownBecause, Verdict};
