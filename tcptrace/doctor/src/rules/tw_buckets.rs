//! `tcp_max_tw_buckets` below what this kernel begins with, where that does or may do harm.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

/// Percent of the limit from which on it is near.
const NEAR_PERCENT: i64 = 80;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let now = match space.sysctls.tcp_max_tw_buckets.known() {
        Ok(&now) => now,
        Err(why) => return Outcome::Unseen(format!("tcp_max_tw_buckets is not known: {why}")),
    };
    let default = match &host.defaults {
        Ok(defaults) => defaults.tcp_max_tw_buckets.known().map_err(str::to_owned),
        Err(why) => Err(why.clone()),
    };
    let default = match default {
        Ok(&default) => default,
        Err(why) => return Outcome::Unseen(format!("what this kernel begins with: {why}")),
    };
    if now >= default {
        return Outcome::Fine;
    }
    let minisocks = space.counters.last.map_or(0, |last| last.sockets.tw);
    let refused = space.counters.total("TCPTimeWaitOverflow").unwrap_or(0);
    let is_near = minisocks.saturating_mul(100) >= now.saturating_mul(NEAR_PERCENT);
    let severity = match () {
        () if refused > 0 || (is_near && minisocks > 0) => Severity::Warning,
        () if now.saturating_mul(2) <= default => Severity::Info,
        // Some kernels and hosts begin with a little less than others.
        () => return Outcome::Fine,
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: refused,
        seen: format!(
            "tcp_max_tw_buckets is {now}; this kernel begins with {default}; {minisocks} minisocks are \
             there now, and {refused} connections went without their TIME_WAIT since the namespace was \
             made"
        ),
        why: "It is no way to have fewer TIME_WAITs: connections above the limit go without one, \
              and without its protection. The limit is there for attacks.",
        helps: vec![Help::command(
            space.sysctl("net.ipv4.tcp_max_tw_buckets", default),
            "about 256 bytes of memory for each TIME_WAIT that there is",
        )],
        useless: &[
            "a lower value against \"too many TIME_WAIT\": those are harmless, RSTs are not",
        ],
        docs: "ip-sysctl: tcp_max_tw_buckets (\"must not lower the limit artificially\")",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    fn with(value: i64) -> NetnsFacts {
        let mut space = space();
        space.sysctls.tcp_max_tw_buckets = Sysctl::Is(value);
        space
    }

    #[test]
    fn a_low_limit_is_a_note_until_it_is_near_or_was_reached() {
        for value in [200_000, 100_000, 99_999, 50_001] {
            assert_fine(rule, with(value));
        }
        assert_eq!(found(rule, with(50_000)).severity, Severity::Info);
        for (minisocks, severity) in [(3999, Severity::Info), (4000, Severity::Warning)] {
            let mut space = with(5000);
            space.counters.last.as_mut().unwrap().sockets.tw = minisocks;
            assert_eq!(found(rule, space).severity, severity, "{minisocks}");
        }
        let mut reached = with(99_999);
        count(&mut reached, "TCPTimeWaitOverflow", 1, 0);
        assert_eq!(found(rule, reached).severity, Severity::Warning);
    }

    #[test]
    fn without_a_default_nothing_is_said() {
        let mut host = host(with(5000));
        host.defaults = Err("not root".to_owned());
        assert!(matches!(ask(rule, &host), Outcome::Unseen(why) if why.ends_with("not root")));
    }
}
