//! Whose connections are stuck, and to which peers ports run out: with labels, and few of them.
//!
//! Must not decide what is stuck or taken: `stats` does.

use std::collections::BTreeMap;

use super::{
    figures::{Label, Stuck},
    labels::{Labels, UNKNOWN},
};
use tcptrace_model::TcpState;
use tcptrace_stats::{
    group::Key,
    ports::Interval,
    stuck::{Cause, Report, STATES, Whose, diagnosis},
};

/// What there may be, so that a series does not begin with its first trouble.
fn there_may_be() -> impl Iterator<Item = (TcpState, Cause)> {
    let all = STATES.into_iter().flat_map(|state| Cause::ALL.map(|cause| (state, cause)));
    all.filter(|&(state, cause)| !diagnosis(state, cause).is_empty())
}

/// How many are stuck, whosever they are.
pub(super) fn stuck(report: &Report) -> Stuck {
    let count = |(state, cause)| {
        let of = report.sections.iter().find(|of| (of.state, of.cause) == (state, cause));
        (None, state, cause, of.map_or(0, |of| of.stuck))
    };
    there_may_be().map(count).collect()
}

/// The same by the groups of `report`, which `name` names.
pub(super) fn stuck_by(
    report: &Report,
    labels: &mut Labels,
    name: impl Fn(Key) -> String,
) -> Stuck {
    let mut by_name: BTreeMap<(TcpState, Cause, String), u64> = BTreeMap::new();
    for section in &report.sections {
        for (whose, count) in section.stuck_groups() {
            let name = match whose {
                Whose::Known(key) => name(*key),
                // Whoever listens is to accept it.
                Whose::NotAccepted(door) => {
                    door.listener.map_or_else(|| UNKNOWN.to_owned(), |(_, name)| name.to_string())
                }
                Whose::Orphan => ORPHAN.to_owned(),
            };
            *by_name.entry((section.state, section.cause, name)).or_default() += count.stuck;
        }
    }
    by_name.iter().for_each(|((.., name), count)| labels.add(name, *count));
    labels.promote();
    let mut counts: BTreeMap<(Label, TcpState, Cause), u64> =
        there_may_be().map(|(state, cause)| ((Some(UNKNOWN.into()), state, cause), 0)).collect();
    for ((state, cause, name), count) in by_name {
        *counts.entry((Some(labels.of(&name).into()), state, cause)).or_default() += count;
    }
    // Groups that the report has no room for.
    for section in &report.sections {
        let rest = section.rest.1.stuck;
        if rest > 0 {
            let other = Some(super::labels::OTHER.into());
            *counts.entry((other, section.state, section.cause)).or_default() += rest;
        }
    }
    counts.into_iter().map(|((label, state, cause), count)| (label, state, cause, count)).collect()
}

/// The label of what no process has open any more.
const ORPHAN: &str = "(orphan)";

/// Peers that have a label at first, and four times as many ever.
const PEERS: usize = 10;

/// The part of the ports to a peer that is taken, from which on it is worth a label.
const HALF: f64 = 0.5;

/// The peers to which at least half of the ports are taken.
#[derive(Debug)]
pub(super) struct Peers {
    labels: Labels,
    /// As of when, and what there was then.
    last: (u64, Vec<(Box<str>, f64)>),
}

impl Default for Peers {
    fn default() -> Self {
        Self { labels: Labels::new(PEERS), last: (0, Vec::new()) }
    }
}

impl Peers {
    /// As of the last `interval`, which ended then.
    pub(super) fn of(&mut self, interval: Option<(u64, &Interval)>) -> &[(Box<str>, f64)] {
        if let Some((at, interval)) = interval
            && at != self.last.0
        {
            self.last = (at, self.worst(interval));
        }
        &self.last.1
    }

    fn worst(&mut self, interval: &Interval) -> Vec<(Box<str>, f64)> {
        let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
        for row in &interval.rows {
            if let Some(used) = row.used().filter(|used| *used >= HALF) {
                let peer = std::net::SocketAddr::new(row.path.remote_ip(), row.path.rport);
                let worst = by_name.entry(peer.to_string()).or_default();
                *worst = worst.max(used);
            }
        }
        by_name.keys().for_each(|name| self.labels.add(name, 1));
        self.labels.promote();
        let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, used) in &by_name {
            let of = worst.entry(self.labels.of(name)).or_default();
            *of = of.max(*used);
        }
        worst.into_iter().map(|(name, used)| (name.into(), used)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::labels::OTHER;
    use tcptrace_stats::ports::{Flow, Outlook, Path, Row};

    fn row(peer: u8, usable: u64, free: u64) -> Row {
        let mapped = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped();
        let path = Path { netns: Some(1), laddr: mapped(1), raddr: mapped(peer), rport: 443 };
        Row {
            path,
            live: usable - free,
            time_wait: Some(0),
            reusable: Some(0),
            uncertain: 0,
            usable: Some(usable),
            free: Some(free),
            free_at_least: Some(free),
            flow: Flow::default(),
            failed_total: 0,
            own_failed: 0,
            smoothed: Flow::default(),
            outlook: Outlook::Never,
            takers: None,
        }
    }

    fn interval(rows: Vec<Row>) -> Interval {
        Interval { seconds: 10.0, rows, spaces: Vec::new(), left_out: 0, not_remembered: 0 }
    }

    #[test]
    fn a_peer_has_a_label_from_half_of_its_ports_on() {
        let mut peers = Peers::default();
        let rows = vec![row(2, 100, 10), row(3, 100, 50), row(4, 100, 51)];
        let told = peers.of(Some((1, &interval(rows)))).to_vec();
        assert_eq!(told, [("10.0.0.2:443".into(), 0.9), ("10.0.0.3:443".into(), 0.5)]);
        assert_eq!(peers.of(Some((1, &interval(Vec::new())))).len(), 2, "it was asked before");
        assert!(peers.of(Some((2, &interval(Vec::new())))).is_empty());
    }

    #[test]
    fn however_many_peers_there_are_few_have_a_label() {
        let mut peers = Peers::default();
        let mut ever = std::collections::BTreeSet::new();
        for round in 1..200 {
            let rows = (0..100).map(|peer| row((peer + round) as u8, 100, 0)).collect();
            let told = peers.of(Some((round, &interval(rows))));
            assert!(told.iter().any(|(name, used)| &**name == OTHER && *used == 1.0));
            ever.extend(told.iter().map(|(name, _)| name.clone()));
        }
        assert!(ever.len() <= 4 * PEERS + 1, "{ever:?}");
    }
}
