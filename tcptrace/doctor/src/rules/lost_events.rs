//! Events that tcptrace itself did not get.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let lost = host.watched.lost;
    // Hooks are the host's: said once.
    let is_first = host.spaces.first().is_some_and(|first| first.netns == space.netns);
    if !lost.is_any() || !is_first {
        return Outcome::Fine;
    }
    let how_many = match (lost.events, lost.uncounted) {
        (0, false) => "no event that it knows of".to_owned(),
        (0, true) => "an unknown number of events".to_owned(),
        (events, true) => format!("{events} events, and an unknown number more,"),
        (events, false) => format!("{events} events"),
    };
    let gap = match lost.gap_ns {
        0 => String::new(),
        ns => format!(", and {:.1} s of the recording are missing", ns as f64 / 1e9),
    };
    Outcome::Found(About {
        severity: Severity::Info,
        is_forecast: false,
        amount: lost.events.saturating_add(lost.gap_ns),
        seen: format!(
            "tcptrace lost {how_many} in {:.1} s{gap}: what is counted by events is a lower bound",
            host.watched.seconds
        ),
        why: "More events came than tcptrace took out of its ring buffer in time, or the kernel left a \
              program out because another run of it was interrupted. Of a recording, files or blocks may \
              be missing.",
        helps: vec![Help::new(
            "a larger ring buffer: --ring-size 64M; or fewer events, by a filter",
            "memory of the kernel that cannot be swapped",
        )],
        useless: &["it says nothing of the network: no segment was lost by it"],
        docs: "tcptrace check",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_loss_is_said_once_and_so_is_one_that_nobody_counted() {
        let mut host = host(space());
        host.spaces.push(NetnsFacts { netns: 2, ..space() });
        assert_eq!(ask(rule, &host), Outcome::Fine);
        host.watched.lost.events = 3;
        let Outcome::Found(about) = ask(rule, &host) else { panic!() };
        assert!(about.seen.starts_with("tcptrace lost 3 events in 5.0 s"), "{}", about.seen);
        assert_eq!(rule(&host, &host.spaces[1]), Outcome::Fine);
        host.watched.lost = crate::facts::Losses { uncounted: true, ..Default::default() };
        let Outcome::Found(about) = ask(rule, &host) else { panic!() };
        assert!(about.seen.contains("lost an unknown number of events"), "{}", about.seen);
        host.watched.lost = crate::facts::Losses { gap_ns: 12_000_000_000, ..Default::default() };
        let Outcome::Found(about) = ask(rule, &host) else { panic!() };
        assert!(about.seen.contains("12.0 s of the recording are missing"), "{}", about.seen);
    }
}
