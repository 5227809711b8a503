//! By what connections are told apart: `--by`.
//!
//! Must not keep anything: a key follows from one change alone, so that what one change counts
//! up under a key another can count down.

use std::{fmt, net::IpAddr, str::FromStr};

use thiserror::Error;

use tcptrace_model::{
    Birth, Closer, EndReason, Found, Holder, Moved, Opened, Owner, ProcessName, Tuple,
};

/// What tells connections apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Why it ended, where it ended as a minisock.
    Reason,
    /// The name of the process that owns it: that opened or accepted it.
    Owner,
    /// The name of the process whose FIN or RST left first from here.
    Closer,
    /// The name of the process that has it open.
    Holder,
    /// The port of the service, see [`service_port`].
    Port,
    /// The peer's address.
    Peer,
    /// The network namespace.
    Netns,
    /// The cgroup: a systemd unit, a container, a pod.
    Unit,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Reason,
        Self::Owner,
        Self::Closer,
        Self::Holder,
        Self::Port,
        Self::Peer,
        Self::Netns,
        Self::Unit,
    ];

    /// The word for the command line and for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Owner => "owner",
            Self::Closer => "closer",
            Self::Holder => "holder",
            Self::Port => "port",
            Self::Peer => "peer",
            Self::Netns => "netns",
            Self::Unit => "unit",
        }
    }

    /// The group of a connection.
    pub fn key<'a>(self, subject: impl Into<Subject<'a>>) -> Key {
        let subject = subject.into();
        match self {
            Self::Reason => Key::Reason(subject.reason),
            Self::Owner => Key::Owner(subject.owner.map(|owner| owner.task.name())),
            Self::Closer => Key::Closer(subject.closer.map(|closer| closer.task.name())),
            Self::Holder => Key::Holder(subject.holder.map(|holder| holder.task.name())),
            Self::Port => Key::Port(service_port(subject.tuple, subject.birth)),
            Self::Peer => Key::Peer(subject.tuple.remote_ip()),
            Self::Netns => Key::Netns(subject.netns),
            Self::Unit => Key::Cgroup(subject.cgroup),
        }
    }
}

/// A word that is no key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("unknown key '{0}': reason, owner, closer, holder, port, peer, netns, unit")]
pub struct UnknownKey(String);

impl FromStr for By {
    type Err = UnknownKey;

    fn from_str(word: &str) -> Result<Self, UnknownKey> {
        Self::ALL
            .into_iter()
            .find(|by| by.name() == word)
            .ok_or_else(|| UnknownKey(word.escape_default().to_string()))
    }
}

/// What a key is taken from.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    tuple: &'a Tuple,
    netns: Option<u32>,
    cgroup: Option<u64>,
    owner: Option<&'a Owner>,
    closer: Option<&'a Closer>,
    holder: Option<&'a Holder>,
    birth: Option<Birth>,
    reason: Option<EndReason>,
}

impl<'a> From<&'a Moved> for Subject<'a> {
    fn from(moved: &'a Moved) -> Self {
        Self {
            tuple: &moved.tuple,
            netns: moved.netns,
            cgroup: moved.sock.as_ref().and_then(|sock| sock.cgroup),
            owner: moved.owner.as_ref(),
            closer: moved.closer.as_ref(),
            holder: None,
            birth: moved.birth,
            reason: moved.end_reason,
        }
    }
}

impl<'a> From<&'a Found> for Subject<'a> {
    fn from(found: &'a Found) -> Self {
        Self {
            tuple: &found.tuple,
            netns: found.netns,
            cgroup: found.cgroup,
            owner: found.owner.as_ref(),
            closer: found.closer.as_ref(),
            holder: found.holder.as_ref(),
            birth: found.birth,
            reason: None,
        }
    }
}

/// The port by which the service is known: the local one of a listener and of a connection that
/// was accepted, the peer's of one that was connected from here. Where the beginning was not
/// seen, the lower of the two: ephemeral ports are high (32768 and up unless
/// `ip_local_port_range` says otherwise).
pub fn service_port(tuple: &Tuple, birth: Option<Birth>) -> Option<u16> {
    ServicePort::of(tuple, birth).map(ServicePort::number)
}

