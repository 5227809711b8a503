//! What each sysctl of the classic lists does, and whether it matters for what is there now.
//!
//! Says nothing of what to do: that is for the rules.

use std::fmt::Display;

use super::facts::{HostFacts, NetnsFacts};
use tcptrace_model::{Sysctl, Sysctls, TcpState};
use tcptrace_stats::stuck::Cause;

/// A sysctl.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name with dots, as sysctl(8) has it.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub does: &'static str,
    /// Why a kernel may have none.
    pub absent: &'static str,
    /// The default of upstream kernels, where this kernel's own is not to be had.
    pub upstream: &'static str,
    value: fn(&Sysctls) -> Sysctl<String>,
    matters: fn(&NetnsFacts) -> Matters,
}

impl Spec {
    /// The last part of its name.
    pub fn short(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Its file under `/proc/sys/net`.
    pub fn file(&self) -> String {
        self.name.strip_prefix("net.").unwrap_or(self.name).replace('.', "/")
    }

    /// Its value in `sysctls`, as the kernel prints it.
    pub fn value(&self, sysctls: &Sysctls) -> Sysctl<String> {
        (self.value)(sysctls)
    }

    /// What this kernel begins with, and whether that is this kernel's word.
    pub fn default(&self, defaults: &Result<Sysctls, String>) -> (Option<String>, bool) {
        let Ok(defaults) = defaults else {
            let upstream = (!self.upstream.is_empty()).then(|| self.upstream.to_owned());
            return (upstream, false);
        };
        let default = match self.value(defaults) {
            // Only the host's first namespace has it, so an empty one does not tell. Both begin as
            // half of the size of the hash table (tcp_init(), tcp_sk_init()).
            Sysctl::Absent if self.short() == "tcp_max_orphans" => {
                number(&defaults.tcp_max_tw_buckets)
            }
            other => other,
        };
        (default.value().cloned(), true)
    }
}

/// Whether what a sysctl says makes a difference for what is there now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matters {
    /// It does.
    Yes(String),
    /// It does not.
    No(String),
    /// What would tell was not seen.
    Unknown(String),
}

impl Matters {
    fn of(yes: bool, why: String) -> Self {
        if yes { Self::Yes(why) } else { Self::No(why) }
    }

    /// The word for outputs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Yes(_) => "yes",
            Self::No(_) => "no",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why.
    pub fn why(&self) -> &str {
        match self {
            Self::Yes(why) | Self::No(why) | Self::Unknown(why) => why,
        }
    }
}

/// A sysctl in a namespace.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub spec: &'static Spec,
    /// Its value, or why there is none.
    pub value: Sysctl<String>,
    /// What this kernel begins with, if that is known.
    pub default: Option<String>,
    /// That is this kernel's own word, and not upstream's.
    pub default_is_own: bool,
    /// Whether it matters.
    pub matters: Matters,
}

/// A row for each sysctl of a namespace.
pub fn rows(host: &HostFacts, space: &NetnsFacts) -> Vec<Row> {
    ALL.iter()
        .map(|spec| {
            let value = spec.value(&space.sysctls);
            let (default, default_is_own) = spec.default(&host.defaults);
            let matters = match value {
                Sysctl::Absent => Matters::No("it is not there".to_owned()),
                _ => (spec.matters)(space),
            };
            Row { spec, value, default, default_is_own, matters }
        })
        .collect()
}

fn number(sysctl: &Sysctl<i64>) -> Sysctl<String> {
    map(sysctl, i64::to_string)
}

fn map<T>(sysctl: &Sysctl<T>, to: impl Fn(&T) -> String) -> Sysctl<String> {
    match sysctl {
        Sysctl::Is(value) => Sysctl::Is(to(value)),
        Sysctl::Absent => Sysctl::Absent,
        Sysctl::Unreadable(why) => Sysctl::Unreadable(why.clone()),
    }
}

/// Many are many thousands of characters: that is for who shows it to cut.
fn list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether a counter grew while it was watched.
fn grew(space: &NetnsFacts, name: &str, what: &str) -> Matters {
    match space.counters.grew(name) {
        Some(count) => Matters::of(count > 0, format!("{count} {what}")),
        None => Matters::Unknown(space.counters.unknown(name)),
    }
}

