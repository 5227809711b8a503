//! close() that resets: with data that was never read.

use super::count::{by, is_many};
use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::How;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "TCPAbortOnClose";
    let counters = &space.counters;
    let (Some(count), Some(opened)) = (counters.grew(NAME), counters.opened()) else {
        return Outcome::Unseen(counters.unknown(NAME));
    };
    let severity = match count {
        0 => return Outcome::Fine,
        count if is_many(count, opened) => Severity::Warning,
        _ => Severity::Info,
    };
    let who = by(host, space, count, |how| how == How::RstUnreadData);
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{count} in {:.1} s closed by a RST, with data that was not read{who}",
            counters.seconds
        ),
        why: "close() with received bytes that nobody read sends a RST instead of a FIN, so that \
              the peer knows that not all was taken. The peer may lose an answer that it has not \
              read yet.",
        helps: vec![Help::new(
            "read to the end before close(); a server that refuses a request: shutdown(SHUT_WR), \
             read what comes for a moment, then close()",
            "a change of the program",
        )],
        useless: &["SO_LINGER: unread data is looked at first, whatever it is set to"],
        docs: "RFC 2525, 2.17; tcptrace explain rst-unread-data",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn many_are_told_from_a_few() {
        assert_fine(rule, space());
        for (more, severity) in [(19, Severity::Info), (20, Severity::Warning)] {
            let mut space = space();
            count(&mut space, "TCPAbortOnClose", 5, more);
            ended(&mut space, How::RstUnreadData, 19);
            let about = found(rule, space);
            assert_eq!(about.severity, severity);
            // The kernel's count is of another span than what was traced: then both are said.
            let says = match more {
                19 => "not read, by app :80 (19)",
                _ => "not read; traced: 19 in 5.0 s, by app :80 (19)",
            };
            assert!(about.seen.ends_with(says), "{}", about.seen);
        }
    }
}
