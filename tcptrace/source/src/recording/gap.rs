//! What a recording has lost: damage on the way becomes a gap once blocks turn out to be missing.

use jiff::Timestamp;

use tcptrace_model::{Gap, GapBecause};

/// What was damaged since something was known last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holes {
    /// When the recording begins, `CLOCK_MONOTONIC`, nanoseconds; 0 where that is not known.
    begin_ns: u64,
    /// Up to when something is known.
    known_ns: Option<u64>,
    /// Something was damaged since then; and from when to when that went at least, where it is known.
    damaged: Option<Option<(u64, u64)>>,
    /// A file ended within a block since then.
    cut: bool,
}

impl Holes {
    pub(super) fn new(begin_ns: u64) -> Self {
        Self { begin_ns, known_ns: None, damaged: None, cut: false }
    }

    /// Something is known of this moment.
    pub(super) fn know(&mut self, mono_ns: Option<u64>) {
        self.known_ns = self.known_ns.max(mono_ns);
    }

    /// Something is damaged, which is of this time if that is known.
    pub(super) fn damage(&mut self, of: Option<(u64, u64)>) {
        let before = self.damaged.flatten();
        self.damaged = Some(match (before, of) {
            (Some((from, to)), Some((also_from, also_to))) => {
                Some((from.min(also_from), to.max(also_to)))
            }
            (before, of) => before.or(of),
        });
    }

    /// A file ended within a block.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// The block that is due has come: what was damaged before it was none that counts.
    pub(super) fn no_more(&mut self) {
        (self.damaged, self.cut) = (None, false);
    }

    /// The gap up to `until`, after which something is known again.
    pub(super) fn gap_to(&mut self, until_ns: u64, because: GapBecause) -> Gap {
        let cut = std::mem::take(&mut self.cut);
        let damaged = self.damaged.take();
        let because = match damaged {
            None if !cut => because,
            _ => GapBecause::Damaged,
        };
        let begin_ns = Some(self.begin_ns).filter(|&begin| begin > 0 && begin <= until_ns);
        let from_ns = self.known_ns.or(begin_ns).or(damaged.flatten().map(|(from_ns, _)| from_ns));
        let from_ns = from_ns.unwrap_or(until_ns).min(until_ns);
        Gap { from_ns, mono_ns: until_ns, because }
    }

    /// The gap at the end, after damage.
    pub(super) fn last_gap(&mut self) -> Option<Gap> {
        let until_ns = self.damaged?.map(|(_, until_ns)| until_ns);
        let until_ns = until_ns.max(self.known_ns).unwrap_or(self.begin_ns);
        Some(self.gap_to(until_ns, GapBecause::Damaged))
    }
}

/// A moment in words: UTC.
pub(super) fn moment(mono_ns: u64, realtime_offset_ns: i64) -> String {
    let ns = i128::from(mono_ns) + i128::from(realtime_offset_ns);
    Timestamp::from_nanosecond(ns).map_or_else(|_| "?".to_owned(), |at| format!("{at:.3}"))
}

/// A gap in words.
pub(super) fn said(gap: &Gap, realtime_offset_ns: i64) -> String {
    let at = |mono_ns: u64| moment(mono_ns, realtime_offset_ns);
    format!(
        "nothing is known from {} to {} ({:.3} s): {}",
        at(gap.from_ns),
        at(gap.mono_ns),
        gap.ns() as f64 / 1e9,
        gap.because.says()
    )
}