fn in_state(space: &NetnsFacts, state: TcpState) -> Matters {
    let count = space.count(state);
    Matters::of(count > 0, format!("{count} in {}", state.name()))
}

fn connects(space: &NetnsFacts) -> Matters {
    let paths = space.paths.len();
    let words = if paths == 1 { "peer port is" } else { "peer ports are" };
    let bound = space.bound.as_ref().map_or(0, |bound| bound.bound);
    let bound_words =
        if bound > 0 { format!(", {bound} ports of it are bound") } else { String::new() };
    Matters::of(
        paths > 0 || bound > 0,
        format!("{paths} {words} connected to from here{bound_words}"),
    )
}

fn reuse(space: &NetnsFacts) -> Matters {
    if space.ports_unknown.is_some() {
        return Matters::Unknown("TIME_WAITs by peer are not known".to_owned());
    }
    let held: u64 = space.paths.iter().filter_map(|row| row.time_wait).sum();
    Matters::of(held > 0, format!("{held} TIME_WAITs of connections opened from here"))
}

fn listens(space: &NetnsFacts) -> Matters {
    let count = space.listeners.len();
    Matters::of(count > 0, format!("{count} listeners"))
}

fn orphans(space: &NetnsFacts) -> Matters {
    match &space.counters.last {
        Some(last) => {
            let count = last.sockets.orphan;
            Matters::of(count > 0, format!("{count} orphans on the host"))
        }
        None => Matters::Unknown(space.counters.unknown("orphan")),
    }
}

const ALWAYS_THERE: &str = "this kernel was built without it";

