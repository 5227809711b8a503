//! Listeners within the ports that connect() chooses from.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};
use tcptrace_stats::ports::Limits;

/// Where the range begins unless somebody widened it. Services are below; a listener above it may as
/// well have got its port from the kernel.
const USUAL_LOW: u16 = 32_768;

/// Ports that are named.
const NAMED: usize = 5;

pub(super) fn rule(_: &HostFacts, space: &NetnsFacts) -> Outcome {
    let limits = match Limits::of(&space.sysctls) {
        Ok(limits) => limits,
        Err(why) => return Outcome::Unseen(why),
    };
    let mut inside: Vec<u16> = space
        .listeners
        .iter()
        .map(|listener| listener.tuple.lport)
        .filter(|&port| limits.offers(port))
        .collect();
    inside.sort_unstable();
    inside.dedup();
    let widened = inside.iter().any(|&port| port < USUAL_LOW);
    if inside.is_empty() {
        return Outcome::Fine;
    }
    let list =
        |limit: usize| inside.iter().take(limit).map(u16::to_string).collect::<Vec<_>>().join(",");
    let more = match inside.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let mut reserve = list(usize::MAX);
    if let Some(reserved) = space.sysctls.ip_local_reserved_ports.value() {
        // A write replaces the whole list.
        for ports in reserved {
            reserve += &format!(",{ports}");
        }
    }
    Outcome::Found(About {
        severity: if widened { Severity::Warning } else { Severity::Info },
        is_forecast: false,
        amount: inside.len() as u64,
        seen: format!(
            "listeners on {}{more} are within ip_local_port_range {} and not reserved",
            list(NAMED),
            limits.range,
        ),
        why: "While a server is down, connect() may take its port for some connection, and the \
              server then fails to start with EADDRINUSE until that is over. A port that the \
              server got from the kernel (bind() to 0) is no matter.",
        helps: vec![Help::command(
            space.sysctl("net.ipv4.ip_local_reserved_ports", reserve),
            "connect() and bind() to 0 skip these; who asks for one gets it",
        )],
        useless: &["SO_REUSEADDR on the server: it is for TIME_WAIT, not for a live connection"],
        docs: "ip-sysctl: ip_local_port_range, ip_local_reserved_ports",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use tcptrace_model::{Sysctl, sysctls};

    fn with(range: &str, reserved: &str, port: u16) -> NetnsFacts {
        let mut space = space();
        space.sysctls.ip_local_port_range = Sysctl::Is(sysctls::range(range).unwrap());
        space.sysctls.ip_local_reserved_ports = Sysctl::Is(sysctls::ports(reserved).unwrap());
        space.listeners = vec![listening(port, 0, 128)];
        space
    }

    #[test]
    fn a_widened_range_with_listeners_in_it_is_a_warning() {
        assert_fine(rule, with("32768 60999", "", 8080));
        let about = found(rule, with("1024 65000", "", 8080));
        assert_eq!(about.severity, Severity::Warning);
        assert!(about.seen.starts_with("listeners on 8080 are within"), "{}", about.seen);
        assert_fine(rule, with("1024 65000", "8080", 8080));
        assert_eq!(found(rule, with("32768 60999", "", 40_000)).severity, Severity::Info);
    }

    #[test]
    fn what_is_reserved_already_stays_so() {
        let about = found(rule, with("1024 65000", "9000-9010", 8080));
        let help = &about.helps[0].words();
        assert!(help.ends_with("ip_local_reserved_ports=8080,9000-9010"), "{help}");
    }
}
