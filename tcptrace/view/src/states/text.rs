//! Columns for people: 80 characters.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};

use super::line::{Line, Row};
use crate::number::fit;
use tcptrace_model::TcpState;

/// Intervals between two headers.
pub(super) const BLOCKS: u64 = 12;

/// What stands for CLOSE.
const CLOSE: &str = "not observable: a merely bound socket has no events";

/// A column of the lines of intervals: its state, its name and its width.
const COLUMNS: [(TcpState, &str, usize); 10] = [
    (TcpState::Established, "EST", 9),
    (TcpState::SynSent, "SYNS", 6),
    (TcpState::SynRecv, "SYNR", 6),
    (TcpState::FinWait1, "FW1", 6),
    (TcpState::FinWait2, "FW2", 7),
    (TcpState::TimeWait, "TW", 9),
    (TcpState::CloseWait, "CLW", 7),
    (TcpState::LastAck, "LACK", 6),
    (TcpState::Listen, "LIS", 6),
    (TcpState::Closing, "CLSG", 6),
];

/// The table of one moment: a row a state.
pub(super) fn once(line: &Line, header: bool, out: &mut BytesMut) {
    let mut text = String::new();
    if header {
        text.push_str("STATE           COUNT\n");
    }
    let mut total = 0;
    // Writing to memory does not fail.
    for row in &line.rows {
        let _ = match row.flow {
            Some(flow) => {
                total += flow.now;
                writeln!(text, "{:11} {:>9}", row.state, flow.now)
            }
            None => writeln!(text, "{:11} {:>9} {CLOSE}", row.state, "-"),
        };
    }
    let _ = writeln!(text, "{:11} {total:>9}", "all");
    out.put_slice(text.as_bytes());
}

/// The lines of one interval: counts, and where anything moved since the interval before, their
/// change and the transitions in and out a second.
pub(super) fn block(line: &Line, time: &str, header: bool, first: bool, out: &mut BytesMut) {
    let mut text = String::new();
    // Writing to memory does not fail.
    if first {
        let _ = writeln!(text, "... CLOSE is {CLOSE}");
    }
    if line.corrected > 0 {
        let _ = writeln!(
            text,
            "... {} connections were otherwise in the kernel's tables than their events told",
            line.corrected
        );
    }
    if header {
        put(&mut text, "TIME", |_, name, _| name.to_owned());
    }
    let row = |state| line.rows.iter().find(|row| row.state == state);
    put(&mut text, time, |state, _, width| {
        let flow = row(state).and_then(|row| row.flow);
        flow.map_or("-".to_owned(), |flow| fit(flow.now, width))
    });
    if line.rows.iter().any(|row| row.flow != row.before) && line.since_ns.is_some() {
        put(&mut text, "change", |state, _, width| match row(state).and_then(|row| row.change()) {
            None => "-".to_owned(),
            Some(0) => ".".to_owned(),
            Some(change) => {
                let sign = if change < 0 { '-' } else { '+' };
                format!("{sign}{}", fit(change.unsigned_abs(), width - 1))
            }
        });
        let mut rates = |label, count: &dyn Fn(&Row) -> Option<u64>| {
            put(&mut text, label, |state, _, width| {
                match line.per_second(row(state).and_then(count)) {
                    None => "-".to_owned(),
                    Some(0.0) => ".".to_owned(),
                    Some(rate) if rate < 10.0 => format!("{rate:.1}"),
                    Some(rate) => fit(rate.round() as u64, width),
                }
            });
        };
        rates("in/s", &Row::entered);
        rates("out/s", &Row::left);
    }
    out.put_slice(text.as_bytes());
}

fn put(text: &mut String, label: &str, cell: impl Fn(TcpState, &str, usize) -> String) {
    let _ = write!(text, "{label:8}");
    for (state, name, width) in COLUMNS {
        let _ = write!(text, "{:>width$}", cell(state, name, width));
    }
    text.push('\n');
}
