//! Numbers, quickly and within a width.

use bytes::BufMut;

use tcptrace_model::Age;

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
pub fn ms_within(ns: u64, width: usize) -> String {
    let whole = (ns / 1_000_000).to_string();
    let room = width.saturating_sub(whole.len() + 1).min(3);
    if room == 0 {
        return whole;
    }
    let us = format!("{:03}", ns / 1000 % 1000);
    format!("{whole}.{}", &us[..room])
}

/// A time as milliseconds in at most `width` characters if it can be, with the sign that says how
/// sure it is.
pub fn age_within(age: Age, width: usize) -> String {
    let rest = width.saturating_sub(1);
    match age {
        Age::Unknown => "-".to_owned(),
        Age::AtLeast(ns) => format!("≥{}", ms_within(ns, rest)),
        Age::About { ns, .. } => format!("~{}", ms_within(ns, rest)),
        Age::Exactly(ns) => ms_within(ns, width),
    }
}

/// Bytes in at most five characters: up to 1023 as they are, then in units of 1024 with a decimal
/// where there is room, rounded down.
pub fn bytes_short(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P", "E"];
    // 2⁶⁴ is 16 E.
    let power = (u64::BITS - 1 - (bytes | 1).leading_zeros()) / 10;
    let unit = units.get(power as usize).copied().unwrap_or_default();
    let whole = bytes >> (10 * power);
    if power == 0 || whole >= 100 {
        return format!("{whole}{unit}");
    }
    let tenth = ((bytes >> (10 * (power - 1))) & 1023) * 10 / 1024;
    format!("{whole}.{tenth}{unit}")
}

/// A number in fewer characters than `width`, so that columns stay apart: `123456`, `1234k`.
pub fn fit(n: u64, width: usize) -> String {
    let mut text = n.to_string();
    for (unit, by) in [("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)] {
        if text.len() < width {
            break;
        }
        text = format!("{}{unit}", n / by);
    }
    text
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

    #[test]
    fn bytes_fit_five_characters() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1535, "1.4K"),
            (102_399, "99.9K"),
            (102_400, "100K"),
            ((1 << 20) - 1, "1023K"),
            (1 << 20, "1.0M"),
            (5 << 30, "5.0G"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(bytes_short(bytes), text);
            assert!(text.len() <= 5);
        }
    }

    #[test]
    fn a_sign_says_how_sure_a_time_is() {
        assert_eq!(age_within(Age::Exactly(12_345_678), 8), "12.345");
        assert_eq!(age_within(Age::AtLeast(60_004_123_456), 8), "≥60004.1");
        assert_eq!(age_within(Age::About { ns: 5_000_000, within_ns: 1 }, 8), "~5.000");
        assert_eq!(age_within(Age::Unknown, 8), "-");
    }
}
