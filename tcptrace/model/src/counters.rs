//! The kernel's own TCP counters of a network namespace, as values.
//!
//! Numbers under the kernel's names, nothing computed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counters by the kernel's name, such as `TWKilled`.
pub type Counters = BTreeMap<String, i64>;

/// What one namespace counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStat {
    /// `Tcp` of `snmp`. `MaxConn` is -1 for "no limit", and `CurrEstab` is a present count.
    pub tcp: Counters,
    /// `TcpExt` of `netstat`.
    pub tcp_ext: Counters,
    /// `sockstat`, and `sockstat6` where there is IPv6.
    pub sockets: SockStat,
}

/// How many TCP sockets there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SockStat {
    /// IPv4 sockets in use in the namespace, minisocks not among them.
    pub inuse: i64,
    /// IPv6 sockets likewise; `None` where the kernel has no IPv6.
    pub inuse6: Option<i64>,
    /// Minisocks of the namespace, IPv6 and orphaned FIN_WAIT2 included.
    pub tw: i64,
    /// Orphans, of **all** namespaces.
    pub orphan: i64,
    /// Sockets allocated, of **all** namespaces.
    pub alloc: i64,
    /// Pages in their buffers, of **all** namespaces.
    pub mem: i64,
}

/// The counters of a namespace at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsCounters {
    /// When they were read: `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Inode of the namespace.
    pub netns: u32,
    /// What was read, or why it could not be. May hold untrusted text.
    pub counters: Result<NetStat, Box<str>>,
}
