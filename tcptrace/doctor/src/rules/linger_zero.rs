//! close() that resets: SO_LINGER with a time of 0.

use super::count::{by, is_many, seen};
use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_model::How;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    const NAME: &str = "TCPAbortOnData";
    let is = |how| how == How::RstLinger0;
    let Some(opened) = space.counters.opened() else {
        return Outcome::Unseen(space.counters.unknown("ActiveOpens"));
    };
    let (count, words) = match (&host.watched.events, space.counters.grew(NAME)) {
        (Ok(()), _) => {
            let count = space.ended(is);
            let who = by(host, space, count, is);
            (count, format!("{} closed by a RST (SO_LINGER 0){who}", seen(host, count)))
        }
        (Err(_), Some(count)) => {
            let but = "closed by a RST: SO_LINGER 0, or data that came after close(); the counter \
                       tells neither which nor whose";
            (count, format!("{} {but}", seen(host, count)))
        }
        (Err(why), None) => return Outcome::Unseen(why.clone()),
    };
    let severity = match count {
        0 => return Outcome::Fine,
        count if is_many(count, opened) => Severity::Warning,
        _ => Severity::Info,
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: count,
        seen: words,
        why: "With SO_LINGER on and a time of 0, close() throws away what was not sent yet and \
              sends a RST. There is no TIME_WAIT, and the peer gets ECONNRESET, maybe before it \
              has read all.",
        helps: vec![Help::new(
            "leave SO_LINGER alone; where TIME_WAIT is what it is against, keep connections open, \
             or have the peer close first",
            "a change of the program",
        )],
        useless: &["tcp_tw_reuse, tcp_max_tw_buckets: no sysctl makes such a close() a FIN"],
        docs: "socket(7): SO_LINGER; tcptrace explain rst-linger0",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn a_storm_is_told_from_a_few() {
        assert_fine(rule, space());
        let mut few = space();
        ended(&mut few, How::RstLinger0, 19);
        ended(&mut few, How::Fin, 100);
        assert_eq!(found(rule, few).severity, Severity::Info);
        let mut storm = space();
        ended(&mut storm, How::RstLinger0, 20);
        let about = found(rule, storm);
        assert_eq!(about.severity, Severity::Warning);
        let says = "20 in 5.0 s closed by a RST (SO_LINGER 0), by app :80 (20)";
        assert_eq!(about.seen, says);
    }

    #[test]
    fn without_events_the_counter_has_to_do() {
        let mut space = space();
        count(&mut space, "TCPAbortOnData", 500, 20);
        let mut host = host(space);
        host.watched.events = Err("not root".to_owned());
        let Outcome::Found(about) = ask(rule, &host) else { panic!() };
        assert_eq!(about.severity, Severity::Warning);
        assert!(about.seen.contains("tells neither which nor whose"), "{}", about.seen);
        let last = host.spaces[0].counters.last.unwrap();
        host.spaces[0].counters.last = Some(last.with("TCPAbortOnData", None));
        assert!(matches!(ask(rule, &host), Outcome::Unseen(_)));
    }

    #[test]
    fn a_count_that_lost_some_is_a_lower_bound() {
        let mut space = space();
        ended(&mut space, How::RstLinger0, 1);
        let mut host = host(space);
        host.watched.lost.events = 1;
        let Outcome::Found(about) = ask(rule, &host) else { panic!() };
        assert!(about.seen.starts_with("at least 1 in"), "{}", about.seen);
    }
}
