//! How a connection ended: who closed first, and how.
//!
//! Only the words. What makes them true of a connection is `track::verdict`.

/// Which end closed first: sent the first FIN or the RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Initiator {
    /// This one.
    Local,
    /// The peer.
    Remote,
    /// Both sent a FIN before either had the other's.
    Both,
    /// Neither: it timed out, or never was a connection.
    None,
}

impl Initiator {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Local, Self::Remote, Self::Both, Self::None];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
            Self::None => "none",
        }
    }
}

/// What had an end, when nobody answered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timeout {
    /// The SYN was not answered (`tcp_syn_retries`).
    Syn,
    /// Data or a FIN was not acknowledged (`tcp_retries2`), or a window stayed shut.
    Retransmit,
    /// Keep-alive probes were not answered (`tcp_keepalive_probes`).
    Keepalive,
    /// `TCP_USER_TIMEOUT` was over.
    User,
}

/// Why this host reset a connection that it was not simply told to reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RstWhy {
    /// Data came after close(): nobody is there to read it.
    DataAfterClose,
    /// connect(AF_UNSPEC) on a connection.
    Disconnect,
    /// The listener closed before accept() had handed the connection out.
    ListenerClosed,
    /// `TCP_LINGER2` below 0: no waiting in FIN_WAIT2.
    Linger2,
    /// Data came for an orphan's minisock in FIN_WAIT2.
    DataForMinisock,
    /// The kernel gave another reason.
    Other,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum How {
    /// By a FIN each way, or one that was acknowledged and has a minisock to wait for the other.
    Fin,
    /// close() with `SO_LINGER` on and its time 0: a RST instead of a FIN.
    RstLinger0,
    /// close() with bytes received that nobody read: a RST instead of a FIN.
    RstUnreadData,
    /// The peer sent a RST.
    RstReceived,
    /// This host sent a RST.
    RstSent(RstWhy),
    /// connect() was answered with a RST or an ICMP port unreachable.
    Refused,
    /// connect() was answered with an ICMP error: no way there.
    Unreachable,
    /// Nobody answered any more.
    Timeout(Timeout),
    /// After close(), the peer did not acknowledge or never sent its FIN (`tcp_orphan_retries`,
    /// `tcp_fin_timeout`).
    OrphanGaveUp,
    /// Too many orphans (`tcp_max_orphans`), or no memory for them.
    OrphanLimit,
    /// `SOCK_DESTROY` (`ss -K`).
    SockDestroy,
    /// Its network namespace went.
    NetnsExit,
    /// The process gave up on connect() before it was answered.
    ConnectAbandoned,
    /// connect() found no free local port (EADDRNOTAVAIL).
    NoLocalPort,
    /// Not known.
    Unknown,
}

impl How {
    /// All of them, the likeliest first.
    pub const ALL: [Self; 23] = [
        Self::Fin,
        Self::RstReceived,
        Self::RstLinger0,
        Self::RstUnreadData,
        Self::RstSent(RstWhy::DataAfterClose),
        Self::RstSent(RstWhy::Disconnect),
        Self::RstSent(RstWhy::ListenerClosed),
        Self::RstSent(RstWhy::Linger2),
        Self::RstSent(RstWhy::DataForMinisock),
        Self::RstSent(RstWhy::Other),
        Self::Refused,
        Self::Unreachable,
        Self::Timeout(Timeout::Syn),
        Self::Timeout(Timeout::Retransmit),
        Self::Timeout(Timeout::Keepalive),
        Self::Timeout(Timeout::User),
        Self::OrphanGaveUp,
        Self::OrphanLimit,
        Self::SockDestroy,
        Self::NetnsExit,
        Self::ConnectAbandoned,
        Self::NoLocalPort,
        Self::Unknown,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::RstLinger0 => "rst-linger0",
            Self::RstUnreadData => "rst-unread-data",
            Self::RstReceived => "rst-received",
            Self::RstSent(RstWhy::DataAfterClose) => "rst-sent: data-after-close",
            Self::RstSent(RstWhy::Disconnect) => "rst-sent: disconnect",
            Self::RstSent(RstWhy::ListenerClosed) => "rst-sent: listener-closed",
            Self::RstSent(RstWhy::Linger2) => "rst-sent: linger2",
            Self::RstSent(RstWhy::DataForMinisock) => "rst-sent: data-for-minisock",
            Self::RstSent(RstWhy::Other) => "rst-sent: other",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout(Timeout::Syn) => "timeout: syn",
            Self::Timeout(Timeout::Retransmit) => "timeout: retransmit",
            Self::Timeout(Timeout::Keepalive) => "timeout: keepalive",
            Self::Timeout(Timeout::User) => "timeout: user",
            Self::OrphanGaveUp => "orphan-gave-up",
            Self::OrphanLimit => "orphan-limit",
            Self::SockDestroy => "sock-destroy",
            Self::NetnsExit => "netns-exit",
            Self::ConnectAbandoned => "connect-abandoned",
            Self::NoLocalPort => "no-local-port",
            Self::Unknown => "unknown",
        }
    }

    /// The word that [`Self::name`] gives, back; `rst-sent` and `timeout` alone are no such word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.name() == name)
    }

    /// Whether there had been a connection: it ended, rather than never came to be.
    pub const fn is_of_a_connection(self) -> bool {
        !matches!(
            self,
            Self::Refused
                | Self::Unreachable
                | Self::Timeout(Timeout::Syn)
                | Self::ConnectAbandoned
                | Self::NoLocalPort
        )
    }
}

/// What is settled of how a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Who closed first; `None` while nobody has, or where that was not seen.
    pub initiator: Option<Initiator>,
    /// How it ended; `None` while it has not.
    pub how: Option<How>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_of_its_own_and_comes_back() {
        for how in How::ALL {
            assert_eq!(How::from_name(how.name()), Some(how));
        }
        assert_eq!(How::from_name("rst-sent"), None);
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Verdict>() <= 4, "a million connections hold one each");
    }
}
