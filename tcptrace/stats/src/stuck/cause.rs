//! What a connection waits for, whose fault that is, and since when: from its state and its last scan.
//!
//! The one place where that is decided, for all views. It must not say more than the scan shows:
//! what no scan has reported yet is [`Cause::NotScanned`].

use std::time::Duration;

use crate::conns::least_ns;
use tcptrace_model::{Age, TcpState, WaitFor};
use tcptrace_track::Standing;

/// Why a connection stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// What was sent is not acknowledged, and sent again.
    NoAck,
    /// The peer's receive window is closed, and its host answers the probes of that.
    ZeroWindow,
    /// Probes are not answered: of a closed window, or of an idle connection (keepalive).
    NoProbeAnswer,
    /// CLOSE_WAIT: the program here has not closed.
    NotClosed,
    /// CLOSE_WAIT: it waits for accept().
    NotAccepted,
    /// FIN_WAIT2: shut down here and still open; no FIN of the peer has come.
    HalfClosed,
    /// FIN_WAIT2: closed here; no FIN of the peer has come.
    PeerNotClosed,
    /// FIN_WAIT1, CLOSING, LAST_ACK: what is left is on its way.
    Sending,
    /// SYN_SENT: the SYN is not answered.
    NoSynAck,
    /// SYN_SENT: the SYN is not sent before the first write (`TCP_FASTOPEN_CONNECT`).
    SynDeferred,
    /// SYN_RECV: the handshake does not end.
    Handshake,
    /// No scan has reported on it in this state yet.
    NotScanned,
}

impl Cause {
    /// All of them, in the order in which those of one state are shown.
    pub const ALL: [Self; 12] = [
        Self::NoAck,
        Self::ZeroWindow,
        Self::NoProbeAnswer,
        Self::NotClosed,
        Self::NotAccepted,
        Self::HalfClosed,
        Self::PeerNotClosed,
        Self::Sending,
        Self::NoSynAck,
        Self::SynDeferred,
        Self::Handshake,
        Self::NotScanned,
    ];

    /// The word for outputs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAck => "no-ack",
            Self::ZeroWindow => "zero-window",
            Self::NoProbeAnswer => "no-probe-answer",
            Self::NotClosed => "not-closed",
            Self::NotAccepted => "not-accepted",
            Self::HalfClosed => "half-closed",
            Self::PeerNotClosed => "peer-not-closed",
            Self::Sending => "sending",
            Self::NoSynAck => "no-syn-ack",
            Self::SynDeferred => "syn-deferred",
            Self::Handshake => "handshake",
            Self::NotScanned => "not-scanned",
        }
    }

    /// That of a connection; `None` where nothing is known to keep it: ESTABLISHED, and not known to
    /// wait for its peer.
    pub fn of(standing: &Standing<'_>) -> Option<Self> {
        use TcpState::{CloseWait, Closing, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
        let state = standing.found.state;
        let scan = standing.scan;
        let waits_for = scan.and_then(|scan| scan.waits).map(|(what, _)| what);
        match (state, waits_for) {
            (SynSent | SynRecv, _) => {}
            (_, Some(WaitFor::Ack)) => return Some(Self::NoAck),
            (_, Some(WaitFor::Window)) => return Some(Self::ZeroWindow),
            (_, Some(WaitFor::ProbeAnswer)) => return Some(Self::NoProbeAnswer),
            (_, None) => {}
        }
        Some(match state {
            CloseWait if standing.held == Some(false) => Self::NotAccepted,
            CloseWait => Self::NotClosed,
            FinWait2 => match standing.held {
                Some(true) => Self::HalfClosed,
                Some(false) => Self::PeerNotClosed,
                None => Self::NotScanned,
            },
            FinWait1 | Closing | LastAck if scan.is_some() => Self::Sending,
            FinWait1 | Closing | LastAck => Self::NotScanned,
            SynSent => match scan {
                Some(scan) if scan.info.syn_is_deferred() => Self::SynDeferred,
                Some(_) => Self::NoSynAck,
                None => Self::NotScanned,
            },
            SynRecv => Self::Handshake,
            _ => return None,
        })
    }

    /// Whether it is the peer, or the path to it, that does not answer.
    pub const fn is_wait(self) -> bool {
        matches!(self, Self::NoAck | Self::ZeroWindow | Self::NoProbeAnswer)
    }
}

