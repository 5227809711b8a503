//! Tables of what goes on, for who writes them: the side of the analysis, a view.
//!
//! Rows go over in parcels, once a second or when there are many. Must not wait for the disk: where
//! too many rows wait for it, those of a parcel are not handed over, and the file says how many are
//! missing there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use bytes::BytesMut;

use super::{Table, tally::Tally};
use tcptrace_model::{Change, Input, Moved};
use tcptrace_record::Header;
use tcptrace_stats::conns::{Connection, Conns, Until};
use tcptrace_track::{DEFAULT_LIMIT, Tracker, cgroups};
use tcptrace_view::View;

/// Rows of a parcel, about.
const PARCEL: usize = 4096;

/// Rows that may wait for the disk: some 30 MB.
const WAITING: usize = 1 << 16;

/// How often rows are handed over, nanoseconds.
const EVERY_NS: u64 = 1_000_000_000;

/// What is to be done when a parcel's rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    /// Wait for more.
    #[default]
    More,
    /// Close the files and begin others.
    Rotate,
    /// Close the files.
    End,
}

/// Rows, and what they refer to.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) hz: u32,
    /// As in [`super::About`].
    pub(super) offset_ns: Option<i64>,
    /// When it was closed: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) mono_ns: u64,
    /// What cgroups are called.
    pub(super) names: Vec<(u64, Box<str>)>,
    pub(super) transitions: Vec<Moved>,
    pub(super) connections: Vec<Connection>,
    /// What is missing: rows that were not handed over before this, in the order of [`Table::ALL`].
    pub(super) missing: [u64; 2],
    /// Events that were lost or missed before it.
    pub(super) lost: u64,
    pub(super) missed: Option<u64>,
    pub(super) then: Then,
}

impl Parcel {
    pub(super) fn rows(&self) -> usize {
        self.transitions.len() + self.connections.len()
    }
}

/// What goes over.
pub(super) enum Handed {
    /// The hooks are on, and this is how.
    Begin(Box<Header>),
    Parcel(Box<Parcel>),
}

/// The way over.
#[derive(Clone)]
pub struct Way {
    to: Sender<Handed>,
    /// Rows on the way.
    waiting: Arc<AtomicUsize>,
}

impl Way {
    /// Both ends of it.
    pub(super) fn new() -> (Self, Receiver<Handed>) {
        let (to, from) = mpsc::channel();
        (Self { to, waiting: Arc::default() }, from)
    }

    /// The hooks are on: what comes now is told by `header`.
    pub fn begin(&self, header: Header) {
        // Fails only when the writer has ended: it says why.
        let _ = self.to.send(Handed::Begin(Box::new(header)));
    }

    /// Rows were taken off it.
    pub(super) fn taken(waiting: &AtomicUsize, rows: usize) {
        waiting.fetch_sub(rows, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }
}

/// The view.
pub struct Stream {
    way: Way,
    tally: Arc<Tally>,
    conns: Conns,
    every_ns: u64,
    next: Parcel,
    /// When to hand over, and when to begin other files.
    due_ns: Option<u64>,
    rotate_ns: Option<u64>,
}

impl Stream {
    pub(super) fn new(way: Way, tally: Arc<Tally>, every: Duration) -> Self {
        Self {
            way,
            tally,
            conns: Conns::new(Until::End, DEFAULT_LIMIT),
            every_ns: u64::try_from(every.as_nanos()).unwrap_or(u64::MAX),
            next: Parcel::default(),
            due_ns: None,
            rotate_ns: None,
        }
    }

    /// Hands over what there is. Without room, the rest goes with the next; with `anyway`, there
    /// is room.
    fn hand_over(&mut self, mono_ns: u64, anyway: bool) {
        let rows = self.next.rows();
        let Parcel { hz, offset_ns, .. } = self.next;
        self.next.mono_ns = mono_ns;
        if !anyway && self.way.waiting.load(Ordering::Relaxed) + rows > WAITING {
            let Parcel { transitions, connections, missing, .. } = &mut self.next;
            let dropped = [transitions.len() as u64, connections.len() as u64];
            for ((sum, count), table) in missing.iter_mut().zip(dropped).zip(Table::ALL) {
                *sum += count;
                self.tally.lose(table, count);
            }
            transitions.clear();
            connections.clear();
            return;
        }
        self.way.waiting.fetch_add(rows, Ordering::Relaxed);
        let next = Parcel { hz, offset_ns, ..Parcel::default() };
        let parcel = Handed::Parcel(Box::new(std::mem::replace(&mut self.next, next)));
        // Fails only when the writer has ended: it says why.
        let _ = self.way.to.send(parcel);
    }

