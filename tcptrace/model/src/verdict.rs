//! How a connection ended: who closed first, and how.
//!
//! Only the words. What makes them true of a connection is `track::verdict`.

use std::fmt;

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
    /// The SYN was not answered (`tcp_syn_retries`, or `TCP_USER_TIMEOUT`).
    Syn,
    /// The SYN-ACK was not acknowledged (`tcp_synack_retries`): a child by Fast Open, or a
    /// simultaneous open.
    SynAck,
    /// Data, a FIN or a window probe was not acknowledged (`tcp_retries2`).
    Retransmit,
    /// Keep-alive probes were not answered (`tcp_keepalive_probes`, or `TCP_USER_TIMEOUT`).
    Keepalive,
    /// `TCP_USER_TIMEOUT` was over: with it, `tcp_retries2` does not count, but for a closed window.
    User,
}

/// Why this host reset a connection that it was not simply told to reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RstWhy {
    /// Data came after close(): nobody is there to read it.
    DataAfterClose,
    /// connect(AF_UNSPEC) on a connection: `tcp_disconnect()` without `SO_LINGER` 0.
    Disconnect,
    /// The listener closed before accept() had handed the connection out.
    ListenerClosed,
    /// `TCP_LINGER2` below 0: no waiting in FIN_WAIT2.
    Linger2,
    /// Data came for an orphan's minisock in FIN_WAIT2.
    DataForMinisock,
    /// MPTCP reset a subflow: a fast close, a subflow that was refused or removed, or the listener
    /// of one that nobody has accepted.
    Mptcp,
    /// The kernel gave another reason.
    Other,
}

/// Why this host dropped a connection and sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropWhy {
    /// The socket was in repair mode (`TCP_REPAIR`): a checkpoint took the connection away.
    Repair,
    /// close() with `SO_LINGER` 0 or connect(AF_UNSPEC), after both FINs had been sent: the kernel
    /// sends no RST then (`tcp_disconnect()`).
    Disconnect,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum How {
    /// By a FIN each way, or one that was acknowledged and has a minisock to wait for the other.
    Fin,
    /// The program ended it with `SO_LINGER` on and its time 0: a RST instead of a FIN. By close();
    /// where both ways had been shut down before, connect(AF_UNSPEC) looks the same.
    RstLinger0,
    /// close() with bytes received that nobody read: a RST instead of a FIN.
    RstUnreadData,
    /// The peer sent a RST.
    RstReceived,
    /// This host sent a RST.
    RstSent(RstWhy),
    /// connect() was answered with a RST or an ICMP port unreachable.
    Refused,
    /// The handshake was answered with an ICMP error, or there was no route any more.
    Unreachable,
    /// Nobody answered any more.
    Timeout(Timeout),
    /// After close(), no acknowledgement or no FIN of the peer came (`tcp_orphan_retries`,
    /// `tcp_fin_timeout`).
    OrphanGaveUp,
    /// Too many orphans (`tcp_max_orphans`), or no memory for them.
    OrphanLimit,
    /// `SOCK_DESTROY` (`ss -K`).
    SockDestroy,
    /// Its network namespace went.
    NetnsExit,
    /// The process gave up on connect() before it was answered: by close(), shutdown() or
    /// connect(AF_UNSPEC).
    ConnectAbandoned,
    /// connect() found no free local port (EADDRNOTAVAIL).
    NoLocalPort,
    /// This host dropped the connection and sent nothing.
    Dropped(DropWhy),
    /// Not known: [`Verdict::unknown_because`] says why not.
    Unknown,
}

impl How {
    /// All of them, the likeliest first.
    pub const ALL: [Self; 27] = [
        Self::Fin,
        Self::RstReceived,
        Self::RstLinger0,
        Self::RstUnreadData,
        Self::RstSent(RstWhy::DataAfterClose),
        Self::RstSent(RstWhy::Disconnect),
        Self::RstSent(RstWhy::ListenerClosed),
        Self::RstSent(RstWhy::Linger2),
        Self::RstSent(RstWhy::DataForMinisock),
        Self::RstSent(RstWhy::Mptcp),
        Self::RstSent(RstWhy::Other),
        Self::Refused,
        Self::Unreachable,
        Self::Timeout(Timeout::Syn),
        Self::Timeout(Timeout::SynAck),
        Self::Timeout(Timeout::Retransmit),
        Self::Timeout(Timeout::Keepalive),
        Self::Timeout(Timeout::User),
        Self::OrphanGaveUp,
        Self::OrphanLimit,
        Self::SockDestroy,
        Self::NetnsExit,
        Self::ConnectAbandoned,
        Self::NoLocalPort,
        Self::Dropped(DropWhy::Repair),
        Self::Dropped(DropWhy::Disconnect),
        Self::Unknown,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::RstLinger0 => "rst-linger0",
            Self::RstUnreadData => "rst-unread-data",
            Self::RstReceived => "rst-received",
            Self::RstSent(RstWhy::DataAfterClose) => "rst-sent-data-after-close",
            Self::RstSent(RstWhy::Disconnect) => "rst-sent-disconnect",
            Self::RstSent(RstWhy::ListenerClosed) => "rst-sent-listener-closed",
            Self::RstSent(RstWhy::Linger2) => "rst-sent-linger2",
            Self::RstSent(RstWhy::DataForMinisock) => "rst-sent-data-for-minisock",
            Self::RstSent(RstWhy::Mptcp) => "rst-sent-mptcp",
            Self::RstSent(RstWhy::Other) => "rst-sent-other",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout(Timeout::Syn) => "timeout-syn",
            Self::Timeout(Timeout::SynAck) => "timeout-synack",
            Self::Timeout(Timeout::Retransmit) => "timeout-retransmit",
            Self::Timeout(Timeout::Keepalive) => "timeout-keepalive",
            Self::Timeout(Timeout::User) => "timeout-user",
            Self::OrphanGaveUp => "orphan-gave-up",
            Self::OrphanLimit => "orphan-limit",
            Self::SockDestroy => "sock-destroy",
            Self::NetnsExit => "netns-exit",
            Self::ConnectAbandoned => "connect-abandoned",
            Self::NoLocalPort => "no-local-port",
            Self::Dropped(DropWhy::Repair) => "dropped-repair",
            Self::Dropped(DropWhy::Disconnect) => "dropped-disconnect",
            Self::Unknown => "unknown",
        }
    }

    /// The word that [`Self::name`] gives, back; `rst-sent`, `timeout` and `dropped` alone are no such
    /// word.
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

