//! Connections in columns for people: 80 characters unless asked for more.

use std::fmt::Write as _;

use bytes::BytesMut;

use crate::{
    number::{age_within, bytes_short},
    table::{NETNS, end, netns, process, put_line, short_how},
    time::WallClock,
    who,
};
use tcptrace_model::{Age, EndReason, Holder, Initiator, Opened, ProcessName, TcpState};
use tcptrace_stats::conns::{Connection, Retransmits, Traffic};
use tcptrace_track::namespaces::Namespaces;

/// What the table shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns {
    /// Everything there is.
    pub wide: bool,
    /// The time of day at which it was closed (bcc's `-T`).
    pub time: bool,
    /// The same in seconds since the start (bcc's `-t`).
    pub timestamp: bool,
}

/// The states of a close, in columns of their own where there is room.
const CLOSING: [TcpState; 6] = [
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::Closing,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::TimeWait,
];

/// Writes the rows.
pub(super) struct Table {
    columns: Columns,
    wall: WallClock,
    begin_ns: u64,
}

impl Table {
    pub(super) fn new(columns: Columns) -> Self {
        Self { columns, wall: WallClock::local_time_of_day(), begin_ns: 0 }
    }

    pub(super) fn wall(&mut self) -> &mut WallClock {
        &mut self.wall
    }

    /// When the hooks came into force.
    pub(super) fn set_begin(&mut self, mono_ns: u64) {
        self.begin_ns = mono_ns;
    }

    pub(super) fn header(&self, out: &mut BytesMut) {
        let Columns { wide, time, timestamp } = self.columns;
        let mut line = String::new();
        if time {
            line.push_str("TIME     ");
        }
        if timestamp {
            line.push_str("TIME(s)    ");
        }
        // Writing to memory does not fail.
        let _ = if wide {
            let _ = write!(
                line,
                "{:NETNS$} {:>7} {:>7} {:15} {:8} {:15} {:21}    {:21} {:5} {:>10} {:>10} {:>8} {:>5} \
                 {:>8} {:>9} {:6} {:23} {:30}",
                "NETNS",
                "UID",
                "PID",
                "COMM",
                "FROM",
                "THREAD",
                "LADDR:LPORT",
                "RADDR:RPORT",
                "MPTCP",
                "TX",
                "RX",
                "RTT",
                "RETR",
                "SHAKE",
                "MS",
                "FIRST",
                "CLOSER",
                "HOW"
            );
            CLOSING.iter().try_for_each(|state| write!(line, " {:>10}", state.name()))
        } else {
            write!(
                line,
                "{:>7} {:8} {:>5}    {:21} {:>5} {:>5} {:>8} BY HOW",
                "PID", "COMM", "LPORT", "RADDR:RPORT", "TX", "RX", "MS"
            )
        };
        if wide {
            let _ = write!(line, " {:17} HOLDER", "END");
        }
        put_line(out, &line);
    }

    pub(super) fn row(&mut self, one: &Connection, names: &Namespaces, out: &mut BytesMut) {
        let Columns { wide, time, timestamp } = self.columns;
        let mut line = String::with_capacity(320);
        let at_ns = one.closed_ns.unwrap_or(one.mono_ns);
        if time {
            let text = self.wall.at(at_ns).map_or("-", |(text, _)| text);
            let _ = write!(line, "{text:8} ");
        }
        if timestamp {
            let us = at_ns.saturating_sub(self.begin_ns) / 1000;
            let _ = write!(line, "{:<10} ", format!("{}.{:06}", us / 1_000_000, us % 1_000_000));
        }
        if wide {
            write_wide(&mut line, one, names)
        } else {
            write_narrow(&mut line, one)
        }
        put_line(out, &line);
    }
}

fn write_narrow(line: &mut String, one: &Connection) {
    let tuple = &one.tuple;
    let pid = one.owner.map_or("-".to_owned(), |owner| owner.task.pid_text());
    let comm = one.owner.map_or("-".to_owned(), |owner| cut(&owner.task.name(), 8));
    let sent = match one.traffic {
        // As many characters as there are digits.
        Some(Traffic { sent, sent_at_most: true, .. }) if sent < 1000 => format!("≤{sent}"),
        traffic => traffic.map_or("-".to_owned(), |traffic| bytes_short(traffic.sent)),
    };
    let received = one.traffic.map_or("-".to_owned(), |traffic| bytes_short(traffic.received));
    let _ = write!(
        line,
        "{pid:>7} {comm:8} {:>5} {} {:21} {sent:>5} {received:>5} {:>8} {}",
        number((tuple.lport != 0).then_some(tuple.lport.into())),
        arrow(one),
        end(tuple.remote_ip(), tuple.rport),
        age_within(one.life(), 8),
        short_end(one)
    );
}

