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

use tcptrace_host::sock_diag::{DiagSocket, StateMask, TcpInfo, Timer};
use tcptrace_model::TcpState;

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
pub(super) fn at_least_ms(socket: &DiagSocket, state: TcpState) -> Option<u64> {
    let info = socket.info.as_ref()?;
    let heard = || u64::from(info.last_ack_recv_ms);
    // A SYN or a FIN counts as one byte.
    let waits = || {
        let alone = socket.wqueue == 1 && socket.timer == Timer::Retransmit;
        if alone { waited_us(info, state) / 1000 } else { 0 }
    };
    let ms = match state {
        TcpState::CloseWait | TcpState::FinWait2 | TcpState::Closing => heard(),
        TcpState::SynSent | TcpState::FinWait1 | TcpState::LastAck => waits(),
        _ => return None,
    };
    ms.checked_sub(ROUNDING_MS).filter(|&ms| ms > 0)
}

/// How long its one outstanding segment has been waited for, in microseconds, as of its last
/// timeout: `tcp_retransmit_timer()` counts it, and doubles the next (up to a limit, so what was
/// halved here was never less).
///
/// A SYN's first timeouts may be all the same (`tcp_syn_linear_timeouts`, 6.5). Where a FIN's were
/// not all doubled, some were short ones, after which the host itself could not send
/// (`TCP_RESOURCE_PROBE_INTERVAL`): nothing is known then.
fn waited_us(info: &TcpInfo, state: TcpState) -> u64 {
    let (timeouts, now) = (u32::from(info.retransmits), u64::from(info.rto_us));
    // Doublings from before the last progress are not of this wait.
    let doubled = u32::from(info.backoff).min(timeouts);
    let alike = timeouts - doubled;
    if alike > 0 && state != TcpState::SynSent {
        return 0;
    }
    let first = now.checked_shr(doubled).unwrap_or(0);
    u64::from(alike) * first + (now - first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_host::sock_diag::Family;

    fn socket(info: TcpInfo) -> DiagSocket {
        DiagSocket {
            family: Family::V4,
            state: 0,
            local: "127.0.0.1:1".parse().unwrap(),
            peer: "127.0.0.1:2".parse().unwrap(),
            cookie: 1,
            inode: 0,
            uid: 0,
            ifindex: 0,
            rqueue: 0,
            wqueue: 1,
            timer: Timer::Retransmit,
            expires_ms: 0,
            retrans: 0,
            cgroup: None,
            info: Some(info),
        }
    }

    fn info(retransmits: u8, backoff: u8, rto_ms: u32, last_ack_recv_ms: u32) -> TcpInfo {
        TcpInfo { retransmits, backoff, rto_us: rto_ms * 1000, last_ack_recv_ms }
    }

    #[test]
    fn what_a_segment_entered_is_as_old_as_the_last_acknowledgement() {
        let idle = socket(info(0, 0, 204, 7_200_000));
        for state in [TcpState::CloseWait, TcpState::FinWait2, TcpState::Closing] {
            assert_eq!(at_least_ms(&idle, state), Some(7_199_989), "{state}");
        }
        for state in [TcpState::FinWait1, TcpState::LastAck, TcpState::SynSent] {
            assert_eq!(at_least_ms(&idle, state), None, "{state}: entered by a call");
        }
        let fresh = socket(info(0, 0, 204, 11));
        assert_eq!(at_least_ms(&fresh, TcpState::CloseWait), None, "at least nothing");
        let untold = DiagSocket { info: None, ..idle };
        assert_eq!(at_least_ms(&untold, TcpState::CloseWait), None);
    }

    #[test]
    fn one_segment_is_waited_for_by_doubled_timeouts() {
        // 1 + 2 + 4 s are over; 8 s are being waited for.
        let syn = socket(info(3, 3, 8_000, 0));
        assert_eq!(at_least_ms(&syn, TcpState::SynSent), Some(7_000 - 11));
        // 4 times 1 s, then 1 s that was followed by a doubled one.
        let linear = socket(info(5, 1, 2_000, 0));
        assert_eq!(at_least_ms(&linear, TcpState::SynSent), Some(5_000 - 11));
        for state in [TcpState::FinWait1, TcpState::LastAck] {
            // 200 + 400 + 800 ms; the last acknowledgement is older, and says nothing.
            let fin = socket(info(3, 3, 1_600, 0));
            assert_eq!(at_least_ms(&fin, state), Some(1_400 - 11), "{state}");
            // Of five doublings two were of data before.
            let later = socket(info(3, 5, 6_400, 0));
            assert_eq!(at_least_ms(&later, state), Some(5_600 - 11), "{state}");
            assert_eq!(at_least_ms(&socket(info(3, 2, 800, 0)), state), None, "{state}");
            let behind_data = DiagSocket { wqueue: 2, ..fin };
            assert_eq!(at_least_ms(&behind_data, state), None, "{state}");
            let probing = DiagSocket { timer: Timer::Probe, ..fin };
            assert_eq!(at_least_ms(&probing, state), None, "{state}");
        }
    }

    #[test]
    fn no_numbers_make_it_panic() {
        for info in [info(255, 255, 4_000_000, u32::MAX), info(0, 255, 0, 0), info(255, 0, 1, 1)] {
            for state in TcpState::ALL {
                let _ = at_least_ms(&socket(info), state);
            }
        }
    }
}
