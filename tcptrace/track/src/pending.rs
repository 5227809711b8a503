//! Closes whose verdict the next moment settles.
//!
//! Where the kernel moves a socket to CLOSE before it sends the RST that says why, the close waits
//! here for that RST, or until all of its time has been reported. Must not keep anything for longer:
//! a `Tick` later than [`RST_WITHIN_NS`] lets it go. A peer sets the rate of such closes, so there
//! is a limit, and none is looked for among the others.

use super::{
    deadlines::{Deadline, Deadlines},
    table::Table,
    verdict::Question,
};
use tcptrace_model::{Change, Found, Moved, RstReason, Verdict};

/// The RST is sent by the function that moved the socket, or by its caller; a virtual CPU may
/// lose the CPU between the two.
pub(super) const RST_WITHIN_NS: u64 = 50_000_000;

/// Closes that wait at a time: for [`RST_WITHIN_NS`], 1.3 million a second.
pub(super) const LIMIT: usize = 65_536;

struct Pending {
    moved: Moved,
    question: Question,
}

impl Pending {
    fn due_ns(&self) -> u64 {
        self.moved.mono_ns.saturating_add(RST_WITHIN_NS)
    }

    fn unanswered(self, lost_ns: Option<u64>, out: &mut impl FnMut(Change)) {
        let lost = lost_ns.is_some_and(|lost_ns| lost_ns >= self.moved.mono_ns);
        self.settle(|question| question.unanswered(lost), out);
    }

    fn settle(mut self, verdict: impl FnOnce(Question) -> Verdict, out: &mut impl FnMut(Change)) {
        self.moved.verdict = verdict(self.question);
        out(Change::Moved(self.moved));
    }
}

/// Closes that wait, by the address of the full socket: a socket that does something else waits for
/// nothing any more.
pub(super) struct PendingVerdicts {
    closes: Table<Pending>,
    deadlines: Deadlines,
    /// The last time that records of RSTs were noticed to be lost.
    lost_ns: Option<u64>,
}

impl Default for PendingVerdicts {
    fn default() -> Self {
        Self { closes: Table::new(LIMIT), deadlines: Deadlines::default(), lost_ns: None }
    }
}

impl PendingVerdicts {
    /// A socket went to CLOSE. Beyond the limit, the verdict on the one that has waited for the
    /// longest is unknown.
    pub(super) fn add(&mut self, moved: Moved, question: Question, out: &mut impl FnMut(Change)) {
        let pending = Pending { moved, question };
        let deadline = Deadline { due_ns: pending.due_ns(), addr: moved.skaddr };
        if let Some((_, evicted)) = self.closes.insert(moved.skaddr, pending) {
            evicted.settle(Question::not_asked, out);
        }
        let closes = &self.closes;
        self.deadlines.add(deadline, closes.len(), |deadline| waits(closes, deadline));
    }

