//! When `--rotate` begins the next file, as people type it: a size or a time.

use std::time::Duration;

use super::duration;
use tcptrace_record::Every;

/// The least size of a file of `--rotate`, bytes.
const LEAST_BYTES: u64 = 64 << 10;

/// Reads `100M`, `1G` (bytes: 64K at least) or `10m`, `1h` (time).
pub(super) fn every(text: &str) -> Result<Every, String> {
    let shift = match text.as_bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        _ if text.parse::<f64>().is_ok() => {
            return Err("give a size (100M, 1G) or a time (10m, 1h), with its unit".to_owned());
        }
        _ => return rotation_time(text),
    };
    let bytes = text[..text.len() - 1].parse().ok().and_then(|n: u64| n.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= LEAST_BYTES => Ok(Every::Bytes(bytes)),
        _ => Err("a size is a number with K, M or G, and at least 64K".to_owned()),
    }
}

fn rotation_time(text: &str) -> Result<Every, String> {
    let time = duration::parse(text)?;
    if time < Duration::from_secs(1) {
        return Err("a time is at least 1s".to_owned());
    }
    Ok(Every::Time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_from_a_time_by_its_unit() {
        assert_eq!(every("100M"), Ok(Every::Bytes(100 << 20)));
        assert_eq!(every("64K"), Ok(Every::Bytes(64 << 10)));
        assert_eq!(every("10m"), Ok(Every::Time(Duration::from_secs(600))));
        assert_eq!(every("1h"), Ok(Every::Time(Duration::from_secs(3600))));
        for text in ["", "100", "1K", "-1M", "999999999999G", "10ms", "M", "ten", "1.5G"] {
            assert!(every(text).is_err(), "{text}");
        }
    }
}
