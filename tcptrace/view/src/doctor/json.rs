//! One JSON object.
//!
//! ```json
//! {"v":2,"type":"doctor","time":"2026-03-01T12:00:00.000000Z","severity":"warning",
//!  "from":"2026-03-01T11:59:55.000000Z","to":"2026-03-01T12:00:00.000000Z","seconds":5.0,
//!  "events":true,"events_why":null,"lossy":false,"lost":0,
//!  "findings":[{"rule":"close-wait","severity":"warning","netns":4026531840,
//!   "began":"2026-03-01T11:59:55.000000Z","worst":"2026-03-01T12:00:00.000000Z","over":null,
//!   "seen":"...","why":"...","helps":[{"what":"...","command":null,"cost":"..."}],
//!   "useless":["..."],"docs":"..."}],
//!  "fine":["ports"],"unseen":[{"rule":"tw-overflow","netns":4026531840,"why":"..."}],
//!  "namespaces":[{"netns":4026531840,"sysctls":[{"name":"net.ipv4.tcp_fin_timeout","there":true,
//!   "value":"60","unreadable":null,"default":"60","default_from":"kernel","does":"...",
//!   "absent":null,"matters":"no","matters_why":"0 orphans in FIN_WAIT2"}]}]}
//! ```
//! `began` is the beginning of the window in which the finding was found first, `worst` the moment that
//! `seen` is of, and `over` when it was found for the last time, null if it is still there. `there` is
//! null where that is not known; `default_from` is `kernel` (this one) or `upstream`; `matters` is `yes`, `no` or `unknown`.

use bytes::{BufMut as _, BytesMut};
use serde_json::{Value, json};

use tcptrace_doctor::{
    Diagnosis,
    facts::{HostFacts, NetnsFacts},
    finding::Finding,
    sysctls::{self, Row},
};
use tcptrace_model::Sysctl;

pub(super) fn report(
    host: &HostFacts,
    diagnosis: &Diagnosis,
    now_ns: u64,
    mut time: impl FnMut(u64) -> Option<String>,
    out: &mut BytesMut,
) {
    let findings: Vec<_> =
        diagnosis.findings.iter().map(|found| finding(found, &mut time)).collect();
    let (from_ns, to_ns) = diagnosis.window;
    let unseen = diagnosis
        .unseen
        .iter()
        .map(|(rule, netns, why)| json!({"rule": rule, "netns": netns, "why": why}));
    let object = json!({
        "v": 2,
        "type": "doctor",
        "time": time(now_ns),
        "severity": diagnosis.severity().name(),
        "from": time(from_ns),
        "to": time(to_ns),
        "seconds": to_ns.saturating_sub(from_ns) as f64 / 1e9,
        "events": host.watched.events.is_ok(),
        "events_why": host.watched.events.as_ref().err(),
        "lossy": host.watched.lost.is_any(),
        "lost": host.watched.lost.events,
        "findings": findings,
        "fine": diagnosis.fine,
        "unseen": unseen.collect::<Vec<_>>(),
        "namespaces": host.spaces.iter().map(|space| namespace(host, space)).collect::<Vec<_>>(),
    });
    out.put_slice(object.to_string().as_bytes());
    out.put_u8(b'\n');
}

fn finding(finding: &Finding, time: &mut impl FnMut(u64) -> Option<String>) -> Value {
    let when = &finding.when;
    let about = &finding.about;
    let helps = about
        .helps
        .iter()
        .map(|help| json!({"what": help.words(), "command": help.command, "cost": help.cost}));
    json!({
        "rule": finding.rule,
        "severity": about.severity.name(),
        "netns": finding.netns,
        "netns_name": finding.netns_name,
        "began": time(when.began_ns),
        "worst": time(when.worst_ns),
        "over": when.over_ns.and_then(time),
        "seen": about.seen,
        "why": about.why,
        "helps": helps.collect::<Vec<_>>(),
        "useless": about.useless,
        "docs": about.docs,
    })
}

fn namespace(host: &HostFacts, space: &NetnsFacts) -> Value {
    let rows: Vec<_> = sysctls::rows(host, space).iter().map(sysctl).collect();
    json!({"netns": space.netns, "netns_name": space.name, "sysctls": rows})
}

fn sysctl(row: &Row) -> Value {
    let (there, value, unreadable) = match &row.value {
        Sysctl::Is(value) => (Some(true), Some(value.as_str()), None),
        Sysctl::Absent => (Some(false), None, None),
        Sysctl::Unreadable(why) => (None, None, Some(&**why)),
    };
    let from = if row.default_is_own { "kernel" } else { "upstream" };
    json!({
        "name": row.spec.name,
        "there": there,
        "value": value,
        "unreadable": unreadable,
        "default": row.default,
        "default_from": row.default.as_ref().map(|_| from),
        "does": row.spec.does,
        "absent": (there == Some(false)).then_some(row.spec.absent),
        "matters": row.matters.name(),
        "matters_why": row.matters.why(),
    })
}
