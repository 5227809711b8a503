//! `tcp_max_tw_buckets` below what this kernel begins with.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let now = match space.knobs.tcp_max_tw_buckets.known() {
        Ok(&now) => now,
        Err(why) => return Outcome::Unseen(format!("tcp_max_tw_buckets is not known: {why}")),
    };
    let default = match &host.defaults {
        Ok(defaults) => defaults.tcp_max_tw_buckets.known().map_err(str::to_owned),
        Err(why) => Err(why.clone()),
    };
    let default = match default {
        Ok(&default) => default,
        Err(why) => return Outcome::Unseen(format!("what this kernel begins with: {why}")),
    };
    if now >= default {
        return Outcome::Fine;
    }
    Outcome::Found(About {
        severity: Severity::Warning,
        seen: format!("tcp_max_tw_buckets is {now}; this kernel begins with {default}"),
        why: "It is no way to have fewer TIME_WAITs: connections above the limit go without one, \
              and without its protection. The limit is there for attacks.",
        helps: vec![Help::new(
            format!("sysctl -w net.ipv4.tcp_max_tw_buckets={default}"),
            "about 256 bytes of memory for each TIME_WAIT that there is",
        )],
        useless: &[
            "a lower value against \"too many TIME_WAIT\": those are harmless, RSTs are not",
        ],
        docs: "ip-sysctl: tcp_max_tw_buckets (\"must not lower the limit artificially\")",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Knob;

    #[test]
    fn less_than_the_default_is_a_warning() {
        let with = |value| {
            let mut space = space();
            space.knobs.tcp_max_tw_buckets = Knob::Is(value);
            space
        };
        assert_fine(rule, with(100_000));
        assert_fine(rule, with(200_000));
        assert_eq!(found(rule, with(99_999)).severity, Severity::Warning);
        let mut host = host(with(5000));
        host.defaults = Err("not root".to_owned());
        assert!(matches!(ask(rule, &host), Outcome::Unseen(why) if why.ends_with("not root")));
    }
}
