//! What sock_diag reports of a full socket's timer and of its progress, as values.
//!
//! Also what follows from these numbers alone: what the socket waits for, and for how long at
//! the least. It must not know sysctls, other scans or other sockets.

use serde::{Deserialize, Serialize};

use super::state::TcpState;

/// The timer that runs on a socket (`idiag_timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// None
    None,
    /// Retransmission, loss probe or reordering; SYN-ACK of a request socket
    Retransmit,
    /// `sk_timer`: keepalive, or the remaining FIN_WAIT2 of an orphan that is still a full socket
    KeepAlive,
    /// A minisock's
    TimeWait,
    /// Zero-window probe (the persist timer)
    Probe,
    /// A number that a later kernel may have added
    Other(u8),
}

impl Timer {
    /// That of a number of `inet_diag_msg` (`inet_sk_diag_fill()`).
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Retransmit,
            2 => Self::KeepAlive,
            3 => Self::TimeWait,
            4 => Self::Probe,
            other => Self::Other(other),
        }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Retransmit => 1,
            Self::KeepAlive => 2,
            Self::TimeWait => 3,
            Self::Probe => 4,
            Self::Other(number) => number,
        }
    }
}

/// The part of `struct tcp_info` (`tcp_get_info()`) from which the analysis concludes something.
///
/// Times are differences of two counts of jiffies, so they are exact to about one jiffy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpInfo {
    /// Timeouts of the oldest unacknowledged segment since the last progress
    /// (`icsk_retransmits`).
    pub retransmits: u8,
    /// Zero-window or keepalive probes that were not answered (`icsk_probes_out`, which
    /// `tcp_ack()` resets).
    pub probes: u8,
    /// How often the timeout was doubled (`icsk_backoff`).
    pub backoff: u8,
    /// The present timeout, in microseconds (`icsk_rto`).
    pub rto_us: u32,
    /// Smoothed round-trip time, in microseconds; 0 if there was no sample.
    pub rtt_us: u32,
    /// Since a segment with payload was last sent or sent again, in milliseconds; `None` if none
    /// ever was.
    pub last_data_sent_ms: Option<u32>,
    /// Since a segment with payload last came, in milliseconds; `None` if none ever did.
    pub last_data_recv_ms: Option<u32>,
    /// Since the last segment with an acknowledgement that was not out of date, in milliseconds
    /// (`rcv_tstamp`, which `tcp_ack()` sets).
    pub last_ack_recv_ms: u32,
    /// Segments that were sent again, over the whole connection.
    pub total_retrans: u32,
    /// Segments sent; 0 before the SYN of a deferred Fast Open.
    pub segs_out: u32,
    /// Bytes written and never sent, a FIN counted as one.
    pub not_sent: u32,
    /// Payload bytes that the peer acknowledged, a SYN and a FIN counted as one each.
    pub bytes_acked: u64,
    /// Payload bytes received in order, a FIN counted as one.
    pub bytes_received: u64,
    /// The window that the peer advertised last (5.4).
    pub snd_wnd: Option<u32>,
    /// Milliseconds since the first of the current retransmissions. Only where these are the
    /// first of the connection that a timeout caused: else the kernel has but a sum (6.7,
    /// `tcpi_total_rto_time`).
    pub retransmitting_ms: Option<u32>,
}

/// What a scan found of one full socket beside its [`SnapSocket`](super::SnapSocket).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapInfo {
    /// Its cookie.
    pub cookie: u64,
    /// Its state at that moment.
    pub state: TcpState,
    /// Which timer runs.
    pub timer: Timer,
    /// Until that timer is due, in milliseconds; 0 where none runs or it is overdue.
    pub expires_ms: u32,
    /// Bytes written and not acknowledged, those not sent among them (`idiag_wqueue`), a SYN and a
    /// FIN counted as one each.
    pub unacked: u32,
    /// A subflow of an MPTCP connection: it has no open file of its own (`INET_DIAG_ULP_INFO`).
    pub mptcp: bool,
    /// The rest.
    pub tcp: TcpInfo,
}

/// What the peer owes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// An acknowledgement of what was sent, and sent again.
    Ack,
    /// Room in its receive window; its host answers the probes.
    Window,
    /// An answer to probes: of a closed window, or of an idle connection (keepalive).
    ProbeAnswer,
}

/// That a socket waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What for.
    pub what: WaitFor,
    /// For how long, at the least, in milliseconds; 0 where nothing is known.
    pub at_least_ms: u64,
}

