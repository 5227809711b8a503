//! What of a socket the way that was taken cannot tell, and why: for announcements and `check`.

use tcptrace_common::globals::{ABSENT, SockOffsets};

use super::backend::Backend;

/// A fact about a socket that not every way tells. States, addresses, ports, times and the task
/// come with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Network namespace.
    Netns,
    /// `sk_err`: why the kernel gave the connection up.
    Error,
    /// Setting of `SO_LINGER`.
    Linger,
    /// Cgroup.
    Cgroup,
    /// Socket cookie, which tells two sockets at the same address apart.
    Cookie,
    /// The number of a process in the PID namespace of the reader.
    Pid,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Netns, Self::Error, Self::Linger, Self::Cgroup, Self::Cookie, Self::Pid];

    /// The word for it in outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netns => "network namespace",
            Self::Error => "socket error",
            Self::Linger => "SO_LINGER",
            Self::Cgroup => "cgroup",
            Self::Cookie => "socket cookie",
            Self::Pid => "PID",
        }
    }
}

/// A fact that is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unobservable {
    /// Which.
    pub fact: Fact,
    /// Why not.
    pub why: String,
}

impl Unobservable {
    /// The facts' names, with commas.
    pub fn names(lacking: &[Self]) -> String {
        lacking.iter().map(|lack| lack.fact.name()).collect::<Vec<_>>().join(", ")
    }
}

/// What `backend` leaves out on a kernel with the fields `sock`. `no_cookies` is why socket
/// cookies are not to be had, where they are not; `no_pids` the same of the reader's PIDs.
pub(super) fn unobservable(
    backend: Backend,
    sock: &SockOffsets,
    no_cookies: Option<&str>,
    no_pids: Option<&str>,
) -> Vec<Unobservable> {
    let why = |fact| match (backend, fact) {
        // That does not depend on the hook.
        (_, Fact::Pid) => no_pids.map(str::to_owned),
        (Backend::Tracepoint, _) => {
            Some("the classic tracepoint's record does not carry it".to_owned())
        }
        (Backend::TpBtf, Fact::Netns) if sock.skc_net == ABSENT => {
            Some("this kernel is built without network namespaces".to_owned())
        }
        (Backend::TpBtf, Fact::Cgroup)
            if [sock.sk_cgroup, sock.cgroup_kn, sock.kn_id].contains(&ABSENT) =>
        {
            Some("this kernel (before 5.15, or built so) does not show it to programs".to_owned())
        }
        (Backend::TpBtf, Fact::Cookie) => no_cookies.map(str::to_owned),
        (Backend::TpBtf, _) => None,
    };
    Fact::ALL.into_iter().filter_map(|fact| Some(Unobservable { fact, why: why(fact)? })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_gaps() {
        let known =
            SockOffsets { skc_net: 0, sk_cgroup: 0, cgroup_kn: 0, kn_id: 0, ..SockOffsets::NONE };
        let facts = |backend, sock, no_cookies| -> Vec<Fact> {
            let lacking = unobservable(backend, sock, no_cookies, None);
            lacking.into_iter().map(|lack| lack.fact).collect()
        };
        assert_eq!(facts(Backend::TpBtf, &known, None), []);
        assert_eq!(facts(Backend::TpBtf, &known, Some("EPERM")), [Fact::Cookie]);
        let old = SockOffsets { sk_cgroup: ABSENT, ..known };
        assert_eq!(facts(Backend::TpBtf, &old, None), [Fact::Cgroup]);
        let (pid, others) = Fact::ALL.split_last().unwrap();
        assert_eq!(*pid, Fact::Pid);
        assert_eq!(facts(Backend::Tracepoint, &SockOffsets::NONE, None), others);
        let lacking = unobservable(Backend::TpBtf, &known, None, Some("no /proc"));
        assert_eq!(lacking, [Unobservable { fact: Fact::Pid, why: "no /proc".to_owned() }]);
    }
}
