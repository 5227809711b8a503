//! Whether a count is worth a finding, and counts in words: for rules that count ends.

use std::net::SocketAddr;

use crate::facts::{Ended, HostFacts, NetnsFacts, most, peer_words};
use tcptrace_model::How;

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
    let at_least = if host.watched.lost.is_any() { "at least " } else { "" };
    format!("{at_least}{count} in {:.1} s", host.watched.seconds)
}

/// Who ended connections so, behind the kernel's `count` of that: `, by nginx :80 (3)`, or nothing
/// where nobody is known. The kernel's counter is read with the socket tables, so what tcptrace traced
/// is of another span of time: where the two differ, both are said.
pub(super) fn by(
    host: &HostFacts,
    space: &NetnsFacts,
    count: u64,
    which: impl Fn(How) -> bool,
) -> String {
    let who = space.who(&which);
    match space.ended(&which) {
        0 => String::new(),
        traced if traced == count => format!(", by {who}"),
        traced => format!("; traced: {}, by {who}", seen(host, traced)),
    }
}

/// The peers of those that ended so, or that wait so, the most first, with how many: `10.0.0.2:443 (75)`.
pub(super) fn peers(groups: impl Iterator<Item = (Option<SocketAddr>, u64)>) -> String {
    let words = |peer: Option<SocketAddr>| peer.map_or_else(|| "others".to_owned(), peer_words);
    let groups: Vec<_> = groups.map(|(peer, count)| (words(peer), count)).collect();
    most(groups.iter().map(|(words, count)| (words.as_str(), *count)))
}

/// Those of `space` that ended as `which` says.
pub(super) fn ends(
    space: &NetnsFacts,
    which: impl Fn(&Ended) -> bool + Clone,
) -> impl Iterator<Item = &Ended> + Clone {
    space.endings.iter().filter(move |ended| which(ended))
}

/// How many they are.
pub(super) fn sum<'a>(ends: impl Iterator<Item = &'a Ended>) -> u64 {
    ends.map(|ended| ended.count).sum()
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