/// Probes in a row after which one that is not answered is no accident of the moment: the first
/// may have been sent just now.
const PROBES: u8 = 2;
/// `TCP_RTO_MIN` of the kernel, in microseconds, which is also the least between two window probes
/// (`tcp_probe0_base()`).
const RTO_MIN_US: u64 = 200_000;
/// `TCP_RTO_MAX`, in microseconds. A lower `tcp_rto_max_ms` (6.15) makes the bounds lower too.
const RTO_MAX_US: u64 = 120_000_000;
/// `ilog2(TCP_RTO_MAX / TCP_RTO_MIN) + 1`: doublings of the time between probes
/// (`tcp_probe0_when()`).
const PROBE_DOUBLINGS: u8 = 10;

impl SnapInfo {
    /// What it waits for, if the peer owes it something that it has asked for at least once again.
    pub fn wait(&self) -> Option<Wait> {
        let TcpInfo { retransmits, probes, backoff, .. } = self.tcp;
        let what = match self.timer {
            // What is on its way did fit into the window, which was taken back since. The kernel
            // sends it again as a probe, and counts no timeout (tcp_retransmit_timer()).
            Timer::Retransmit
                if self.tcp.snd_wnd == Some(0)
                    && (backoff > 0 || self.tcp.total_retrans > 0)
                    && self.answered() =>
            {
                WaitFor::Window
            }
            Timer::Retransmit if retransmits > 0 => WaitFor::Ack,
            Timer::Probe | Timer::KeepAlive if probes >= PROBES => WaitFor::ProbeAnswer,
            Timer::Probe => WaitFor::Window,
            _ => return None,
        };
        let us = match (what, self.timer) {
            (WaitFor::Ack, _) => self.unanswered_us() + self.since_sent_us(),
            (_, Timer::Probe) => {
                let first =
                    if what == WaitFor::Window { 0 } else { backoff.saturating_sub(probes) + 1 };
                self.probed_us(first)
            }
            (WaitFor::Window, _) => {
                let now = u64::from(self.tcp.rto_us);
                now - now.checked_shr(u32::from(backoff)).unwrap_or(0)
            }
            (WaitFor::ProbeAnswer, _) => 0,
        };
        Some(Wait { what, at_least_ms: us / 1000 })
    }

    /// How long its oldest unacknowledged segment has been waited for, in microseconds, as of its
    /// last timeout, at the least: `tcp_retransmit_timer()` counts each, and doubles the next (up to
    /// a limit, so what is halved here was never less).
    ///
    /// A SYN's first timeouts may be all the same (`tcp_syn_linear_timeouts`, 6.5). Where others were
    /// not all doubled, some were short ones, after which the host itself could not send
    /// (`TCP_RESOURCE_PROBE_INTERVAL`), or an ICMP message took a doubling back
    /// (`tcp_ld_RTO_revert()`): then only [`TcpInfo::retransmitting_ms`] says something.
    pub fn unanswered_us(&self) -> u64 {
        let TcpInfo { rto_us, retransmits, backoff, retransmitting_ms, .. } = self.tcp;
        let (timeouts, now) = (u32::from(retransmits), u64::from(rto_us));
        if timeouts == 0 {
            return 0;
        }
        // Doublings from before the last progress are not of this wait.
        let doubled = u32::from(backoff).min(timeouts);
        let alike = timeouts - doubled;
        let first = now.checked_shr(doubled).unwrap_or(0);
        let by_doubling = if alike > 0 && self.state != TcpState::SynSent {
            0
        } else {
            u64::from(alike) * first + (now - first)
        };
        let since_first = retransmitting_ms.map_or(0, |ms| u64::from(ms) * 1000);
        by_doubling.max(since_first.saturating_sub(self.since_sent_us()))
    }

    /// Since the last retransmission, in microseconds, at the least.
    fn since_sent_us(&self) -> u64 {
        let Some(sent_ms) = self.tcp.last_data_sent_ms else { return 0 };
        let sent_us = u64::from(sent_ms) * 1000;
        let of_timer = u64::from(self.tcp.rto_us).saturating_sub(u64::from(self.expires_ms) * 1000);
        // A SYN and a FIN are no data: what was sent before is not what is waited for. One jiffy may
        // be between the two (10 ms at HZ=100).
        if sent_us <= of_timer + 10_000 { sent_us } else { 0 }
    }

    /// Whether the peer's host acknowledged something since the retransmission before the last.
    fn answered(&self) -> bool {
        let sent_ms = self.tcp.last_data_sent_ms.unwrap_or(0);
        self.tcp.last_ack_recv_ms <= sent_ms.saturating_add(self.tcp.rto_us / 1000)
    }

