//! Groups of stuck connections, and the listeners in whose queues those wait that nobody accepted.

use std::net::{IpAddr, Ipv6Addr};

use super::cause::Cause;
use crate::group::{By, Key};
use tcptrace_model::{Found, ProcessName, TcpState, Tuple, hash::Map};
use tcptrace_track::Standing;

/// A group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// Those of one key.
    Known(Key),
    /// Those that no process holds any more (`--by owner`: and whose owner is not known).
    Orphan,
    /// Those that no process has accepted yet, and where they wait for that.
    NotAccepted(Door),
}

/// Where connections wait for accept().
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Door {
    /// Inode of the network namespace, if that is known.
    pub netns: Option<u32>,
    /// The address that the listener is bound to, or, while no listener is known, that of the
    /// connection.
    pub laddr: Ipv6Addr,
    /// The local port.
    pub lport: u16,
    /// The process that listens, if that is known.
    pub listener: Option<(u32, ProcessName)>,
}

impl Whose {
    /// The kind of what was left out of a report.
    pub const REST: &'static str = "other";

    /// That of a connection, by itself: of one that was not accepted the listener is not known yet.
    pub fn of(by: By, cause: Option<Cause>, standing: &Standing<'_>) -> Self {
        let found = &standing.found;
        if matches!(by, By::Owner | By::Holder) && cause == Some(Cause::NotAccepted) {
            return Self::NotAccepted(Door::of(found));
        }
        let key = by.key(found);
        match (key, standing.held) {
            (Key::Owner(None) | Key::Holder(None), Some(false)) => match found.state {
                TcpState::SynSent => Self::Known(key),
                TcpState::CloseWait | TcpState::SynRecv | TcpState::Established => {
                    Self::NotAccepted(Door::of(found))
                }
                _ => Self::Orphan,
            },
            _ => Self::Known(key),
        }
    }

    /// What it is called; `None` where that is not known.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::Known(key) => key.label(),
            Self::Orphan => Some("(orphan)".to_owned()),
            Self::NotAccepted(Door { listener: Some((_, name)), lport, .. }) => {
                Some(format!("(not accepted) {name} :{lport}"))
            }
            Self::NotAccepted(Door { lport, .. }) => Some(format!("(not accepted) :{lport}")),
        }
    }

    /// What kind of a group it is, for programs: a process may call itself anything.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Known(Key::Other) => Self::REST,
            Self::Known(_) => "known",
            Self::Orphan => "orphan",
            Self::NotAccepted(_) => "not-accepted",
        }
    }
}

impl Door {
    fn of(found: &Found) -> Self {
        let Tuple { laddr, lport, .. } = found.tuple;
        Self { netns: found.netns, laddr, lport, listener: None }
    }

    /// Whether the listener here takes what comes to `other`.
    fn takes(&self, other: &Self) -> bool {
        (self.netns, self.lport) == (other.netns, other.lport)
            && (self.laddr == other.laddr || is_any(self.laddr))
    }

    /// The address, as people write it.
    pub fn address(&self) -> IpAddr {
        match self.laddr.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(self.laddr),
        }
    }
}

/// Whether a listener bound to it takes what comes to any address.
fn is_any(address: Ipv6Addr) -> bool {
    address.is_unspecified() || address.to_ipv4_mapped().is_some_and(|v4| v4.is_unspecified())
}

/// The listeners that there are.
#[derive(Default)]
pub struct Doors(Map<(Option<u32>, u16), Vec<Door>>);

/// Listeners of one port that are told apart.
const MOST: usize = 64;

impl Doors {
    /// All in a census.
    pub fn of(census: impl Iterator<Item = Found>) -> Self {
        let mut doors = Self::default();
        census.filter(|found| found.state == TcpState::Listen).for_each(|found| doors.add(&found));
        doors
    }

    /// Takes in a listener.
    pub fn add(&mut self, found: &Found) {
        let mut door = Door::of(found);
        let task = found.holder.map(|holder| holder.task);
        let task = task.or(found.owner.map(|owner| owner.task));
        door.listener = task.map(|task| (task.tgid, task.name()));
        let doors = self.0.entry((door.netns, door.lport)).or_default();
        if doors.len() < MOST {
            doors.push(door);
        }
    }

    /// The group with its listener: of several, the one that is bound to this very address; of a
    /// pre-forking server, the first.
    pub fn resolve(&self, whose: Whose) -> Whose {
        let Whose::NotAccepted(at) = whose else { return whose };
        let doors = self.0.get(&(at.netns, at.lport)).into_iter().flatten();
        let best = doors.filter(|door| door.takes(&at)).min_by_key(|door| {
            let pid = door.listener.map_or(u32::MAX, |(pid, _)| pid);
            (door.laddr != at.laddr, pid)
        });
        best.map_or(whose, |door| Whose::NotAccepted(*door))
    }
}
