//! Columns for people: 80 characters, but for the paths of long IPv6 addresses, which have a line
//! of their own.

use std::{fmt::Write as _, net::IpAddr};

use bytes::{BufMut as _, BytesMut};

use crate::number::fit;
use tcptrace_stats::ports::{Interval, Outlook, Reuse, Row, Space, Takers};

const PATH: usize = 32;

/// Characters of a line.
const WIDTH: usize = 80;

/// Who takes the ports of a path is said where they run out within so many seconds.
const SOON_S: f64 = 3600.0;

/// One interval: what each namespace allows, and its rows.
pub(super) fn block(
    interval: &Interval,
    more: usize,
    time: &str,
    header: bool,
    out: &mut BytesMut,
) {
    let mut text = String::new();
    // Writing to memory does not fail.
    if header {
        let _ = writeln!(
            text,
            "{:PATH$}{:>6}{:>6}{:>7}{:>7}{:>7}{:>6}{:>9}",
            format!("{time} FROM > PEER"),
            "LIVE",
            "TW",
            "FREE",
            "NEW/s",
            "BACK/s",
            "FAIL",
            "RUNS-OUT"
        );
    }
    for space in &interval.spaces {
        let _ = writeln!(text, "{}", describe(space));
        bound(space, &mut text);
        let worst = interval.rows.first();
        for one in interval.rows.iter().filter(|row| row.path.netns == space.netns) {
            row(one, &mut text);
            let named = worst == Some(one) || is_pressed(one);
            if let Some(by) = taken_by(one, WIDTH - 2).filter(|_| named) {
                let _ = writeln!(text, "  {by}");
            }
            if one.own_failed > 0 {
                let _ = writeln!(
                    text,
                    "  {} more connect() failed: their IP_LOCAL_PORT_RANGE is used up",
                    one.own_failed
                );
            }
        }
    }
    if interval.rows.is_empty() {
        text.push_str("... no connections that were opened from here\n");
    }
    if more > 0 {
        let _ = writeln!(text, "... and {more} more: --top");
    }
    if interval.left_out > 0 {
        let _ = writeln!(text, "... {} connections in no row: too many peers", interval.left_out);
    }
    if interval.not_remembered > 0 {
        let _ = writeln!(
            text,
            "... {} bound or listening sockets had no room: LIVE and TW may be too high",
            interval.not_remembered
        );
    }
    out.put_slice(text.as_bytes());
}

/// Of ports that are taken for all peers, whose they are, if they are many; and what that means, if
/// they are all.
fn bound(space: &Space, text: &mut String) {
    // Writing to memory does not fail.
    if let Some(by) = bound_by(space, WIDTH - 2) {
        let _ = writeln!(text, "  {by}");
    }
    if let Some(offered) = space.used_up() {
        let _ = writeln!(
            text,
            "... all {offered} ports are bound: connect() finds none, and bind() to port 0 none \
             for\n    the addresses that they are bound to"
        );
    }
}

/// Who has bound ports that are taken for all peers, in `width` characters at most. `None` where they
/// are few: that is no answer to why there are none left, and a line for each listener would be noise.
pub fn bound_by(space: &Space, width: usize) -> Option<String> {
    let limits = space.limits.as_ref().ok()?;
    let many = space.bound > 0 && space.bound.saturating_mul(10) >= u64::from(limits.offered());
    many.then(|| by("bound by", &space.bound_by, width)).flatten()
}

/// Who takes the ports of a path, in `width` characters at most; `None` where that is not known or was
/// not asked.
pub fn taken_by(row: &Row, width: usize) -> Option<String> {
    by("by", row.takers.as_ref()?, width)
}

/// Whether a path has run out of ports, or soon will.
pub fn is_pressed(row: &Row) -> bool {
    row.failed_total > 0 || row.outlook.seconds().is_some_and(|seconds| seconds <= SOON_S)
}

fn by(by: &str, takers: &Takers, width: usize) -> Option<String> {
    let words = takers.fit(width.saturating_sub(by.len() + 1));
    (!words.is_empty()).then(|| format!("{by} {words}"))
}

/// A network namespace, in a line.
pub fn describe(space: &Space) -> String {
    let netns = space.called.as_deref().unwrap_or("-");
    let limits = match &space.limits {
        Ok(limits) => limits,
        Err(why) => return format!("netns {netns}: {why}"),
    };
    let mut text = format!("netns {netns}: {} of {}", limits.offered(), limits.range);
    // Writing to memory does not fail.
    if limits.reserved > 0 {
        let _ = write!(text, ", {} reserved", limits.reserved);
    }
    match space.inactive {
        None => {
            let _ = write!(text, ", {}+ bound", space.bound);
        }
        Some(_) if space.bound > 0 => {
            let _ = write!(text, ", {} bound", space.bound);
        }
        Some(_) => {}
    }
    let seconds = |ns: u64| ns as f64 / 1e9;
    let _ = match limits.reuse {
        Reuse::No => write!(text, "; tw_reuse no"),
        Reuse::Loopback { after_ns } => write!(text, "; tw_reuse lo {}s", seconds(after_ns)),
        Reuse::Yes { after_ns } => write!(text, "; tw_reuse {}s", seconds(after_ns)),
    };
    if space.time_wait_unseen {
        text.push_str("\n... TIME_WAIT is not observable here: neither is when ports run out");
    }
    text
}

fn row(row: &Row, text: &mut String) {
    let host = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let (from, to) = (host(row.path.local_ip()), host(row.path.remote_ip()));
    let path = format!("{from} > {to}:{}", row.path.rport);
    let path = if path.len() < PATH { path } else { format!("{path}\n") };
    text.push_str(&path);
    let known = |count: Option<u64>, width| count.map_or("-".to_owned(), |n| fit(n, width));
    let pad = if path.ends_with('\n') { PATH } else { PATH - path.len() };
    // Writing to memory does not fail.
    let _ = writeln!(
        text,
        "{:pad$}{:>6}{:>6}{:>7}{:>7}{:>7}{:>6}{:>9}",
        "",
        fit(row.live, 6),
        known(row.time_wait, 6),
        free(row),
        rate(row.smoothed.opened),
        rate(row.smoothed.returned),
        known(row.failures().map(|(_, total)| total), 6),
        outlook(row.outlook)
    );
}

/// Ports that connect() would find, in at most 7 characters: a range where it is not known which
/// TIME_WAITs it may take over.
pub fn free(row: &Row) -> String {
    match (row.free, row.free_at_least) {
        (Some(free), _) => fit(free, 7),
        (None, None) => "-".to_owned(),
        (None, Some(least)) => {
            let range = format!("{least}-{}", least + row.uncertain);
            if range.len() <= 7 { range } else { format!("{}+", fit(least, 6)) }
        }
    }
}

/// A rate a second, in at most 7 characters.
pub fn rate(rate: f64) -> String {
    if rate < 0.05 {
        ".".to_owned()
    } else if rate < 1000.0 {
        format!("{rate:.1}")
    } else {
        fit(rate.round() as u64, 7)
    }
}

/// When ports run out, in a word.
pub fn outlook(outlook: Outlook) -> String {
    let seconds = match outlook {
        Outlook::Unknown => return "-".to_owned(),
        Outlook::Now | Outlook::Never => return outlook.name().to_owned(),
        Outlook::In(seconds) => seconds,
    };
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..120 => format!("{whole}s"),
        120..7_200 => format!("{}m{:02}s", whole / 60, whole % 60),
        7_200..172_800 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d", whole / 86_400),
    }
}
