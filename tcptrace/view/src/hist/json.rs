//! Histograms for programs: one object an interval, with the buckets.

use std::collections::BTreeMap;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::subject::{Stretch, Subject, groups};
use crate::time::WallClock;
use tcptrace_stats::{
    durations::{Durations, Span},
    group::{By, Key},
    measure::Measure,
    steps::{Side, Steps},
};
use tcptrace_track::Tracker;

/// `{"v":2,"type":"hist",…}`
#[derive(Serialize)]
struct Line {
    v: u32,
    r#type: &'static str,
    /// RFC 3339, of the interval's end.
    time: Option<String>,
    mono_ns: String,
    /// Seconds since the hooks came into force.
    from: f64,
    to: f64,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body {
    Durations { rows: Vec<Row> },
    Steps { began_local: u64, began_peer: u64, aborted: u64, steps: Vec<StepRow> },
}

#[derive(Serialize)]
struct Row {
    state: &'static str,
    by: Option<&'static str>,
    key: Option<String>,
    /// All groups for which there was no room: no task's name can be mistaken for that.
    other: bool,
    #[serde(flatten)]
    measure: Numbers,
}

#[derive(Serialize)]
struct StepRow {
    initiator: &'static str,
    old: &'static str,
    new: &'static str,
    waits_for: &'static str,
    what: &'static str,
    #[serde(flatten)]
    measure: Numbers,
}

#[derive(Serialize)]
struct Numbers {
    count: u64,
    mean_ms: Option<f64>,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
    /// How far off those may be that a timer dates.
    within_ms: f64,
    at_least: AtLeast,
    unknown: u64,
    ends: BTreeMap<&'static str, u64>,
    buckets: Vec<Bucket>,
}

#[derive(Serialize)]
struct AtLeast {
    count: u64,
    max_ms: Option<f64>,
}

/// `count` more that took at most `le_ms`, and more than the bucket before.
#[derive(Serialize)]
struct Bucket {
    le_ms: f64,
    count: u64,
}

/// Microseconds as milliseconds; rounded down to those, as everywhere.
fn ms(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1e3
}

impl From<&Measure> for Numbers {
    fn from(measure: &Measure) -> Self {
        let (at_least, at_least_max_ns) = measure.at_least();
        Self {
            count: measure.count(),
            mean_ms: measure.mean_ns().map(ms),
            p50_ms: measure.quantile_ns(0.5).map(ms),
            p90_ms: measure.quantile_ns(0.9).map(ms),
            p99_ms: measure.quantile_ns(0.99).map(ms),
            max_ms: measure.max_ns().map(ms),
            within_ms: ms(measure.about().1),
            at_least: AtLeast {
                count: at_least,
                max_ms: (at_least > 0).then(|| ms(at_least_max_ns)),
            },
            unknown: measure.unknown(),
            ends: measure.ends().map(|(reason, count)| (reason.name(), count)).collect(),
            buckets: measure
                .buckets()
                .map(|(us, count)| Bucket { le_ms: us as f64 / 1e3, count })
                .collect(),
        }
    }
}

fn rows(durations: &Durations, tracker: &Tracker) -> Vec<Row> {
    Span::ALL
        .into_iter()
        .flat_map(|span| {
            groups(durations, span, tracker).into_iter().map(move |(group, measure)| Row {
                state: span.name(),
                by: durations.split(span).map(By::name),
                key: group.label(),
                other: group.key() == Key::Other,
                measure: (&*measure).into(),
            })
        })
        .collect()
}

fn steps(steps: &Steps) -> Body {
    let initiator = |side| match side {
        Side::Local => "local",
        Side::Peer => "peer",
    };
    Body::Steps {
        began_local: steps.began(Side::Local),
        began_peer: steps.began(Side::Peer),
        aborted: steps.aborted(),
        steps: steps
            .taken()
            .map(|(step, measure)| StepRow {
                initiator: initiator(step.side),
                old: step.from.name(),
                new: step.to.name(),
                waits_for: step.waits_for,
                what: step.what,
                measure: measure.into(),
            })
            .collect(),
    }
}

/// Writes all that was measured in `stretch`.
pub(super) fn print(
    subject: &Subject,
    stretch: Stretch,
    tracker: &Tracker,
    wall: &mut WallClock,
    out: &mut BytesMut,
) {
    let mut time = BytesMut::new();
    let time = wall
        .put_rfc3339(&mut time, stretch.to_ns)
        .then(|| String::from_utf8_lossy(&time).into_owned());
    let (from, to) = stretch.seconds();
    let line = Line {
        v: 2,
        r#type: "hist",
        time,
        mono_ns: stretch.to_ns.to_string(),
        from,
        to,
        body: match subject {
            Subject::Durations(durations) => Body::Durations { rows: rows(durations, tracker) },
            Subject::Steps(of) => steps(of),
        },
    };
    // Neither writing to memory fails nor is there a map with keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), &line);
    out.put_u8(b'\n');
}
