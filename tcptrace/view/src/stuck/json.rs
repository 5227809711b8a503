//! `{"v":1,"type":"stuck",…}`: an object a report.

use std::{collections::BTreeMap, net::IpAddr};

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::moment::Moment;
use crate::time::WallClock;
use tcptrace_model::{Age, OwnerFrom, TcpState, task::escape};
use tcptrace_stats::{
    conns::least_ns,
    stuck::{Count, Stuck, SynRow, Whose, diagnosis},
};

#[derive(Serialize)]
struct Line {
    v: u32,
    r#type: &'static str,
    /// RFC 3339.
    time: Option<String>,
    mono_ns: String,
    seconds: Option<f64>,
    by: &'static str,
    /// How long is too long, by state.
    older_ms: BTreeMap<&'static str, u64>,
    stuck: u64,
    all: u64,
    groups: Vec<Group>,
    sockets: Vec<Socket>,
    syn_queues: Vec<SynQueue>,
}

#[derive(Serialize)]
struct Group {
    state: &'static str,
    group: Option<String>,
    kind: &'static str,
    stuck: u64,
    all: u64,
    change: Option<i64>,
    per_s: Option<f64>,
    #[serde(flatten)]
    oldest: Time,
    looked_at: u64,
    unread: Option<u64>,
    unsent: Option<u64>,
    eof_unread: Option<u64>,
    diagnosis: &'static str,
}

#[derive(Serialize)]
struct Socket {
    state: &'static str,
    #[serde(flatten)]
    in_state: Time,
    cookie: Option<String>,
    netns: Option<u32>,
    family: &'static str,
    mapped: bool,
    laddr: IpAddr,
    lport: Option<u16>,
    raddr: IpAddr,
    rport: Option<u16>,
    /// Of the process that has it open; of several the one that was started last.
    pid: Option<u32>,
    uid: Option<u32>,
    comm: Option<String>,
    /// How many processes have it open.
    holders: Option<u32>,
    /// Of several the one that was started first.
    also_held_by_pid: Option<u32>,
    also_held_by_comm: Option<String>,
    /// Who opened or accepted it.
    owner_pid: Option<u32>,
    owner_comm: Option<String>,
    owner_from: Option<&'static str>,
    unit: Option<String>,
    held: Option<bool>,
    unread: Option<u64>,
    unsent: Option<u64>,
    eof_read: Option<bool>,
}

#[derive(Serialize)]
struct SynQueue {
    netns: u32,
    lport: u16,
    waiting: u32,
    resent: u32,
    accept_queue: Option<u32>,
    accept_limit: Option<u32>,
    accept_full: Option<bool>,
}

#[derive(Serialize)]
struct Time {
    ms: Option<f64>,
    at_least: bool,
    within_ms: Option<f64>,
}

impl From<Option<Age>> for Time {
    fn from(age: Option<Age>) -> Self {
        let (ns, within_ns) = match age {
            None | Some(Age::Unknown) => (None, None),
            Some(Age::About { ns, within_ns }) => (Some(ns), Some(within_ns)),
            Some(age @ (Age::AtLeast(_) | Age::Exactly(_))) => (Some(least_ns(age)), None),
        };
        Self {
            ms: ns.map(ms),
            at_least: matches!(age, Some(Age::AtLeast(_))),
            within_ms: within_ns.map(ms),
        }
    }
}

/// Rounded down to microseconds, as everywhere.
fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1e3
}

pub(super) fn print(moment: &Moment<'_>, wall: &mut WallClock, out: &mut BytesMut) {
    let mut time = BytesMut::new();
    let time = wall
        .put_rfc3339(&mut time, moment.mono_ns)
        .then(|| String::from_utf8_lossy(&time).into_owned());
    let report = moment.report;
    let mut groups = Vec::new();
    for of in &report.states {
        let all = of.groups.iter().map(|(whose, count)| (whose.label(), whose.kind(), count));
        let rest = (of.rest.0 > 0).then_some((None, Whose::REST, &of.rest.1));
        for (label, kind, count) in all.chain(rest) {
            groups.push(group(moment, of.state, label, kind, count));
        }
    }
    let older = |state| u64::try_from(moment.wanted.older(state).as_millis()).unwrap_or(u64::MAX);
    let line = Line {
        v: 1,
        r#type: "stuck",
        time,
        mono_ns: moment.mono_ns.to_string(),
        seconds: moment.seconds(),
        by: moment.wanted.by.name(),
        older_ms: moment.wanted.states().map(|state| (state.name(), older(state))).collect(),
        stuck: report.states.iter().map(|of| of.stuck).sum(),
        all: report.states.iter().map(|of| of.all).sum(),
        groups,
        sockets: report.oldest.iter().map(socket).collect(),
        syn_queues: report.syn_queues.iter().map(syn_queue).collect(),
    };
    // Neither writing to memory fails nor is there a map with keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), &line);
    out.put_u8(b'\n');
}

fn group(
    moment: &Moment<'_>,
    state: TcpState,
    group: Option<String>,
    kind: &'static str,
    count: &Count,
) -> Group {
    let looked = |sum| (count.looked_at > 0).then_some(sum);
    Group {
        state: state.name(),
        group,
        kind,
        stuck: count.stuck,
        all: count.all,
        change: count.change(),
        per_s: moment.per_second(count.change()),
        oldest: count.oldest.into(),
        looked_at: count.looked_at,
        unread: looked(count.unread),
        unsent: looked(count.unsent),
        eof_unread: looked(count.eof_unread),
        diagnosis: diagnosis(state),
    }
}

fn socket(stuck: &Stuck) -> Socket {
    let found = &stuck.found;
    let tuple = &found.tuple;
    let task = found.holder.map(|holder| holder.task);
    let also = found.holder.and_then(|holder| holder.also());
    let owner = found.owner.map(|owner| owner.task);
    let port = |port: u16| (port != 0).then_some(port);
    Socket {
        state: found.state.name(),
        in_state: Some(stuck.in_state).into(),
        cookie: found.cookie.map(|cookie| cookie.to_string()),
        netns: found.netns,
        family: tuple.family().name(),
        mapped: tuple.mapped(),
        laddr: tuple.local_ip(),
        lport: port(tuple.lport),
        raddr: tuple.remote_ip(),
        rport: port(tuple.rport),
        pid: task.and_then(|task| task.pid()),
        uid: task.map(|task| task.uid),
        comm: task.map(|task| task.name().to_string()),
        holders: found.holder.map(|holder| holder.holders),
        also_held_by_pid: also.and_then(|also| also.pid()),
        also_held_by_comm: also.map(|also| also.name().to_string()),
        owner_pid: owner.and_then(|owner| owner.pid()),
        owner_comm: owner.map(|owner| owner.name().to_string()),
        owner_from: found.owner.map(|owner| OwnerFrom::name(owner.from)),
        unit: stuck.unit.as_deref().map(|unit| escape(unit.as_bytes())),
        held: stuck.held,
        unread: stuck.bytes.map(|bytes| bytes.unread),
        unsent: stuck.bytes.map(|bytes| bytes.unsent),
        eof_read: stuck.bytes.and_then(|bytes| bytes.eof_read),
    }
}

fn syn_queue(row: &SynRow) -> SynQueue {
    SynQueue {
        netns: row.netns,
        lport: row.queue.lport,
        waiting: row.queue.waiting,
        resent: row.queue.resent,
        accept_queue: row.accept.map(|accept| accept.unread),
        accept_limit: row.accept.map(|accept| accept.unsent),
        accept_full: row.accept_full(),
    }
}
