//! Open connections whose peer has stopped answering.

use super::count::peers;
use crate::{
    facts::{HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;
use tcptrace_stats::stuck::{Cause, LEAK};

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let states = [TcpState::Established, TcpState::CloseWait];
    let waiting = space.waiting(&states, &[Cause::NoAck, Cause::NoProbeAnswer]);
    let count: u64 = waiting.clone().map(|waiting| waiting.lasting).sum();
    let severity = match count {
        0 => return Outcome::Fine,
        LEAK.. => Severity::Warning,
        _ => Severity::Info,
    };
    let waiting = waiting.filter(|waiting| waiting.lasting > 0);
    let bytes: u64 = waiting.clone().map(|waiting| waiting.unsent_bytes).sum();
    let oldest_ms = waiting.clone().map(|waiting| waiting.oldest_ms).max().unwrap_or(0);
    let names: Vec<_> = waiting.clone().map(|one| (one.who.to_string(), one.lasting)).collect();
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{count} open connections get no acknowledgement or no answer to probes, the oldest for at \
             least {} s, to {}; {bytes} bytes are not acknowledged; held by {}",
            oldest_ms / 1000,
            peers(waiting.map(|waiting| (waiting.peer, waiting.lasting))),
            most(names.iter().map(|(name, count)| (name.as_str(), *count))),
        ),
        why: "What is sent is not acknowledged, so it is sent again, ever more seldom. The peer's host \
              is gone, or something in between drops the segments. The program here notices nothing \
              before tcp_retries2, TCP_USER_TIMEOUT or keep-alive gives up: by default that takes a \
              quarter of an hour.",
        helps: vec![
            Help::new("when the kernel gives each up: tcptrace stuck established", "none"),
            Help::new(
                "TCP_USER_TIMEOUT on the sockets of the program, some 30 s",
                "a change of the program; a path that is down for longer ends its connections",
            ),
            Help::command(
                space.sysctl("net.ipv4.tcp_retries2", 8),
                "all connections of the namespace are given up after about 100 s without an answer",
            ),
        ],
        useless: &[
            "tcp_keepalive_time: keep-alive does not probe while data is waiting",
            "tcp_fin_timeout, tcp_tw_reuse: these connections are open",
        ],
        docs: "tcp(7): TCP_USER_TIMEOUT; ip-sysctl: tcp_retries2",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::facts::Waiting;

    fn with(count: u64) -> NetnsFacts {
        let waiting = waiting(TcpState::Established, Cause::NoAck, app(), count);
        NetnsFacts { waiting: vec![Waiting { unsent_bytes: 12, ..waiting }], ..space() }
    }

    #[test]
    fn peers_that_do_not_answer_are_named() {
        assert_fine(rule, with(0));
        assert_eq!(found(rule, with(LEAK - 1)).severity, Severity::Info);
        let about = found(rule, with(LEAK));
        assert_eq!(about.severity, Severity::Warning);
        let says = "10 open connections get no acknowledgement or no answer to probes, the oldest for at \
                    least 5 s, to 10.0.0.2:443 (10); 12 bytes are not acknowledged; held by app, pid 7 (10)";
        assert_eq!(about.seen, says);
    }

    #[test]
    fn one_that_has_just_begun_to_wait_is_none() {
        let mut space = with(LEAK);
        space.waiting[0].lasting = 0;
        assert_fine(rule, space);
    }
}
