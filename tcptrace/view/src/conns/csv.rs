//! Connections as comma-separated values, one header line. What is not known is empty.

use bytes::{BufMut as _, BytesMut};

use super::json::opened;
use crate::{
    csv::{put_closer, put_field, put_loss, quoted},
    number::put_ms,
    time::WallClock,
};
use tcptrace_model::{Age, EndReason, Initiator, Input, TcpState, UnknownBecause};
use tcptrace_stats::conns::Connection;

/// The states that have a column, in this order.
const STATES: [TcpState; 9] = [
    TcpState::SynSent,
    TcpState::SynRecv,
    TcpState::Established,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::TimeWait,
];

/// The header, in the order in which [`print`] writes. `bounds` names the states, with blanks
/// between them, whose time is a lower bound.
pub(super) const HEADER: &str = "time,mono_ns,begin_mono_ns,closed_mono_ns,cookie,netns,family,\
    mapped,laddr,lport,raddr,rport,state,opened,pid,uid,comm,owner_from,cgroup,handshake_ms,ms,\
    at_least,within_ms,tx_bytes,tx_at_most,rx_bytes,rtt_ms,retransmits,initiator,how,end_reason,\
    syn_sent_ms,syn_recv_ms,established_ms,fin_wait1_ms,fin_wait2_ms,closing_ms,close_wait_ms,\
    last_ack_ms,time_wait_ms,bounds,tid,thread,closer_pid,closer_comm,closer_from,holder_pid,\
    holder_comm,holders,also_held_by_pid,also_held_by_comm,unknown_because,mptcp,\
    retransmits_at_least,netns_name,lost,gap_ms\n";

/// Writes one connection.
pub(super) fn print(
    one: &Connection,
    netns_name: Option<&str>,
    wall: &mut WallClock,
    out: &mut BytesMut,
) {
    let tuple = &one.tuple;
    let task = one.owner.map(|owner| owner.task);
    let traffic = one.traffic;
    let resent = one.retransmits();
    let port = |port: u16| (port != 0).then_some(port);
    wall.put_rfc3339(out, one.mono_ns);
    put_field(out, Some(one.mono_ns));
    put_field(out, one.birth.map(|birth| birth.mono_ns));
    put_field(out, one.closed_ns);
    put_field(out, one.cookie);
    put_field(out, one.netns);
    put_field(out, Some(tuple.family().name()));
    put_field(out, Some(tuple.mapped()));
    put_field(out, Some(tuple.local_ip()));
    put_field(out, port(tuple.lport));
    put_field(out, (tuple.rport != 0).then(|| tuple.remote_ip()));
    put_field(out, port(tuple.rport));
    put_field(out, Some(one.state.name()));
    put_field(out, opened(one));
    put_field(out, task.and_then(|task| task.pid()));
    put_field(out, task.map(|task| task.uid));
    put_field(out, task.map(|task| quoted(&task.name().to_string())));
    put_field(out, one.owner.map(|owner| owner.from.name()));
    put_field(out, one.cgroup);
    put_time(out, one.handshake_ns().map(Age::Exactly));
    let life = one.life();
    put_time(out, Some(life));
    put_field(out, Some(matches!(life, Age::AtLeast(_))));
    put_time(out, within(life));
    put_field(out, traffic.map(|traffic| traffic.sent));
    put_field(out, Some(traffic.is_some_and(|traffic| traffic.sent_at_most)));
    put_field(out, traffic.map(|traffic| traffic.received));
    put_time(out, traffic.and_then(|traffic| traffic.srtt_ns).map(Age::Exactly));
    put_field(out, resent.map(|resent| resent.count));
    put_field(out, one.verdict.initiator.map(Initiator::name));
    put_field(out, one.verdict.how.map(|how| quoted(how.name())));
    put_field(out, one.end_reason.map(EndReason::name));
    for state in STATES {
        put_time(out, one.times.of(state));
    }
    let bounds = one.times.iter().filter(|(_, age)| matches!(age, Age::AtLeast(_)));
    let bounds: Vec<_> = bounds.map(|(state, _)| state.name()).collect();
    put_field(out, Some(bounds.join(" ")));
    put_field(out, task.map(|task| task.tid));
    put_field(out, task.map(|task| quoted(&task.thread.to_string())));
    put_closer(out, one.closer.as_ref());
    let also = one.holder.and_then(|holder| holder.also());
    put_field(out, one.holder.and_then(|holder| holder.task.pid()));
    put_field(out, one.holder.map(|holder| quoted(&holder.task.name().to_string())));
    put_field(out, one.holder.map(|holder| holder.holders));
    put_field(out, also.and_then(|also| also.pid()));
    put_field(out, also.map(|also| quoted(&also.name().to_string())));
    put_field(out, one.verdict.unknown_because.map(UnknownBecause::name));
    put_field(out, one.mptcp);
    put_field(out, Some(resent.is_some_and(|resent| resent.at_least)));
    put_field(out, netns_name.map(quoted));
    out.put_slice(b",,\n");
}

/// Writes a row of a loss.
pub(super) fn loss(input: &Input, wall: &mut WallClock, out: &mut BytesMut) {
    put_loss(input, HEADER, wall, out);
}

fn within(age: Age) -> Option<Age> {
    match age {
        Age::About { within_ns, .. } => Some(Age::Exactly(within_ns)),
        _ => None,
    }
}

/// A comma and the milliseconds, if they are known.
fn put_time(out: &mut BytesMut, age: Option<Age>) {
    out.put_u8(b',');
    match age {
        None | Some(Age::Unknown) => {}
        Some(Age::AtLeast(ns) | Age::About { ns, .. } | Age::Exactly(ns)) => put_ms(out, ns),
    }
}
