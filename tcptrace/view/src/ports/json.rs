//! `{"v":2,"type":"ports",…}`: an object an interval.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use serde_json::{Value, json};

use crate::time::WallClock;
use tcptrace_stats::ports::{Interval, Limits, Reuse, Row, Space, Taker, Takers};
use tcptrace_track::namespaces::Namespaces;

/// `more` rows are left out.
pub(super) fn line(
    interval: &Interval,
    more: usize,
    mono_ns: u64,
    names: &Namespaces,
    wall: &mut WallClock,
    out: &mut BytesMut,
) {
    let spaces: Vec<_> = interval.spaces.iter().map(|one| space(one, names)).collect();
    let rows: Vec<_> = interval.rows.iter().map(|one| row(one, names)).collect();
    out.put_slice(br#"{"v":2,"type":"ports","time":"#);
    wall.put_json(out, mono_ns);
    // Writing to memory does not fail.
    let _ = writeln!(
        out,
        r#","mono_ns":"{mono_ns}","seconds":{},"left_out":{},"not_remembered":{},"more_rows":{more},"namespaces":{},"rows":{}}}"#,
        interval.seconds,
        interval.left_out,
        interval.not_remembered,
        Value::Array(spaces),
        Value::Array(rows)
    );
}

fn space(space: &Space, names: &Namespaces) -> Value {
    let limits = space.limits.as_ref();
    let known = limits.ok();
    let (reuse, after_ns) = known.map_or((None, None), |limits| match limits.reuse {
        Reuse::No => (Some("no"), None),
        Reuse::Loopback { after_ns } => (Some("loopback"), Some(after_ns)),
        Reuse::Yes { after_ns } => (Some("yes"), Some(after_ns)),
    });
    json!({
        "netns": space.netns,
        "netns_name": space.netns.and_then(|netns| names.name(netns)),
        "range": known.map(|limits| [limits.range.low, limits.range.high]),
        "offered": known.map(Limits::offered),
        "reserved": known.map(|limits| limits.reserved),
        "bound": known.map(|_| space.bound),
        "bound_inactive": space.inactive,
        "bound_by": known.map(|_| takers(&space.bound_by)),
        "reuse": reuse,
        "reuse_after_ms": after_ns.map(|ns| ns as f64 / 1e6),
        "not_known": limits.err(),
        "time_wait_observed": !space.time_wait_unseen,
    })
}

fn row(row: &Row, names: &Namespaces) -> Value {
    json!({
        "netns": row.path.netns,
        "netns_name": row.path.netns.and_then(|netns| names.name(netns)),
        "family": row.path.family().name(),
        "laddr": row.path.local_ip(),
        "raddr": row.path.remote_ip(),
        "rport": row.path.rport,
        "live": row.live,
        "time_wait": row.time_wait,
        "reusable": row.reusable,
        "uncertain": row.uncertain,
        "usable": row.usable,
        "free": row.free,
        "free_at_least": row.free_at_least,
        "opened": row.flow.opened,
        "returned": row.flow.returned,
        "failed": row.failures().map(|(failed, _)| failed),
        "failed_total": row.failures().map(|(_, total)| total),
        "own_range_failed_total": row.failures().map(|_| row.own_failed),
        "opened_per_s": rounded(row.smoothed.opened),
        "returned_per_s": rounded(row.smoothed.returned),
        "outlook": row.outlook.name(),
        "runs_out_s": row.outlook.seconds().map(rounded),
        "taken_by": row.takers.as_ref().map(takers),
    })
}

/// Who takes ports: those that take most, and, where that is not all, what is left.
fn takers(takers: &Takers) -> Value {
    let one = |taker: &Taker| {
        let comm = taker.name.map(|name| name.to_string());
        json!({ "comm": comm, "pid": taker.pid, "ports": taker.ports })
    };
    json!({
        "most": takers.most.iter().map(one).collect::<Vec<_>>(),
        "more": takers.more,
        "more_ports": takers.more_ports,
    })
}

/// To milliseconds, or thousandths of a connection.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
