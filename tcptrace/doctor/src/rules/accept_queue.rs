//! Connections that are dropped because nobody accepts the ones before.

use crate::{
    facts::{HostFacts, Listening, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

/// Drops a second from which on clients cannot but notice: each waits a second or more for its
/// next try.
const NOTICED_PER_S: f64 = 1.0;

/// Listeners that are named.
const NAMED: usize = 3;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "ListenOverflows";
    let counters = &space.counters;
    let (Some(total), Some(grew)) = (counters.total(NAME), counters.grew(NAME)) else {
        return Outcome::Unseen(counters.unknown(NAME));
    };
    let full: Vec<&Listening> =
        space.listeners.iter().filter(|listener| listener.is_full()).collect();
    let severity = match (grew, full.is_empty()) {
        (1.., _) if grew as f64 >= NOTICED_PER_S * counters.seconds => Severity::Critical,
        (1.., _) | (0, false) => Severity::Warning,
        (0, true) if total > 0 => Severity::Info,
        (0, true) => return Outcome::Fine,
    };
    let mut seen = if grew > 0 {
        format!("{grew} SYNs or last ACKs of handshakes were dropped in {:.1} s", counters.seconds)
    } else if full.is_empty() {
        format!("none was dropped now, but {total} were since the namespace was made")
    } else {
        "an accept queue is full".to_owned()
    };
    for listener in full.iter().take(NAMED) {
        seen += &format!("; {listener}");
    }
    if full.len() > NAMED {
        seen += &format!("; and {} more", full.len() - NAMED);
    }
    if full.is_empty() && grew > 0 {
        seen += "; which listener: none was full when looked at";
    }
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: grew.max(full.len() as u64),
        seen,
        why: "Connections wait in a queue until accept() takes them. While it is full, the kernel \
              drops SYNs and the last ACK of handshakes, and clients wait for their next try.",
        helps: vec![
            Help::new(
                "accept() more: more threads, no slow work between two accept()s",
                "a change of the program; a longer queue alone only hides a program that is too \
                 slow",
            ),
            Help::new(
                "a longer queue: listen(fd, 4096) in the program and, if the limit shown is that \
                 of somaxconn, a higher one; then restart the program: the lesser of the two counts, \
                 as it was when listen() was called",
                "clients wait longer instead of trying again",
            )
            .by(space.sysctl("net.core.somaxconn", 8192)),
        ],
        useless: &[
            "tcp_max_syn_backlog: that is for handshakes, before the accept queue",
            "tcp_abort_on_overflow=1: clients get a RST instead of a second chance",
        ],
        docs: "ip-sysctl: somaxconn, tcp_abort_on_overflow; listen(2)",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn drops_are_judged_by_their_rate() {
        for (before, more, severity) in [
            (9, 0, Severity::Info),
            (0, 1, Severity::Warning),
            (0, 4, Severity::Warning),
            (0, 5, Severity::Critical),
        ] {
            let mut space = space();
            count(&mut space, "ListenOverflows", before, more);
            assert_eq!(found(rule, space).severity, severity, "{more}");
        }
        assert_fine(rule, space());
    }

    #[test]
    fn a_full_queue_is_named_with_its_listener() {
        let mut space = space();
        space.listeners = vec![listening(80, 16, 16)];
        assert_fine(rule, space.clone());
        space.listeners[0].queued = 17;
        let about = found(rule, space);
        assert_eq!(about.severity, Severity::Warning);
        assert!(
            about.seen.contains("0.0.0.0:80 (app, pid 7): 17 wait, limit 16"),
            "{}",
            about.seen
        );
    }

    #[test]
    fn one_reading_is_not_enough() {
        let mut space = space();
        space.counters.first = None;
        assert_unseen(rule, space, "only once");
    }
}
