//! `tcp_fin_timeout` lowered, as if it shortened TIME_WAIT.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;

/// What every kernel begins with (`TCP_FIN_TIMEOUT`), seconds.
const DEFAULT_S: i64 = 60;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let seconds = match space.sysctls.tcp_fin_timeout.known() {
        Ok(&seconds) => seconds,
        Err(why) => return Outcome::Unseen(format!("tcp_fin_timeout is not known: {why}")),
    };
    if seconds >= DEFAULT_S {
        return Outcome::Fine;
    }
    Outcome::Found(About {
        severity: Severity::Info,
        is_forecast: false,
        amount: 1,
        seen: format!(
            "tcp_fin_timeout is {seconds} s, {DEFAULT_S} by default: of what is there now, that is \
             for the orphans in FIN_WAIT2 ({}), and does nothing to the TIME_WAITs ({})",
            space.fin_wait2().0,
            space.count(TcpState::TimeWait),
        ),
        why: "It bounds how long an orphan waits in FIN_WAIT2 for the peer's FIN. TIME_WAIT takes \
              60 s whatever it is: that is TCP_TIMEWAIT_LEN, a constant of the kernel.",
        helps: vec![
            Help::new("the default, unless less is meant for the orphans", "none")
                .by(space.sysctl("net.ipv4.tcp_fin_timeout", DEFAULT_S)),
        ],
        useless: &["a lower value against TIME_WAIT"],
        docs: "ip-sysctl: tcp_fin_timeout",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    #[test]
    fn lowered_it_is_told() {
        for (seconds, is_fine) in [(60, true), (120, true), (59, false)] {
            let mut space = space();
            space.sysctls.tcp_fin_timeout = Sysctl::Is(seconds);
            if is_fine {
                assert_fine(rule, space);
            } else {
                assert_eq!(found(rule, space).severity, Severity::Info);
            }
        }
    }
}