/// Why it is not known how a connection ended: what the evidence lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownBecause {
    /// The classic tracepoint reports states only, and no RST of this connection settles it.
    ClassicHook,
    /// RSTs are not observed in this run, and one of them, or its absence, would settle it.
    NoResetHook,
    /// Minisocks are not followed in this run: this may be a hand-over to one.
    NoMinisockHook,
    /// How the minisock in FIN_WAIT2 ended was not observed.
    MinisockEnd,
    /// Records were lost, and one of them may have settled it.
    EventsLost,
    /// Too many closes waited for a RST at a time.
    Overload,
    /// The kernel's BTF, or the recording, lacks fields that would settle it.
    FieldsMissing,
    /// connect() failed on this host before it sent a SYN; which error it returned is not observed.
    ConnectFailed,
    /// The socket had an error that does not end a connection by itself, so another end is behind
    /// this one.
    PendingError,
    /// The kernel dropped the socket and sent nothing: it had no memory for a RST, or the network
    /// namespace was going away.
    NoRst,
    /// Several causes leave exactly this evidence.
    SeveralCauses,
    /// The evidence fits no cause in a kernel that is known.
    Contradiction,
}

impl UnknownBecause {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ClassicHook,
        Self::NoResetHook,
        Self::NoMinisockHook,
        Self::MinisockEnd,
        Self::EventsLost,
        Self::Overload,
        Self::FieldsMissing,
        Self::ConnectFailed,
        Self::PendingError,
        Self::NoRst,
        Self::SeveralCauses,
        Self::Contradiction,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClassicHook => "classic-hook",
            Self::NoResetHook => "no-reset-hook",
            Self::NoMinisockHook => "no-minisock-hook",
            Self::MinisockEnd => "minisock-end-not-seen",
            Self::EventsLost => "events-lost",
            Self::Overload => "overload",
            Self::FieldsMissing => "fields-missing",
            Self::ConnectFailed => "connect-failed-here",
            Self::PendingError => "pending-error",
            Self::NoRst => "no-rst",
            Self::SeveralCauses => "several-causes",
            Self::Contradiction => "contradiction",
        }
    }
}

/// What is settled of how a connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Who closed first; `None` while nobody has, or where that was not seen.
    pub initiator: Option<Initiator>,
    /// How it ended; `None` while it has not.
    pub how: Option<How>,
    /// Why that is [`How::Unknown`], and `None` where it is not.
    pub unknown_because: Option<UnknownBecause>,
}

impl Verdict {
    /// It ended so, which is known.
    pub const fn of(initiator: Option<Initiator>, how: How) -> Self {
        Self { initiator, how: Some(how), unknown_because: None }
    }

    /// It ended, and for this reason it is not known how.
    pub const fn unknown(initiator: Option<Initiator>, because: UnknownBecause) -> Self {
        Self { initiator, how: Some(How::Unknown), unknown_because: Some(because) }
    }

    /// How it ended, for people: with the reason where that is not known.
    pub fn in_full(&self) -> Option<InFull> {
        self.how.map(|how| InFull { how, unknown_because: self.unknown_because })
    }

    /// Takes up what is settled now. How it ended goes with why that is unknown.
    pub fn settle(&mut self, now: Self) {
        self.initiator = now.initiator.or(self.initiator);
        if now.how.is_some() {
            (self.how, self.unknown_because) = (now.how, now.unknown_because);
        }
    }
}

/// [`Verdict::how`] in full: `rst-sent-disconnect`, `unknown: no-rst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFull {
    how: How,
    unknown_because: Option<UnknownBecause>,
}

impl fmt::Display for InFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unknown_because {
            Some(because) => f.pad(&format!("{}: {}", self.how.name(), because.name())),
            None => f.pad(self.how.name()),
        }
    }
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
    fn what_is_unknown_says_why_and_nothing_else_does() {
        for because in UnknownBecause::ALL {
            let verdict = Verdict::unknown(None, because);
            let text = format!("unknown: {}", because.name());
            assert_eq!(verdict.in_full().map(|it| it.to_string()), Some(text));
        }
        let mut verdict = Verdict::unknown(Some(Initiator::Local), UnknownBecause::NoRst);
        verdict.settle(Verdict { initiator: Some(Initiator::Remote), ..Verdict::default() });
        assert_eq!(verdict.unknown_because, Some(UnknownBecause::NoRst), "nothing new of how");
        verdict.settle(Verdict::of(None, How::Fin));
        assert_eq!(verdict, Verdict::of(Some(Initiator::Remote), How::Fin));
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Verdict>() <= 4, "a million connections hold one each");
    }
}
