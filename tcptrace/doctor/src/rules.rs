//! The rules: one small pure function a file, over the facts of a host and of one of its network
//! namespaces. Thresholds are constants beside the rule, with the reason for them.

use super::{
    facts::{HostFacts, NetnsFacts},
    finding::Outcome,
};

mod abort_on_overflow;
mod accept_queue;
mod black_hole;
mod close_wait;
mod count;
mod fin_timeout;
mod fin_wait2;
mod gave_up;
mod keepalive;
mod linger_zero;
mod lost_events;
mod orphans;
mod peer_closes_first;
mod port_range;
mod ports;
mod refused;
mod resets;
mod syn_queue;
mod syn_timeout;
mod time_wait;
mod tw_buckets;
mod tw_overflow;
mod tw_recycle;
mod tw_reuse;
mod unacked_fin;
mod unread_data;
mod zero_window;

/// A rule.
pub type Rule = fn(&HostFacts, &NetnsFacts) -> Outcome;

/// All of them, by name, in the order in which findings of one severity are shown.
pub const ALL: &[(&str, Rule)] = &[
    ("ports", ports::rule),
    ("accept-queue", accept_queue::rule),
    ("syn-queue", syn_queue::rule),
    ("orphans", orphans::rule),
    ("close-wait", close_wait::rule),
    ("black-hole", black_hole::rule),
    ("syn-timeout", syn_timeout::rule),
    ("refused", refused::rule),
    ("resets", resets::rule),
    ("zero-window", zero_window::rule),
    ("unacked-fin", unacked_fin::rule),
    ("fin-wait2", fin_wait2::rule),
    ("tw-overflow", tw_overflow::rule),
    ("time-wait", time_wait::rule),
    ("linger-zero", linger_zero::rule),
    ("unread-data", unread_data::rule),
    ("gave-up", gave_up::rule),
    ("peer-closes-first", peer_closes_first::rule),
    ("tw-recycle", tw_recycle::rule),
    ("tw-buckets", tw_buckets::rule),
    ("tw-reuse", tw_reuse::rule),
    ("abort-on-overflow", abort_on_overflow::rule),
    ("port-range", port_range::rule),
    ("fin-timeout", fin_timeout::rule),
    ("keepalive", keepalive::rule),
    ("lost-events", lost_events::rule),
];

#[cfg(test)]
pub mod testing {
    //! Facts for the tests of the rules: a host that was watched for 5 s, with one namespace that
    //! is as an empty one begins.

    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        facts::{COUNTERS, Counted, Ended, Listening, Losses, Reading, Waiting, Watched, Who},
        finding::About,
    };
    use tcptrace_model::{Comm, How, Opened, TcpState, Tuple, script::fresh_sysctls};
    use tcptrace_stats::{
        ports::{Flow, Outlook, Path, Row},
        stuck::Cause,
    };

    /// Its counters: all that rules ask for, at 0 both times.
    pub(crate) fn space() -> NetnsFacts {
        let zero = Reading::default();
        let stat = COUNTERS.iter().fold(zero, |stat, name| stat.with(name, Some(0)));
        NetnsFacts {
            netns: 1,
            lists_bound: true,
            sysctls: fresh_sysctls(),
            counters: Counted { first: Some(stat), last: Some(stat), why: None, seconds: 5.0 },
            ..NetnsFacts::default()
        }
    }

    pub(crate) fn host(space: NetnsFacts) -> HostFacts {
        HostFacts {
            watched: Watched { seconds: 5.0, events: Ok(()), lost: Losses::default() },
            defaults: Ok(fresh_sysctls()),
            files: Vec::new(),
            spaces: vec![space],
        }
    }

    /// `name` counted to `before` before it was watched, and by `more` since.
    pub(super) fn count(space: &mut NetnsFacts, name: &str, before: u64, more: u64) {
        let set = |reading: &mut Option<Reading>, value| {
            *reading = Some(reading.unwrap().with(name, Some(value)));
        };
        set(&mut space.counters.first, before);
        set(&mut space.counters.last, before + more);
    }

    /// Ended so: connections that were opened from here, to 10.0.0.2:80.
    pub(super) fn ended(space: &mut NetnsFacts, how: How, count: u64) {
        space.endings.push(Ended {
            who: "app :80".to_owned(),
            how,
            count,
            peer: Some("10.0.0.2:80".parse().unwrap()),
            opened: Some(Opened::Connect),
            initiator: None,
            lived_ms: (0, 0),
        });
    }

    pub(super) fn app() -> Who {
        Who::Process { pid: 7, name: Comm::from("app").into() }
    }

    /// So many that have waited for 5 s, for 10.0.0.2:443 where it is for the peer.
    pub(crate) fn waiting(state: TcpState, cause: Cause, who: Who, lasting: u64) -> Waiting {
        let peer = cause.is_wait().then(|| "10.0.0.2:443".parse().unwrap());
        let now = lasting;
        let (unread, unsent_bytes, oldest_ms) = (0, 0, 5000);
        Waiting { state, cause, who, peer, now, lasting, unread, unsent_bytes, oldest_ms }
    }

    pub(super) fn listening(port: u16, queued: u32, limit: u32) -> Listening {
        let any = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
        let tuple = Tuple { laddr: any, raddr: any, lport: port, rport: 0, v6_socket: false };
        Listening { tuple, who: app(), queued, limit }
    }

    /// 100 ports to 10.0.0.2:443, so many of them taken.
    pub(super) fn path(taken: u64, outlook: Outlook) -> Row {
        let v4 = |last| Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped();
        Row {
            path: Path { netns: Some(1), laddr: v4(1), raddr: v4(2), rport: 443 },
            live: 0,
            time_wait: Some(taken),
            reusable: Some(0),
            uncertain: 0,
            usable: Some(100),
            free: Some(100 - taken),
            free_at_least: Some(100 - taken),
            flow: Flow::default(),
            failed_total: 0,
            own_failed: 0,
            takers: None,
            smoothed: Flow::default(),
            outlook,
        }
    }

    /// What `rule` says of the host's first namespace.
    pub(super) fn ask(rule: Rule, host: &HostFacts) -> Outcome {
        rule(host, &host.spaces[0])
    }

    /// What it says of a host with `space` alone, which must be something.
    #[track_caller]
    pub(super) fn found(rule: Rule, space: NetnsFacts) -> About {
        match ask(rule, &host(space)) {
            Outcome::Found(about) => about,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn assert_fine(rule: Rule, space: NetnsFacts) {
        assert_eq!(ask(rule, &host(space)), Outcome::Fine);
    }

    #[track_caller]
    pub(super) fn assert_unseen(rule: Rule, space: NetnsFacts, says: &str) {
        match ask(rule, &host(space)) {
            Outcome::Unseen(why) => assert!(why.contains(says), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_namespace_as_it_begins_is_fine() {
        for (name, rule) in ALL {
            assert_eq!(ask(*rule, &host(space())), Outcome::Fine, "{name}");
        }
    }
}