    /// How long probes of a closed window have been sent, since the one after `first` doublings, in
    /// microseconds, at the least.
    fn probed_us(&self, first: u8) -> u64 {
        let base = u64::from(self.tcp.rto_us).max(RTO_MIN_US);
        let after = |doubled: u8| (base << doubled.min(PROBE_DOUBLINGS)).min(RTO_MAX_US);
        let over: u64 = (first..self.tcp.backoff).map(after).sum();
        over + after(self.tcp.backoff).saturating_sub(u64::from(self.expires_ms) * 1000)
    }

    /// For how long no payload was sent or received, in milliseconds; `None` if none ever was.
    pub fn quiet_ms(&self) -> Option<u32> {
        let TcpInfo { last_data_sent_ms: sent, last_data_recv_ms: received, .. } = self.tcp;
        match (sent, received) {
            (Some(sent), Some(received)) => Some(sent.min(received)),
            (one, other) => one.or(other),
        }
    }

    /// connect() with `TCP_FASTOPEN_CONNECT` returned, and the SYN waits for the first write: nothing
    /// was sent, and the queues mean nothing yet (`tcp_v4_connect()` sets `write_seq`, and only
    /// `tcp_connect_init()` `snd_una`).
    pub fn syn_is_deferred(&self) -> bool {
        self.state == TcpState::SynSent && self.tcp.segs_out == 0 && self.timer == Timer::None
    }

