//! More handshakes at a time than there is room for.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    const DROP: &str = "TCPReqQFullDrop";
    const COOKIES: &str = "TCPReqQFullDoCookies";
    let counters = &space.counters;
    let grew = (counters.grew(DROP), counters.grew(COOKIES));
    let (Some(dropped), Some(cookies)) = grew else {
        return Outcome::Unseen(counters.unknown(DROP));
    };
    let off = space.sysctls.tcp_syncookies.value() == Some(&0);
    let severity = match (dropped, cookies) {
        // Without cookies a flood of SYNs shuts everybody else out.
        (1.., _) => Severity::Critical,
        (0, 1..) => Severity::Warning,
        (0, 0) if off => Severity::Info,
        (0, 0) => return Outcome::Fine,
    };
    let seen = if dropped + cookies > 0 {
        format!(
            "in {:.1} s the SYN queue of a listener was full {} times: {dropped} SYNs dropped, \
             {cookies} answered with a cookie",
            counters.seconds,
            dropped + cookies
        )
    } else {
        "tcp_syncookies is 0: a flood of SYNs would shut everybody else out".to_owned()
    };
    let mut helps = Vec::new();
    if off {
        helps.push(Help::command(
            space.sysctl("net.ipv4.tcp_syncookies", 1),
            "none until a queue is full; a connection that is made by a cookie then may lack \
             window scaling and SACK, if the client has no timestamps",
        ));
    }
    let longer = if off {
        "if these are real clients: a longer queue, by listen(fd, N) and, where N is more than that, \
         somaxconn; then restart the program. Without cookies tcp_max_syn_backlog bounds it too"
    } else {
        "if these are real clients: a longer queue, by listen(fd, N) and, where N is more than that, \
         somaxconn; then restart the program"
    };
    helps.push(
        Help::new(longer, "some 300 bytes for each handshake that waits")
            .by(space.sysctl("net.core.somaxconn", 8192)),
    );
    helps.push(Help::new("if they are not: limit SYNs in front of the host", "a firewall rule"));
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: dropped + cookies,
        seen,
        why: "A handshake waits in the SYN queue for the client's last ACK. When it is full, the \
              kernel answers with a cookie and keeps nothing, or drops the SYN.",
        helps,
        useless: &[
            "tcp_max_syn_backlog while tcp_syncookies is on: only listen() and somaxconn bound the \
             queue then",
            "tcp_synack_retries lowered: it also fails clients with lossy links",
        ],
        docs: "ip-sysctl: tcp_syncookies, tcp_max_syn_backlog",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Sysctl;

    #[test]
    fn drops_are_worse_than_cookies() {
        let mut space = space();
        count(&mut space, "TCPReqQFullDoCookies", 7, 0);
        assert_fine(rule, space.clone());
        count(&mut space, "TCPReqQFullDoCookies", 7, 1);
        assert_eq!(found(rule, space.clone()).severity, Severity::Warning);
        count(&mut space, "TCPReqQFullDrop", 0, 1);
        assert_eq!(found(rule, space).severity, Severity::Critical);
    }

    #[test]
    fn cookies_that_are_off_are_told() {
        let mut space = space();
        space.sysctls.tcp_syncookies = Sysctl::Is(0);
        let about = found(rule, space);
        assert_eq!(about.severity, Severity::Info);
        assert!(about.helps[0].words().ends_with("tcp_syncookies=1"));
    }

    #[test]
    fn a_kernel_without_the_counter_is_told() {
        let mut space = space();
        let last = space.counters.last.unwrap();
        space.counters.last = Some(last.with("TCPReqQFullDrop", None));
        assert_unseen(rule, space, "no counter TCPReqQFullDrop");
    }
}
