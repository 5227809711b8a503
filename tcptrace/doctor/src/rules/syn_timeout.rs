//! connect() to which nobody answers.

use super::count::{ends, peers, seen, sum};
use crate::{
    facts::{Ended, HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::{How, TcpState, Timeout};
use tcptrace_stats::stuck::Cause;

/// One may be a typing error.
const MANY: u64 = 5;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let over = ends(space, |ended: &Ended| ended.how == How::Timeout(Timeout::Syn));
    let waiting = space.waiting(&[TcpState::SynSent], &[Cause::NoSynAck]);
    let gave_up = sum(over.clone());
    let wait: u64 = waiting.clone().map(|waiting| waiting.lasting).sum();
    let count = gave_up + wait;
    let severity = match (count, &host.watched.events) {
        (MANY.., _) => Severity::Warning,
        (1.., _) => Severity::Info,
        (0, Err(why)) => return Outcome::Unseen(why.clone()),
        (0, Ok(())) => return Outcome::Fine,
    };
    let to = over.clone().map(|ended| (ended.peer, ended.count));
    let to = to.chain(waiting.clone().map(|waiting| (waiting.peer, waiting.lasting)));
    let names: Vec<_> = waiting.map(|one| (one.who.to_string(), one.lasting)).collect();
    let names = names.iter().map(|(name, count)| (name.as_str(), *count));
    let by = most(over.map(|ended| (ended.who.as_str(), ended.count)).chain(names));
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "connect() was given up without an answer: {}; {wait} more wait now; to {}; by {by}",
            seen(host, gave_up),
            peers(to.filter(|(_, count)| *count > 0)),
        ),
        why: "A SYN that is not answered is sent again after 1, 2, 4, ... s, tcp_syn_retries times. \
              There is no such host, a firewall drops the SYN or the answer, or a queue of the peer's \
              listener is full. It is not refused: that would be said at once.",
        helps: vec![
            Help::new("whether a SYN arrives: tcpdump at the peer, or tcptrace there", "none"),
            Help::new(
                "at the peer: nstat -az TcpExtListenOverflows TcpExtTCPReqQFullDrop, or tcptrace \
                 doctor: a full queue drops SYNs",
                "none",
            ),
            Help::new(
                "a timeout of the program's own for connect()",
                "a change of the program; without one it waits for some two minutes",
            ),
        ],
        useless: &["tcp_tw_reuse, tcp_fin_timeout: no connection is there yet"],
        docs: "ip-sysctl: tcp_syn_retries; tcptrace explain timeout",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn with(gave_up: u64, wait: u64) -> NetnsFacts {
        let mut space = space();
        if gave_up > 0 {
            ended(&mut space, How::Timeout(Timeout::Syn), gave_up);
        }
        let peer = Some("10.0.0.3:5432".parse().unwrap());
        let waiting = waiting(TcpState::SynSent, Cause::NoSynAck, app(), wait);
        space.waiting.push(crate::facts::Waiting { peer, ..waiting });
        space
    }

    #[test]
    fn those_that_gave_up_and_those_that_wait_count() {
        assert_fine(rule, with(0, 0));
        assert_eq!(found(rule, with(0, 1)).severity, Severity::Info);
        assert_eq!(found(rule, with(2, 2)).severity, Severity::Info);
        let about = found(rule, with(2, 3));
        assert_eq!(about.severity, Severity::Warning);
        let says = "connect() was given up without an answer: 2 in 5.0 s; 3 more wait now; to \
                    10.0.0.3:5432 (3), 10.0.0.2:80 (2); by app, pid 7 (3), app :80 (2)";
        assert_eq!(about.seen, says);
        let mut host = host(with(0, 0));
        host.watched.events = Err("not root".to_owned());
        assert!(matches!(ask(rule, &host), Outcome::Unseen(_)));
    }
}
