//! Processes that do not close connections of which the peer has closed its end.

use crate::{
    facts::{HostFacts, NetnsFacts, Who, most},
    finding::{About, Help, Outcome, Severity},
};

/// Sockets of one holder that stayed in CLOSE_WAIT all the time that was watched: that many are not
/// work that is just being finished.
const LEAK: u64 = 10;
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

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let leaks: Vec<_> =
        space.close_wait.iter().filter(|group| group.count.stayed >= LEAK).collect();
    let Some(worst) = leaks.iter().map(|group| group.count.stayed).max() else {
        return Outcome::Fine;
    };
    let severity = if worst >= NEAR_ITS_LIMIT { Severity::Critical } else { Severity::Warning };
    let names: Vec<_> = leaks.iter().map(|group| group.who.to_string()).collect();
    let counts = leaks.iter().map(|group| group.count.stayed);
    let total: u64 = counts.clone().sum();
    let unread: u64 = leaks.iter().map(|group| group.unread).sum();
    let oldest = leaks.iter().filter_map(|group| group.oldest_ms).max();
    let oldest = match oldest {
        Some(ms) => format!(", the oldest for {} s at least", ms / 1000),
        None => String::new(),
    };
    let queued = leaks.iter().any(|group| group.who == Who::NotAccepted);
    let held = leaks.iter().any(|group| group.who != Who::NotAccepted);
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
        seen: format!(
            "{total} connections were in CLOSE_WAIT for all of {:.1} s{oldest}: {}; in {unread} of \
             them there is data, or the end of it, that was not read",
            host.watched.seconds,
            most(names.iter().map(String::as_str).zip(counts)),
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
    use crate::facts::{CloseWait, Lasting};
    use tcptrace_model::Comm;

    fn with(stayed: u64) -> NetnsFacts {
        let who = Who::Process { pid: 7, comm: Comm::from("leaky") };
        let count = Lasting { now: 5000, stayed };
        let group = CloseWait { who, count, unread: 3, oldest_ms: None };
        NetnsFacts { close_wait: vec![group], ..space() }
    }

    #[test]
    fn those_that_stay_are_a_leak() {
        assert_fine(rule, with(LEAK - 1));
        let about = found(rule, with(LEAK));
        assert_eq!(about.severity, Severity::Warning);
        let says = "10 connections were in CLOSE_WAIT for all of 5.0 s: leaky, pid 7 (10); in 3 of";
        assert!(about.seen.starts_with(says), "{}", about.seen);
        assert_eq!(found(rule, with(NEAR_ITS_LIMIT)).severity, Severity::Critical);
    }

    #[test]
    fn what_was_not_accepted_is_no_descriptor_that_somebody_forgot() {
        let mut queued = with(LEAK);
        queued.close_wait[0].who = Who::NotAccepted;
        let about = found(rule, queued.clone());
        assert_eq!(about.why, QUEUED);
        assert!(about.helps.iter().all(|help| !help.what.contains("close()")), "{:?}", about.helps);
        queued.close_wait.extend(with(LEAK).close_wait);
        let about = found(rule, queued);
        assert_eq!((about.why, about.helps.len()), (BOTH, 3));
        assert_eq!(found(rule, with(LEAK)).why, HELD);
    }

    #[test]
    fn the_oldest_of_a_leak_is_told_of_where_its_age_is_known() {
        let mut space = with(LEAK);
        let mut older = space.close_wait[0];
        older.oldest_ms = Some(7_200_999);
        space.close_wait.push(older);
        // No leak, whatever its age.
        space.close_wait.push(CloseWait {
            oldest_ms: Some(9_999_999),
            count: Lasting { now: 1, stayed: 1 },
            ..older
        });
        let seen = found(rule, space).seen;
        assert!(seen.contains("for all of 5.0 s, the oldest for 7200 s at least: "), "{seen}");
    }
}
