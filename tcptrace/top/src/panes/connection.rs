//! One connection's whole life, as a time line.

use super::{
    super::listing::{Listing, Row, Tone},
    Look,
};
use tcptrace_model::{Age, Opened, OwnerFrom, TcpState, task::escape};
use tcptrace_stats::conns::{Connection, least_ns};
use tcptrace_view::{
    number::{age_within, bytes_short, ms_within},
    table::{end, process},
    who,
};

pub(in super::super) fn listing(look: &mut Look<'_>, id: u64) -> Listing {
    let standing = look.tracker.standing(look.now_ns).find(|standing| standing.found.id == id);
    let one = match &standing {
        // It is where the tracker says, since it says.
        Some(standing) => Some(look.data.lives.standing(&standing.found, look.now_ns)),
        None => look.data.lives.ended().into_iter().find(|one| one.id == id),
    };
    let Some(one) = one else {
        let note = "nothing is known of it any more: it ended, and others ended since";
        return Listing { notes: vec![note.to_owned()], ..Listing::default() };
    };
    let in_state = standing.map(|standing| standing.in_state);
    let mut rows = about(look, &one);
    rows.push(Row::default());
    rows.push(Row::new(
        format!("{:15} {:12} {:>12}  OF ITS LIFE", "AT", "STATE", "MS"),
        Tone::Head,
    ));
    rows.extend(steps(look, &one, in_state));
    rows.push(Row::default());
    rows.extend(end_of(&one));
    let transitions = transitions(look, id);
    if !transitions.is_empty() {
        rows.push(Row::default());
        rows.push(Row::new("TRANSITIONS that are still kept", Tone::Head));
        rows.extend(transitions);
    }
    let mut notes = Vec::new();
    if look.data.lives.evicted() > 0 {
        notes.push(format!(
            "of {} connections the times before are not kept any more",
            look.data.lives.evicted()
        ));
    }
    if one.lacks_times() {
        notes.push("its times before TIME_WAIT are not kept any more: others came".to_owned());
    }
    Listing { head: String::new(), rows, notes }
}

/// What it is.
fn about(look: &mut Look<'_>, one: &Connection) -> Vec<Row> {
    let tuple = &one.tuple;
    let arrow = match one.birth.map(|birth| birth.opened) {
        Some(Opened::Connect) => "->",
        Some(Opened::Accept) => "<-",
        Some(Opened::Listen) | None => "--",
    };
    let ends = format!(
        "{} {arrow} {}",
        end(tuple.local_ip(), tuple.lport),
        end(tuple.remote_ip(), tuple.rport)
    );
    let known = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let netns = one.netns.map(|netns| look.tracker.namespaces().long(netns));
    let kernel =
        format!("  netns {}  cookie {}", netns.as_deref().unwrap_or("-"), known(one.cookie));
    let owner = one.owner.map_or("owner not known".to_owned(), |owner| {
        let task = owner.task;
        let from = match owner.from {
            OwnerFrom::Snapshot => "had it open",
            from => from.name(),
        };
        format!("owner {} pid {} uid {} ({from})", task.name(), task.pid_text(), task.uid)
    });
    let closer = one.closer.map_or_else(String::new, |closer| {
        let task = closer.task;
        format!(
            "closed from here by {} pid {} ({})  ",
            task.name(),
            task.pid_text(),
            closer.from.name()
        )
    });
    let holder = one.holder.map_or_else(String::new, |holder| {
        let also = who::also(&holder).map_or_else(String::new, |also| format!(", {also}"));
        format!("held by {}{also}", process(Some(&holder.task)))
    });
    let unit = one
        .cgroup
        .and_then(|id| look.tracker.cgroup(id))
        .map_or_else(String::new, |unit| format!("  unit {}", escape(unit.name().as_bytes())));
    let opened = match one.birth {
        Some(birth) => {
            let how = match birth.opened {
                Opened::Connect => "opened from here",
                Opened::Accept => "opened by the peer",
                Opened::Listen => "listens",
            };
            format!("{how} at {}", at(look, birth.mono_ns))
        }
        None => "was there before: its beginning was not seen".to_owned(),
    };
    vec![
        Row::new(ends, Tone::Head).and(kernel, Tone::Plain),
        Row::new(format!("{owner}{unit}"), Tone::Plain),
        Row::new(format!("{closer}{holder}"), Tone::Plain),
        Row::new(format!("{opened}; lived {} ms", age_within(one.life(), 12)), Tone::Plain),
    ]
}

