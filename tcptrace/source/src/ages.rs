//! Since when a socket of a snapshot has been in its state, at the least, by what the kernel
//! remembers of it.
//!
//! No time of a transition is kept anywhere, but what must have come before or after one is. Pure.
//!
//! - CLOSE_WAIT, FIN_WAIT2 and CLOSING are entered by a segment that came, and `tcp_ack()` stamps
//!   each that acknowledges (`tcpi_last_ack_recv`). So the state is at least as old as that stamp,
//!   and just as old where nothing came since, as where the peer is done and waits. Keepalives and
//!   what a half-closed peer still sends make the bound lower. It would be too high only for a
//!   FIN that a later acknowledgement overtook on its way, by as much.
//! - SYN_SENT, and FIN_WAIT1 and LAST_ACK with nothing but the FIN outstanding, wait for the
//!   acknowledgement of that one segment. It was sent when the state was entered or later, and the
//!   timeouts since were waited for: each half of the next where it was doubled. (That of a CLOSING
//!   was sent in FIN_WAIT1.) A SYN that the host's own queue refused was tried again sooner, and
//!   makes the bound too high by up to half a second.
//! - Else nothing is known: FIN_WAIT1 and LAST_ACK are entered by a call, which leaves no trace,
//!   and data that is sent before the FIN says nothing of it.
//!
//! Minisocks have their own timer; what is left of it says nothing of a FIN_WAIT2, since how much
//! it was is not known (`tcp_fin_timeout` then, or `TCP_LINGER2`).

use tcptrace_host::sock_diag::StateMask;
use tcptrace_model::{SnapInfo, TcpState, Timer};

/// Two counts of jiffies differ by up to one more than the time between them has, which is 10 ms
/// where there are fewest (HZ=100); and the kernel rounds the result up to a whole millisecond.
const ROUNDING_MS: u64 = 11;

/// States that should pass, and of which something can be known.
pub(super) const STATES: [TcpState; 6] = [
    TcpState::SynSent,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::Closing,
];

/// The same, for a dump.
pub(super) fn mask() -> StateMask {
    STATES.iter().fold(StateMask::NONE, |mask, state| mask.union(StateMask::of(*state as u8)))
}

/// How long it has been in its state, at the least, in milliseconds; `None` where nothing is known.
pub(super) fn at_least_ms(socket: &SnapInfo) -> Option<u64> {
    let heard = || u64::from(socket.tcp.last_ack_recv_ms);
    // A SYN or a FIN counts as one byte.
    let waits = || {
        let alone = socket.unacked == 1 && socket.timer == Timer::Retransmit;
        if alone { socket.unanswered_us() / 1000 } else { 0 }
    };
    let ms = match socket.state {
        TcpState::CloseWait | TcpState::FinWait2 | TcpState::Closing => heard(),
        TcpState::SynSent | TcpState::FinWait1 | TcpState::LastAck => waits(),
        _ => return None,
    };
    ms.checked_sub(ROUNDING_MS).filter(|&ms| ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::TcpInfo;

    /// A SYN or FIN alone, as it is after the last timeout.
    fn info(retransmits: u8, backoff: u8, rto_ms: u32, last_ack_recv_ms: u32) -> SnapInfo {
        SnapInfo {
            cookie: 1,
            state: TcpState::Close,
            timer: Timer::Retransmit,
            expires_ms: 0,
            unacked: 1,
            mptcp: false,
            tcp: TcpInfo {
                retransmits,
                backoff,
                rto_us: rto_ms * 1000,
                last_ack_recv_ms,
                ..TcpInfo::default()
            },
        }
    }

    fn in_state(state: TcpState, info: SnapInfo) -> Option<u64> {
        at_least_ms(&SnapInfo { state, ..info })
    }

    #[test]
    fn what_a_segment_entered_is_as_old_as_the_last_acknowledgement() {
        let idle = info(0, 0, 204, 7_200_000);
        for state in [TcpState::CloseWait, TcpState::FinWait2, TcpState::Closing] {
            assert_eq!(in_state(state, idle), Some(7_199_989), "{state}");
        }
        for state in [TcpState::FinWait1, TcpState::LastAck, TcpState::SynSent] {
            assert_eq!(in_state(state, idle), None, "{state}: entered by a call");
        }
        let fresh = info(0, 0, 204, 11);
        assert_eq!(in_state(TcpState::CloseWait, fresh), None, "at least nothing");
    }

    #[test]
    fn one_segment_is_waited_for_by_doubled_timeouts() {
        // 1 + 2 + 4 s are over; 8 s are being waited for.
        assert_eq!(in_state(TcpState::SynSent, info(3, 3, 8_000, 0)), Some(7_000 - 11));
        // 4 times 1 s, then 1 s that was followed by a doubled one.
        assert_eq!(in_state(TcpState::SynSent, info(5, 1, 2_000, 0)), Some(5_000 - 11));
        for state in [TcpState::FinWait1, TcpState::LastAck] {
            // 200 + 400 + 800 ms; the last acknowledgement is older, and says nothing.
            let fin = info(3, 3, 1_600, 0);
            assert_eq!(in_state(state, fin), Some(1_400 - 11), "{state}");
            // Of five doublings two were of data before.
            assert_eq!(in_state(state, info(3, 5, 6_400, 0)), Some(5_600 - 11), "{state}");
            assert_eq!(in_state(state, info(3, 2, 800, 0)), None, "{state}");
            let behind_data = SnapInfo { unacked: 2, ..fin };
            assert_eq!(in_state(state, behind_data), None, "{state}");
            let probing = SnapInfo { timer: Timer::Probe, ..fin };
            assert_eq!(in_state(state, probing), None, "{state}");
        }
    }

    #[test]
    fn no_numbers_make_it_panic() {
        for one in [info(255, 255, 4_000_000, u32::MAX), info(0, 255, 0, 0), info(255, 0, 1, 1)] {
            for state in TcpState::ALL {
                let _ = in_state(state, one);
            }
        }
    }
}
