//! The table of connections.

use super::{
    column,
    shared::{at_least, endings, ends, ns, owners, shown, whence, within},
};
use tcptrace_model::{Age, Opened, TcpState};
use tcptrace_stats::conns::Connection;

type Column = column::Column<Connection>;

/// The states that have a column, what that is called and what it says.
const STATES: [(TcpState, &str, &str); 9] = [
    (TcpState::SynSent, "syn_sent_ns", "time in SYN_SENT"),
    (TcpState::SynRecv, "syn_recv_ns", "time in SYN_RECV"),
    (TcpState::Established, "established_ns", "time in ESTABLISHED"),
    (TcpState::FinWait1, "fin_wait1_ns", "time in FIN_WAIT1"),
    (TcpState::FinWait2, "fin_wait2_ns", "time in FIN_WAIT2"),
    (TcpState::Closing, "closing_ns", "time in CLOSING"),
    (TcpState::CloseWait, "close_wait_ns", "time in CLOSE_WAIT"),
    (TcpState::LastAck, "last_ack_ns", "time in LAST_ACK"),
    (TcpState::TimeWait, "time_wait_ns", "time in TIME_WAIT"),
];

/// Its columns.
pub(super) fn columns() -> Vec<Column> {
    let mut all = whence();
    all.extend([
        Column::time("begin", "when it began: `connect()`, or the end of the handshake", |row| {
            row.about.real_ns(row.it.birth?.mono_ns)
        }),
        Column::time("closed", "when it went to CLOSE or into TIME_WAIT", |row| {
            row.about.real_ns(row.it.closed_ns?)
        }),
    ]);
    all.extend(ends());
    all.extend([
        Column::word("state", "`CLOSE`, or the state at the end of the recording", |row| {
            Some(row.it.state.name())
        }),
        Column::bool("failed", "a failed `connect()`: not a connection", |row| {
            Some(row.it.failed())
        }),
        Column::word("opened", "`connect` or `accept`", |row| match row.it.birth?.opened {
            Opened::Connect => Some("connect"),
            Opened::Accept => Some("accept"),
            Opened::Listen => None,
        }),
    ]);
    all.extend(owners());
    all.extend([
        Column::u32(
            "holder_pid",
            "holder: process that had it open at the last snapshot; of several, the one that started last; null once closed",
            |row| row.it.holder?.task.pid(),
        ),
        Column::text("holder_comm", "its name, escaped", |row, out| {
            row.it.holder.is_some_and(|holder| shown(out, holder.task.name()))
        }),
        Column::u32("holders", "how many processes have it open", |row| {
            Some(row.it.holder?.holders)
        }),
        Column::u32("also_held_by_pid", "of several, the one that started first", |row| {
            row.it.holder?.also()?.pid()
        }),
        Column::i64("handshake_ns", "duration of `connect()`", |row| row.it.handshake_ns()),
        Column::i64("life_ns", "from `begin` to `closed`", |row| ns(row.it.life())),
        Column::bool("at_least", "`life_ns` is a lower bound", |row| at_least(row.it.life())),
        Column::i64("within_ns", "maximum error of `life_ns`", |row| within(row.it.life())),
        Column::i64("tx_bytes", "payload that the peer acknowledged", |row| {
            Some(row.it.traffic?.sent)
        }),
        Column::bool("tx_at_most", "`tx_bytes` may be one too high", |row| {
            Some(row.it.traffic?.sent_at_most)
        }),
        Column::i64("rx_bytes", "payload received", |row| Some(row.it.traffic?.received)),
        Column::i64("rtt_ns", "smoothed round-trip time at the end", |row| row.it.traffic?.srtt_ns),
        Column::u32("retransmits", "retransmitted segments", |row| Some(row.it.retransmits()?.count)),
        Column::bool("retransmits_at_least", "`retransmits` is from a snapshot: a lower bound", |row| {
            Some(row.it.retransmits()?.at_least)
        }),
    ]);
    all.extend(endings());
    all.extend(STATES.map(|(state, name, says)| {
        Column::i64(name, says, move |row| row.it.times.of(state).and_then(ns))
    }));
    all.push(Column::text(
        "bounds",
        "states whose time is a lower bound, separated by blanks",
        |row, out| {
            let bounds = row.it.times.iter().filter(|(_, age)| matches!(age, Age::AtLeast(_)));
            for (state, _) in bounds {
                if !out.is_empty() {
                    out.push(' ');
                }
                out.push_str(state.name());
            }
            !out.is_empty()
        },
    ));
    all
}