/// Whose bug it is when a connection stays in `state` for `cause`, in at most 62 characters; empty
/// where there is no such cause in it.
pub const fn diagnosis(state: TcpState, cause: Cause) -> &'static str {
    use TcpState::{
        CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent,
    };
    match (state, cause) {
        (SynSent, Cause::NoSynAck) => {
            "nobody answers the SYN: no such host, a firewall, a full queue"
        }
        (SynSent, Cause::SynDeferred) => "Fast Open: the SYN waits for the program's first write",
        (SynSent, Cause::NotScanned) => "no SYN-ACK yet, or Fast Open has deferred the SYN",
        (SynRecv, Cause::Handshake) => "no last ACK from the client, or a full accept queue here",
        (Established | CloseWait | FinWait1 | FinWait2 | Closing | LastAck, Cause::NoAck) => {
            "no ACK: the peer's host is gone, or the path drops segments"
        }
        (Established | CloseWait, Cause::ZeroWindow) => {
            "the peer's program does not read: its window is 0"
        }
        (FinWait1 | Closing | LastAck, Cause::ZeroWindow) => {
            "the peer's program does not read (window 0); the FIN waits"
        }
        (
            Established | CloseWait | FinWait1 | FinWait2 | Closing | LastAck,
            Cause::NoProbeAnswer,
        ) => "no answer to probes: the peer's host or the path is gone",
        (CloseWait, Cause::NotClosed) => {
            "the peer has closed, the program here has not: fix it here"
        }
        (CloseWait, Cause::NotAccepted) => "the peer has closed; the listener has not accepted it",
        (FinWait2, Cause::HalfClosed) => "shut down here and still open; no FIN from the peer yet",
        (FinWait2, Cause::PeerNotClosed) => {
            "closed here, no FIN from the peer: most likely a bug there"
        }
        (FinWait2, Cause::NotScanned) => "no FIN from the peer yet",
        (FinWait1, Cause::Sending) => "closed or shut down here; data and FIN are on their way",
        (Closing | LastAck, Cause::Sending) => {
            "both ends closed or shut down; data and FIN are on their way"
        }
        (FinWait1, Cause::NotScanned) => {
            "closed or shut down here; data or FIN not acknowledged yet"
        }
        (Closing | LastAck, Cause::NotScanned) => {
            "both ends closed or shut down; data or FIN not acknowledged"
        }
        _ => "",
    }
}

/// How long a connection may stay in `state` for `cause` before it is stuck, by default.
///
/// For a handshake, until two SYNs were not answered (1 s and 2 s). For what the peer's host ends, many
/// round trips. For what a program ends, as long as the kernel itself waits for a peer
/// (`tcp_fin_timeout`): a half-closed connection is no bug as such.
pub const fn threshold(state: TcpState, cause: Cause) -> Duration {
    use TcpState::{Closing, FinWait1, LastAck};
    Duration::from_secs(match (state, cause) {
        (_, Cause::NoSynAck | Cause::Handshake) | (TcpState::SynSent, Cause::NotScanned) => 3,
        (_, Cause::NoAck | Cause::ZeroWindow | Cause::NoProbeAnswer)
        | (FinWait1 | Closing | LastAck, _) => 10,
        _ => 60,
    })
}

/// The same where the cause is the usual one of the state.
pub const fn threshold_of(state: TcpState) -> Duration {
    let usual = match state {
        TcpState::SynSent => Cause::NoSynAck,
        TcpState::SynRecv => Cause::Handshake,
        TcpState::CloseWait => Cause::NotClosed,
        TcpState::FinWait2 => Cause::PeerNotClosed,
        _ => Cause::NoAck,
    };
    threshold(state, usual)
}

/// What two counts of jiffies and two clocks may differ by.
const SLACK_NS: u64 = 1_000_000_000;

/// How long a connection has been stuck at `now` for `cause`: since it waits for its peer, or in its
/// state without moving data.
pub fn stuck_for(standing: &Standing<'_>, cause: Cause, now: u64) -> Age {
    let Some(scan) = standing.scan else { return standing.in_state };
    if cause.is_wait() {
        // What came since the scan is not known.
        let since_ns = scan.waits.map_or(scan.mono_ns, |(_, since_ns)| since_ns);
        return match scan.mono_ns.saturating_sub(since_ns) {
            0 => Age::Unknown,
            ns => Age::AtLeast(ns),
        };
    }
    // A half-closed connection may go on for as long as its program likes, and what is left to send
    // takes its time.
    let Some(quiet_ms) = scan.info.quiet_ms() else { return standing.in_state };
    let quiet_ns = u64::from(quiet_ms) * 1_000_000;
    let since_scan_ns = now.saturating_sub(scan.mono_ns);
    let then_ns = least_ns(standing.in_state).saturating_sub(since_scan_ns);
    if quiet_ns.saturating_add(SLACK_NS) < then_ns {
        return if quiet_ns > 0 { Age::AtLeast(quiet_ns) } else { Age::Unknown };
    }
    standing.in_state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stuck::STATES;

    #[test]
    fn every_cause_in_every_state_has_a_diagnosis_that_fits() {
        let mut said = std::collections::HashSet::new();
        for state in TcpState::ALL {
            for cause in Cause::ALL {
                let text = diagnosis(state, cause);
                assert!(text.is_empty() || STATES.contains(&state), "{state} {cause:?}");
                assert!(text.len() <= 62, "{state} {cause:?}: {}", text.len());
                if !text.is_empty() {
                    said.insert(cause);
                }
            }
        }
        assert_eq!(said.len(), Cause::ALL.len());
        let names: std::collections::HashSet<_> = Cause::ALL.map(Cause::name).into_iter().collect();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}
