//! The states of a TCP connection and sets of them, in everybody's spelling.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A state, with the kernel's number (`enum tcp_state`, `include/net/tcp_states.h`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "RFC 9293 says what they are")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    /// A `request_sock` in the SYN queue. The tracepoint never reports it.
    NewSynRecv = 12,
}

impl TcpState {
    /// All states, in the kernel's order.
    pub const ALL: [Self; 12] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
    ];

    /// The state with the kernel's `number`, if there is one.
    pub fn from_kernel(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The kernel's name without `TCP_`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::NewSynRecv => "NEW_SYN_RECV",
        }
    }

    /// The name as a label of a metric, in lower case, as node_exporter's `node_tcp_connection_states` and
    /// OpenTelemetry's `network.connection.state` have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
            Self::NewSynRecv => "new_syn_recv",
        }
    }

    /// Whether one step leads from `self` to `new`: what `tcp_set_state()` and
    /// `inet_csk_clone_lock()` do, the hand-over to a minisock included.
    pub const fn may_become(self, new: Self) -> bool {
        use TcpState::*;
        match self {
            Close => matches!(new, SynSent | Listen),
            // `LISTEN → SYN_RECV` is the birth of a child: a socket that was never in LISTEN.
            Listen => matches!(new, Close | SynRecv),
            SynSent => matches!(new, Established | SynRecv | Close),
            SynRecv | NewSynRecv => {
                matches!(new, Established | FinWait1 | CloseWait | Close)
            }
            Established => matches!(new, FinWait1 | CloseWait | Close),
            FinWait1 => matches!(new, FinWait2 | Closing | TimeWait | Close),
            FinWait2 | Closing => matches!(new, TimeWait | Close),
            CloseWait => matches!(new, LastAck | Close),
            LastAck | TimeWait => matches!(new, Close),
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A set of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    /// No state.
    pub const EMPTY: Self = Self(0);

    /// Every state.
    pub fn all() -> Self {
        TcpState::ALL.into_iter().collect()
    }

    /// Whether `state` is in it.
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & (1 << state as u8) != 0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    const fn without(self, state: TcpState) -> Self {
        Self(self.0 & !(1 << state as u8))
    }
}

impl FromIterator<TcpState> for StateSet {
    fn from_iter<I: IntoIterator<Item = TcpState>>(states: I) -> Self {
        Self(states.into_iter().fold(0, |set, state| set | 1 << state as u8))
    }
}

/// A word that names no state and no group.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "unknown state '{0}': ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, \
     CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING (or as ss spells them: time-wait), or a group: all, \
     connected, synchronized, bucket, big"
)]
pub struct UnknownState(String);

impl FromStr for StateSet {
    type Err = UnknownState;

    /// One state in the kernel's spelling (`TIME_WAIT`) or that of ss (`time-wait`), or one of
    /// ss's groups.
    fn from_str(word: &str) -> Result<Self, UnknownState> {
        use TcpState::*;
        let plain: String = word
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let connected = Self::all().without(Listen).without(Close);
        Ok(match plain.as_str() {
            "all" => Self::all(),
            "connected" => connected,
            "synchronized" => connected.without(SynSent),
            "bucket" => Self::from_iter([SynRecv, NewSynRecv, TimeWait]),
            "big" => Self::all().without(SynRecv).without(NewSynRecv).without(TimeWait),
            "established" | "estab" => Self::from_iter([Established]),
            "synsent" => Self::from_iter([SynSent]),
            "synrecv" => Self::from_iter([SynRecv, NewSynRecv]),
            "finwait1" => Self::from_iter([FinWait1]),
            "finwait2" => Self::from_iter([FinWait2]),
            "timewait" => Self::from_iter([TimeWait]),
            "close" | "closed" | "unconnected" | "unconn" => Self::from_iter([Close]),
            "closewait" => Self::from_iter([CloseWait]),
            "lastack" => Self::from_iter([LastAck]),
            "listen" | "listening" => Self::from_iter([Listen]),
            "closing" => Self::from_iter([Closing]),
            _ => return Err(UnknownState(word.escape_default().to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_kernel(state as u8), Some(state));
        }
        assert!(
            TcpState::ALL.iter().all(|state| state.label() == state.name().to_ascii_lowercase())
        );
        assert_eq!(TcpState::from_kernel(0), None);
        assert_eq!(TcpState::from_kernel(13), None);
    }

    #[test]
    fn takes_either_spelling_and_groups() {
        let time_wait = StateSet::from_iter([TcpState::TimeWait]);
        for word in ["TIME_WAIT", "time-wait", "TimeWait", "timewait"] {
            assert_eq!(word.parse(), Ok(time_wait), "{word}");
        }
        assert_eq!("fin-wait-1".parse::<StateSet>(), "FIN_WAIT1".parse());
        let connected: StateSet = "connected".parse().unwrap();
        assert!(connected.contains(TcpState::SynSent) && !connected.contains(TcpState::Listen));
        let bucket: StateSet = "bucket".parse().unwrap();
        let big: StateSet = "big".parse().unwrap();
        assert_eq!(bucket.union(big), StateSet::all());
        assert!(!big.contains(TcpState::TimeWait));
    }

    #[test]
    fn an_unknown_word_is_named_and_harmless() {
        let error = "\x1b[31mTIMEWEIGHT".parse::<StateSet>().unwrap_err().to_string();
        assert!(error.starts_with("unknown state '\\u{1b}[31mTIMEWEIGHT'"), "{error}");
    }

    #[test]
    fn every_state_but_the_request_sock_can_end() {
        for state in TcpState::ALL {
            assert!(state == TcpState::Close || state.may_become(TcpState::Close), "{state}");
            assert!(!state.may_become(state), "{state}");
        }
    }
}
