//! The facts of a host that runs: those of the last minutes, for a page that moves.
//!
//! As [`Gather`](super::Gather) but that what is old is forgotten, in two halves: there is always one
//! whole half to show. What others look at anyway it is given ([`Looked`]): must not look itself.

use std::collections::BTreeMap;

use super::{
    facts::{Facts, Losses},
    gather::{measures, most_first},
    timeline::Timeline,
};
use tcptrace_doctor::Diagnosis;
use tcptrace_model::{Change, Input};
use tcptrace_record::Header;
use tcptrace_stats::{
    closers::{self, Closers, Tally},
    durations::{self, Durations, Spans},
    named::{Group, named},
    ports, stuck,
};
use tcptrace_track::{Counts, Tracker};

/// A half, nanoseconds.
const HALF_NS: u64 = 300_000_000_000;

/// A piece of the timeline, nanoseconds.
const PIECE_NS: u64 = 2_000_000_000;

/// Groups of which closes are kept.
const GROUPS: usize = 1000;

/// What others have looked at.
pub struct Looked {
    /// Where and how it runs.
    pub header: Header,
    /// The last diagnosis.
    pub diagnosis: Option<Diagnosis>,
    /// The last look at what is stuck, and when that was: `CLOCK_MONOTONIC`, nanoseconds.
    pub stuck: Option<(u64, stuck::Report)>,
    /// The last look at ephemeral ports, and when that was.
    pub ports: Option<(u64, ports::Interval)>,
    /// Events lost, in all.
    pub lost: u64,
    /// Events missed, in all; `None` where the kernel does not tell.
    pub missed: Option<u64>,
    /// No snapshots are taken any more.
    pub snapshots_ended: bool,
    /// The tracker's doubts.
    pub doubts: Counts,
}

/// One of the two.
struct Half {
    from_ns: u64,
    durations: Durations,
    closers: BTreeMap<Group, Tally>,
}

impl Half {
    fn new(from_ns: u64) -> Self {
        let spans = Spans::lingering();
        let durations = Durations::new(spans, None, durations::DEFAULT_LIMIT);
        Self { from_ns, durations, closers: BTreeMap::new() }
    }
}

/// The last minutes.
pub struct Recent {
    offset_ns: Option<i64>,
    timeline: Timeline,
    closers: Closers,
    newer: Half,
    /// The one before.
    older: Option<Half>,
}

impl Default for Recent {
    fn default() -> Self {
        let pieces = usize::try_from(2 * HALF_NS / PIECE_NS).unwrap_or(usize::MAX);
        Self {
            offset_ns: None,
            timeline: Timeline::of_the_last(pieces, PIECE_NS),
            closers: Closers::new(None, closers::DEFAULT_LIMIT),
            newer: Half::new(0),
            older: None,
        }
    }
}

impl Recent {
    /// Takes in an input that is no event.
    pub fn input(&mut self, input: &Input) {
        self.timeline.input(input);
        match input {
            Input::Begin { mono_ns, .. } => {
                self.closers.begin(*mono_ns);
                self.newer.from_ns = *mono_ns;
            }
            Input::Clock(clock) => self.offset_ns = Some(clock.realtime_offset_ns),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => self.closers.lost(),
            _ => {}
        }
    }

    /// Takes in a change.
    pub fn change(&mut self, change: &Change) {
        self.timeline.change(change);
        self.closers.add(change);
        if let Change::Moved(moved) = change {
            self.newer.durations.add(moved);
        }
    }

    /// Counts who closed up to `now`, and forgets what is old. To be called a few times in a half.
    pub fn count(&mut self, now: u64, tracker: &Tracker) {
        let groups = self.closers.take(now, tracker.census());
        let groups = named(groups, tracker, |sum, more| sum.join(&more));
        let kept = &mut self.newer.closers;
        kept.values_mut().for_each(Tally::bury);
        for (group, tally) in groups {
            let group = match kept.len() < GROUPS || kept.contains_key(&group) {
                true => group,
                false => Group::OTHER,
            };
            kept.entry(group).or_default().join(&tally);
        }
        if now.saturating_sub(self.newer.from_ns) >= HALF_NS {
            self.older = Some(std::mem::replace(&mut self.newer, Half::new(now)));
        }
    }

