//! What a connection carried, as its processes see it: payload.
//!
//! The kernel's counters count a SYN and a FIN as one byte each (`tcp_snd_una_update()`,
//! `tcp_rcv_nxt_update()`). This is the one place that takes them out.

use tcptrace_model::{Opened, Totals};

/// What the kernel counted of a connection, as small as it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    bytes_acked: u64,
    bytes_received: u64,
    srtt_us8: u32,
    retransmits: u32,
}

impl From<&Totals> for Counted {
    fn from(totals: &Totals) -> Self {
        Self {
            bytes_acked: totals.bytes_acked,
            bytes_received: totals.bytes_received,
            srtt_us8: totals.srtt_us8,
            retransmits: totals.retransmits,
        }
    }
}

/// What the counters hold beside payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    /// How the connection began: the SYN of a connect() is counted when it is acknowledged, that
    /// of a listener's answer was before there was a socket. `None` where that is not known.
    pub(super) opened: Option<Opened>,
    /// A FIN was sent and acknowledged.
    pub(super) fin_acked: bool,
    /// The peer's FIN came while the full socket was there.
    pub(super) fin_received: bool,
}

/// What a connection carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of payload sent that the peer acknowledged.
    pub sent: u64,
    /// The beginning was not seen: `sent` may be one too many, the SYN.
    pub sent_at_most: bool,
    /// Bytes of payload received in order, read or not.
    pub received: u64,
    /// Smoothed round-trip time, nanoseconds; `None` if there was no sample.
    pub srtt_ns: Option<u64>,
    /// Segments that were sent again, SYNs and FINs among them.
    pub retransmits: u32,
}

impl Traffic {
    pub(super) fn of(counted: &Counted, signs: Signs) -> Self {
        let sent = counted.bytes_acked.saturating_sub(u64::from(signs.fin_acked));
        let syn = u64::from(signs.opened == Some(Opened::Connect));
        Self {
            sent: sent.saturating_sub(syn),
            sent_at_most: signs.opened.is_none() && sent > 0,
            received: counted.bytes_received.saturating_sub(u64::from(signs.fin_received)),
            srtt_ns: (counted.srtt_us8 > 0).then(|| u64::from(counted.srtt_us8) * 1000 / 8),
            retransmits: counted.retransmits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(bytes_acked: u64, bytes_received: u64, signs: Signs) -> (u64, bool, u64) {
        let counted = Counted { bytes_acked, bytes_received, srtt_us8: 0, retransmits: 0 };
        let traffic = Traffic::of(&counted, signs);
        assert_eq!(traffic.srtt_ns, None);
        (traffic.sent, traffic.sent_at_most, traffic.received)
    }

    #[test]
    fn syn_and_fin_are_no_payload() {
        let graceful = Signs { opened: Some(Opened::Connect), fin_acked: true, fin_received: true };
        assert_eq!(traffic(1002, 501, graceful), (1000, false, 500));
        assert_eq!(traffic(2, 1, graceful), (0, false, 0));
        let accepted = Signs { opened: Some(Opened::Accept), ..graceful };
        assert_eq!(traffic(1001, 501, accepted), (1000, false, 500));
        let reset = Signs { fin_acked: false, fin_received: false, ..graceful };
        assert_eq!(traffic(1001, 500, reset), (1000, false, 500));
        assert_eq!(traffic(0, 0, reset), (0, false, 0), "a SYN that nobody answered");
    }

    #[test]
    fn where_the_beginning_was_not_seen_one_byte_is_open() {
        let found = Signs { opened: None, fin_acked: true, fin_received: false };
        assert_eq!(traffic(1001, 500, found), (1000, true, 500));
        assert_eq!(traffic(1, 0, found), (0, false, 0), "less than nothing is not possible");
    }

    #[test]
    fn a_round_trip_is_counted_in_eighths_of_a_microsecond() {
        let counted = Counted { bytes_acked: 0, bytes_received: 0, srtt_us8: 804, retransmits: 3 };
        let signs = Signs { opened: None, fin_acked: false, fin_received: false };
        let traffic = Traffic::of(&counted, signs);
        assert_eq!((traffic.srtt_ns, traffic.retransmits), (Some(100_500), 3));
    }
}
