//! `{"v":2,"type":"stuck",…}`: an object a report.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::moment::Moment;
use crate::time::WallClock;
use tcptrace_model::{Age, OwnerFrom, TcpState, Timer, task::escape};
use tcptrace_stats::{
    conns::least_ns,
    stuck::{Count, Section, Stuck, SynRow, Whose, diagnosis, threshold_of},
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
    /// More network namespaces than are remembered.
    crowded: bool,
}

#[derive(Serialize)]
struct Group {
    state: &'static str,
    cause: &'static str,
    older_ms: u64,
    group: Option<String>,
    kind: &'static str,
    listener: Option<Listener>,
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

/// Where connections wait for accept().
#[derive(Serialize)]
struct Listener {
    netns: Option<u32>,
    laddr: IpAddr,
    lport: u16,
    pid: Option<u32>,
    comm: Option<String>,
}

#[derive(Serialize)]
struct Socket {
    state: &'static str,
    cause: &'static str,
    #[serde(flatten)]
    in_state: Time,
    /// At the least.
    stuck_ms: Option<f64>,
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
    #[serde(flatten)]
    scan: Scan,
    gives_up_ms: Option<u64>,
    gives_up_by: Option<&'static str>,
}

/// What only a scan shows: `null` where there was none.
#[derive(Default, Serialize)]
struct Scan {
    /// How old the rest is.
    scanned_ms: Option<f64>,
    timer: Option<&'static str>,
    /// Until the timer is due.
    timer_ms: Option<u64>,
    retransmits: Option<u8>,
    probes: Option<u8>,
    backoff: Option<u8>,
    rto_ms: Option<f64>,
    total_retransmits: Option<u32>,
    not_sent: Option<u64>,
    fin_sent: Option<bool>,
    last_ack_ms: Option<u32>,
}

impl Scan {
    fn of(scan: &tcptrace_track::Scan, now: u64) -> Self {
        let info = &scan.info;
        let since_ns = now.saturating_sub(scan.mono_ns);
        let timer = match info.timer {
            Timer::None | Timer::TimeWait | Timer::Other(_) => None,
            Timer::Retransmit => Some("retransmit"),
            Timer::KeepAlive => Some("keepalive"),
            Timer::Probe => Some("persist"),
        };
        let fin = u64::from(info.fin_waits());
        let closes =
            matches!(info.state, TcpState::FinWait1 | TcpState::Closing | TcpState::LastAck);
        // What sock_diag subtracts is not set before the SYN.
        let not_sent = if info.syn_is_deferred() { 0 } else { u64::from(info.tcp.not_sent) - fin };
        Self {
            scanned_ms: Some(ms(since_ns)),
            timer,
            timer_ms: timer
                .map(|_| u64::from(info.expires_ms).saturating_sub(since_ns / 1_000_000)),
            retransmits: Some(info.tcp.retransmits),
            probes: Some(info.tcp.probes),
            backoff: Some(info.tcp.backoff),
            rto_ms: Some(f64::from(info.tcp.rto_us) / 1e3),
            total_retransmits: Some(info.tcp.total_retrans),
            not_sent: Some(not_sent),
            fin_sent: closes.then_some(fin == 0),
            last_ack_ms: Some(info.tcp.last_ack_recv_ms),
        }
    }
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
    for of in &report.sections {
        let all = of.groups.iter().map(|(whose, count)| group(moment, of, Some(whose), count));
        groups.extend(all);
        if of.rest.0 > 0 {
            groups.push(group(moment, of, None, &of.rest.1));
        }
    }
    let older = |state| {
        let older = moment.wanted.older.unwrap_or_else(|| threshold_of(state));
        whole_ms(older)
    };
    let line = Line {
        v: 2,
        r#type: "stuck",
        time,
        mono_ns: moment.mono_ns.to_string(),
        seconds: moment.seconds(),
        by: moment.wanted.by.name(),
        older_ms: moment.wanted.states().map(|state| (state.name(), older(state))).collect(),
        stuck: report.stuck(),
        all: report.sections.iter().map(|of| of.all).sum(),
        groups,
        sockets: report.oldest.iter().map(|stuck| socket(stuck, moment.mono_ns)).collect(),
        syn_queues: report.syn_queues.iter().map(syn_queue).collect(),
        crowded: report.crowded,
    };
    // Neither writing to memory fails nor is there a map with keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), &line);
    out.put_u8(b'\n');
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Those of a group, or, with `None`, of all that were left out.
fn group(moment: &Moment<'_>, of: &Section, whose: Option<&Whose>, count: &Count) -> Group {
    let listener = match whose {
        Some(Whose::NotAccepted(door)) => Some(Listener {
            netns: door.netns,
            laddr: door.address(),
            lport: door.lport,
            pid: door.listener.map(|(pid, _)| pid),
            comm: door.listener.map(|(_, comm)| comm.to_string()),
        }),
        _ => None,
    };
    let looked = |sum| (count.looked_at > 0).then_some(sum);
    Group {
        state: of.state.name(),
        cause: of.cause.name(),
        older_ms: whole_ms(of.older),
        group: whose.and_then(Whose::label),
        kind: whose.map_or(Whose::REST, Whose::kind),
        listener,
        stuck: count.stuck,
        all: count.all,
        change: count.change(),
        per_s: moment.per_second(count.change()),
        oldest: count.oldest.into(),
        looked_at: count.looked_at,
        unread: looked(count.unread),
        unsent: looked(count.unsent),
        eof_unread: looked(count.eof_unread),
        diagnosis: diagnosis(of.state, of.cause),
    }
}

fn socket(stuck: &Stuck, now: u64) -> Socket {
    let found = &stuck.found;
    let tuple = &found.tuple;
    let task = found.holder.map(|holder| holder.task);
    let also = found.holder.and_then(|holder| holder.also());
    let owner = found.owner.map(|owner| owner.task);
    let port = |port: u16| (port != 0).then_some(port);
    Socket {
        state: found.state.name(),
        cause: stuck.cause.name(),
        in_state: Some(stuck.in_state).into(),
        stuck_ms: (stuck.age != Age::Unknown).then(|| ms(least_ns(stuck.age))),
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
        scan: stuck.scan.as_ref().map(|scan| Scan::of(scan, now)).unwrap_or_default(),
        gives_up_ms: stuck.gives_up_in_ms(now),
        gives_up_by: stuck.give_up.map(|end| end.by.name()),
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
