//! Sentences about what is stuck that several views have: numbers first, at most 80 columns.
//!
//! They say no more than the last scan showed: where it showed nothing there is no sentence.

use std::time::Duration;

use crate::number::bytes_short;
use crate::time::duration;
use tcptrace_model::TcpState;
use tcptrace_stats::stuck::{Cause, Limit, Report, Section, Stuck, diagnosis};

/// A state as short as `ss` writes it where there is no room for more.
pub fn state_name(state: TcpState) -> &'static str {
    if state == TcpState::Established { "ESTAB" } else { state.name() }
}

/// What a section is about: `CLOSE_WAIT 60s: …`, with a `<` where none has been there for so long.
pub fn heading(of: &Section) -> String {
    let below = if of.stuck == 0 { "<" } else { "" };
    format!("{} {below}{}: {}", of.state, threshold(of.older), diagnosis(of.state, of.cause))
}

/// `60s`, or as other times are written.
fn threshold(older: Duration) -> String {
    match (older.as_secs(), older.subsec_nanos()) {
        (s @ 0..=60, 0) => format!("{s}s"),
        _ => duration(older),
    }
}

/// How many are not stuck yet, by state and threshold; nothing where there are none. Wrapped at 80
/// columns. `how`: what lists them.
pub fn below(
    report: &Report,
    how: &str,
    per_second: impl Fn(Option<i64>) -> Option<f64>,
) -> Vec<String> {
    let piece = |of: &Section| {
        let grows = match per_second(of.change()).filter(|rate| *rate > 0.0) {
            Some(rate) => format!(", {}", rate_short(rate)),
            None => String::new(),
        };
        format!("{} {} ({}{grows}),", of.below(), of.state, threshold(of.older))
    };
    let mut pieces: Vec<String> =
        report.sections.iter().filter(|of| of.below() > 0).map(piece).collect();
    let Some(last) = pieces.last_mut() else { return Vec::new() };
    last.pop();
    if !how.is_empty() {
        last.push(';');
        pieces.extend(how.split(' ').map(str::to_owned));
    }
    let mut lines = vec!["... below the threshold:".to_owned()];
    for piece in pieces {
        let line = lines.last_mut().filter(|line| line.chars().count() + piece.len() < 80);
        match line {
            Some(line) => {
                line.push(' ');
                *line += &piece;
            }
            None => lines.push(format!("    {piece}")),
        }
    }
    lines
}

/// `+3.4/s`
pub fn rate_short(rate: f64) -> String {
    if rate.abs() < 10.0 { format!("{rate:+.1}/s") } else { format!("{rate:+.0}/s") }
}

/// What the timer of a connection does, and when the kernel gives it up, at `now`; `None` where no
/// scan showed that. At most 70 characters.
pub fn detail(stuck: &Stuck, now: u64) -> Option<String> {
    let scan = stuck.scan.as_ref()?;
    let info = &scan.info;
    let since_scan_ms = now.saturating_sub(scan.mono_ns) / 1_000_000;
    let next_ms = u64::from(info.expires_ms).saturating_sub(since_scan_ms);
    let next = duration(Duration::from_millis(next_ms));
    let end = gives_up(stuck, now);
    let does = match stuck.cause {
        Cause::NoAck => format!("resent {}, next in {next}", times(info.tcp.retransmits)),
        Cause::NoSynAck if info.tcp.retransmits > 0 => {
            format!("SYN resent {}, next in {next}", times(info.tcp.retransmits))
        }
        Cause::ZeroWindow => {
            let fin = if info.fin_waits() { " and FIN" } else { "" };
            let waits = bytes_short(u64::from(info.tcp.not_sent) - u64::from(info.fin_waits()));
            format!("window 0, {waits}{fin} unsent")
        }
        Cause::NoProbeAnswer => {
            let heard = duration(Duration::from_millis(u64::from(info.tcp.last_ack_recv_ms)));
            let heard =
                if end.is_none() { format!(", peer heard {heard} ago") } else { String::new() };
            format!("{} probes unanswered{heard}", info.tcp.probes)
        }
        _ => return None,
    };
    Some(match end {
        Some(end) => format!("{does}; {end}"),
        None => does,
    })
}

/// What each "ends in" depends on: neither `inet_diag` nor `tcp_info` has the socket option.
pub const CONDITION: &str =
    "(ends in: unless a program has set TCP_USER_TIMEOUT, which no scan shows)";

/// What is not known with more network namespaces than are remembered.
pub const CROWDED: &str = "... more network namespaces than are remembered: of the others neither SYN queues are \
                           known,\n    nor when connections are given up";

/// Whether a time is said at which the kernel gives it up, and that depends on [`CONDITION`].
pub fn has_end(stuck: &Stuck) -> bool {
    stuck.give_up.is_some_and(|end| end.in_ms.is_some() && end.by != Limit::UserTimeout)
}

fn times(n: u8) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// When the kernel gives it up, and by what.
fn gives_up(stuck: &Stuck, now: u64) -> Option<String> {
    let by = stuck.give_up?.by;
    if by == Limit::Never {
        return Some("kept while it answers".to_owned());
    }
    let ms = stuck.gives_up_in_ms(now)?;
    Some(format!("ends in ~{} ({})", duration(Duration::from_millis(ms)), by.name()))
}
