//! TIME_WAITs that were never made, because there is no room for more.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "TCPTimeWaitOverflow";
    let counters = &space.counters;
    let (Some(total), Some(grew)) = (counters.total(NAME), counters.grew(NAME)) else {
        return Outcome::Unseen(counters.unknown(NAME));
    };
    let severity = match (grew, total) {
        (1.., _) => Severity::Warning,
        (0, 1..) => Severity::Info,
        (0, 0) => return Outcome::Fine,
    };
    let limit = match space.sysctls.tcp_max_tw_buckets.known() {
        Ok(limit) => limit.to_string(),
        Err(why) => format!("not known: {why}"),
    };
    let value = |sysctls: &tcptrace_model::Sysctls| sysctls.tcp_max_tw_buckets.value().copied();
    let default = host.defaults.as_ref().ok().and_then(value);
    let default = match (default, value(&space.sysctls)) {
        // Already there or above: twice as many.
        (Some(default), Some(now)) if default <= now => now.saturating_mul(2),
        (Some(default), _) => default,
        (None, now) => now.unwrap_or(131_072).saturating_mul(2).max(131_072),
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: grew,
        seen: format!(
            "{grew} connections went without their TIME_WAIT in {:.1} s, {total} since the \
             namespace was made; tcp_max_tw_buckets is {limit}",
            counters.seconds
        ),
        why: "At tcp_max_tw_buckets the kernel makes no more minisocks and forgets connections at \
              once. A FIN that the peer sends after that gets a RST, and segments from before may \
              be taken for those of the next connection on the same ports.",
        helps: vec![
            Help::command(
                space.sysctl("net.ipv4.tcp_max_tw_buckets", default),
                "about 256 bytes of memory for each TIME_WAIT",
            ),
            Help::new(
                "have the other end close first, or keep connections open",
                "a change of the protocol or of a timeout; then the TIME_WAIT is not here",
            ),
        ],
        useless: &[
            "tcp_max_tw_buckets lowered: that is the cause",
            "tcp_fin_timeout: it does not shorten TIME_WAIT",
        ],
        docs: "ip-sysctl: tcp_max_tw_buckets (\"must not lower the limit artificially\")",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    #[test]
    fn now_is_a_warning_and_before_a_note() {
        assert_fine(rule, space());
        let mut space = space();
        count(&mut space, "TCPTimeWaitOverflow", 9, 0);
        assert_eq!(found(rule, space.clone()).severity, Severity::Info);
        count(&mut space, "TCPTimeWaitOverflow", 9, 1);
        assert_eq!(found(rule, space).severity, Severity::Warning);
    }

    #[test]
    fn what_is_advised_is_more_than_there_is() {
        for (now, advised) in [(10, 100_000), (100_000, 200_000), (300_000, 600_000)] {
            let mut space = space();
            count(&mut space, "TCPTimeWaitOverflow", 0, 1);
            space.sysctls.tcp_max_tw_buckets = Sysctl::Is(now);
            let help = found(rule, space).helps.swap_remove(0).words();
            assert!(help.ends_with(&format!("={advised}")), "{help}");
        }
    }
}
