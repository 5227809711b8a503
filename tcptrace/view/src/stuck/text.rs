//! Columns for people: 80 characters, but for an IPv6 peer at the end of a line.

use std::{fmt::Write as _, time::Duration};

use bytes::{BufMut as _, BytesMut};

use super::{moment::Moment, say};
pub use crate::wrap::cut;
use crate::{number::bytes_short, table::end, time::duration, who};
use tcptrace_model::{Age, TcpState};
use tcptrace_stats::stuck::{Cause, Count, Section, Stuck, SynRow, diagnosis};

const LABEL: usize = 33;

/// Prints a report: the groups of each state, with whose bug it is, then the oldest connections.
pub(super) fn print(moment: &Moment<'_>, time: &str, header: bool, out: &mut BytesMut) {
    let mut text = String::new();
    let report = moment.report;
    let shown = || report.sections.iter().filter(|of| of.is_problem());
    // Writing to memory does not fail.
    if header && shown().next().is_some() {
        let label = format!("{time} {}", moment.wanted.by.name().to_uppercase());
        let _ = writeln!(
            text,
            "{label:LABEL$} {:>7} {:>7} {:>7} {:>8} {:>6} {:>5}",
            "STUCK", "ALL", "GROWTH", "OLDEST", "UNREAD", "UNSENT"
        );
    }
    for of in shown() {
        section(moment, of, &mut text);
    }
    syn_queues(moment, &mut text);
    let below = say::below(report, "--older 0 lists them", |change| moment.per_second(change));
    if text.is_empty() {
        let what = match below.is_empty() {
            true => "nothing is stuck",
            false => "no connection is past its threshold yet",
        };
        let _ = writeln!(text, "{time} {what}");
    }
    for line in below {
        let _ = writeln!(text, "{line}");
    }
    if report.crowded {
        let _ = writeln!(text, "{}", say::CROWDED);
    }
    if !report.oldest.is_empty() {
        if header {
            let _ = writeln!(
                text,
                "{:>8} {:10} {:>7} {:10} {:>6} {:>6} {:>5} PEER",
                "OLDEST", "STATE", "PID", "COMM", "UNREAD", "UNSENT", "LPORT"
            );
        }
        for stuck in &report.oldest {
            connection(stuck, &mut text);
            if let Some(detail) = say::detail(stuck, moment.mono_ns) {
                let _ = writeln!(text, "         {detail}");
            }
        }
        if report.oldest.iter().any(say::has_end) {
            let _ = writeln!(text, "{}", say::CONDITION);
        }
    }
    out.put_slice(text.as_bytes());
}

fn section(moment: &Moment<'_>, of: &Section, text: &mut String) {
    let _ = writeln!(text, "{}", say::heading(of));
    for (whose, count) in of.problem_groups() {
        let label = whose.label().unwrap_or_else(|| "-".to_owned());
        group(moment, &label, count, text);
    }
    let (more, count) = &of.rest;
    if *more > 0 && (count.stuck > 0 || of.stuck == 0) {
        group(moment, &format!("({more} more)"), count, text);
    }
}

fn group(moment: &Moment<'_>, label: &str, count: &Count, text: &mut String) {
    let label = format!("  {}", cut(label, LABEL - 2));
    let rate = match moment.per_second(count.change()) {
        None => "-".to_owned(),
        Some(0.0) => ".".to_owned(),
        Some(rate) => say::rate_short(rate),
    };
    // A sum over some of them is a lower bound.
    let bytes = |sum: u64| match count.looked_at {
        0 => "-".to_owned(),
        some if some < count.stuck => format!("≥{}", bytes_short(sum)),
        _ => bytes_short(sum),
    };
    let _ = writeln!(
        text,
        "{label:LABEL$} {:>7} {:>7} {rate:>7} {:>8} {:>6} {:>6}",
        count.stuck,
        count.all,
        count.oldest.map_or("-".to_owned(), age),
        bytes(count.unread),
        bytes(count.unsent)
    );
}

/// Those whose SYN-ACK was sent again, or that no accept queue has room for; with a threshold of 0
/// all.
fn syn_queues(moment: &Moment<'_>, text: &mut String) {
    let all = moment.wanted.older == Some(Duration::ZERO);
    let waits = |row: &&SynRow| all || row.queue.resent > 0 || row.accept_full() == Some(true);
    let mut rows = moment.report.syn_queues.iter().filter(waits).peekable();
    if rows.peek().is_some() {
        let diagnosis = diagnosis(TcpState::SynRecv, Cause::Handshake);
        let _ = writeln!(text, "SYN_RECV: {diagnosis}");
    }
    for SynRow { netns, queue, accept } in rows {
        let accept = match accept {
            None => String::new(),
            Some(queues) => format!(", accept queue {}/{}", queues.unread, queues.unsent),
        };
        let _ = writeln!(
            text,
            "  :{} in {netns}: {} wait, {} with the SYN-ACK resent{accept}",
            queue.lport, queue.waiting, queue.resent
        );
    }
}

fn connection(stuck: &Stuck, text: &mut String) {
    let (pid, comm) = who::holder(&stuck.found, stuck.held, 10);
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), bytes_short);
    let tuple = &stuck.found.tuple;
    let lport = match tuple.lport {
        0 => "-".to_owned(),
        port => port.to_string(),
    };
    let _ = writeln!(
        text,
        "{:>8} {:10} {pid:>7} {comm:10} {:>6} {:>6} {lport:>5} {}",
        age(stuck.age),
        say::state_name(stuck.found.state),
        bytes(stuck.bytes.map(|bytes| bytes.unread)),
        bytes(stuck.bytes.map(|bytes| bytes.unsent)),
        end(tuple.remote_ip(), tuple.rport)
    );
    if let Some(also) = stuck.found.holder.as_ref().and_then(who::also) {
        let _ = writeln!(text, "{:28}{also}", "");
    }
}

/// A time in at most eight characters, with the sign that says how sure it is.
pub fn age(age: Age) -> String {
    match age {
        Age::Unknown => "-".to_owned(),
        Age::AtLeast(ns) => format!("≥{}", duration(Duration::from_nanos(ns))),
        Age::About { ns, .. } => format!("~{}", duration(Duration::from_nanos(ns))),
        Age::Exactly(ns) => duration(Duration::from_nanos(ns)),
    }
}
