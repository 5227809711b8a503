//! `tcp_timestamps` off, and `tcp_tw_reuse` that therefore does nothing.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let timestamps = match space.sysctls.tcp_timestamps.known() {
        Ok(&value) => value,
        Err(why) => return Outcome::Unseen(format!("tcp_timestamps is not known: {why}")),
    };
    if timestamps != 0 {
        return Outcome::Fine;
    }
    let reuse = space.sysctls.tcp_tw_reuse.value() == Some(&1);
    Outcome::Found(About {
        severity: if reuse { Severity::Warning } else { Severity::Info },
        is_forecast: false,
        amount: 1,
        seen: if reuse {
            "tcp_timestamps is 0, so tcp_tw_reuse=1 does nothing".to_owned()
        } else {
            "tcp_timestamps is 0".to_owned()
        },
        why: "Timestamps tell old segments from new ones. Without them no connect() takes over a \
              TIME_WAIT, a fast connection has no protection against segments whose sequence \
              number came round again, and round trips are measured less often.",
        helps: vec![Help::command(
            space.sysctl("net.ipv4.tcp_timestamps", 1),
            "12 bytes a segment; new connections only. The host's uptime is not told by it: each \
             connection has an offset of its own since Linux 4.10",
        )],
        useless: &["tcp_tw_reuse, whatever its value, as long as timestamps are off"],
        docs: "ip-sysctl: tcp_timestamps, tcp_tw_reuse; RFC 7323",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    #[test]
    fn reuse_without_timestamps_is_a_warning() {
        for (timestamps, reuse, severity) in [
            (1, 1, None),
            (2, 1, None),
            (0, 2, Some(Severity::Info)),
            (0, 1, Some(Severity::Warning)),
        ] {
            let mut space = space();
            space.sysctls.tcp_timestamps = Sysctl::Is(timestamps);
            space.sysctls.tcp_tw_reuse = Sysctl::Is(reuse);
            match severity {
                None => assert_fine(rule, space),
                Some(severity) => assert_eq!(found(rule, space).severity, severity),
            }
        }
    }
}
