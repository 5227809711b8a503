//! When to push again, and what of it is worth a word.

use std::time::Duration;

use super::push::Refusal;

/// The longest wait that failures alone lead to, if the interval is not longer.
const LONGEST: Duration = Duration::from_secs(300);

/// The longest that a collector can send us away for.
const SENT_AWAY: Duration = Duration::from_secs(3600);

/// A change of how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Works,
    Fails,
}

/// How it went so far.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    last: Option<News>,
    /// In a row.
    failures: u32,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: None, failures: 0 }
    }

    /// How long to wait after a push that was accepted, or refused, and whether that is news.
    pub(super) fn after(&mut self, refusal: Option<&Refusal>) -> (Duration, Option<News>) {
        let now = if refusal.is_some() { News::Fails } else { News::Works };
        let news = (self.last.replace(now) != Some(now)).then_some(now);
        let Some(refusal) = refusal else {
            self.failures = 0;
            return (self.interval, news);
        };
        // The second failure doubles the wait, and each doubles it up to eight times.
        let doubled = self.interval.saturating_mul(1 << self.failures.min(3));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(LONGEST).max(self.interval);
        let told = refusal.after.unwrap_or_default().min(SENT_AWAY);
        (wait.max(told), news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_often_and_said_once() {
        let second = Duration::from_secs;
        let mut pace = Pace::new(second(30));
        let refusal = Refusal::failed("down".to_owned());
        assert_eq!(pace.after(None), (second(30), Some(News::Works)));
        assert_eq!(pace.after(None), (second(30), None));
        let waits: Vec<_> = (0..6).map(|_| pace.after(Some(&refusal))).collect();
        assert_eq!(waits[0], (second(30), Some(News::Fails)));
        assert_eq!(
            waits[1..].to_vec(),
            [60, 120, 240, 240, 240].map(|wait| (second(wait), None)).to_vec()
        );
        assert_eq!(pace.after(None), (second(30), Some(News::Works)));
        assert_eq!(pace.after(Some(&refusal)), (second(30), Some(News::Fails)));
    }

    #[test]
    fn a_collector_can_send_us_away_but_not_for_ever() {
        let away = |seconds| Refusal {
            after: Some(Duration::from_secs(seconds)),
            ..Refusal::failed("busy".to_owned())
        };
        let mut pace = Pace::new(Duration::from_secs(1));
        assert_eq!(pace.after(Some(&away(7))).0, Duration::from_secs(7));
        assert_eq!(pace.after(Some(&away(0))).0, Duration::from_secs(2));
        assert_eq!(pace.after(Some(&away(u64::MAX))).0, SENT_AWAY);
        let mut seldom = Pace::new(Duration::from_secs(1000));
        assert_eq!(seldom.after(Some(&away(7))).0, Duration::from_secs(1000));
        assert_eq!(seldom.after(Some(&away(7))).0, Duration::from_secs(1000));
    }
}
