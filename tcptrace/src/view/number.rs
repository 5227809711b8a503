//! Numbers, quickly and within a width.

use bytes::BufMut;

/// Appends `n` in decimal.
pub(super) fn put_u64(out: &mut impl BufMut, n: u64) {
    out.put_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// Appends `n` in hexadecimal, without leading zeros.
pub(super) fn put_hex(out: &mut impl BufMut, n: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = (67 - (n | 1).leading_zeros()) / 4;
    for i in (0..nibbles).rev() {
        out.put_u8(DIGITS[(n >> (4 * i) & 15) as usize]);
    }
}

/// Appends nanoseconds as milliseconds with three decimals, rounded down.
pub(super) fn put_ms(out: &mut impl BufMut, ns: u64) {
    let us = ns / 1000;
    put_u64(out, us / 1000);
    let rest = (us % 1000) as u32;
    out.put_slice(&[
        b'.',
        b'0' + (rest / 100) as u8,
        b'0' + (rest / 10 % 10) as u8,
        b'0' + (rest % 10) as u8,
    ]);
}

/// Nanoseconds as milliseconds in at most `width` characters if it can be, with as many decimals
/// as fit, up to three, rounded down.
pub(super) fn ms_within(ns: u64, width: usize) -> String {
    let whole = (ns / 1_000_000).to_string();
    let room = width.saturating_sub(whole.len() + 1).min(3);
    if room == 0 {
        return whole;
    }
    let us = format!("{:03}", ns / 1000 % 1000);
    format!("{whole}.{}", &us[..room])
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn with(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        put(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn hexadecimal_is_that_of_the_standard_library() {
        for n in [0, 1, 15, 16, 0xabc, u64::MAX, 0xffff_8881_02da_40c0] {
            assert_eq!(with(|out| put_hex(out, n)), format!("{n:x}"));
        }
    }

    #[test]
    fn milliseconds() {
        assert_eq!(with(|out| put_ms(out, 412_999)), "0.412");
        assert_eq!(with(|out| put_ms(out, 60_000_050_000)), "60000.050");
        assert_eq!(ms_within(412_999, 9), "0.412");
        assert_eq!(ms_within(12_345_678_900_000, 9), "12345678");
        assert_eq!(ms_within(12_345_678_900_000, 10), "12345678.9");
        assert_eq!(ms_within(u64::MAX, 3), "18446744073709");
    }
}
