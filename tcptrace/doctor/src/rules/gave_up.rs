//! Peers that stopped answering.

use super::count::{by, is_many};
use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::How;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "TCPAbortOnTimeout";
    let counters = &space.counters;
    let (Some(count), Some(opened)) = (counters.grew(NAME), counters.opened()) else {
        return Outcome::Unseen(counters.unknown(NAME));
    };
    let severity = match count {
        0 => return Outcome::Fine,
        count if is_many(count, opened) => Severity::Warning,
        _ => Severity::Info,
    };
    let is = |how| matches!(how, How::Timeout(_) | How::OrphanGaveUp);
    let mut kinds: Vec<String> = Vec::new();
    for how in How::ALL.into_iter().filter(|&how| is(how)) {
        match space.ended(|ended| ended == how) {
            0 => {}
            some => kinds.push(format!("{} ({some})", how.name())),
        }
    }
    let kinds = if kinds.is_empty() { String::new() } else { format!(": {}", kinds.join(", ")) };
    let who = by(host, space, count, is);
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{count} connections or attempts were given up in {:.1} s for want of an \
             answer{who}{kinds}",
            counters.seconds
        ),
        why: "What is not acknowledged is sent again, ever more seldom, until tcp_syn_retries, \
              tcp_retries2, tcp_orphan_retries (0 acts as 8) or keep-alive gives up. As a rule the \
              peer's host is gone, or a firewall in between has forgotten the connection and \
              drops its segments.",
        helps: vec![
            Help::new(
                "find the peer and the path: tcptrace conns --how timeout,orphan-gave-up",
                "none",
            ),
            Help::new(
                "behind a firewall or NAT: SO_KEEPALIVE with TCP_KEEPIDLE below its timeout",
                "a small segment each time",
            ),
        ],
        useless: &["tcp_fin_timeout, tcp_tw_reuse: no answer comes sooner by either"],
        docs: "ip-sysctl: tcp_syn_retries, tcp_retries2, tcp_orphan_retries",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Timeout;

    #[test]
    fn many_are_told_from_a_few_and_of_what_kind() {
        assert_fine(rule, space());
        for (more, severity) in [(19, Severity::Info), (20, Severity::Warning)] {
            let mut space = space();
            count(&mut space, "TCPAbortOnTimeout", 5, more);
            ended(&mut space, How::Timeout(Timeout::Syn), 3);
            ended(&mut space, How::OrphanGaveUp, 2);
            let about = found(rule, space);
            assert_eq!(about.severity, severity);
            // One owner is named once, and the parts add up to what was traced.
            let says = "traced: 5 in 5.0 s, by app :80 (5): timeout-syn (3), orphan-gave-up (2)";
            assert!(about.seen.ends_with(says), "{}", about.seen);
        }
    }
}