    fn tick(&mut self, now: u64) {
        let after = |from: u64, ns: u64| Some(from.saturating_add(ns));
        let rotate = *self.rotate_ns.get_or_insert(now.saturating_add(self.every_ns));
        if rotate <= now {
            self.next.then = Then::Rotate;
            self.rotate_ns = after(rotate, self.every_ns).filter(|next| *next > now);
            self.rotate_ns = self.rotate_ns.or(after(now, self.every_ns));
        }
        if self.next.then == Then::Rotate || self.due_ns.is_none_or(|due| due <= now) {
            self.due_ns = after(now, EVERY_NS);
            if self.next.rows() > 0 || self.next.then == Then::Rotate {
                self.hand_over(now, false);
            }
        }
    }

    fn end(&mut self, now: u64, tracker: &Tracker) {
        let mut rest = self.conns.waiting(tracker.census(), now);
        rest.extend(self.conns.open(tracker.census(), now));
        // Piece by piece, so that a piece is free once it is written.
        for rows in rest.chunks(PARCEL) {
            self.next.connections.extend_from_slice(rows);
            self.hand_over(now, true);
        }
        self.next.then = Then::End;
        self.hand_over(now, true);
    }
}

impl View for Stream {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, _out: &mut BytesMut) {
        match input {
            Input::Begin { hz, .. } => self.next.hz = *hz,
            Input::Clock(clock) => {
                // The rows so far are of the clock as it was.
                if self.next.offset_ns.is_some_and(|was| was != clock.realtime_offset_ns)
                    && self.next.rows() > 0
                {
                    self.hand_over(clock.mono_ns, false);
                }
                self.next.offset_ns = Some(clock.realtime_offset_ns);
            }
            // As many as are kept in mind over there.
            Input::Cgroup { id, path } if self.next.names.len() < cgroups::LIMIT => {
                self.next.names.push((*id, path.clone()));
            }
            Input::Lost(lost) => self.next.lost += lost.count,
            Input::Missed { count, .. } => *self.next.missed.get_or_insert_default() += count,
            Input::Tick { mono_ns } => self.tick(*mono_ns),
            Input::End(accounts) => self.end(accounts.mono_ns, tracker),
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        if let Change::Moved(moved) = change {
            self.next.transitions.push(*moved);
        }
        self.next.connections.extend(self.conns.change(change));
        if self.next.rows() >= PARCEL {
            self.hand_over(self.next.mono_ns, false);
        }
    }

    fn patience(&self) -> Duration {
        Duration::MAX
    }

    fn haste(&self) -> Duration {
        Duration::MAX
    }

    fn is_done(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use tcptrace_model::{Accounts, script};
    use tcptrace_pipeline::Analysis;

    const PAIRS: u64 = 40_000;

    /// Connects that are refused, of two rows each in the one table and one in the other.
    fn refused(from: u64, count: u64) -> String {
        let mut text = String::new();
        for i in from..from + count {
            let (sk, ms) = (i + 1, i);
            writeln!(text, "{ms}ms sk={sk:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443").unwrap();
            writeln!(text, "{ms}.5ms sk={sk:x} SYN_SENT>CLOSE 10.0.0.1:7 10.0.0.2:443").unwrap();
        }
        text
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_rows_and_no_more() {
        let (way, handed) = Way::new();
        let (tally, waiting) = (Arc::new(Tally::default()), way.waiting());
        let stream = Stream::new(way, Arc::clone(&tally), Duration::from_secs(600));
        let mut analysis = Analysis::new(Tracker::default(), stream);
        let mut feed = |text: &str| {
            script::inputs(text).unwrap().iter().for_each(|input| analysis.feed(input));
        };
        feed(&format!("0ms begin\n0ms clock 1795330800000000000\n{}", refused(0, PAIRS)));
        let on_the_way = waiting.load(Ordering::Relaxed);
        assert!((WAITING - PARCEL..=WAITING).contains(&on_the_way), "{on_the_way}");
        let lost = tally.lost();
        assert!(lost[0] > 0 && lost[1] > 0, "{lost:?}");
        // Now it takes them.
        let parcels = |handed: &Receiver<Handed>| -> Vec<Parcel> {
            let parcel = |handed| match handed {
                Handed::Parcel(parcel) => *parcel,
                Handed::Begin(_) => panic!("nothing has begun"),
            };
            handed.try_iter().map(parcel).collect()
        };
        let early = parcels(&handed);
        Way::taken(&waiting, on_the_way);
        feed(&refused(PAIRS, 10));
        analysis.feed(&Input::End(Accounts::default()));
        let late = parcels(&handed);
        assert_eq!(tally.lost(), lost, "no more than that");
        assert_eq!(late.last().map(|parcel| parcel.then), Some(Then::End));
        assert!(early.iter().all(|parcel| parcel.missing == [0, 0]));
        let missing = late.iter().map(|parcel| parcel.missing);
        assert_eq!(missing.fold([0, 0], |sum, more| [sum[0] + more[0], sum[1] + more[1]]), lost);
        let all = early.iter().chain(&late);
        let rows = all.map(|parcel| parcel.rows() as u64).sum::<u64>();
        assert_eq!(rows + lost[0] + lost[1], 3 * (PAIRS + 10));
    }
}
