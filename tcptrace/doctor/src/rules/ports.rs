//! connect() that finds no local port, now or soon.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_stats::ports::{Outlook, Row};

/// Further ahead than this, a rate of a few seconds says nothing: seconds.
const SOON_S: f64 = 3600.0;

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    // Those that run out first come first. What has failed is no better for not failing right now.
    let soon = |row: &&Row| {
        row.failed_total > 0 || row.outlook.seconds().is_some_and(|seconds| seconds <= SOON_S)
    };
    let mut pressed = space.paths.iter().filter(soon);
    let Some(worst) = pressed.next() else {
        return match (&space.ports_unknown, &host.watched.events) {
            (Some(why), _) => Outcome::Unseen(why.clone()),
            // None has run out, but how fast they go is not known.
            (None, Err(why)) if !space.paths.is_empty() => {
                Outcome::Unseen(format!("how fast ports are taken: {why}"))
            }
            _ => Outcome::Fine,
        };
    };
    let more = match pressed.count() {
        0 => String::new(),
        more => format!("; and {more} more paths like it"),
    };
    let now = worst.outlook == Outlook::Now;
    let mut helps = vec![Help::new(
        "keep connections open and reuse them (HTTP keep-alive, a connection pool)",
        "a change of the client; nothing else removes the cause",
    )];
    let reuse = space.knobs.tcp_tw_reuse.value().copied().unwrap_or(0);
    let timestamps = space.knobs.tcp_timestamps.value().copied().unwrap_or(0);
    if worst.time_wait > Some(worst.reusable.unwrap_or(0)) && reuse != 1 && timestamps != 0 {
        helps.push(Help::new(
            "sysctl -w net.ipv4.tcp_tw_reuse=1",
            "safe where both ends have TCP timestamps, and does nothing for peers without; a \
             TIME_WAIT keeps its port for a second instead of a minute",
        ));
    }
    helps.push(Help::new(
        "sysctl -w net.ipv4.ip_local_port_range=\"10240 65535\"",
        "servers' ports in there must be in ip_local_reserved_ports, or connect() may take them",
    ));
    helps.push(Help::new(
        "another address, here or at the peer, or another port there",
        "each gives the whole range once more",
    ));
    Outcome::Found(About {
        severity: if now { Severity::Critical } else { Severity::Warning },
        seen: format!("{}{more}", words(worst, host)),
        why: "A local port is taken for one local address, peer address and peer port, for as \
              long as the connection lives and, where this end closed first, 60 s of TIME_WAIT \
              more.",
        helps,
        useless: &[
            "tcp_fin_timeout: it does not shorten TIME_WAIT",
            "tcp_tw_recycle: gone since Linux 4.12, and it was for the accepting end",
        ],
        docs: "ip-sysctl: ip_local_port_range, tcp_tw_reuse",
    })
}

fn words(row: &Row, host: &HostFacts) -> String {
    let path = &row.path;
    let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let when = match row.outlook {
        Outlook::Now if row.flow.failed > 0 => format!(
            "connect() found no local port {} times in {:.1} s",
            row.flow.failed, host.watched.seconds
        ),
        Outlook::Now => "no local port is left".to_owned(),
        _ if row.failed_total > 0 => {
            format!("connect() has found no local port {} times", row.failed_total)
        }
        Outlook::In(seconds) => format!("at this rate no local port is left in {seconds:.0} s"),
        Outlook::Unknown | Outlook::Never => String::new(),
    };
    format!(
        "{when} from {} to {}: of {} ports {} are in use and {} in TIME_WAIT ({} of these may be \
         taken over)",
        path.local_ip(),
        std::net::SocketAddr::new(path.remote_ip(), path.rport),
        number(row.usable),
        row.live,
        number(row.time_wait),
        number(row.reusable),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::Knob;

    fn with(outlook: Outlook) -> NetnsFacts {
        NetnsFacts { paths: vec![path(90, outlook)], ..space() }
    }

    #[test]
    fn none_left_is_critical_and_soon_a_warning() {
        let now = found(rule, with(Outlook::Now));
        assert_eq!(now.severity, Severity::Critical);
        let says = "no local port is left from 10.0.0.1 to 10.0.0.2:443: of 100 ports 0 are in use";
        assert!(now.seen.starts_with(says), "{}", now.seen);
        let soon = found(rule, with(Outlook::In(SOON_S)));
        assert_eq!(soon.severity, Severity::Warning);
        assert!(soon.seen.contains("is left in 3600 s"), "{}", soon.seen);
        assert_fine(rule, with(Outlook::In(SOON_S + 1.0)));
        assert_fine(rule, with(Outlook::Never));
    }

    #[test]
    fn a_failure_is_found_after_it_has_passed_too() {
        let failed = Row { failed_total: 14, ..path(50, Outlook::Unknown) };
        let about = found(rule, NetnsFacts { paths: vec![failed], ..space() });
        assert_eq!(about.severity, Severity::Warning);
        let says = "connect() has found no local port 14 times from 10.0.0.1";
        assert!(about.seen.starts_with(says), "{}", about.seen);
    }

    #[test]
    fn reuse_is_advised_where_it_would_help() {
        let advises = |space| {
            found(rule, space).helps.iter().any(|help| help.what.contains("tcp_tw_reuse=1"))
        };
        assert!(advises(with(Outlook::Now)));
        for (reuse, timestamps) in [(1, 1), (2, 0)] {
            let mut space = with(Outlook::Now);
            space.knobs.tcp_tw_reuse = Knob::Is(reuse);
            space.knobs.tcp_timestamps = Knob::Is(timestamps);
            assert!(!advises(space), "{reuse} {timestamps}");
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut space = with(Outlook::Unknown);
        space.ports_unknown = Some("no TIME_WAIT here".to_owned());
        assert_unseen(rule, space, "no TIME_WAIT");
        let mut host = host(with(Outlook::Never));
        host.watched.events = Err("not root".to_owned());
        assert!(matches!(ask(rule, &host), Outcome::Unseen(why) if why.contains("not root")));
    }
}