    /// The facts, as of `now`.
    pub fn facts(&self, now: u64, looked: Looked) -> Facts {
        let mut durations = self.newer.durations.clone();
        let mut closers = self.newer.closers.clone();
        let mut from_ns = self.newer.from_ns;
        if let Some(older) = &self.older {
            durations.join(&older.durations);
            for (group, tally) in &older.closers {
                let mut tally = tally.clone();
                // Until the newer half is counted for the first time, this is the last count.
                if !self.newer.closers.is_empty() {
                    tally.bury();
                }
                closers.entry(group.clone()).or_default().join(&tally);
            }
            from_ns = older.from_ns;
        }
        let (time_wait, linger) = measures(&durations);
        let timeline = self.timeline.pieces().filter(|piece| piece.end_ns > from_ns);
        Facts {
            header: looked.header,
            live: true,
            stretch: (from_ns.min(now), now),
            offset_ns: self.offset_ns,
            diagnosis: looked.diagnosis,
            timeline: timeline.cloned().collect(),
            time_wait,
            linger,
            closers: most_first(closers.into_iter().collect()),
            stuck: looked.stuck,
            ports: looked.ports,
            gaps: Vec::new(),
            losses: Losses {
                accounts: None,
                lost: looked.lost,
                missed: looked.missed,
                snapshots_ended: looked.snapshots_ended,
            },
            doubts: looked.doubts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcptrace_model::script;
    use tcptrace_stats::durations::Span;

    /// A connection that is opened, closed and reused within a second, which begins at `ms`.
    fn connection(ms: u64, port: u16) -> String {
        format!(
            "{ms}ms sk={port:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 comm=curl\n\
             {}ms sk={port:x} SYN_SENT>ESTABLISHED 10.0.0.1:{port} 10.0.0.2:443\n\
             {}ms sk={port:x} ESTABLISHED>FIN_WAIT1 10.0.0.1:{port} 10.0.0.2:443 comm=curl\n\
             {}ms sk={port:x} FIN_WAIT1>CLOSE 10.0.0.1:{port} 10.0.0.2:443\n",
            ms + 1,
            ms + 2,
            ms + 12
        )
    }

    #[test]
    fn what_is_old_is_forgotten_and_the_last_half_is_there() {
        let (mut tracker, mut recent) = (Tracker::default(), Recent::default());
        let mut text = "0ms begin\n0ms clock 1700000000000000000\n".to_owned();
        for second in 0..1500_u64 {
            text += &connection(second * 1000 + 1, 1000 + u16::try_from(second).unwrap());
            text += &format!("{}ms tick\n", (second + 1) * 1000);
        }
        let mut most = 0;
        for input in script::inputs(&text).unwrap() {
            tracker.apply(&input, &mut |change| recent.change(&change));
            recent.input(&input);
            let Input::Tick { mono_ns: now } = input else { continue };
            if now % 10_000_000_000 != 0 {
                continue;
            }
            recent.count(now, &tracker);
            let looked = Looked {
                header: Header::default(),
                diagnosis: None,
                stuck: None,
                ports: None,
                lost: 0,
                missed: None,
                snapshots_ended: false,
                doubts: tracker.counts(),
            };
            let facts = recent.facts(now, looked);
            let seconds = (facts.stretch.1 - facts.stretch.0) / 1_000_000_000;
            assert_eq!(facts.stretch.1, now);
            assert!(seconds >= (now / 1_000_000_000).min(300) && seconds <= 600, "{seconds}");
            let closed: u64 = facts.closers.iter().map(|(_, tally)| tally.closed()).sum();
            assert_eq!(closed, seconds, "one a second");
            let span = |of| facts.linger.iter().find(|(span, _)| *span == Span::In(of)).unwrap();
            assert_eq!(span(tcptrace_model::TcpState::FinWait1).1.count(), seconds);
            let told: u64 = facts.timeline.iter().map(|piece| piece.closed).sum();
            assert!(told.abs_diff(seconds) <= 2, "{told} of {seconds}");
            most = most.max(facts.timeline.len());
        }
        assert!((290..=300).contains(&most), "{most}");
    }
}
