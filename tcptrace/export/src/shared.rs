//! The columns that both tables have.

use std::{fmt::Write as _, net::IpAddr};

use super::column::{Column, Row};
use tcptrace_model::{
    Age, Birth, Closer, EndReason, How, Initiator, Moved, Owner, TcpState, Tuple, UnknownBecause,
    Verdict, task::escape,
};
use tcptrace_stats::{conns::Connection, group::service_port};

/// What a row tells of a connection.
pub(super) trait Told {
    fn id(&self) -> u64;
    fn mono_ns(&self) -> u64;
    fn cookie(&self) -> Option<u64>;
    fn cgroup(&self) -> Option<u64>;
    fn netns(&self) -> Option<u32>;
    fn tuple(&self) -> &Tuple;
    fn birth(&self) -> Option<Birth>;
    fn owner(&self) -> Option<&Owner>;
    fn closer(&self) -> Option<&Closer>;
    fn verdict(&self) -> Verdict;
    fn end_reason(&self) -> Option<EndReason>;
    fn mptcp(&self) -> Option<bool>;
    /// It is a listener, which has no peer.
    fn listens(&self) -> bool;
}

impl Told for Moved {
    fn id(&self) -> u64 {
        self.id
    }

    fn mono_ns(&self) -> u64 {
        self.mono_ns
    }

    fn cookie(&self) -> Option<u64> {
        self.sock.and_then(|sock| sock.cookie)
    }

    fn cgroup(&self) -> Option<u64> {
        self.sock.and_then(|sock| sock.cgroup)
    }

    fn netns(&self) -> Option<u32> {
        self.netns
    }

    fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    fn birth(&self) -> Option<Birth> {
        self.birth
    }

    fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    fn closer(&self) -> Option<&Closer> {
        self.closer.as_ref()
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.end_reason
    }

    fn mptcp(&self) -> Option<bool> {
        self.mptcp()
    }

    fn listens(&self) -> bool {
        use TcpState::{Close, Listen};
        self.new == Listen || self.old == Listen && self.new == Close
    }
}

impl Told for Connection {
    fn id(&self) -> u64 {
        self.id
    }

    fn mono_ns(&self) -> u64 {
        self.mono_ns
    }

    fn cookie(&self) -> Option<u64> {
        self.cookie
    }

    fn cgroup(&self) -> Option<u64> {
        self.cgroup
    }

    fn netns(&self) -> Option<u32> {
        self.netns
    }

    fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    fn birth(&self) -> Option<Birth> {
        self.birth
    }

    fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    fn closer(&self) -> Option<&Closer> {
        self.closer.as_ref()
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn end_reason(&self) -> Option<EndReason> {
        self.end_reason
    }

    fn mptcp(&self) -> Option<bool> {
        self.mptcp
    }

    fn listens(&self) -> bool {
        false
    }
}

fn put(out: &mut String, text: &str) -> bool {
    out.push_str(text);
    !text.is_empty()
}

pub(super) fn shown(out: &mut String, text: impl std::fmt::Display) -> bool {
    // Writing to memory does not fail.
    let _ = write!(out, "{text}");
    true
}

/// A port; 0 is none.
fn port(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// The nanoseconds of an age: what is likeliest, or the least.
pub(super) fn ns(age: Age) -> Option<u64> {
    match age {
        Age::Unknown => None,
        Age::AtLeast(ns) | Age::About { ns, .. } | Age::Exactly(ns) => Some(ns),
    }
}

/// How far off it may be, nanoseconds.
pub(super) fn within(age: Age) -> Option<u64> {
    match age {
        Age::About { within_ns, .. } => Some(within_ns),
        _ => None,
    }
}

/// Whether it is a lower bound.
pub(super) fn at_least(age: Age) -> Option<bool> {
    (age != Age::Unknown).then_some(matches!(age, Age::AtLeast(_)))
}

/// When and where.
pub(super) fn whence<T: Told>() -> Vec<Column<T>> {
    vec![
        Column::<T>::text("host", "name of the host", |row, out| {
            put(out, &escape(row.about.header.host.as_bytes()))
        }),
        Column::<T>::text("boot_id", "ID of the host's boot", |row, out| {
            put(out, &escape(row.about.header.boot_id().unwrap_or_default().as_bytes()))
        }),
        Column::<T>::text(
            "run",
            "ID of the recording; the same in all of its files",
            |row, out| put(out, &escape(row.about.header.run.as_bytes())),
        ),
        Column::<T>::time("time", "wall-clock time", |row| row.about.real_ns(row.it.mono_ns())),
        Column::<T>::wide("time_ns", "`time` in nanoseconds since 1970, UTC", |row| {
            row.about.real_ns(row.it.mono_ns()).and_then(|ns| u64::try_from(ns).ok())
        }),
        Column::<T>::wide("mono_ns", "`CLOCK_MONOTONIC`, ns since boot", |row| {
            Some(row.it.mono_ns())
        }),
        Column::<T>::wide(
            "conn",
            "ID of the connection within a `run` and a `--since`; the same in both tables",
            |row| Some(row.it.id()),
        ),
        Column::<T>::wide(
            "cookie",
            "socket cookie (`ss -e`), which its minisock inherits",
            |row| row.it.cookie(),
        ),
    ]
}

/// The two ends.
pub(super) fn ends<T: Told>() -> Vec<Column<T>> {
    fn address<T: Told>(row: &Row<'_, T>, ip: IpAddr, out: &mut String) -> bool {
        (row.it.listens() || row.it.tuple().rport != 0) && shown(out, ip)
    }
    vec![
        Column::<T>::u32("netns", "inode of the network namespace", |row| row.it.netns()),
        Column::<T>::word("family", "`ipv4` or `ipv6`, as on the wire", |row| {
            Some(row.it.tuple().family().name())
        }),
        Column::<T>::bool("mapped", "an IPv6 socket that speaks IPv4", |row| {
            Some(row.it.tuple().mapped())
        }),
        Column::<T>::text("laddr", "local address", |row, out| {
            shown(out, row.it.tuple().local_ip())
        }),
        Column::<T>::u16("lport", "local port", |row| port(row.it.tuple().lport)),
        Column::<T>::text("raddr", "the peer's address", |row, out| {
            address(row, row.it.tuple().remote_ip(), out)
        }),
        Column::<T>::u16("rport", "the peer's port", |row| port(row.it.tuple().rport)),
        Column::<T>::u16(
            "service_port",
            "port of the service: the local one of accepted connections, the peer's of outgoing ones, else the lower",
            |row| service_port(row.it.tuple(), row.it.birth()),
        ),
        Column::<T>::bool(
            "mptcp",
            "subflow of an MPTCP socket, which may have fallen back to plain TCP",
            |row| row.it.mptcp(),
        ),
    ]
}

/// Whose it is.
pub(super) fn owners<T: Told>() -> Vec<Column<T>> {
    vec![
        Column::<T>::u32("pid", "owner: process that opened or accepted it", |row| {
            row.it.owner()?.task.pid()
        }),
        Column::<T>::u32("uid", "its user", |row| Some(row.it.owner()?.task.uid)),
        Column::<T>::text("comm", "its name, escaped", |row, out| {
            row.it.owner().is_some_and(|owner| shown(out, owner.task.name()))
        }),
        Column::<T>::word(
            "owner_from",
            "how the owner is known: `connect`, `accept`, `listener`, `close`, `snapshot`",
            |row| Some(row.it.owner()?.from.name()),
        ),
        Column::<T>::u32("tid", "thread of the owner that did so", |row| {
            Some(row.it.owner()?.task.tid)
        }),
        Column::<T>::text("thread", "that thread's name, escaped", |row, out| {
            row.it.owner().is_some_and(|owner| shown(out, owner.task.thread))
        }),
        Column::<T>::u32(
            "closer_pid",
            "closer: process whose FIN or RST left first from this host",
            |row| row.it.closer()?.task.pid(),
        ),
        Column::<T>::text("closer_comm", "its name, escaped", |row, out| {
            row.it.closer().is_some_and(|closer| shown(out, closer.task.name()))
        }),
        Column::<T>::word(
            "closer_from",
            "how the closer is known, by what was sent: `fin`, `rst`, `sock-destroy`",
            |row| Some(row.it.closer()?.from.name()),
        ),
        Column::<T>::text("cgroup", "path of its cgroup (v2), escaped", |row, out| {
            let cgroup = row.it.cgroup().and_then(|id| row.about.cgroups.get(id));
            cgroup.is_some_and(|cgroup| put(out, &escape(cgroup.path().as_bytes())))
        }),
        Column::<T>::text(
            "unit",
            "systemd unit, container or pod according to `cgroup`, as in `--by unit`",
            |row, out| {
                let cgroup = row.it.cgroup().and_then(|id| row.about.cgroups.get(id));
                cgroup.is_some_and(|cgroup| put(out, &escape(cgroup.name().as_bytes())))
            },
        ),
    ]
}

/// How it ended.
pub(super) fn endings<T: Told>() -> Vec<Column<T>> {
    vec![
        Column::<T>::word(
            "initiator",
            "who closed first: `local`, `remote`, `both`, `none`",
            |row| row.it.verdict().initiator.map(Initiator::name),
        ),
        Column::<T>::word(
            "how",
            "how it ended: `fin`, `rst`, `timeout`, … (`tcptrace explain`)",
            |row| row.it.verdict().how.map(How::name),
        ),
        Column::<T>::word(
            "unknown_because",
            "where `how` is `unknown`, what the evidence lacks: `classic-hook`, `no-rst`, … \
             (`tcptrace explain`)",
            |row| row.it.verdict().unknown_because.map(UnknownBecause::name),
        ),
        Column::<T>::word(
            "end_reason",
            "why its TIME_WAIT, or FIN_WAIT2 without a process, ended: `expired`, …",
            |row| row.it.end_reason().map(EndReason::name),
        ),
    ]
}
