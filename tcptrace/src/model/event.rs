//! What the kernel reported, as values.

use std::net::Ipv6Addr;

use tcptrace_common::record::{self, FLAG_DEAD, FLAG_KEY_UNKNOWN, FLAG_LINGER, FLAG_SOCK};

use super::{
    state::TcpState,
    task::{Comm, Task},
    tuple::Tuple,
};

const AF_INET6: u8 = 10;

/// The `SO_LINGER` setting of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Off, the default: close() returns at once and the kernel sends the rest.
    Off,
    /// On, for so many jiffies. 0: close() resets the connection.
    Jiffies(u32),
}

/// What only BTF tells of a socket at the moment of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFacts {
    /// `sk_cookie`; `None` where the kernel does not give it to tracing programs (before 5.12).
    pub cookie: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Id of its cgroup (v2); `None` where it cannot be read (before 5.15).
    pub cgroup: Option<u64>,
    /// `sk_err`, a positive errno; 0 for none.
    pub err: u16,
    /// `sk_shutdown`: 1 receive, 2 send.
    pub shutdown: u8,
    /// `SOCK_DEAD`: no process holds it.
    pub dead: bool,
    /// `SO_LINGER`.
    pub linger: Linger,
}

/// One run of `sock:inet_sock_set_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub mono_ns: u64,
    /// Address of the `struct sock`; reused by the kernel as soon as it is freed.
    pub skaddr: u64,
    /// The state left.
    pub old: TcpState,
    /// The state entered.
    pub new: TcpState,
    /// The two ends, as far as the kernel had set them.
    pub tuple: Tuple,
    /// The task on the CPU, often a bystander.
    pub task: Task,
    /// What only BTF tells; `None` from the classic tracepoint.
    pub sock: Option<SockFacts>,
    /// A filter is in force that needs what the kernel had not set yet.
    pub key_unknown: bool,
}

/// A record that is not what the kernel side of this version writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a transition with impossible states {old} -> {new}")]
pub struct BadRecord {
    old: u8,
    new: u8,
}

impl TryFrom<&record::Transition> for Transition {
    type Error = BadRecord;

    fn try_from(raw: &record::Transition) -> Result<Self, BadRecord> {
        let (Some(old), Some(new)) =
            (TcpState::from_kernel(raw.old), TcpState::from_kernel(raw.new))
        else {
            return Err(BadRecord { old: raw.old, new: raw.new });
        };
        let flag = |bit| raw.flags & bit != 0;
        Ok(Self {
            mono_ns: raw.mono_ns,
            skaddr: raw.skaddr,
            old,
            new,
            tuple: Tuple {
                laddr: Ipv6Addr::from(raw.laddr),
                raddr: Ipv6Addr::from(raw.raddr),
                lport: raw.lport,
                rport: raw.rport,
                v6_socket: raw.family == AF_INET6,
            },
            task: Task { tgid: raw.tgid, tid: raw.tid, uid: raw.uid, comm: Comm::new(raw.comm) },
            sock: flag(FLAG_SOCK).then(|| SockFacts {
                cookie: (raw.cookie != 0).then_some(raw.cookie),
                netns: raw.netns,
                cgroup: (raw.cgroup != 0).then_some(raw.cgroup),
                err: raw.sk_err,
                shutdown: raw.shutdown,
                dead: flag(FLAG_DEAD),
                linger: if flag(FLAG_LINGER) {
                    Linger::Jiffies(raw.linger_jiffies)
                } else {
                    Linger::Off
                },
            }),
            key_unknown: flag(FLAG_KEY_UNKNOWN),
        })
    }
}
