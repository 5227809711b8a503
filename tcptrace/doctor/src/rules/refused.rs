//! connect() that is refused.

use super::count::{ends, is_many, peers, seen, sum};
use crate::{
    facts::{Ended, HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::{How, Opened};

/// Fewer are everyday life: a health check of a server that is being started.
const SOME: u64 = 5;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    if let Err(why) = &host.watched.events {
        return Outcome::Unseen(why.clone());
    }
    let refused = ends(space, |ended: &Ended| ended.how == How::Refused);
    let count = sum(refused.clone());
    let tried = sum(ends(space, |ended: &Ended| ended.opened == Some(Opened::Connect)));
    let severity = match count {
        count if is_many(count, tried) => Severity::Warning,
        SOME.. => Severity::Info,
        _ => return Outcome::Fine,
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "connect() was refused: {}, by {}; here: {}",
            seen(host, count),
            peers(refused.clone().map(|ended| (ended.peer, ended.count))),
            most(refused.map(|ended| (ended.who.as_str(), ended.count))),
        ),
        why: "The SYN was answered with a RST or an ICMP port unreachable: nobody listens at that \
              address and port, or a firewall rejects it. It is no timeout, so the host or the \
              firewall is there.",
        helps: vec![
            Help::new(
                "at the peer: ss -ltn, whether something listens there, and on which address",
                "none",
            ),
            Help::new("a client that waits longer between its tries", "a change of the program"),
        ],
        useless: &["tcp_syn_retries: a SYN that is refused is not sent again"],
        docs: "connect(2): ECONNREFUSED; tcptrace explain refused",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_few_are_everyday_life_and_a_share_is_a_warning() {
        let with = |refused, fins| {
            let mut space = space();
            ended(&mut space, How::Refused, refused);
            ended(&mut space, How::Fin, fins);
            space
        };
        assert_fine(rule, with(SOME - 1, 0));
        assert_eq!(found(rule, with(SOME, 0)).severity, Severity::Info);
        assert_eq!(found(rule, with(20, 181)).severity, Severity::Info);
        let about = found(rule, with(20, 180));
        assert_eq!(about.severity, Severity::Warning);
        let says = "connect() was refused: 20 in 5.0 s, by 10.0.0.2:80 (20); here: app :80 (20)";
        assert_eq!(about.seen, says);
    }
}