fn write_wide(line: &mut String, one: &Connection, names: &Namespaces) {
    let tuple = &one.tuple;
    let task = one.owner.map(|owner| owner.task);
    let traffic = one.traffic;
    let exact = |ns: Option<u64>| age_within(ns.map_or(Age::Unknown, Age::Exactly), 8);
    let at_most = if traffic.is_some_and(|traffic| traffic.sent_at_most) { "≤" } else { "" };
    let sent = number(traffic.map(|traffic| traffic.sent));
    let _ = write!(
        line,
        "{:NETNS$} {:>7} {:>7} {:15} {:8} {:15} {:21} {} {:21} {:5} {:>10} {:>10} {:>8} {:>5} {:>8} \
         {:>9} {:6} {:23} {:30}",
        netns(one.netns, names),
        number(task.map(|task| task.uid.into())),
        task.map_or("-".to_owned(), |task| task.pid_text()),
        task.map_or("-".to_owned(), |task| task.name().to_string()),
        one.owner.map_or("-", |owner| owner.from.name()),
        task.map_or("-".to_owned(), |task| task.thread.to_string()),
        end(tuple.local_ip(), tuple.lport),
        arrow(one),
        end(tuple.remote_ip(), tuple.rport),
        match one.mptcp {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        },
        format!("{at_most}{sent}"),
        number(traffic.map(|traffic| traffic.received)),
        exact(traffic.and_then(|traffic| traffic.srtt_ns)),
        retransmits(one),
        exact(one.handshake_ns()),
        age_within(one.life(), 9),
        one.verdict.initiator.map_or("-", Initiator::name),
        process(one.closer.map(|closer| closer.task).as_ref()),
        match one.verdict.in_full() {
            Some(how) => how.to_string(),
            None if is_open(one) => one.state.name().to_owned(),
            None => "-".to_owned(),
        },
    );
    for state in CLOSING {
        // It was not in that state, as far as was seen: no time at all, rather than one unknown.
        let age = one.times.of(state).map_or(".".to_owned(), |age| age_within(age, 10));
        let _ = write!(line, " {age:>10}");
    }
    let end = one.end_reason.map_or("-", EndReason::name);
    let _ = write!(line, " {end:17} {}", holder(one.holder.as_ref()));
}

/// `812/nginx`, and of several processes those beside it.
fn holder(holder: Option<&Holder>) -> String {
    let named = process(holder.map(|holder| &holder.task));
    match holder.and_then(who::also) {
        Some(also) => format!("{named}, {also}"),
        None => named,
    }
}

/// `3`, or `≥3` as of the last snapshot.
fn retransmits(one: &Connection) -> String {
    let shown = |of: Retransmits| format!("{}{}", if of.at_least { "≥" } else { "" }, of.count);
    one.retransmits().map_or("-".to_owned(), shown)
}

fn number(number: Option<u64>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

/// Which end opened it.
fn arrow(one: &Connection) -> &'static str {
    match one.birth.map(|birth| birth.opened) {
        Some(Opened::Connect) => "->",
        Some(Opened::Accept) => "<-",
        Some(Opened::Listen) | None => "--",
    }
}

/// A name, escaped, of at most `width` characters.
fn cut(name: &ProcessName, width: usize) -> String {
    name.to_string().chars().take(width).collect()
}

fn is_open(one: &Connection) -> bool {
    !matches!(one.state, TcpState::Close | TcpState::TimeWait)
}

/// Who closed first and how, in eleven characters; of what is open, the state.
fn short_end(one: &Connection) -> String {
    if is_open(one) {
        return one.state.name().to_owned();
    }
    let by = match one.verdict.initiator {
        Some(Initiator::Local) => "L",
        Some(Initiator::Remote) => "R",
        Some(Initiator::Both) => "B",
        Some(Initiator::None) => "N",
        None => "-",
    };
    format!("{by:2} {}", one.verdict.how.map_or("-", short_how))
}
