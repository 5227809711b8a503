//! A socket's timer and progress as bytes. Whatever a later version adds comes at the end.

use tcptrace_model::{SnapInfo, TcpInfo, TcpState, Timer};

use super::wire::{Cursor, Malformed, put_u64};

/// Which of the values are there that a kernel or a connection may lack.
const MPTCP: u8 = 1 << 0;
const DATA_SENT: u8 = 1 << 1;
const DATA_RECV: u8 = 1 << 2;
const WINDOW: u8 = 1 << 3;
const RETRANSMITTING: u8 = 1 << 4;

/// Writes it.
pub(super) fn put(out: &mut Vec<u8>, info: &SnapInfo) {
    let SnapInfo { cookie, state, timer, expires_ms, unacked, mptcp, tcp } = info;
    let TcpInfo {
        retransmits,
        probes,
        backoff,
        rto_us,
        rtt_us,
        last_data_sent_ms,
        last_data_recv_ms,
        last_ack_recv_ms,
        total_retrans,
        segs_out,
        not_sent,
        bytes_acked,
        bytes_received,
        snd_wnd,
        retransmitting_ms,
    } = tcp;
    let optional = [
        (DATA_SENT, last_data_sent_ms),
        (DATA_RECV, last_data_recv_ms),
        (WINDOW, snd_wnd),
        (RETRANSMITTING, retransmitting_ms),
    ];
    let there = optional.iter().filter(|(_, value)| value.is_some());
    let flags = there.fold(if *mptcp { MPTCP } else { 0 }, |flags, (bit, _)| flags | bit);
    out.extend_from_slice(&[flags, *state as u8, timer.number(), *retransmits, *probes, *backoff]);
    put_u64(out, *cookie);
    let numbers = [expires_ms, unacked, rto_us, rtt_us, last_ack_recv_ms, total_retrans];
    numbers.into_iter().for_each(|n| put_u64(out, u64::from(*n)));
    [segs_out, not_sent].into_iter().for_each(|n| put_u64(out, u64::from(*n)));
    [bytes_acked, bytes_received].into_iter().for_each(|n| put_u64(out, *n));
    optional.iter().filter_map(|(_, value)| **value).for_each(|n| put_u64(out, u64::from(n)));
}

/// Reads one.
pub(super) fn get(from: &mut Cursor<'_>) -> Result<SnapInfo, Malformed> {
    let flags = from.u8()?;
    let state = TcpState::from_kernel(from.u8()?).ok_or(Malformed("no such state"))?;
    let timer = Timer::from_number(from.u8()?);
    let (retransmits, probes, backoff) = (from.u8()?, from.u8()?, from.u8()?);
    let cookie = from.u64()?;
    let mut n = || from.u32();
    let (expires_ms, unacked, rto_us, rtt_us) = (n()?, n()?, n()?, n()?);
    let (last_ack_recv_ms, total_retrans, segs_out, not_sent) = (n()?, n()?, n()?, n()?);
    let (bytes_acked, bytes_received) = (from.u64()?, from.u64()?);
    let mut optional = |bit| if flags & bit == 0 { Ok(None) } else { from.u32().map(Some) };
    let (last_data_sent_ms, last_data_recv_ms) = (optional(DATA_SENT)?, optional(DATA_RECV)?);
    let (snd_wnd, retransmitting_ms) = (optional(WINDOW)?, optional(RETRANSMITTING)?);
    Ok(SnapInfo {
        cookie,
        state,
        timer,
        expires_ms,
        unacked,
        mptcp: flags & MPTCP != 0,
        tcp: TcpInfo {
            retransmits,
            probes,
            backoff,
            rto_us,
            rtt_us,
            last_data_sent_ms,
            last_data_recv_ms,
            last_ack_recv_ms,
            total_retrans,
            segs_out,
            not_sent,
            bytes_acked,
            bytes_received,
            snd_wnd,
            retransmitting_ms,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_later_version_may_say_more() {
        for bits in 0..32_u32 {
            let some = |bit: u32| (bits & 1 << bit != 0).then_some(u32::MAX - bit);
            let info = SnapInfo {
                cookie: u64::MAX,
                state: TcpState::LastAck,
                timer: Timer::from_number(bits as u8),
                expires_ms: 1,
                unacked: u32::MAX,
                mptcp: bits & 1 != 0,
                tcp: TcpInfo {
                    retransmits: 255,
                    probes: 2,
                    backoff: 3,
                    rto_us: 4,
                    rtt_us: 5,
                    last_data_sent_ms: some(1),
                    last_data_recv_ms: some(2),
                    last_ack_recv_ms: 6,
                    total_retrans: 7,
                    segs_out: 8,
                    not_sent: 9,
                    bytes_acked: u64::MAX,
                    bytes_received: 10,
                    snd_wnd: some(3),
                    retransmitting_ms: some(4),
                },
            };
            let mut bytes = Vec::new();
            put(&mut bytes, &info);
            assert_eq!(get(&mut Cursor::new(&bytes)).unwrap(), info);
            for end in 0..bytes.len() {
                assert!(get(&mut Cursor::new(&bytes[..end])).is_err(), "cut at {end}");
            }
            bytes.push(9);
            assert_eq!(get(&mut Cursor::new(&bytes)).unwrap(), info);
        }
    }
}
