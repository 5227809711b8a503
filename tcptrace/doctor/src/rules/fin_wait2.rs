//! Peers whose FIN does not come.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

/// Orphans that have been in FIN_WAIT2 for longer than any round trip: no FIN of their peers comes.
const STUCK: u64 = 100;
/// So few are worth a word.
const SOME: u64 = 10;
/// What is advised for `tcp_fin_timeout`, where it is more, seconds.
const LOWERED_S: i64 = 30;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let (now, lasting) = space.fin_wait2();
    let severity = match lasting {
        STUCK.. => Severity::Warning,
        SOME.. => Severity::Info,
        _ => return Outcome::Fine,
    };
    let timeout = match space.sysctls.tcp_fin_timeout.known() {
        Ok(seconds) => format!("tcp_fin_timeout ends each after {seconds} s"),
        Err(why) => format!("tcp_fin_timeout is not known: {why}"),
    };
    let mut helps = vec![Help::new(
        "have the peer close: most likely the leak is there",
        "a change of the peer",
    )];
    if space.sysctls.tcp_fin_timeout.value().is_none_or(|&seconds| seconds > LOWERED_S) {
        helps.push(Help::command(
            space.sysctl("net.ipv4.tcp_fin_timeout", LOWERED_S),
            "a peer that closes later than that gets a RST for its FIN",
        ));
    }
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: lasting,
        seen: format!(
            "{lasting} of {now} orphans in FIN_WAIT2 have been there for some seconds or longer; \
             {timeout}",
        ),
        why: "This end has closed, the peer's host has acknowledged that, and no FIN of its own \
              comes: as a rule its program does not close, and the connection is in CLOSE_WAIT \
              there. Until it comes, or until tcp_fin_timeout, a small minisock stands for the \
              connection here and keeps its port.",
        helps,
        useless: &["tcp_tw_reuse, tcp_tw_recycle: neither is about FIN_WAIT2"],
        docs: "ip-sysctl: tcp_fin_timeout; tcp(7): TCP_LINGER2",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::facts::{Waiting, Who};
    use tcptrace_model::{Sysctl, TcpState};
    use tcptrace_stats::stuck::Cause;

    fn with(lasting: u64) -> NetnsFacts {
        let orphans = waiting(TcpState::FinWait2, Cause::PeerNotClosed, Who::Orphan, lasting);
        // What a process has open is half-closed, and no matter of tcp_fin_timeout.
        let held = waiting(TcpState::FinWait2, Cause::HalfClosed, app(), 1000);
        NetnsFacts { waiting: vec![Waiting { now: 500, ..orphans }, held], ..space() }
    }

    #[test]
    fn those_that_stay_count() {
        assert_fine(rule, with(SOME - 1));
        assert_eq!(found(rule, with(SOME)).severity, Severity::Info);
        assert_eq!(found(rule, with(STUCK - 1)).severity, Severity::Info);
        let about = found(rule, with(STUCK));
        assert_eq!(about.severity, Severity::Warning);
        assert!(
            about.seen.starts_with("100 of 500 orphans in FIN_WAIT2 have been"),
            "{}",
            about.seen
        );
        assert!(about.seen.ends_with("after 60 s"), "{}", about.seen);
    }

    #[test]
    fn it_is_not_advised_to_lower_what_is_low() {
        for (seconds, advises) in [(LOWERED_S + 1, true), (LOWERED_S, false), (5, false)] {
            let mut space = with(SOME);
            space.sysctls.tcp_fin_timeout = Sysctl::Is(seconds);
            let helps = found(rule, space).helps;
            assert_eq!(helps.iter().any(|help| help.words().contains("=30")), advises, "{seconds}");
        }
    }
}
