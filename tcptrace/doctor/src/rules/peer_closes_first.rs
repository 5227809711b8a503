//! Upstreams that close connections first which were opened from here: a pool's connections.

use super::count::{ends, peers, seen, sum};
use crate::{
    facts::{Ended, HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::{How, Initiator, Opened};

/// Fewer show no habit.
const MANY: u64 = 20;
/// What did not live as long is a request and its answer, after which a server may well close first.
const LIVED_MS: u64 = 1000;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    if let Err(why) = &host.watched.events {
        return Outcome::Unseen(why.clone());
    }
    let closed = ends(space, |ended: &Ended| {
        ended.opened == Some(Opened::Connect)
            && ended.initiator == Some(Initiator::Remote)
            && ended.how == How::Fin
            && ended.lived_ms.0 >= LIVED_MS
    });
    let count = sum(closed.clone());
    if count < MANY {
        return Outcome::Fine;
    }
    let shortest_ms = closed.clone().map(|ended| ended.lived_ms.0).min().unwrap_or(0);
    let longest_ms = closed.clone().map(|ended| ended.lived_ms.1).max().unwrap_or(0);
    let shortest = shortest_ms as f64 / 1000.0;
    Outcome::Found(About {
        severity: Severity::Info,
        is_forecast: false,
        amount: count,
        seen: format!(
            "connections opened from here were closed first by their peer: {}, {shortest:.1} to {:.1} s \
             old, by {}; here: {}",
            seen(host, count),
            longest_ms as f64 / 1000.0,
            peers(closed.clone().map(|ended| (ended.peer, ended.count))),
            most(closed.map(|ended| (ended.who.as_str(), ended.count))),
        ),
        why: "A server closes connections that are idle for longer than its keep-alive timeout. A \
              request that is sent in that very moment meets a RST. Whether these were idle was not \
              seen.",
        helps: vec![Help::new(
            format!(
                "if they come from a pool: let it drop what is idle for longer than {:.1} s, a little \
                 less than the shortest lived here",
                shortest * 0.9
            ),
            "TIME_WAIT is here then, and no longer at the peer",
        )],
        useless: &["tcp_keepalive_time: its probes do not count as requests at the peer"],
        docs: "tcptrace explain peer-closes-first",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_peer_that_closes_old_connections_first_is_named() {
        let with = |count, lived_ms, initiator| {
            let mut space = space();
            ended(&mut space, How::Fin, count);
            space.endings[0].initiator = Some(initiator);
            space.endings[0].lived_ms = lived_ms;
            space
        };
        let peer = Initiator::Remote;
        assert_fine(rule, with(MANY - 1, (5000, 5200), peer));
        assert_fine(rule, with(MANY, (LIVED_MS - 1, 5200), peer));
        assert_fine(rule, with(MANY, (5000, 5200), Initiator::Local));
        let about = found(rule, with(MANY, (5000, 5200), peer));
        assert_eq!(about.severity, Severity::Info);
        let says = "connections opened from here were closed first by their peer: 20 in 5.0 s, 5.0 to \
                    5.2 s old, by 10.0.0.2:80 (20); here: app :80 (20)";
        assert_eq!(about.seen, says);
        assert!(about.helps[0].words().contains("4.5 s"), "{:?}", about.helps);
    }
}