/// A service's port, and at which end it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServicePort {
    /// Here: a server's connection.
    Local(u16),
    /// At the peer: a client's.
    Remote(u16),
}

impl ServicePort {
    /// As [`service_port`] finds it.
    fn of(tuple: &Tuple, birth: Option<Birth>) -> Option<Self> {
        let port = match birth.map(|birth| birth.opened) {
            Some(Opened::Accept | Opened::Listen) => Self::Local(tuple.lport),
            Some(Opened::Connect) => Self::Remote(tuple.rport),
            None if tuple.rport == 0 => Self::Local(tuple.lport),
            None if tuple.lport == 0 || tuple.rport < tuple.lport => Self::Remote(tuple.rport),
            None => Self::Local(tuple.lport),
        };
        (port.number() != 0).then_some(port)
    }

    /// The port.
    pub const fn number(self) -> u16 {
        match self {
            Self::Local(port) | Self::Remote(port) => port,
        }
    }

    /// The word for the end it is at.
    pub const fn end(self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Remote(_) => "remote",
        }
    }
}

impl fmt::Display for ServicePort {
    /// `:80` here, `→:443` at the peer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(port) => write!(f, ":{port}"),
            Self::Remote(port) => write!(f, "→:{port}"),
        }
    }
}

/// The group of a connection by process and service together: the process that closed it from here,
/// or, where none has, its owner.
pub fn service<'a>(subject: impl Into<Subject<'a>>) -> Key {
    let subject = subject.into();
    let closer = subject.closer.map(|closer| closer.task.name());
    let name = closer.or(subject.owner.map(|owner| owner.task.name()));
    Key::Service(name, ServicePort::of(subject.tuple, subject.birth))
}

/// A group of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// All of them, undivided.
    All,
    /// Those that ended so; `None` for those that did not end as a minisock.
    Reason(Option<EndReason>),
    /// Whether the attempt to connect came to a connection.
    Connected(bool),
    /// Those that processes of this name own.
    Owner(Option<ProcessName>),
    /// Those that processes of this name closed from here.
    Closer(Option<ProcessName>),
    /// Those that processes of this name have open.
    Holder(Option<ProcessName>),
    /// Those of the service at this port.
    Port(Option<u16>),
    /// Those of the processes of this name with the service at this port, see [`service`].
    Service(Option<ProcessName>, Option<ServicePort>),
    /// Those with this peer.
    Peer(IpAddr),
    /// Those in the namespace with this inode number.
    Netns(Option<u32>),
    /// Those of the cgroup with this id. Several may be called the same: see [`super::named`].
    Cgroup(Option<u64>),
    /// Those of all groups for which there was no room.
    Other,
}

impl Key {
    /// The name of the group, as far as the key alone tells it, escaped; `None` for [`Key::All`]
    /// and where it is not known.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Reason(reason) => reason.map(|reason| reason.name().to_owned()),
            Self::Connected(true) => Some("connected".to_owned()),
            Self::Connected(false) => Some("failed".to_owned()),
            Self::Owner(name) | Self::Closer(name) | Self::Holder(name) => {
                name.map(|name| name.to_string())
            }
            Self::Port(port) => port.map(|port| port.to_string()),
            Self::Service(name, port) => {
                let name = name.map_or_else(|| "-".to_owned(), |name| name.to_string());
                Some(match port {
                    Some(port) => format!("{name} {port}"),
                    None => format!("{name} :-"),
                })
            }
            Self::Peer(ip) => Some(ip.to_string()),
            Self::Netns(netns) => netns.map(|netns| netns.to_string()),
            Self::Cgroup(id) => id.map(|id| format!("cgroup {id}")),
            Self::Other => Some("(other)".to_owned()),
        }
    }
}

impl fmt::Display for Key {
    /// Escaped, and `-` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label().as_deref().unwrap_or("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::{Change, script};
    use tcptrace_track::Tracker;

    fn keys(by: By, script: &str) -> Vec<String> {
        keys_by(|subject| by.key(subject), script)
    }

