//! The ranking for programs: one object an interval.

use std::collections::BTreeMap;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::ranking::{Ranking, seconds};
use crate::time::WallClock;
use tcptrace_model::{EndReason, Initiator};
use tcptrace_stats::{
    closers::{Fate, Tally},
    group::{By, Key},
    named::Group,
};

/// `{"v":2,"type":"closers",…}`
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
    by: &'static str,
    closed: u64,
    failed: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    key: Option<String>,
    /// All groups that were not to be shown or for which there was no room: no task's name can be
    /// mistaken for that.
    other: bool,
    /// Of a group by process and port: the closer, or the owner where no process closed it.
    process: Option<String>,
    port: Option<u16>,
    /// At which end the port is.
    port_of: Option<&'static str>,
    closed: u64,
    per_s: f64,
    share: f64,
    initiators: Initiators,
    endings: Vec<EndingRow>,
    active: Active,
    failed: BTreeMap<&'static str, u64>,
    time_wait: TimeWait,
}

#[derive(Serialize)]
struct Initiators {
    local: u64,
    remote: u64,
    both: u64,
    none: u64,
    unknown: u64,
}

#[derive(Serialize)]
struct EndingRow {
    initiator: Option<&'static str>,
    how: &'static str,
    /// `entered`, `never-created`, or null.
    time_wait: Option<&'static str>,
    count: u64,
}

/// Connections that this end closed first, alone or with the peer.
#[derive(Serialize)]
struct Active {
    closed: u64,
    entered_time_wait: u64,
    /// Why the others did not.
    not: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct TimeWait {
    now: u64,
    /// Within the interval, of all of them added up.
    seconds: f64,
    /// Whether that is a lower bound.
    at_least: bool,
}

impl From<&Tally> for Active {
    fn from(tally: &Tally) -> Self {
        let mut not = BTreeMap::new();
        for (ending, count) in tally.endings().filter(|(ending, _)| ending.is_active()) {
            let why = match ending.fate {
                Fate::TimeWait => continue,
                Fate::NeverCreated => EndReason::NeverCreated.name(),
                Fate::Over => ending.how.name(),
            };
            *not.entry(why).or_default() += count;
        }
        Self {
            closed: tally.count(|ending| ending.is_active()),
            entered_time_wait: tally
                .count(|ending| ending.is_active() && ending.fate == Fate::TimeWait),
            not,
        }
    }
}

fn row(ranking: &Ranking, group: &Group, tally: &Tally) -> Row {
    let (process, port) = match group.key() {
        Key::Service(name, port) => (name.map(|name| name.to_string()), port),
        _ => (None, None),
    };
    let initiator = |which| tally.by(Some(which));
    Row {
        key: group.label(),
        other: group.key() == Key::Other,
        process,
        port: port.map(|port| port.number()),
        port_of: port.map(|port| port.end()),
        closed: tally.closed(),
        per_s: ranking.per_second(tally.closed()),
        share: ranking.share(tally),
        initiators: Initiators {
            local: initiator(Initiator::Local),
            remote: initiator(Initiator::Remote),
            both: initiator(Initiator::Both),
            none: initiator(Initiator::None),
            unknown: tally.by(None),
        },
        endings: tally
            .endings()
            .map(|(ending, count)| EndingRow {
                initiator: ending.initiator.map(Initiator::name),
                how: ending.how.name(),
                time_wait: match ending.fate {
                    Fate::TimeWait => Some("entered"),
                    Fate::NeverCreated => Some(EndReason::NeverCreated.name()),
                    Fate::Over => None,
                },
                count,
            })
            .collect(),
        active: tally.into(),
        failed: tally.failures().map(|(how, count)| (how.name(), count)).collect(),
        time_wait: TimeWait {
            now: tally.alive(),
            seconds: seconds(tally.time_wait_ns()),
            at_least: tally.at_least(),
        },
    }
}

/// Writes a ranking.
pub(super) fn print(ranking: &Ranking, by: Option<By>, wall: &mut WallClock, out: &mut BytesMut) {
    let mut time = BytesMut::new();
    let time = wall
        .put_rfc3339(&mut time, ranking.to_ns)
        .then(|| String::from_utf8_lossy(&time).into_owned());
    let (from, to) = ranking.stretch();
    let shown = ranking.groups.iter().map(|(group, tally)| row(ranking, group, tally));
    let others = ranking.others.iter().map(|(_, tally)| row(ranking, &Key::Other.into(), tally));
    let line = Line {
        v: 2,
        r#type: "closers",
        time,
        mono_ns: ranking.to_ns.to_string(),
        from,
        to,
        by: by.map_or("process,port", By::name),
        closed: ranking.all.closed(),
        failed: ranking.all.failed(),
        rows: shown.chain(others).collect(),
    };
    // Neither writing to memory fails nor is there a map with keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), &line);
    out.put_u8(b'\n');
}
