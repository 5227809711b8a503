//! Peers whose program does not read.

use super::count::peers;
use crate::{
    facts::{HostFacts, NetnsFacts, most},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::TcpState;
use tcptrace_stats::stuck::{Cause, LEAK, STATES};

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let waiting = space.waiting(&STATES, &[Cause::ZeroWindow]);
    let waiting = waiting.filter(|waiting| waiting.lasting > 0);
    let count: u64 = waiting.clone().map(|waiting| waiting.lasting).sum();
    let severity = match count {
        0 => return Outcome::Fine,
        LEAK.. => Severity::Warning,
        _ => Severity::Info,
    };
    let bytes: u64 = waiting.clone().map(|waiting| waiting.unsent_bytes).sum();
    let open = waiting.clone().filter(|waiting| waiting.state == TcpState::Established);
    let open: u64 = open.map(|waiting| waiting.lasting).sum();
    let names: Vec<_> = waiting.clone().map(|one| (one.who.to_string(), one.lasting)).collect();
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: format!(
            "{count} connections cannot send, because the peer's receive window is closed ({open} of \
             them ESTABLISHED), to {}; {bytes} bytes wait; held by {}",
            peers(waiting.map(|waiting| (waiting.peer, waiting.lasting))),
            most(names.iter().map(|(name, count)| (name.as_str(), *count))),
        ),
        why: "The peer's host answers, and says that its buffer is full: the program there does not \
              read. The kernel here asks again and again whether the window has opened. A connection \
              that was closed here keeps its data, and its FIN, until then or until it is given up.",
        helps: vec![
            Help::new(
                "the program at the peer: it hangs, or is too slow for what it is sent",
                "none",
            ),
            Help::new(
                "in the program here: a time limit for writes, or TCP_USER_TIMEOUT",
                "a change of the program; a peer that is slow loses the connection",
            ),
        ],
        useless: &["tcp_wmem, larger: more waits here, and no more is read there"],
        docs: "RFC 9293, 3.8.6.1: zero-window probing; tcptrace explain zero-window",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn closed_windows_are_counted_with_their_peers() {
        let with = |count| {
            let closed = |state| waiting(state, Cause::ZeroWindow, app(), count);
            let waiting = vec![closed(TcpState::Established), closed(TcpState::LastAck)];
            NetnsFacts { waiting, ..space() }
        };
        assert_fine(rule, with(0));
        assert_eq!(found(rule, with(4)).severity, Severity::Info);
        let about = found(rule, with(5));
        assert_eq!(about.severity, Severity::Warning);
        let says = "10 connections cannot send, because the peer's receive window is closed (5 of them \
                    ESTABLISHED), to 10.0.0.2:443 (10)";
        assert!(about.seen.starts_with(says), "{}", about.seen);
    }
}