    fn keys_by(key: impl Fn(Subject<'_>) -> Key, script: &str) -> Vec<String> {
        let (mut tracker, mut keys) = (Tracker::default(), Vec::new());
        for input in script::inputs(script).unwrap() {
            tracker.apply(&input, &mut |change| match &change {
                Change::Moved(moved) => keys.push(key(moved.into()).to_string()),
                Change::Found(found) | Change::Gone(found) => {
                    keys.push(key(found.into()).to_string());
                }
                Change::Retired(_) => {}
            });
        }
        keys
    }

    #[test]
    fn a_port_is_that_of_the_service() {
        let script = "0ms begin\n\
            1ms sk=1 CLOSE>LISTEN 10.0.0.2:50000 0.0.0.0:0\n\
            2ms sk=2 LISTEN>SYN_RECV 10.0.0.2:50000 10.0.0.1:40000\n\
            3ms sk=3 CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:50000\n\
            4ms sk=3 SYN_SENT>ESTABLISHED 10.0.0.1:40000 10.0.0.2:50000\n\
            5ms sk=4 ESTABLISHED>CLOSE_WAIT 10.0.0.1:443 10.0.0.2:50000\n";
        let found_and_moved = ["443", "443"];
        assert_eq!(
            keys(By::Port, script),
            [&["50000"; 4][..], &found_and_moved[..]].concat(),
            "where the beginning was not seen, the lower"
        );
        let services = keys_by(|subject| service(subject), script);
        assert_eq!(
            services,
            [" :50000", " :50000", " →:50000", " →:50000", "- :443", "- :443"],
            "and at which end; these tasks have an empty name"
        );
    }

    #[test]
    fn a_service_that_is_not_known_is_no_other() {
        let script = "0ms begin\n\
            1ms sk=1 CLOSE>LISTEN 10.0.0.2:80 0.0.0.0:0 comm=nginx\n\
            2ms sk=2 ESTABLISHED>CLOSE_WAIT 10.0.0.1:40000 10.0.0.2:443\n\
            3ms sk=3 ESTABLISHED>FIN_WAIT1 10.0.0.1:0 10.0.0.2:0 comm=x\n";
        let keys = keys_by(|subject| service(subject), script);
        assert_eq!(keys, ["nginx :80", "- →:443", "- →:443", "- :-", "x :-"]);
    }

    #[test]
    fn names_are_escaped_and_the_unknown_is_a_dash() {
        let script = "0ms begin\n\
            1ms sk=1 CLOSE>SYN_SENT 10.0.0.1:7 [::ffff:10.0.0.2]:443 comm=\x1b[31m netns=5\n\
            2ms sk=2 ESTABLISHED>CLOSE_WAIT [2001:db8::1]:7 [2001:db8::2]:443 classic\n";
        assert_eq!(keys(By::Owner, script), ["\\x1b[31m", "-", "-"]);
        assert_eq!(keys(By::Netns, script), ["5", "-", "-"]);
        assert_eq!(keys(By::Peer, script), ["10.0.0.2", "2001:db8::2", "2001:db8::2"]);
        assert_eq!(keys(By::Reason, script), ["-"; 3]);
    }

    #[test]
    fn a_cgroup_is_known_by_its_id() {
        let script = "0ms begin\n\
            1ms cgroup 7 /system.slice/nginx.service\n\
            1ms sk=1 CLOSE>SYN_SENT 10.0.0.1:7 10.0.0.2:443 cgroup=7\n\
            2ms sk=2 CLOSE>SYN_SENT 10.0.0.1:8 10.0.0.2:443\n\
            3ms sk=3 CLOSE>SYN_SENT 10.0.0.1:9 10.0.0.2:443 classic\n";
        assert_eq!(keys(By::Unit, script), ["cgroup 7", "-", "-"], "its name may come later");
    }

    #[test]
    fn an_unknown_key_lists_what_there_is() {
        for by in By::ALL {
            assert_eq!(by.name().parse(), Ok(by));
        }
        let error = "pid\x07".parse::<By>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown key 'pid\\u{7}': reason, owner, closer, holder, port, peer, netns, unit"
        );
    }
}
