//! connect() that finds no local port, now or soon.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_stats::ports::{Outlook, Row, Space, Takers};

/// Further ahead than this, a rate of a few seconds says nothing: seconds.
const SOON_S: f64 = 3600.0;

/// A range that most hosts have room for.
const WIDER: &str = "\"10240 65535\"";

/// One port in so many is free: then nearly all are bound.
const NEARLY: u64 = 10;

/// Why nothing can be said of ports that are bound.
const UNLISTED: &str = "ports that bind() took for sockets that neither listen nor connect: this kernel does not \
                        list them (Linux 6.8 does), or the recording has none";

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    if let Some(about) = space.bound.as_ref().and_then(|bound| all_bound(bound, space)) {
        return Outcome::Found(about);
    }
    // Those that run out first come first. What has failed is no better for not failing right now.
    let soon = |row: &&Row| {
        row.failed_total > 0 || row.outlook.seconds().is_some_and(|seconds| seconds <= SOON_S)
    };
    let mut pressed = space.paths.iter().filter(soon);
    let Some(worst) = pressed.next() else {
        if let Some(row) = space.paths.iter().max_by_key(|row| row.own_failed)
            && row.own_failed > 0
        {
            return Outcome::Found(own_range(row));
        }
        return match (&space.ports_unknown, &host.watched.events) {
            (Some(why), _) => Outcome::Unseen(why.clone()),
            // None has run out, but how fast they go is not known.
            (None, Err(why)) if !space.paths.is_empty() => {
                Outcome::Unseen(format!("how fast ports are taken: {why}"))
            }
            _ if !space.lists_bound => Outcome::Unseen(UNLISTED.to_owned()),
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
    let reuse = space.sysctls.tcp_tw_reuse.value().copied().unwrap_or(0);
    let timestamps = space.sysctls.tcp_timestamps.value().copied().unwrap_or(0);
    if worst.time_wait > Some(worst.reusable.unwrap_or(0)) && reuse != 1 && timestamps != 0 {
        helps.push(Help::command(
            space.sysctl("net.ipv4.tcp_tw_reuse", 1),
            "safe where both ends have TCP timestamps, and does nothing for peers without; a \
             TIME_WAIT keeps its port for a second instead of a minute",
        ));
    }
    helps.push(Help::command(
        space.sysctl("net.ipv4.ip_local_port_range", WIDER),
        "servers' ports in there must be in ip_local_reserved_ports, or connect() may take them",
    ));
    helps.push(Help::new(
        "another address, here or at the peer, or another port there",
        "each gives the whole range once more",
    ));
    Outcome::Found(About {
        severity: if now { Severity::Critical } else { Severity::Warning },
        is_forecast: !now && worst.failed_total == 0,
        amount: worst.failed_total.saturating_add(worst.live + worst.time_wait.unwrap_or(0)),
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

/// Ports that are all bound, or nearly all: then it is no matter which path.
fn all_bound(bound: &Space, space: &NetnsFacts) -> Option<About> {
    let limits = bound.limits.as_ref().ok()?;
    let offered = u64::from(limits.offered());
    let all = bound.used_up().is_some();
    if !all && offered.saturating_sub(bound.bound).saturating_mul(NEARLY) > offered {
        return None;
    }
    let failures: u64 = space.paths.iter().map(|row| row.failed_total).sum();
    let failed = match failures {
        0 => String::new(),
        failed => format!("; connect() has found no local port {failed} times"),
    };
    let inactive = match bound.inactive {
        None | Some(0) => String::new(),
        Some(inactive) => {
            format!("; {inactive} of them by sockets that neither listen nor are connected")
        }
    };
    Some(About {
        severity: if all { Severity::Critical } else { Severity::Warning },
        is_forecast: false,
        amount: failures.saturating_add(bound.bound),
        seen: format!(
            "{} of {offered} local ports of {} are bound{}{inactive}{failed}{}",
            bound.bound,
            limits.range,
            by(Some(&bound.bound_by)),
            if all {
                ": connect() finds none, and bind() to port 0 none for the addresses that they are \
                 bound to"
            } else {
                ""
            },
        ),
        why: "bind() to port 0 takes a port of the range that connect() chooses from, and takes it from \
              connect() to every peer. It can then be bound again for another address only.",
        helps: vec![
            Help::new(
                "setsockopt(IP_BIND_ADDRESS_NO_PORT) before bind() to an address and port 0",
                "a change of the client: connect() then chooses the port, which other peers may share",
            ),
            Help::new(
                "leave bind() out where the local address does not matter",
                "likewise; close sockets that are bound and not used",
            ),
            Help::command(
                space.sysctl("net.ipv4.ip_local_port_range", WIDER),
                "servers' ports in there must be in ip_local_reserved_ports, or connect() may take them",
            ),
        ],
        useless: &["tcp_tw_reuse, tcp_fin_timeout: these ports are not in TIME_WAIT"],
        docs: "ip(7): IP_BIND_ADDRESS_NO_PORT; ip-sysctl: ip_local_port_range",
    })
}

/// connect() that found no port in a range of the socket's own.
fn own_range(row: &Row) -> About {
    About {
        severity: Severity::Warning,
        is_forecast: false,
        amount: row.own_failed,
        seen: format!(
            "connect() from {} to {} has found no local port {} times in the IP_LOCAL_PORT_RANGE of \
             its socket{}",
            row.path.local_ip(),
            std::net::SocketAddr::new(row.path.remote_ip(), row.path.rport),
            row.own_failed,
            by(row.takers.as_ref()),
        ),
        why: "The program has set a range for its sockets, which is narrower than that of the network \
              namespace and used up to this peer.",
        helps: vec![Help::new(
            "a wider IP_LOCAL_PORT_RANGE, or none",
            "a change of the client's configuration; the sysctl does not widen it",
        )],
        useless: &["ip_local_port_range: it is the outer bound, not what is used up"],
        docs: "ip(7): IP_LOCAL_PORT_RANGE",
    }
}

/// Who takes the ports, behind what is said of them: `, by curl, pid 7 (80)`, or nothing where that is
/// not known.
fn by(takers: Option<&Takers>) -> String {
    let words = takers.map(|takers| takers.words(Takers::NAMED)).unwrap_or_default();
    if words.is_empty() { words } else { format!(", by {words}") }
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
         taken over){}",
        path.local_ip(),
        std::net::SocketAddr::new(path.remote_ip(), path.rport),
        number(row.usable),
        row.live,
        number(row.time_wait),
        number(row.reusable),
        by(row.takers.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::{Comm, Sysctl, sysctls};
    use tcptrace_stats::ports::{Limits, Taker};

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

    /// 30 ports, of which so many are bound.
    fn bound(count: u64) -> NetnsFacts {
        let mut space = space();
        space.sysctls.ip_local_port_range = Sysctl::Is(sysctls::range("20000 20029").unwrap());
        let taker = Taker { name: Some(Comm::from("binds").into()), pid: Some(7), ports: count };
        space.bound = Some(Space {
            netns: Some(1),
            called: None,
            limits: Limits::of(&space.sysctls),
            bound: count,
            inactive: Some(count - 1),
            bound_by: Takers { most: vec![taker], ..Takers::default() },
            time_wait_unseen: false,
        });
        space
    }

    #[test]
    fn a_range_that_is_bound_is_found_without_any_connection() {
        let all = found(rule, bound(30));
        assert_eq!(all.severity, Severity::Critical);
        assert_eq!(
            all.seen,
            "30 of 30 local ports of 20000-20029 are bound, by binds, pid 7 (30); 29 of them by \
             sockets that neither listen nor are connected: connect() finds none, and bind() to \
             port 0 none for the addresses that they are bound to"
        );
        assert!(all.helps[0].words().contains("IP_BIND_ADDRESS_NO_PORT"), "{:?}", all.helps);
        let nearly = found(rule, bound(27));
        assert_eq!(nearly.severity, Severity::Warning);
        assert!(!nearly.seen.contains("finds none"), "{}", nearly.seen);
        assert_fine(rule, bound(26));
        let failed = Row { failed_total: 14, ..path(0, Outlook::Now) };
        let both = found(rule, NetnsFacts { paths: vec![failed], ..bound(30) });
        assert!(both.seen.contains("connect() has found no local port 14 times"), "{}", both.seen);
    }

    #[test]
    fn where_bound_ports_are_not_listed_it_is_not_said_that_there_are_none() {
        let space = NetnsFacts { lists_bound: false, ..space() };
        assert_unseen(rule, space, "ports that bind() took");
    }

    #[test]
    fn who_takes_the_ports_is_named() {
        let name = Some(Comm::from("client").into());
        let most = vec![Taker { name, pid: Some(9), ports: 80 }];
        let takers = Some(Takers { most, more: 2, more_ports: 10 });
        let row = Row { takers, ..path(90, Outlook::Now) };
        let seen = found(rule, NetnsFacts { paths: vec![row], ..space() }).seen;
        assert!(seen.ends_with(", by client, pid 9 (80) and 2 more (10)"), "{seen}");
    }

    #[test]
    fn a_range_of_a_sockets_own_that_is_used_up_is_told_from_that_of_the_namespace() {
        let row = Row { own_failed: 3, ..path(10, Outlook::Never) };
        let about = found(rule, NetnsFacts { paths: vec![row], ..space() });
        assert_eq!(about.severity, Severity::Warning);
        assert!(about.seen.contains("3 times in the IP_LOCAL_PORT_RANGE"), "{}", about.seen);
    }

    #[test]
    fn reuse_is_advised_where_it_would_help() {
        let advises = |space| {
            found(rule, space).helps.iter().any(|help| help.words().contains("tcp_tw_reuse=1"))
        };
        assert!(advises(with(Outlook::Now)));
        for (reuse, timestamps) in [(1, 1), (2, 0)] {
            let mut space = with(Outlook::Now);
            space.sysctls.tcp_tw_reuse = Sysctl::Is(reuse);
            space.sysctls.tcp_timestamps = Sysctl::Is(timestamps);
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
