//! One JSON object.
//!
//! ```json
//! {"v":1,"type":"doctor","time":"2026-03-01T12:00:00.000000Z","severity":"warning","seconds":5.0,
//!  "events":true,"events_why":null,"lossy":false,
//!  "findings":[{"rule":"close-wait","severity":"warning","netns":4026531840,"seen":"...",
//!   "why":"...","helps":[{"what":"...","cost":"..."}],"useless":["..."],"docs":"..."}],
//!  "fine":["ports"],"unseen":[{"rule":"tw-overflow","netns":4026531840,"why":"..."}],
//!  "namespaces":[{"netns":4026531840,"knobs":[{"name":"net.ipv4.tcp_fin_timeout","there":true,
//!   "value":"60","unreadable":null,"default":"60","default_from":"kernel","does":"...",
//!   "absent":null,"matters":"no","matters_why":"0 orphans in FIN_WAIT2"}]}]}
//! ```
//! `there` is null where that is not known; `default_from` is `kernel` (this one) or `upstream`;
//! `matters` is `yes`, `no` or `unknown`.

use bytes::{BufMut as _, BytesMut};
use serde_json::{Value, json};

use tcptrace_doctor::{
    Diagnosis,
    facts::{HostFacts, NetnsFacts},
    finding::Finding,
    knobs::{self, Row},
};
use tcptrace_model::Knob;

pub(super) fn report(
    host: &HostFacts,
    diagnosis: &Diagnosis,
    time: Option<String>,
    out: &mut BytesMut,
) {
    let unseen = diagnosis
        .unseen
        .iter()
        .map(|(rule, netns, why)| json!({"rule": rule, "netns": netns, "why": why}));
    let object = json!({
        "v": 1,
        "type": "doctor",
        "time": time,
        "severity": diagnosis.severity().name(),
        "seconds": host.watched.seconds,
        "events": host.watched.events.is_ok(),
        "events_why": host.watched.events.as_ref().err(),
        "lossy": host.watched.lossy,
        "findings": diagnosis.findings.iter().map(finding).collect::<Vec<_>>(),
        "fine": diagnosis.fine,
        "unseen": unseen.collect::<Vec<_>>(),
        "namespaces": host.spaces.iter().map(|space| namespace(host, space)).collect::<Vec<_>>(),
    });
    out.put_slice(object.to_string().as_bytes());
    out.put_u8(b'\n');
}

fn finding(finding: &Finding) -> Value {
    let about = &finding.about;
    let helps = about.helps.iter().map(|help| json!({"what": help.what, "cost": help.cost}));
    json!({
        "rule": finding.rule,
        "severity": about.severity.name(),
        "netns": finding.netns,
        "seen": about.seen,
        "why": about.why,
        "helps": helps.collect::<Vec<_>>(),
        "useless": about.useless,
        "docs": about.docs,
    })
}

fn namespace(host: &HostFacts, space: &NetnsFacts) -> Value {
    let rows: Vec<_> = knobs::rows(host, space).iter().map(knob).collect();
    json!({"netns": space.netns, "knobs": rows})
}

fn knob(row: &Row) -> Value {
    let (there, value, unreadable) = match &row.value {
        Knob::Is(value) => (Some(true), Some(value.as_str()), None),
        Knob::Absent => (Some(false), None, None),
        Knob::Unreadable(why) => (None, None, Some(&**why)),
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
