//! Keep-alive that takes hours to notice a dead peer.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::{How, Sysctl, TcpState, Timeout};
use tcptrace_stats::stuck::Cause;

/// From so many connections on, dead ones among them are to be expected.
const MANY: u64 = 100;
/// Longer than this is longer than most firewalls remember an idle connection: seconds.
const LONG_S: i64 = 7200;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let sysctls = &space.sysctls;
    let known = |sysctl: &Sysctl<i64>| sysctl.known().copied().map_err(str::to_owned);
    let after = || {
        let time = known(&sysctls.tcp_keepalive_time)?;
        let intvl = known(&sysctls.tcp_keepalive_intvl)?;
        let probes = known(&sysctls.tcp_keepalive_probes)?;
        Ok::<_, String>(time.saturating_add(intvl.saturating_mul(probes)))
    };
    let after_s = match after() {
        Ok(seconds) => seconds,
        Err(why) => return Outcome::Unseen(format!("the keep-alive sysctls are not known: {why}")),
    };
    let open = space.count(TcpState::Established);
    // Idle connections alone are no sign of dead peers: every host has some.
    let gone = gone(space);
    if open < MANY || after_s < LONG_S || gone == 0 {
        return Outcome::Fine;
    }
    Outcome::Found(About {
        severity: Severity::Info,
        is_forecast: false,
        amount: open,
        seen: format!(
            "{gone} peers have stopped answering, and {open} connections are ESTABLISHED; an idle one \
             whose peer is gone is noticed after {after_s} s, if its program asked for keep-alive, \
             and else never (which of them did is not looked at)",
        ),
        why: "An idle connection sends nothing, so a peer that vanished without a FIN is not \
              noticed. Keep-alive probes are sent only on sockets with SO_KEEPALIVE, the first \
              after tcp_keepalive_time.",
        helps: vec![
            Help::new(
                "in the program: SO_KEEPALIVE, TCP_KEEPIDLE 60, TCP_KEEPINTVL 10, TCP_KEEPCNT 6",
                "a small segment a minute on each idle connection",
            ),
            Help::new(
                "for all programs that ask for keep-alive and set no time of their own",
                "small segments on idle connections; those from before notice it only when the \
                 timer that they have goes off",
            )
            .by(space.sysctl("net.ipv4.tcp_keepalive_time", 600)),
        ],
        useless: &["tcp_keepalive_time alone, where the program does not set SO_KEEPALIVE"],
        docs: "ip-sysctl: tcp_keepalive_time; tcp(7): TCP_KEEPIDLE",
    })
}

/// Connections whose peer stopped answering.
fn gone(space: &NetnsFacts) -> u64 {
    let is =
        |how| matches!(how, How::Timeout(Timeout::Retransmit | Timeout::Keepalive | Timeout::User));
    let waiting = space.waiting(&[TcpState::Established], &[Cause::NoAck, Cause::NoProbeAnswer]);
    space.ended(is) + waiting.map(|waiting| waiting.lasting).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn with(open: u64, time_s: i64) -> NetnsFacts {
        let mut space = space();
        space.states.insert(TcpState::Established, open);
        space.sysctls.tcp_keepalive_time = Sysctl::Is(time_s);
        ended(&mut space, How::Timeout(Timeout::Retransmit), 1);
        space
    }

    #[test]
    fn where_every_peer_answers_it_is_no_finding() {
        let mut space = with(MANY, 7200);
        space.endings.clear();
        assert_fine(rule, space.clone());
        let waits = waiting(TcpState::Established, Cause::NoAck, app(), 1);
        space.waiting.push(waits);
        assert_eq!(found(rule, space).severity, Severity::Info);
    }

    #[test]
    fn many_that_are_noticed_late_are_told() {
        assert_fine(rule, with(MANY - 1, 7200));
        let about = found(rule, with(MANY, 7200));
        assert_eq!(about.severity, Severity::Info);
        assert!(about.seen.contains("after 7875 s"), "{}", about.seen);
        assert_fine(rule, with(MANY, LONG_S - 9 * 75 - 1));
        assert_eq!(found(rule, with(MANY, LONG_S - 9 * 75)).severity, Severity::Info);
    }
}
