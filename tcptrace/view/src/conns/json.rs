//! Connections for programs: one object each.

use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use crate::time::WallClock;
use tcptrace_model::{Age, EndReason, Holder, How, Initiator, Opened, UnknownBecause};
use tcptrace_stats::conns::{Connection, least_ns};

/// `{"v":2,"type":"connection",…}`
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    r#type: &'static str,
    /// RFC 3339.
    time: Option<String>,
    mono_ns: String,
    begin_mono_ns: Option<String>,
    closed_mono_ns: Option<String>,
    cookie: Option<String>,
    netns: Option<u32>,
    netns_name: Option<&'a str>,
    family: &'static str,
    mapped: bool,
    laddr: IpAddr,
    lport: Option<u16>,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    state: &'static str,
    opened: Option<&'static str>,
    pid: Option<u32>,
    uid: Option<u32>,
    comm: Option<String>,
    owner_from: Option<&'static str>,
    tid: Option<u32>,
    thread: Option<String>,
    closer_pid: Option<u32>,
    closer_comm: Option<String>,
    closer_from: Option<&'static str>,
    #[serde(flatten)]
    holder: Holding,
    cgroup: Option<String>,
    handshake_ms: Option<f64>,
    #[serde(flatten)]
    life: Time,
    tx_bytes: Option<u64>,
    tx_at_most: bool,
    rx_bytes: Option<u64>,
    rtt_ms: Option<f64>,
    retransmits: Option<u32>,
    retransmits_at_least: bool,
    initiator: Option<&'static str>,
    how: Option<&'static str>,
    unknown_because: Option<&'static str>,
    end_reason: Option<&'static str>,
    mptcp: Option<bool>,
    states: Vec<InState>,
}

/// Who has a connection open, as far as the last snapshot had that.
#[derive(Serialize)]
pub(crate) struct Holding {
    holder_pid: Option<u32>,
    holder_comm: Option<String>,
    /// How many processes have it open.
    holders: Option<u32>,
    /// Of several the one that was started first.
    also_held_by_pid: Option<u32>,
    also_held_by_comm: Option<String>,
}

impl From<Option<&Holder>> for Holding {
    fn from(holder: Option<&Holder>) -> Self {
        let also = holder.and_then(Holder::also);
        Self {
            holder_pid: holder.and_then(|holder| holder.task.pid()),
            holder_comm: holder.map(|holder| holder.task.name().to_string()),
            holders: holder.map(|holder| holder.holders),
            also_held_by_pid: also.and_then(|also| also.pid()),
            also_held_by_comm: also.map(|also| also.name().to_string()),
        }
    }
}

/// The time in a state, in the order in which they were left.
#[derive(Serialize)]
struct InState {
    state: &'static str,
    #[serde(flatten)]
    time: Time,
}

#[derive(Serialize)]
struct Time {
    ms: Option<f64>,
    at_least: bool,
    within_ms: Option<f64>,
}

impl From<Age> for Time {
    fn from(age: Age) -> Self {
        Self {
            ms: match age {
                Age::Unknown => None,
                Age::About { ns, .. } => Some(ms(ns)),
                Age::AtLeast(_) | Age::Exactly(_) => Some(ms(least_ns(age))),
            },
            at_least: matches!(age, Age::AtLeast(_)),
            within_ms: match age {
                Age::About { within_ns, .. } => Some(ms(within_ns)),
                _ => None,
            },
        }
    }
}

/// Rounded down to microseconds, as everywhere.
fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1e3
}

/// The word for how a connection began.
pub(super) fn opened(one: &Connection) -> Option<&'static str> {
    match one.birth?.opened {
        Opened::Connect => Some("connect"),
        Opened::Accept => Some("accept"),
        Opened::Listen => None,
    }
}

/// Writes one connection.
pub(super) fn print(
    one: &Connection,
    netns_name: Option<&str>,
    wall: &mut WallClock,
    out: &mut BytesMut,
) {
    let mut time = BytesMut::new();
    let time = wall
        .put_rfc3339(&mut time, one.mono_ns)
        .then(|| String::from_utf8_lossy(&time).into_owned());
    let tuple = &one.tuple;
    let task = one.owner.map(|owner| owner.task);
    let traffic = one.traffic;
    let resent = one.retransmits();
    let port = |port: u16| (port != 0).then_some(port);
    let line = Line {
        v: 2,
        r#type: "connection",
        time,
        mono_ns: one.mono_ns.to_string(),
        begin_mono_ns: one.birth.map(|birth| birth.mono_ns.to_string()),
        closed_mono_ns: one.closed_ns.map(|ns| ns.to_string()),
        cookie: one.cookie.map(|cookie| cookie.to_string()),
        netns: one.netns,
        netns_name,
        family: tuple.family().name(),
        mapped: tuple.mapped(),
        laddr: tuple.local_ip(),
        lport: port(tuple.lport),
        raddr: (tuple.rport != 0).then(|| tuple.remote_ip()),
        rport: port(tuple.rport),
        state: one.state.name(),
        opened: opened(one),
        pid: task.and_then(|task| task.pid()),
        uid: task.map(|task| task.uid),
        comm: task.map(|task| task.name().to_string()),
        owner_from: one.owner.map(|owner| owner.from.name()),
        tid: task.map(|task| task.tid),
        thread: task.map(|task| task.thread.to_string()),
        closer_pid: one.closer.and_then(|closer| closer.task.pid()),
        closer_comm: one.closer.map(|closer| closer.task.name().to_string()),
        closer_from: one.closer.map(|closer| closer.from.name()),
        holder: one.holder.as_ref().into(),
        cgroup: one.cgroup.map(|cgroup| cgroup.to_string()),
        handshake_ms: one.handshake_ns().map(ms),
        life: one.life().into(),
        tx_bytes: traffic.map(|traffic| traffic.sent),
        tx_at_most: traffic.is_some_and(|traffic| traffic.sent_at_most),
        rx_bytes: traffic.map(|traffic| traffic.received),
        rtt_ms: traffic.and_then(|traffic| traffic.srtt_ns).map(ms),
        retransmits: resent.map(|resent| resent.count),
        retransmits_at_least: resent.is_some_and(|resent| resent.at_least),
        initiator: one.verdict.initiator.map(Initiator::name),
        how: one.verdict.how.map(How::name),
        unknown_because: one.verdict.unknown_because.map(UnknownBecause::name),
        end_reason: one.end_reason.map(EndReason::name),
        mptcp: one.mptcp,
        states: one
            .times
            .iter()
            .map(|(state, age)| InState { state: state.name(), time: age.into() })
            .collect(),
    };
    // Neither writing to memory fails nor is there a map with keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), &line);
    out.put_u8(b'\n');
}
