//! Connections that wait for something, by network namespace, as of the last scan of all sockets.
//!
//! What a connection waits for, and since when, is decided by `tcptrace_stats::stuck::cause`.

use std::{cmp::Reverse, net::SocketAddr};

use tcptrace_model::{Found, TcpState, hash::Map};
use tcptrace_stats::{
    group::By,
    stuck::{Bytes, Cause, Door, Doors, Whose, cause::stuck_for},
};
use tcptrace_track::{Standing, Tracker};

use crate::facts::{Waiting, Who};

/// Groups that are told apart, in all namespaces.
const GROUPS: usize = 1 << 15;

type Group = (u32, TcpState, Cause, Who, Option<SocketAddr>);

/// What waits at `now`; what has for `lasting_ns` or longer is lasting. Connections whose namespace is
/// not known are in `only`, if there is but one.
pub(super) fn waiting(
    now: u64,
    lasting_ns: u64,
    only: Option<u32>,
    tracker: &Tracker,
) -> Map<u32, Vec<Waiting>> {
    let mut doors = Doors::default();
    let mut groups: Map<Group, Waiting> = Map::default();
    for standing in tracker.standing(now) {
        let found = &standing.found;
        if found.state == TcpState::Listen {
            doors.add(found);
            continue;
        }
        let Some(netns) = found.netns.or(only) else { continue };
        if matches!(found.state, TcpState::TimeWait | TcpState::Close) {
            continue;
        }
        let Some(cause) = Cause::of(&standing) else { continue };
        let who = who(cause, &standing);
        let is_peers = cause.is_wait() || cause == Cause::NoSynAck;
        let peer = is_peers.then(|| SocketAddr::new(found.tuple.remote_ip(), found.tuple.rport));
        let mut group = (netns, found.state, cause, who, peer);
        if groups.len() >= GROUPS && !groups.contains_key(&group) {
            group = (netns, found.state, cause, Who::Unknown, None);
        }
        let (_, state, cause, who, peer) = group;
        let new = Waiting {
            state,
            cause,
            who,
            peer,
            now: 0,
            lasting: 0,
            unread: 0,
            unsent_bytes: 0,
            oldest_ms: 0,
        };
        let waiting = groups.entry(group).or_insert(new);
        waiting.now += 1;
        let age_ns = stuck_for(&standing, cause, now).least_ns();
        if age_ns < lasting_ns {
            continue;
        }
        waiting.lasting += 1;
        waiting.oldest_ms = waiting.oldest_ms.max(age_ns / 1_000_000);
        if let Some(queues) = found.queues {
            waiting.unread += u64::from(queues.unread > 0);
            waiting.unsent_bytes += Bytes::of(found.state, queues).unsent;
        }
    }
    let mut of: Map<u32, Map<Group, Waiting>> = Map::default();
    for ((netns, state, cause, who, peer), waiting) in groups {
        // All that wait at one listener are one group, whatever address they came to.
        let who = match who {
            Who::NotAccepted(door) => match doors.resolve(Whose::NotAccepted(door)) {
                Whose::NotAccepted(door) => Who::NotAccepted(door),
                _ => who,
            },
            _ => who,
        };
        let groups = of.entry(netns).or_default();
        let waiting = Waiting { who, ..waiting };
        groups
            .entry((netns, state, cause, who, peer))
            .and_modify(|sum| join(sum, &waiting))
            .or_insert(waiting);
    }
    of.into_iter().map(|(netns, groups)| (netns, sorted(groups))).collect()
}

fn join(sum: &mut Waiting, other: &Waiting) {
    sum.now += other.now;
    sum.lasting += other.lasting;
    sum.unread += other.unread;
    sum.unsent_bytes += other.unsent_bytes;
    sum.oldest_ms = sum.oldest_ms.max(other.oldest_ms);
}

fn sorted(groups: Map<Group, Waiting>) -> Vec<Waiting> {
    let mut all: Vec<_> = groups.into_values().collect();
    all.sort_by_key(|one| (Reverse((one.lasting, one.now)), one.peer, one.who.to_string()));
    all
}

fn who(cause: Cause, standing: &Standing<'_>) -> Who {
    let found: &Found = &standing.found;
    match (Whose::of(By::Holder, Some(cause), standing), found.holder) {
        (Whose::NotAccepted(door), _) => Who::NotAccepted(Door { listener: None, ..door }),
        (Whose::Orphan, _) => Who::Orphan,
        (Whose::Known(_), Some(holder)) => {
            Who::Process { pid: holder.task.tgid, name: holder.task.name() }
        }
        (Whose::Known(_), None) => Who::Unknown,
    }
}
