//! Processes that do not close connections of which the peer has closed its end.

use crate::{
    facts::{HostFacts, NetnsFacts, Waiting, Who, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;
use tcptrace_stats::stuck::{Cause, LEAK};

/// As many as a process has open files by default (RLIMIT_NOFILE).
const NEAR_ITS_LIMIT: u64 = 1000;

/// Why, where a process has them open.
const HELD: &str = "The peer has closed, and the kernel waits for this process to do so. Nothing but close() \
                    ends CLOSE_WAIT: there is no timer, and each keeps a file descriptor.";
/// Why, where none has accepted them.
const QUEUED: &str = "The peer has closed before the listener accepted the connection. It takes a place in \
                      the accept queue, and no file descriptor yet; there is no timer.";
/// Why, where there are both.
const BOTH: &str = "The peer has closed, and the kernel waits for this end. Where a process has the socket \
                    open, nothing but its close() ends CLOSE_WAIT; where none has accepted it, it \
                    takes a place in the accept queue. There is no timer.";

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    // Those that still send, or whose peer does not read, are not this process's to close.
    let here = [Cause::NotClosed, Cause::NotAccepted];
    let leaks = space.waiting(&[TcpState::CloseWait], &here);
    let leaks: Vec<&Waiting> = leaks.filter(|group| group.lasting >= LEAK).collect();
    let Some(worst) = leaks.iter().map(|group| group.lasting).max() else {
        return Outcome::Fine;
    };
    let severity = if worst >= NEAR_ITS_LIMIT { Severity::Critical } else { Severity::Warning };
    let names: Vec<_> = leaks.iter().map(|group| group.who.to_string()).collect();
    let counts = leaks.iter().map(|group| group.lasting);
    let total: u64 = counts.clone().sum();
    let unread: u64 = leaks.iter().map(|group| group.unread).sum();
    let oldest_ms = leaks.iter().map(|group| group.oldest_ms).max().unwrap_or(0);
    let is_queued = |group: &&Waiting| matches!(group.who, Who::NotAccepted(_));
    let queued = leaks.iter().any(is_queued);
    let held = leaks.iter().any(|group| !is_queued(group));
    let mut helps = Vec::new();
    if queued {
        helps.push(Help::new(
            "let the listener accept(): it is blocked, or too slow for its queue",
            "a change of the program; closing the listener resets what waits in its queue",
        ));
    }
    if held {
        helps.push(Help::new(
            "close() the socket when read() returns 0; where nothing was read, read",
            "a change of the program: it forgets connections, or a thread of it hangs",
        ));
    }
    helps.push(Help::new(
        "restart the program",
        "ends all its connections; they come back if the cause is still there",
    ));
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: total,
        seen: format!(
            "{total} connections stay in CLOSE_WAIT: {}; the oldest for at least {} s; in {unread} of \
             them there is data, or the end of it, that was not read",
            most(names.iter().map(String::as_str).zip(counts)),
            oldest_ms / 1000,
        ),
        why: match (held, queued) {
            (true, false) => HELD,
            (false, _) => QUEUED,
            (true, true) => BOTH,
        },
        helps,
        useless: &[
            "tcp_keepalive_time: a peer that has closed may answer the probes for ever",
            "tcp_fin_timeout, tcp_tw_reuse, tcp_max_tw_buckets: none is about CLOSE_WAIT",
        ],
        docs: "tcp(7); RFC 9293, 3.3.2: CLOSE-WAIT waits for the local user",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_stats::stuck::Door;

    fn with(lasting: u64) -> NetnsFacts {
        let group = waiting(TcpState::CloseWait, Cause::NotClosed, app(), lasting);
        NetnsFacts { waiting: vec![Waiting { now: 5000, unread: 3, ..group }], ..space() }
    }

    #[test]
    fn those_that_stay_are_a_leak() {
        assert_fine(rule, with(LEAK - 1));
        let about = found(rule, with(LEAK));
        assert_eq!(about.severity, Severity::Warning);
        let says =
            "10 connections stay in CLOSE_WAIT: app, pid 7 (10); the oldest for at least 5 s; in 3";
        assert!(about.seen.starts_with(says), "{}", about.seen);
        assert_eq!(found(rule, with(NEAR_ITS_LIMIT)).severity, Severity::Critical);
    }

    #[test]
    fn what_was_not_accepted_is_no_descriptor_that_somebody_forgot() {
        let laddr = std::net::Ipv6Addr::UNSPECIFIED;
        let door = Door { netns: Some(1), laddr, lport: 80, listener: None };
        let who = Who::NotAccepted(door);
        let mut queued = with(LEAK);
        queued.waiting[0] = waiting(TcpState::CloseWait, Cause::NotAccepted, who, LEAK);
        let about = found(rule, queued.clone());
        assert_eq!(about.why, QUEUED);
        assert!(about.seen.contains("not accepted yet at :80 (10)"), "{}", about.seen);
        assert!(
            about.helps.iter().all(|help| !help.words().contains("close()")),
            "{:?}",
            about.helps
        );
        queued.waiting.extend(with(LEAK).waiting);
        let about = found(rule, queued);
        assert_eq!((about.why, about.helps.len()), (BOTH, 3));
        assert_eq!(found(rule, with(LEAK)).why, HELD);
    }

    #[test]
    fn one_whose_peer_does_not_read_is_no_leak_here() {
        let mut space = with(LEAK);
        space.waiting[0].cause = Cause::ZeroWindow;
        assert_fine(rule, space);
    }

    #[test]
    fn the_oldest_of_a_leak_is_told_of() {
        let mut space = with(LEAK);
        let older = Waiting { oldest_ms: 7_200_999, ..space.waiting[0] };
        space.waiting.push(older);
        // No leak, whatever its age.
        space.waiting.push(Waiting { oldest_ms: 9_999_999, now: 1, lasting: 1, ..older });
        let seen = found(rule, space).seen;
        assert!(seen.contains("the oldest for at least 7200 s; "), "{seen}");
    }
}
