//! Many TIME_WAITs: whose they are, and whether that does any harm.

use crate::{
    collect::WORTH_NAMING,
    facts::{HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;

/// Percent of `tcp_max_tw_buckets` from which on the limit is near: at the same rate it is reached
/// within the minute that a TIME_WAIT lasts.
const NEAR_PERCENT: u64 = 80;

/// What one takes (`tw_sock_TCP` on x86-64, rounded up to its slab).
const BYTES: u64 = 256;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let count = space.count(TcpState::TimeWait);
    // Minisocks in FIN_WAIT2 count as well.
    let minisocks = space.counters.last.as_ref().map_or(0, |last| last.sockets.tw);
    let taken = u64::try_from(minisocks).unwrap_or(0).max(count);
    let limit = space.sysctls.tcp_max_tw_buckets.value().and_then(|&n| u64::try_from(n).ok());
    let near = limit.filter(|&limit| {
        taken > 0 && taken.saturating_mul(100) >= limit.saturating_mul(NEAR_PERCENT)
    });
    let severity = match (near, count) {
        (Some(_), _) => Severity::Warning,
        (None, WORTH_NAMING..) => Severity::Info,
        (None, _) => return Outcome::Fine,
    };
    let by = most(space.time_wait_by.iter().map(|(who, count)| (who.as_str(), *count)));
    let by = if by.is_empty() { by } else { format!(": {by}") };
    let memory = if count * BYTES < 1_000_000 {
        format!("{} KB", count * BYTES / 1000)
    } else {
        format!("{:.1} MB", (count * BYTES) as f64 / 1e6)
    };
    let harm = match near {
        Some(limit) => format!("with FIN_WAIT2 {taken} of at most {limit} (tcp_max_tw_buckets)"),
        None => "harmless: far from tcp_max_tw_buckets, and where ports are short that is said \
                 apart"
            .to_owned(),
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!("{count} in TIME_WAIT{by}; about {memory} of memory; {harm}"),
        why: "The end that closes first keeps each connection for 60 s, so that late segments are \
              not taken for those of the next one on the same ports. It costs a minisock of about \
              256 bytes, no file descriptor and no CPU.",
        helps: match near {
            Some(limit) => vec![
                Help::command(
                    space.sysctl("net.ipv4.tcp_max_tw_buckets", limit.saturating_mul(4)),
                    "about 256 bytes of memory for each TIME_WAIT",
                ),
                Help::new("keep connections open", "a change of the program"),
            ],
            None => vec![Help::new("nothing needs to be done", "none")],
        },
        useless: &[
            "tcp_fin_timeout: it is for orphans in FIN_WAIT2; TIME_WAIT stays at 60 s",
            "tcp_tw_reuse=1 on a server: it is for connections that are opened from here",
            "tcp_tw_recycle: gone since Linux 4.12; it broke clients behind NAT",
            "tcp_max_tw_buckets lowered: peers get RSTs instead",
        ],
        docs: "ip-sysctl: tcp_max_tw_buckets, tcp_tw_reuse; RFC 9293, 3.4.1 and 3.6.1",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    fn with(count: u64, limit: i64) -> NetnsFacts {
        let mut space = space();
        space.states.insert(TcpState::TimeWait, count);
        space.sysctls.tcp_max_tw_buckets = Sysctl::Is(limit);
        space
    }

    #[test]
    fn many_are_harmless_until_the_limit_is_near() {
        assert_fine(rule, with(WORTH_NAMING - 1, 100_000));
        let mut many = with(WORTH_NAMING, 100_000);
        many.time_wait_by = vec![("nginx :80".to_owned(), 900), ("- :22".to_owned(), 100)];
        let about = found(rule, many);
        assert_eq!(about.severity, Severity::Info);
        let says = "1000 in TIME_WAIT: nginx :80 (900), - :22 (100); about 256 KB of memory; harml";
        assert!(about.seen.starts_with(says), "{}", about.seen);
        assert_fine(rule, with(79, 100));
        assert_eq!(found(rule, with(80, 100)).severity, Severity::Warning);
    }

    #[test]
    fn minisocks_in_fin_wait2_count_for_the_limit() {
        let mut space = with(10, 100);
        space.counters.last.as_mut().unwrap().sockets.tw = 80;
        assert_eq!(found(rule, space).severity, Severity::Warning);
    }
}
