//! `tcp_abort_on_overflow`: a full accept queue that answers with a RST.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let on = match space.sysctls.tcp_abort_on_overflow.known() {
        Ok(&value) => value != 0,
        Err(why) => return Outcome::Unseen(format!("tcp_abort_on_overflow is not known: {why}")),
    };
    if !on {
        return Outcome::Fine;
    }
    let dropped = space.counters.grew("ListenOverflows");
    let hurts = dropped.is_some_and(|dropped| dropped > 0);
    let now = match dropped {
        Some(dropped) => format!("{dropped} overflows in {:.1} s", space.counters.seconds),
        None => space.counters.unknown("ListenOverflows"),
    };
    Outcome::Found(About {
        severity: if hurts { Severity::Warning } else { Severity::Info },
        is_forecast: false,
        amount: dropped.unwrap_or(0),
        seen: format!("tcp_abort_on_overflow is 1; {now}"),
        why: "A client whose last ACK finds the accept queue full gets a RST. Without it the \
              kernel waits for the ACK to come again, and a short burst goes by unnoticed.",
        helps: vec![Help::command(space.sysctl("net.ipv4.tcp_abort_on_overflow", 0), "none")],
        useless: &["it makes no room: see accept-queue for what does"],
        docs: "ip-sysctl: tcp_abort_on_overflow",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    #[test]
    fn it_is_a_warning_where_it_hurts() {
        assert_fine(rule, space());
        let mut space = space();
        space.sysctls.tcp_abort_on_overflow = Sysctl::Is(1);
        assert_eq!(found(rule, space.clone()).severity, Severity::Info);
        count(&mut space, "ListenOverflows", 0, 1);
        assert_eq!(found(rule, space).severity, Severity::Warning);
    }
}
