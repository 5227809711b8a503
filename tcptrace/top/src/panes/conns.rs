//! Connections that have something in common: those that go on, then those that ended.

use std::cmp::Reverse;

use super::{
    super::{
        data::ROWS,
        listing::{Among, Goes, Listing, Row, Tone, cut},
    },
    Look,
};
use tcptrace_model::{Age, Found, Owner, TcpState, task::escape};
use tcptrace_stats::{
    conns::{Connection, least_ns},
    group::{self, By},
    ports::Path,
    stuck::{Bytes, Cause, Doors, Whose},
};
use tcptrace_track::Standing;
use tcptrace_view::{
    number::bytes_short,
    stuck::text::{age, cut as cut_text},
    table::{end, short_how},
    who,
};

/// What it can be ordered by.
pub(in super::super) const SORTS: [&str; 3] = ["age", "newest", "peer"];

/// What these are called.
pub(in super::super) fn title(among: &Among) -> String {
    match among {
        Among::Service(key) => key.to_string(),
        Among::State(state) => state.to_string(),
        Among::Stuck(state, _, whose) => {
            format!("{state} of {}", whose.label().unwrap_or_else(|| "-".to_owned()))
        }
        Among::Path(path) => {
            format!("{} > {}", path.local_ip(), end(path.remote_ip(), path.rport))
        }
    }
}

/// `doors`: the listeners, for those that were not accepted.
fn is_among(among: &Among, standing: &Standing<'_>, doors: &Doors) -> bool {
    let found = &standing.found;
    match among {
        Among::Service(key) => group::service(found) == *key,
        Among::State(state) => found.state == *state,
        Among::Stuck(state, cause, whose) => {
            let of = Cause::of(standing);
            found.state == *state
                && of == Some(*cause)
                && doors.resolve(Whose::of(By::Holder, of, standing)) == *whose
        }
        Among::Path(path) => Path::of(found.netns, &found.tuple) == *path,
    }
}

pub(in super::super) fn listing(look: &mut Look<'_>, among: &Among) -> Listing {
    let standing = look.tracker.standing(look.now_ns);
    let doors = match among {
        Among::Stuck(_, _, Whose::NotAccepted(_)) => Doors::of(look.tracker.census()),
        _ => Doors::default(),
    };
    let shown = |standing: &Standing<'_>| {
        is_among(among, standing, &doors) && look.shown.found(&standing.found)
    };
    let mut open: Vec<Standing<'_>> = standing.filter(shown).collect();
    let count = open.len();
    let old = |standing: &Standing<'_>| least_ns(standing.in_state);
    match look.sort % SORTS.len() {
        1 => open.sort_by_key(|standing| (old(standing), standing.found.id)),
        2 => open.sort_by_key(|standing| {
            let tuple = &standing.found.tuple;
            (tuple.raddr, tuple.rport, tuple.lport)
        }),
        _ => open.sort_by_key(|standing| (Reverse(old(standing)), standing.found.id)),
    }
    let more = cut(&mut open, ROWS);
    let mut rows: Vec<Row> = open
        .iter()
        .map(|Standing { found, in_state, held, scan: _ }| {
            let bytes = found.queues.map(|queues| Bytes::of(found.state, queues));
            let cgroup = found.cgroup.and_then(|id| look.tracker.cgroup(id));
            row(found, *in_state, *held, bytes, cgroup.map(|cgroup| cgroup.name()), look.width)
        })
        .collect();
    let ended = ended(look, among);
    if !ended.is_empty() {
        rows.push(Row::new("ENDED, the last first", Tone::Head));
        rows.extend(ended);
    }
    let mut notes = vec![format!(
        "{}: {count} known, by {}  (s: sort, enter: its life)",
        title(among),
        SORTS[look.sort % SORTS.len()]
    )];
    if more > 0 {
        notes.push(format!("{more} more are not shown: narrow it by a filter"));
    }
    let dropped = look.data.lives.dropped();
    if dropped > 0 {
        notes.push(format!("{dropped} that ended are not kept any more"));
    }
    Listing { head: head(look.width), rows, notes }
}

fn ended(look: &Look<'_>, among: &Among) -> Vec<Row> {
    if matches!(among, Among::State(_) | Among::Stuck(..)) {
        return Vec::new();
    }
    let of = |one: &&Connection| {
        let standing =
            Standing { found: found(one), in_state: Age::Unknown, held: None, scan: None };
        is_among(among, &standing, &Doors::default()) && look.shown.found(&standing.found)
    };
    let newest_first = look.data.lives.ended();
    let rows = newest_first.iter().filter(of).take(ROWS).map(|one| {
        let how = one.verdict.how.map_or("-", short_how);
        let by = one.verdict.initiator.map_or("-", |initiator| initiator.name());
        let words = format!("{by} {how}");
        let who = one.owner.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |Owner { task, .. }| (task.pid_text(), cut_text(&task.name().to_string(), 10)),
        );
        let text = line(&found(one), &age(one.life()), &cut_text(&words, 12), who);
        Row::new(text, Tone::Dim).leading(Goes::Connection(one.id))
    });
    rows.collect()
}

/// A connection that ended, as one that is found.
pub(in super::super) fn found(one: &Connection) -> Found {
    Found {
        id: one.id,
        mono_ns: one.mono_ns,
        state: one.state,
        tuple: one.tuple,
        netns: one.netns,
        birth: one.birth,
        owner: one.owner,
        closer: one.closer,
        holder: one.holder,
        cookie: one.cookie,
        cgroup: one.cgroup,
        mptcp: one.mptcp,
        timestamps: None,
        queues: None,
        retransmits: None,
    }
}

/// What the columns of [`row`] are.
pub(in super::super) fn head(width: usize) -> String {
    let wide = if is_wide(width) { "UNREAD UNSENT UNIT" } else { "" };
    format!(
        "{:>8} {:12}{:>7} {:10} {:21} {:21}{wide}",
        "AGE", "STATE", "PID", "PROCESS", "LOCAL", "PEER"
    )
}

fn is_wide(width: usize) -> bool {
    width >= 110
}

/// A connection that goes on.
pub(in super::super) fn row(
    found: &Found,
    in_state: Age,
    held: Option<bool>,
    bytes: Option<Bytes>,
    unit: Option<&str>,
    width: usize,
) -> Row {
    let who = who::holder(found, held, 10);
    let mut text = line(found, &age(in_state), found.state.name(), who);
    if is_wide(width) {
        let size = |size: Option<u64>| size.map_or("-".to_owned(), bytes_short);
        text += &format!(
            "{:>6} {:>6} {}",
            size(bytes.map(|bytes| bytes.unread)),
            size(bytes.map(|bytes| bytes.unsent)),
            unit.map_or("-".to_owned(), |unit| escape(unit.as_bytes()))
        );
    }
    let tone = if found.state == TcpState::CloseWait { Tone::Warn } else { Tone::Plain };
    Row::new(text, tone).leading(Goes::Connection(found.id))
}

fn line(found: &Found, age: &str, state: &str, (pid, comm): (String, String)) -> String {
    let tuple = &found.tuple;
    let local = end(tuple.local_ip(), tuple.lport);
    let peer = match found.state {
        TcpState::Listen => "*".to_owned(),
        _ => end(tuple.remote_ip(), tuple.rport),
    };
    format!("{age:>8} {state:12}{pid:>7} {comm:10} {local:21} {peer:21} ")
}
