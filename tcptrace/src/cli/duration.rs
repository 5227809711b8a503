//! Durations as people type them.

use std::time::Duration;

/// Reads `10`, `0.5` (seconds), `10s`, `1h 30m`, `250ms`. Not zero, not negative.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let duration = parse_or_zero(text)?;
    if duration.is_zero() {
        return Err("a duration must be more than 0".to_owned());
    }
    Ok(duration)
}

/// The same, or 0.
pub(super) fn parse_or_zero(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!(
            "'{}' is not a duration: give seconds, or 250ms, 10s, 5m, 1h30m",
            text.escape_default()
        )
    };
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| bad()),
        Err(_) => {
            let signed: jiff::SignedDuration = text.parse().map_err(|_| bad())?;
            Duration::try_from(signed).map_err(|_| bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        for (text, ms) in
            [("10", 10_000), ("0.5", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("250ms", 250)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["0", "0s", "-1", "-5s", "", "NaN", "inf", "1e400", "ten"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(parse_or_zero("10s"), parse("10"));
        assert!(parse_or_zero("-1").is_err());
    }
}
