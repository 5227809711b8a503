//! Connections that a peer resets.

use super::count::{ends, is_many, peers, seen, sum};
use crate::{
    facts::{Ended, HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::{How, Opened};

/// Fewer are everyday life: a browser that was closed.
const SOME: u64 = 5;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    if let Err(why) = &host.watched.events {
        return Outcome::Unseen(why.clone());
    }
    let reset = ends(space, |ended: &Ended| ended.how == How::RstReceived);
    let count = sum(reset.clone());
    let all = sum(space.endings.iter());
    let severity = match count {
        count if is_many(count, all) => Severity::Warning,
        SOME.. => Severity::Info,
        _ => return Outcome::Fine,
    };
    let upstream = sum(reset.clone().filter(|ended| ended.opened == Some(Opened::Connect)));
    let from_here = match upstream {
        0 => "none of them was seen to be opened from here".to_owned(),
        all if all == count => "all of them opened from here".to_owned(),
        some => format!("{some} of them opened from here"),
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{}, of {all} that ended, by a RST that came from {}; here: {}; {from_here}",
            seen(host, count),
            peers(reset.clone().map(|ended| (ended.peer, ended.count))),
            most(reset.map(|ended| (ended.who.as_str(), ended.count))),
        ),
        why: "A RST comes where the peer's process has ended or closed with data unread or \
              SO_LINGER 0, where its host has forgotten the connection, or from a firewall or load \
              balancer in between. The program here gets ECONNRESET or EPIPE, and does not know \
              what the peer has taken.",
        helps: vec![
            Help::new("see which, and after how long: tcptrace conns --how rst-received", "none"),
            Help::new(
                "run tcptrace at the peer: there it says whose close() sent the RST, or that none \
                 did, and then something in between has",
                "none",
            ),
        ],
        useless: &[
            "no sysctl of this host keeps a peer from sending RSTs",
            "tcp_rfc1337: it is about RSTs to TIME_WAIT alone",
        ],
        docs: "tcptrace explain rst-received",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_few_are_everyday_life_and_a_share_is_a_warning() {
        let with = |resets, fins| {
            let mut space = space();
            ended(&mut space, How::RstReceived, resets);
            ended(&mut space, How::Fin, fins);
            space
        };
        assert_fine(rule, with(SOME - 1, 0));
        assert_eq!(found(rule, with(SOME, 0)).severity, Severity::Info);
        assert_eq!(found(rule, with(20, 181)).severity, Severity::Info);
        let about = found(rule, with(20, 180));
        assert_eq!(about.severity, Severity::Warning);
        let says = "20 in 5.0 s, of 200 that ended, by a RST that came from 10.0.0.2:80 (20); here: \
                    app :80 (20); all of them opened from here";
        assert_eq!(about.seen, says);
    }

    #[test]
    fn without_events_it_cannot_look() {
        let mut host = host(space());
        host.watched.events = Err("not root".to_owned());
        assert_eq!(ask(rule, &host), Outcome::Unseen("not root".to_owned()));
    }
}