/// All of them, in the order of the classic lists.
pub const ALL: &[Spec] = &[
    Spec {
        name: "net.ipv4.tcp_syncookies",
        does: "1: answers SYNs with a cookie, and keeps nothing, when a SYN queue is full; 2: \
               always; 0: never",
        absent: "built without CONFIG_SYN_COOKIES",
        upstream: "1",
        value: |sysctls| number(&sysctls.tcp_syncookies),
        matters: |space| grew(space, "SyncookiesSent", "cookies sent meanwhile"),
    },
    Spec {
        name: "net.ipv4.tcp_tw_reuse",
        does: "connect() may take the port of a TIME_WAIT: 1 to any peer, 2 on loopback, 0 never; \
               needs timestamps; does nothing for connections that were accepted",
        absent: ALWAYS_THERE,
        upstream: "2",
        value: |sysctls| number(&sysctls.tcp_tw_reuse),
        matters: reuse,
    },
    Spec {
        name: "net.ipv4.tcp_tw_reuse_delay",
        does: "how old that TIME_WAIT must be, in ms",
        absent: "since Linux 6.14; a second before",
        upstream: "1000",
        value: |sysctls| number(&sysctls.tcp_tw_reuse_delay),
        matters: reuse,
    },
    Spec {
        name: "net.ipv4.tcp_tw_recycle",
        does: "ended TIME_WAITs early and dropped SYNs of clients behind NAT",
        absent: "removed in Linux 4.12; nobody should miss it: it broke clients behind NAT, and \
                 a SYN may take over a TIME_WAIT without it",
        upstream: "",
        value: |sysctls| number(&sysctls.tcp_tw_recycle),
        matters: |space| in_state(space, TcpState::TimeWait),
    },
    Spec {
        name: "net.ipv4.tcp_fin_timeout",
        does: "how long an orphan waits in FIN_WAIT2, in s; TIME_WAIT takes 60 s whatever it is",
        absent: ALWAYS_THERE,
        upstream: "60",
        value: |sysctls| number(&sysctls.tcp_fin_timeout),
        matters: |space| {
            let (now, _) = space.fin_wait2();
            Matters::of(now > 0, format!("{now} orphans in FIN_WAIT2"))
        },
    },
    Spec {
        name: "net.ipv4.tcp_keepalive_time",
        does: "idle time before the first probe, in s, of sockets with SO_KEEPALIVE and no \
               TCP_KEEPIDLE",
        absent: ALWAYS_THERE,
        upstream: "7200",
        value: |sysctls| number(&sysctls.tcp_keepalive_time),
        matters: |space| in_state(space, TcpState::Established),
    },
    Spec {
        name: "net.ipv4.tcp_keepalive_intvl",
        does: "time between two probes, in s",
        absent: ALWAYS_THERE,
        upstream: "75",
        value: |sysctls| number(&sysctls.tcp_keepalive_intvl),
        matters: |space| in_state(space, TcpState::Established),
    },
    Spec {
        name: "net.ipv4.tcp_keepalive_probes",
        does: "probes without an answer after which the connection is given up",
        absent: ALWAYS_THERE,
        upstream: "9",
        value: |sysctls| number(&sysctls.tcp_keepalive_probes),
        matters: |space| in_state(space, TcpState::Established),
    },
    Spec {
        name: "net.ipv4.ip_local_port_range",
        does: "ports that connect(), and bind() to 0, choose from; for each peer address and \
               port anew",
        absent: ALWAYS_THERE,
        upstream: "32768 60999",
        value: |sysctls| {
            map(&sysctls.ip_local_port_range, |ports| format!("{} {}", ports.low, ports.high))
        },
        matters: connects,
    },
    Spec {
        name: "net.ipv4.ip_local_reserved_ports",
        does: "ports of these that are left out",
        absent: ALWAYS_THERE,
        upstream: "",
        value: |sysctls| map(&sysctls.ip_local_reserved_ports, |ports| list(ports)),
        matters: connects,
    },
    Spec {
        name: "net.ipv4.tcp_max_syn_backlog",
        does: "with tcp_syncookies=0, from three quarters of it on SYNs of unknown peers are \
               dropped; else the lesser of listen() and somaxconn bounds the SYN queue",
        absent: ALWAYS_THERE,
        upstream: "at least 128, by memory",
        value: |sysctls| number(&sysctls.tcp_max_syn_backlog),
        matters: listens,
    },
    Spec {
        name: "net.core.somaxconn",
        does: "the most that listen() may ask for as the length of its two queues",
        absent: ALWAYS_THERE,
        upstream: "4096",
        value: |sysctls| number(&sysctls.somaxconn),
        matters: listens,
    },
    Spec {
        name: "net.ipv4.tcp_max_tw_buckets",
        does: "the most minisocks (TIME_WAIT, and orphans in FIN_WAIT2); above it, connections go \
               without their TIME_WAIT",
        absent: ALWAYS_THERE,
        upstream: "by memory",
        value: |sysctls| number(&sysctls.tcp_max_tw_buckets),
        matters: |space| in_state(space, TcpState::TimeWait),
    },
    Spec {
        name: "net.ipv4.tcp_max_orphans",
        does: "the most connections of the whole host that no process holds and that still have \
               something to send; more are reset",
        absent: "only in the host's first network namespace: it is for the whole host",
        upstream: "by memory",
        value: |sysctls| number(&sysctls.tcp_max_orphans),
        matters: orphans,
    },
    Spec {
        name: "net.ipv4.tcp_syn_retries",
        does: "how often connect() sends its SYN again before it gives up: 6 is some two minutes",
        absent: ALWAYS_THERE,
        upstream: "6",
        value: |sysctls| number(&sysctls.tcp_syn_retries),
        matters: |space| in_state(space, TcpState::SynSent),
    },
    Spec {
        name: "net.ipv4.tcp_retries2",
        does: "when data that is not acknowledged is given up: at the first try after as long as so \
               many tries take that begin at 0.2 s and double up to 120 s; 15 is some 924 s",
        absent: ALWAYS_THERE,
        upstream: "15",
        value: |sysctls| number(&sysctls.tcp_retries2),
        matters: |space| {
            let states = [TcpState::Established, TcpState::CloseWait];
            let waiting = space.waiting(&states, &[Cause::NoAck]);
            let count: u64 = waiting.map(|waiting| waiting.now).sum();
            Matters::of(count > 0, format!("{count} connections wait for an acknowledgement"))
        },
    },
    Spec {
        name: "net.ipv4.tcp_orphan_retries",
        does: "how often an orphan sends again before it is given up; 0 acts as 8, some 100 s",
        absent: ALWAYS_THERE,
        upstream: "0",
        value: |sysctls| number(&sysctls.tcp_orphan_retries),
        matters: orphans,
    },
    Spec {
        name: "net.ipv4.tcp_rfc1337",
        does: "1: a RST does not end a TIME_WAIT, as RFC 1337 wants it; 0: it does (the kernel's \
               documentation says it the other way round)",
        absent: ALWAYS_THERE,
        upstream: "0",
        value: |sysctls| number(&sysctls.tcp_rfc1337),
        matters: |space| in_state(space, TcpState::TimeWait),
    },
    Spec {
        name: "net.ipv4.tcp_abort_on_overflow",
        does: "1: a full accept queue answers with a RST instead of waiting for the next try",
        absent: ALWAYS_THERE,
        upstream: "0",
        value: |sysctls| number(&sysctls.tcp_abort_on_overflow),
        matters: |space| grew(space, "ListenOverflows", "overflows meanwhile"),
    },
    Spec {
        name: "net.ipv4.tcp_timestamps",
        does: "1: timestamps in segments, which tell old ones from new and make tcp_tw_reuse \
               possible; 2: without the random offset; 0: none",
        absent: ALWAYS_THERE,
        upstream: "1",
        value: |sysctls| number(&sysctls.tcp_timestamps),
        matters: |space| {
            let open = space.count(TcpState::Established) + space.count(TcpState::TimeWait);
            Matters::of(open > 0, format!("{open} connections are open or in TIME_WAIT"))
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script::fresh_sysctls;

    use crate::{facts::Who, rules::testing};

    #[test]
    fn there_is_a_row_for_each_with_its_default() {
        let mut space = testing::space();
        space.sysctls.tcp_fin_timeout = Sysctl::Is(5);
        space.waiting =
            vec![testing::waiting(TcpState::FinWait2, Cause::PeerNotClosed, Who::Orphan, 3)];
        let host = testing::host(space);
        let rows = rows(&host, &host.spaces[0]);
        assert_eq!(rows.len(), 20);
        let row = |name| rows.iter().find(|row| row.spec.short() == name).unwrap();
        let fin = row("tcp_fin_timeout");
        assert_eq!(fin.spec.file(), "ipv4/tcp_fin_timeout");
        assert_eq!((&fin.value, fin.default.as_deref()), (&Sysctl::Is("5".into()), Some("60")));
        assert_eq!(fin.matters, Matters::Yes("3 orphans in FIN_WAIT2".into()));
        let recycle = row("tcp_tw_recycle");
        assert_eq!((&recycle.value, &recycle.default), (&Sysctl::Absent, &None));
        assert_eq!(recycle.matters.name(), "no");
        assert_eq!(row("ip_local_port_range").value, Sysctl::Is("32768 60999".into()));
        assert_eq!(row("somaxconn").spec.file(), "core/somaxconn");
    }

    #[test]
    fn a_default_that_is_not_known_is_upstreams() {
        let spec = |name| ALL.iter().find(|spec| spec.short() == name).unwrap();
        let unknown = Err("not root".to_owned());
        assert_eq!(spec("somaxconn").default(&unknown), (Some("4096".into()), false));
        assert_eq!(spec("tcp_tw_recycle").default(&unknown), (None, false));
        let mut defaults = fresh_sysctls();
        defaults.tcp_max_orphans = Sysctl::Absent;
        defaults.tcp_max_tw_buckets = Sysctl::Is(8192);
        assert_eq!(spec("tcp_max_orphans").default(&Ok(defaults)), (Some("8192".into()), true));
    }

    #[test]
    fn what_was_not_seen_is_not_no() {
        let mut space = testing::space();
        space.counters.last = None;
        let host = testing::host(space);
        for row in rows(&host, &host.spaces[0]) {
            let counted = ["tcp_syncookies", "tcp_abort_on_overflow", "tcp_max_orphans"];
            if counted.contains(&row.spec.short()) {
                assert_eq!(row.matters.name(), "unknown", "{}", row.spec.name);
            }
        }
    }
}