/// Time of day to the millisecond, of `CLOCK_MONOTONIC` nanoseconds.
fn at(look: &mut Look<'_>, mono_ns: u64) -> String {
    let clock = look.wall.at(mono_ns);
    clock.map_or("-".to_owned(), |(text, ns)| format!("{text}.{:03}", ns / 1_000_000))
}

/// Each state that it was in, from when on, and for how long.
fn steps(look: &mut Look<'_>, one: &Connection, in_state: Option<Age>) -> Vec<Row> {
    let mut times: Vec<(TcpState, Age)> = one.times.iter().collect();
    // The tracker knows best how long it has been where it is.
    if let Some(age) = in_state {
        match times.last_mut() {
            Some(last) if last.0 == one.state => last.1 = age,
            _ => times.push((one.state, age)),
        }
    }
    let whole: u64 = times.iter().map(|(_, age)| least_ns(*age)).sum();
    let ended_ns = one.mono_ns;
    let mut begins_ns = match one.birth {
        Some(birth) => birth.mono_ns,
        None => ended_ns.saturating_sub(whole),
    };
    let room = look.width.saturating_sub(46).clamp(1, 100) as u128;
    let mut before: u64 = 0;
    let mut rows = Vec::new();
    for (state, age) in times {
        let ns = least_ns(age);
        let scale = |ns: u64| (room * u128::from(ns) / u128::from(whole.max(1))) as usize;
        let (from, to) = (scale(before), scale(before + ns));
        let bar = "█".repeat((to - from).max(1));
        let text = format!("{:15} {state:12} {:>12}  ", at(look, begins_ns), age_within(age, 12));
        let tone = match state {
            TcpState::CloseWait | TcpState::FinWait2 | TcpState::LastAck => Tone::Warn,
            _ => Tone::Good,
        };
        let space = " ".repeat(from.min(room as usize - 1));
        let row = Row::new(text, Tone::Plain).and(space, Tone::Plain).and(bar, tone);
        let goes_on = state == one.state && one.state != TcpState::Close;
        rows.push(if goes_on { row.and(" …", Tone::Dim) } else { row });
        before += ns;
        begins_ns = begins_ns.saturating_add(ns);
    }
    if one.state == TcpState::Close {
        rows.push(Row::new(format!("{:15} {}", at(look, ended_ns), one.state), Tone::Plain));
    }
    rows
}

/// How it ended, and what it carried.
fn end_of(one: &Connection) -> Vec<Row> {
    let mut rows = Vec::new();
    let verdict = one.verdict;
    if verdict.initiator.is_some() || verdict.how.is_some() {
        let by = verdict.initiator.map_or("not known", |initiator| initiator.name());
        let how = verdict.in_full().map_or("not settled".to_owned(), |how| how.to_string());
        let reason = one
            .end_reason
            .map_or_else(String::new, |reason| format!("; its minisock: {}", reason.name()));
        let text = format!("closed first: {by}; how: {how}{reason}");
        rows.push(Row::new(text, Tone::Plain));
    }
    if let Some(traffic) = one.traffic {
        let rtt = traffic.srtt_ns.map_or("-".to_owned(), |ns| ms_within(ns, 9));
        let most = if traffic.sent_at_most { "≤" } else { "" };
        let text = format!(
            "sent {most}{}, received {}, round trip {rtt} ms, {} retransmits",
            bytes_short(traffic.sent),
            bytes_short(traffic.received),
            traffic.retransmits
        );
        rows.push(Row::new(text, Tone::Plain));
    } else if let Some(resent) = one.retransmits() {
        rows.push(Row::new(format!("at least {} retransmits", resent.count), Tone::Plain));
    }
    rows
}

/// Its transitions in the live stream.
fn transitions(look: &mut Look<'_>, id: u64) -> Vec<Row> {
    let moves: Vec<_> = look.data.stream.iter().filter(|moved| moved.id == id).copied().collect();
    let mut rows = Vec::new();
    for moved in moves {
        let text = format!(
            "{:15} {:11} -> {:11} {:>12} ms",
            at(look, moved.mono_ns),
            moved.old,
            moved.new,
            age_within(moved.in_old, 12)
        );
        rows.push(Row::new(text, Tone::Plain));
    }
    rows
}
