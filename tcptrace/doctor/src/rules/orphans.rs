//! Orphans that the kernel ends because there are too many, or no memory.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

/// A quarter of `tcp_max_orphans`: orphans that cannot send count for up to four each
/// (`tcp_out_of_resources()`), so from there on some are ended with a RST.
const PART: i64 = 4;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "TCPAbortOnMemory";
    let counters = &space.counters;
    let Some(ended) = counters.grew(NAME) else {
        return Outcome::Unseen(counters.unknown(NAME));
    };
    // Orphans are those of the host; their limit is to be read in its first namespace only.
    let orphans = counters.last.as_ref().map_or(0, |last| last.sockets.orphan);
    let limit = space.sysctls.tcp_max_orphans.value().copied();
    let near = limit.filter(|&limit| orphans.saturating_mul(PART) >= limit && orphans > 0);
    let severity = match (ended, near) {
        (1.., _) => Severity::Critical,
        (0, Some(_)) => Severity::Warning,
        (0, None) => return Outcome::Fine,
    };
    let limit = match limit {
        Some(limit) => format!("tcp_max_orphans is {limit}"),
        None => "tcp_max_orphans can be read in the host's first namespace only".to_owned(),
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: ended,
        seen: format!(
            "{ended} connections were reset for want of memory or for too many orphans in {:.1} \
             s; the host has {orphans} orphans, {limit}",
            counters.seconds
        ),
        why: "After close() a connection that still has data or a FIN to send belongs to no \
              process. The kernel bounds how many of these there are, and ends more with a RST: \
              what was not sent yet is lost.",
        helps: vec![
            Help::new(
                "find the peers that do not answer: tcptrace states, FIN_WAIT1 and LAST_ACK",
                "none",
            ),
            Help::command(
                space.sysctl("net.ipv4.tcp_orphan_retries", 4),
                "gives up on a dead peer after some 6 s instead of 100 s (8 tries); a peer that \
                 is merely slow loses the end of its data",
            ),
            Help::new(
                "sysctl -w net.ipv4.tcp_max_orphans=262144, in the host's first namespace",
                "up to 64 KB of memory that cannot be swapped for each",
            ),
        ],
        useless: &["tcp_fin_timeout: it is for FIN_WAIT2, which holds nothing to send"],
        docs: "ip-sysctl: tcp_max_orphans, tcp_orphan_retries",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn with(orphans: i64) -> NetnsFacts {
        let mut space = space();
        space.counters.last.as_mut().unwrap().sockets.orphan = orphans;
        space
    }

    #[test]
    fn a_quarter_of_the_limit_is_near() {
        assert_fine(rule, with(24_999));
        assert_eq!(found(rule, with(25_000)).severity, Severity::Warning);
    }

    #[test]
    fn resets_are_critical_also_where_the_limit_is_not_to_be_read() {
        let mut space = with(0);
        space.sysctls.tcp_max_orphans = tcptrace_model::Sysctl::Absent;
        assert_fine(rule, space.clone());
        count(&mut space, "TCPAbortOnMemory", 3, 1);
        let about = found(rule, space);
        assert_eq!(about.severity, Severity::Critical);
        assert!(about.seen.contains("first namespace only"), "{}", about.seen);
    }
}