    /// Whether its FIN has not been sent: it is the last of what waits.
    pub fn fin_waits(&self) -> bool {
        use TcpState::{Closing, FinWait1, LastAck};
        matches!(self.state, FinWait1 | Closing | LastAck) && self.tcp.not_sent > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 bytes of data that were sent `retransmits` times again, the last 100 ms ago.
    fn info(retransmits: u8, backoff: u8, rto_ms: u32) -> SnapInfo {
        SnapInfo {
            cookie: 1,
            state: TcpState::Established,
            timer: Timer::Retransmit,
            expires_ms: rto_ms - 100,
            unacked: 1000,
            mptcp: false,
            tcp: TcpInfo {
                retransmits,
                backoff,
                rto_us: rto_ms * 1000,
                last_data_sent_ms: Some(100),
                last_ack_recv_ms: 60_000,
                segs_out: 9,
                snd_wnd: Some(65_536),
                ..TcpInfo::default()
            },
        }
    }

    fn wait(info: SnapInfo) -> Option<(WaitFor, u64)> {
        info.wait().map(|wait| (wait.what, wait.at_least_ms))
    }

    #[test]
    fn a_number_of_a_timer_is_its_own() {
        for number in 0..=255 {
            assert_eq!(Timer::from_number(number).number(), number);
        }
    }

    #[test]
    fn what_is_sent_again_waits_for_its_acknowledgement_since_it_was_first_sent() {
        assert_eq!(wait(info(0, 0, 204)), None, "sent once, and not due");
        // 204 ms are over, of 408 ms 100.
        assert_eq!(wait(info(1, 1, 408)), Some((WaitFor::Ack, 304)));
        // 204 + 408 + 816 + 1632 + 3264 + 6528 ms are over: as `ss` showed it, after 13.0 s.
        assert_eq!(wait(info(6, 6, 13_056)), Some((WaitFor::Ack, 12_952)));
        // Doublings from before the last progress.
        assert_eq!(wait(info(1, 5, 6_528)), Some((WaitFor::Ack, 3_364)));
    }

    #[test]
    fn short_timeouts_say_nothing_but_the_kernel_may() {
        // A host that could not send, or a doubling that an ICMP message took back.
        assert_eq!(wait(info(6, 5, 6_528)), Some((WaitFor::Ack, 100)));
        let mut known = info(6, 5, 6_528);
        known.tcp.retransmitting_ms = Some(9_000);
        assert_eq!(wait(known), Some((WaitFor::Ack, 9_000)));
        // Of two bounds the higher.
        let mut both = info(6, 6, 13_056);
        both.tcp.retransmitting_ms = Some(14_000);
        assert_eq!(wait(both), Some((WaitFor::Ack, 14_000)));
        both.tcp.retransmitting_ms = Some(1);
        assert_eq!(wait(both), Some((WaitFor::Ack, 12_952)));
    }

    #[test]
    fn a_timer_that_was_cut_short_is_not_taken_for_time_that_went_by() {
        // TCP_USER_TIMEOUT lets it run for 1 s of 13 s.
        let cut = SnapInfo { expires_ms: 900, ..info(6, 6, 13_056) };
        assert_eq!(wait(cut), Some((WaitFor::Ack, 12_952)));
        // Only a FIN is on its way: the last data went long before.
        let mut fin = info(6, 6, 13_056);
        fin.tcp.last_data_sent_ms = Some(50_000);
        assert_eq!(wait(fin), Some((WaitFor::Ack, 12_852)));
    }

    #[test]
    fn a_closed_window_is_told_from_a_peer_that_is_gone_by_its_answers() {
        let mut probing = SnapInfo { timer: Timer::Probe, expires_ms: 432, ..info(0, 3, 208) };
        // As `ss` showed it: 208 + 416 + 832 ms are over, and of 1664 ms all but 432.
        assert_eq!(wait(probing), Some((WaitFor::Window, 2_688)));
        probing.tcp.probes = 1;
        assert_eq!(wait(probing), Some((WaitFor::Window, 2_688)), "sent just now, maybe");
        probing.tcp.probes = 2;
        // Since the first of the two: 832 ms, and of 1664 ms all but 432.
        assert_eq!(wait(probing), Some((WaitFor::ProbeAnswer, 2_064)));
        probing.tcp.backoff = 15;
        probing.expires_ms = 120_000;
        probing.tcp.probes = 0;
        // 208 ms, nine times doubled, then five times 120 s.
        assert_eq!(wait(probing), Some((WaitFor::Window, 208 * 1023 + 5 * 120_000)));
    }

    #[test]
    fn a_window_that_was_taken_back_is_a_closed_one() {
        let mut shrunk = info(0, 3, 1_664);
        shrunk.tcp.snd_wnd = Some(0);
        assert_eq!(wait(shrunk), None, "nothing was heard, and nothing was sent again");
        shrunk.tcp.last_ack_recv_ms = 100;
        assert_eq!(wait(shrunk), Some((WaitFor::Window, 1_456)));
        // Before 6.5 the doublings of this wait are not counted.
        shrunk.tcp.backoff = 0;
        assert_eq!(wait(shrunk), None);
        shrunk.tcp.total_retrans = 1;
        assert_eq!(wait(shrunk), Some((WaitFor::Window, 0)));
        // An orphan's timeouts are counted, window or not.
        shrunk.tcp.retransmits = 3;
        assert_eq!(wait(shrunk).unwrap().0, WaitFor::Window);
        shrunk.tcp.last_ack_recv_ms = 60_000;
        assert_eq!(wait(shrunk).unwrap().0, WaitFor::Ack, "its host answers no more");
    }

    #[test]
    fn keepalive_probes_without_an_answer_are_two() {
        let mut idle = SnapInfo { timer: Timer::KeepAlive, ..info(0, 0, 204) };
        for (probes, what) in [(0, None), (1, None), (2, Some((WaitFor::ProbeAnswer, 0)))] {
            idle.tcp.probes = probes;
            assert_eq!(wait(idle), what, "{probes}");
        }
    }

    #[test]
    fn a_deferred_syn_was_not_sent() {
        let mut deferred = SnapInfo {
            state: TcpState::SynSent,
            timer: Timer::None,
            unacked: 1_078_319_720,
            ..info(0, 0, 1_000)
        };
        assert!(!deferred.syn_is_deferred());
        deferred.tcp.segs_out = 0;
        assert!(deferred.syn_is_deferred());
        assert!(!SnapInfo { state: TcpState::Established, ..deferred }.syn_is_deferred());
    }

    #[test]
    fn a_fin_waits_behind_what_was_not_sent() {
        let mut closing = SnapInfo { state: TcpState::FinWait1, ..info(0, 0, 204) };
        assert!(!closing.fin_waits());
        closing.tcp.not_sent = 1;
        assert!(closing.fin_waits());
        assert!(!SnapInfo { state: TcpState::CloseWait, ..closing }.fin_waits());
    }

    #[test]
    fn no_numbers_make_it_panic() {
        for n in [0, 1, 127, 255] {
            for rto_us in [0, 1, u32::MAX] {
                for timer in [Timer::None, Timer::Retransmit, Timer::KeepAlive, Timer::Probe] {
                    let tcp = TcpInfo {
                        retransmits: n,
                        probes: 255 - n,
                        backoff: n,
                        rto_us,
                        last_data_sent_ms: Some(u32::MAX),
                        last_ack_recv_ms: u32::MAX,
                        snd_wnd: Some(0),
                        retransmitting_ms: Some(u32::MAX),
                        ..TcpInfo::default()
                    };
                    let info = SnapInfo { timer, expires_ms: rto_us, tcp, ..info(0, 0, 200) };
                    let _ = (info.wait(), info.quiet_ms());
                }
            }
        }
    }
}
