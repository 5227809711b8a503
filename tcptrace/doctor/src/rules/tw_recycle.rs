//! `tcp_tw_recycle`: in force, or still in a file.

use crate::{
    facts::{HostFacts, NetnsFacts},
    finding::{About, Help, Outcome, Severity},
};

pub(super) fn rule(host: &HostFacts, space: &NetnsFacts) -> Outcome {
    let on = space.sysctls.tcp_tw_recycle.value().is_some_and(|&value| value != 0);
    // Files are the host's: told once.
    let is_first = host.spaces.first().is_some_and(|first| first.netns == space.netns);
    let mut places = host
        .files
        .iter()
        .filter(|setting| setting.key == "net.ipv4.tcp_tw_recycle" && is_first)
        .map(|setting| format!("{} line {}", setting.file, setting.line));
    let (severity, seen, help) = match (on, places.next()) {
        (true, _) => (
            Severity::Critical,
            "net.ipv4.tcp_tw_recycle is on".to_owned(),
            Help::command(space.sysctl("net.ipv4.tcp_tw_recycle", 0), "none"),
        ),
        (false, Some(first)) => {
            let more = match places.count() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let seen = format!("{first}{more} sets net.ipv4.tcp_tw_recycle");
            (Severity::Info, seen, Help::new("remove the line: it does nothing here", "none"))
        }
        (false, None) => return Outcome::Fine,
    };
    Outcome::Found(About {
        severity,
        is_forecast: false,
        amount: 1,
        seen,
        why: "It dropped SYNs whose timestamp was lower than the last one from the same address. \
              Clients behind one NAT have clocks of their own, so some of them could not connect. \
              Linux 4.12 removed it.",
        helps: vec![help],
        useless: &["looking for a replacement: the accepting end needs none, a SYN may take over \
                    a TIME_WAIT of its own accord"],
        docs: "commit 4396e46187ca; ip-sysctl: tcp_tw_reuse",
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::facts::Setting;
    use tcptrace_model::Sysctl;

    #[test]
    fn on_is_critical_and_a_line_in_a_file_a_note_told_once() {
        assert_fine(rule, space());
        let mut off = space();
        off.sysctls.tcp_tw_recycle = Sysctl::Is(0);
        assert_fine(rule, off.clone());
        off.sysctls.tcp_tw_recycle = Sysctl::Is(1);
        assert_eq!(found(rule, off).severity, Severity::Critical);
        let mut host = host(space());
        host.spaces.push(NetnsFacts { netns: 2, ..space() });
        host.files.push(Setting {
            file: "/etc/sysctl.conf".to_owned(),
            line: 3,
            key: "net.ipv4.tcp_tw_recycle".to_owned(),
            value: "1".to_owned(),
        });
        let Outcome::Found(about) = rule(&host, &host.spaces[0]) else { panic!() };
        assert_eq!(about.severity, Severity::Info);
        assert!(about.seen.starts_with("/etc/sysctl.conf line 3 sets"), "{}", about.seen);
        assert_eq!(rule(&host, &host.spaces[1]), Outcome::Fine);
    }
}
