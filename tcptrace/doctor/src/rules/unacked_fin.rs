//! Closed connections whose last data or FIN no peer acknowledges.

use super::count::peers;
use crate::{
    facts::{HostFacts, NetnsFacts, Who, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;
use tcptrace_stats::stuck::{Cause, LEAK};

/// So many take memory that counts for `tcp_max_orphans`.
const MANY: u64 = 100;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let states = [TcpState::FinWait1, TcpState::Closing, TcpState::LastAck];
    let waiting = space.waiting(&states, &[Cause::NoAck, Cause::NoProbeAnswer]);
    let waiting = waiting.filter(|waiting| waiting.lasting > 0);
    let count: u64 = waiting.clone().map(|waiting| waiting.lasting).sum();
    let severity = match count {
        MANY.. => Severity::Warning,
        LEAK.. => Severity::Info,
        _ => return Outcome::Fine,
    };
    let orphans = waiting.clone().filter(|waiting| waiting.who == Who::Orphan);
    let orphans: u64 = orphans.map(|waiting| waiting.lasting).sum();
    let in_state = |state: TcpState| {
        let of = waiting.clone().filter(move |waiting| waiting.state == state);
        (state.name(), of.map(|waiting| waiting.lasting).sum::<u64>())
    };
    let by_state = states.map(in_state).into_iter().filter(|(_, count)| *count > 0);
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{count} closed connections get no acknowledgement: {}; {orphans} of them are orphans; to {}",
            most(by_state),
            peers(waiting.map(|waiting| (waiting.peer, waiting.lasting))),
        ),
        why: "The program has closed, and the peer does not acknowledge what is left: its host is gone, \
              or something in between drops the segments. An orphan is given up after \
              tcp_orphan_retries (0 acts as 8, some 100 s), and all of them together are bounded by \
              tcp_max_orphans.",
        helps: vec![
            Help::new("when the kernel gives each up: tcptrace stuck fin-wait1,last-ack", "none"),
            Help::command(
                space.sysctl("net.ipv4.tcp_orphan_retries", 4),
                "gives up on a dead peer after some 6 s; a peer that is merely slow loses the end of \
                 its data",
            ),
        ],
        useless: &["tcp_fin_timeout: it begins when the FIN is acknowledged"],
        docs: "ip-sysctl: tcp_orphan_retries, tcp_max_orphans",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn closed_connections_that_nobody_acknowledges_are_counted_by_state() {
        let with = |count| {
            let of = |state, who, count| waiting(state, Cause::NoAck, who, count);
            let waiting = vec![
                of(TcpState::FinWait1, Who::Orphan, count - 2),
                of(TcpState::LastAck, app(), 2),
            ];
            NetnsFacts { waiting, ..space() }
        };
        assert_fine(rule, with(LEAK - 1));
        assert_eq!(found(rule, with(MANY - 1)).severity, Severity::Info);
        let about = found(rule, with(MANY));
        assert_eq!(about.severity, Severity::Warning);
        let says = "100 closed connections get no acknowledgement: FIN_WAIT1 (98), LAST_ACK (2); 98 of \
                    them are orphans; to 10.0.0.2:443 (100)";
        assert_eq!(about.seen, says);
    }
}
