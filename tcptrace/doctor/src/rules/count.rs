//! Whether a count is worth a finding, and counts in words: for rules that count ends.

use crate::facts::HostFacts;

/// Resets and timeouts are normal one by one: this many while it was watched, and [`SHARE`] of the
/// connections opened meanwhile, are not.
pub(super) const MANY: u64 = 20;
/// One in so many.
pub(super) const SHARE: u64 = 10;

/// Whether `count` is many, beside `opened` connections.
pub(super) fn is_many(count: u64, opened: u64) -> bool {
    count >= MANY && count.saturating_mul(SHARE) >= opened
}

/// A count that the hooks saw, in words: a lower bound where they lost some.
pub(super) fn seen(host: &HostFacts, count: u64) -> String {
    let at_least = if host.watched.lossy { "at least " } else { "" };
    format!("{at_least}{count} in {:.1} s", host.watched.seconds)
}

/// ` by nginx :80 (3)`, or nothing where nobody is known.
pub(super) fn by(who: &str) -> String {
    if who.is_empty() { String::new() } else { format!(", by {who}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_is_a_number_and_a_share() {
        assert!(!is_many(19, 0) && is_many(20, 0));
        assert!(is_many(20, 200) && !is_many(20, 201));
    }
}