    /// How many verdicts are unknown since there was no room.
    pub(super) fn evicted(&self) -> u64 {
        self.closes.evicted()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Moved> {
        self.closes.iter().map(|(_, pending)| &pending.moved)
    }

    /// One of them as what it was until its end is reported.
    pub(super) fn found(moved: &Moved) -> Found {
        Found {
            id: moved.id,
            mono_ns: 0,
            state: moved.old,
            tuple: moved.tuple,
            netns: moved.netns,
            birth: moved.birth,
            owner: moved.owner,
            closer: moved.closer,
            holder: None,
            cookie: moved.sock.and_then(|sock| sock.cookie),
            cgroup: moved.sock.and_then(|sock| sock.cgroup),
            mptcp: moved.mptcp(),
            timestamps: None,
            queues: None,
            retransmits: None,
        }
    }

    /// A RST was sent from the socket at this address, which is in CLOSE.
    pub(super) fn reset(
        &mut self,
        skaddr: u64,
        reason: Option<RstReason>,
        out: &mut impl FnMut(Change),
    ) {
        if let Some(pending) = self.closes.remove(skaddr) {
            pending.settle(|question| question.answered(reason), out);
        }
    }

    /// Records of RSTs were lost, which was noticed at `mono_ns`: one of them may be the RST that
    /// a close waits for.
    pub(super) fn lost(&mut self, mono_ns: u64) {
        self.lost_ns = self.lost_ns.max(Some(mono_ns));
    }

    /// The socket at this address does something else: no RST followed.
    pub(super) fn moves_on(&mut self, skaddr: u64, out: &mut impl FnMut(Change)) {
        if !self.closes.is_empty()
            && let Some(pending) = self.closes.remove(skaddr)
        {
            pending.unanswered(self.lost_ns, out);
        }
    }

    /// All that happened before `now` has been reported.
    pub(super) fn tick(&mut self, now: u64, out: &mut impl FnMut(Change)) {
        while let Some(deadline) = self.deadlines.due(now) {
            if waits(&self.closes, deadline)
                && let Some(pending) = self.closes.remove(deadline.addr)
            {
                pending.unanswered(self.lost_ns, out);
            }
        }
    }

    /// Nothing more will be reported.
    pub(super) fn end(&mut self, out: &mut impl FnMut(Change)) {
        self.tick(u64::MAX, out);
    }
}

/// Whether a deadline is that of a close that waits.
fn waits(closes: &Table<Pending>, deadline: Deadline) -> bool {
    closes.get(deadline.addr).is_some_and(|pending| pending.due_ns() == deadline.due_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tracker;
    use tcptrace_model::{How, RstWhy, TcpState, script};

    /// Closes of orphans by a RST that came, or that follows, a microsecond apart, and what comes after each.
    fn orphans(number: usize, then: impl Fn(usize) -> String) -> String {
        let one = |n: usize| {
            let ends =
                format!("10.0.0.1:{} 10.1.{}.{}:443", 1 + n % 60_000, n / 256 % 256, n % 256);
            let at = n as f64 / 1000.0;
            format!(
                "{at}ms sk={n:x} ESTABLISHED>FIN_WAIT1 {ends}\n\
                 {at}ms sk={n:x} FIN_WAIT1>CLOSE {ends} dead err=104 shut=3\n{}",
                then(n)
            )
        };
        (0..number).map(one).collect()
    }

    fn verdicts(tracker: &mut Tracker, lines: &str) -> Vec<(u64, Option<How>)> {
        let mut hows = Vec::new();
        for input in script::inputs(lines).unwrap() {
            tracker.apply(&input, &mut |change| {
                if let Change::Moved(moved) = change
                    && moved.new == TcpState::Close
                {
                    hows.push((moved.skaddr, moved.verdict.how));
                }
            });
        }
        hows
    }

    #[test]
    fn past_the_limit_the_verdict_on_the_oldest_is_unknown() {
        let mut tracker = Tracker::default();
        let lines = orphans(LIMIT + 2, |_| String::new());
        assert_eq!(
            verdicts(&mut tracker, &lines),
            [(0, Some(How::Unknown)), (1, Some(How::Unknown))]
        );
        assert_eq!(tracker.counts().evicted, 2);
        // A RST that comes too late changes nothing; that of one that still waits does.
        let resets = "66ms sk=0 reset-sent CLOSE other\n66ms sk=2 reset-sent CLOSE other\n";
        assert_eq!(
            verdicts(&mut tracker, resets),
            [(2, Some(How::RstSent(RstWhy::DataAfterClose)))]
        );
        let rest = verdicts(&mut tracker, "200ms tick\n");
        assert_eq!(rest.len(), LIMIT - 1);
        assert!(rest.iter().all(|(_, how)| *how == Some(How::RstReceived)));
        assert!(rest.is_sorted_by_key(|(addr, _)| *addr), "the first first");
    }

    #[test]
    fn each_is_settled_by_what_follows_at_its_address() {
        let mut tracker = Tracker::default();
        let lines = orphans(1000, |n| match n % 3 {
            0 => format!("{}ms sk={n:x} reset-sent CLOSE other\n", n as f64 / 1000.0 + 0.1),
            1 => format!(
                "{}ms sk={n:x} CLOSE>LISTEN 10.0.0.1:80 0.0.0.0:0\n",
                n as f64 / 1000.0 + 0.1
            ),
            _ => String::new(),
        });
        let first = verdicts(&mut tracker, &lines);
        let of = |how| first.iter().filter(|(_, other)| *other == Some(how)).count();
        let sent = How::RstSent(RstWhy::DataAfterClose);
        assert_eq!((of(sent), of(How::RstReceived)), (334, 333));
        assert_eq!(verdicts(&mut tracker, "51ms tick\n").len(), 333);
        assert_eq!(tracker.counts().evicted, 0);
    }
}
