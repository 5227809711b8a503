//! Tables for engines that query files: transitions and connections as Parquet, CSV or NDJSON.
//!
//! A view like the others: it takes changes and writes bytes. What a column is called, its type and
//! its value are said once, in `transitions` and `connections`, whatever the format. Must not
//! conclude anything; rows wait in memory until a batch of them is written, and batches until a row
//! group is.
//!
//! `ExportView` writes one table of what was recorded. Of what goes on, `Stream` hands the rows of
//! both to `Exporter`, a thread that writes files of so much time each.

mod about;
mod column;
mod connections;
mod folder;
mod format;
mod groups;
mod shared;
mod sink;
mod stream;
mod tally;
mod text;
mod transitions;
mod worker;

use bytes::BytesMut;

pub use about::About;
pub use column::ColumnDoc;
use column::{Column, Row, docs};
pub use format::{ExportError, Format};
use sink::{Absent, Sink};
pub use stream::{Stream, Way};
pub use tally::Tally;
pub use worker::{ExportDir, Exporter};

use tcptrace_model::{Accounts, Change, Gap, Input, Moved};
use tcptrace_record::Header;
use tcptrace_stats::conns::{Connection, Conns, Until};
use tcptrace_track::{DEFAULT_LIMIT, Tracker, cgroups::Cgroups};
use tcptrace_view::View;

/// Rows that are written together.
const BATCH: usize = 8192;

/// Gaps that are told of one by one.
const GAPS: usize = 1000;

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// A transition: what `live` prints.
    Transitions,
    /// A connection: what `conns` prints.
    Connections,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Transitions, Self::Connections];

    /// The word for the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transitions => "transitions",
            Self::Connections => "connections",
        }
    }

    /// Its columns, in their order.
    pub fn columns(self) -> Vec<ColumnDoc> {
        match self {
            Self::Transitions => docs(&transitions::columns()),
            Self::Connections => docs(&connections::columns()),
        }
    }
}

/// What is kept of a table until it is written.
struct Waiting<T> {
    columns: Vec<Column<T>>,
    rows: Vec<T>,
}

impl<T> Waiting<T> {
    fn new(columns: Vec<Column<T>>) -> Self {
        Self { columns, rows: Vec::with_capacity(BATCH) }
    }

    /// Writes the rows, which empties them; says how many they were.
    fn write(
        &mut self,
        about: &About,
        sink: &mut Sink,
        out: &mut BytesMut,
    ) -> Result<u64, ExportError> {
        let given: Vec<_> = self.rows.iter().map(|it| Row { it, about }).collect();
        sink.write(&self.columns, &given, out)?;
        let count = given.len() as u64;
        self.rows.clear();
        Ok(count)
    }
}

enum Rows {
    Transitions(Waiting<Moved>),
    Connections(Waiting<Connection>, Box<Conns>),
}

/// The view.
pub struct ExportView {
    rows: Rows,
    about: About,
    sink: Option<Sink>,
    failure: Option<ExportError>,
    gaps: Vec<Gap>,
    count: u64,
    ended: bool,
}

impl ExportView {
    /// A view of the rows of `table`, of a recording with this `header`; with `addresses`, those of kernel
    /// objects too.
    pub fn new(table: Table, format: Format, header: Header, addresses: bool) -> Self {
        let (rows, sink) = match table {
            Table::Transitions => {
                let waiting = Waiting::new(transitions::columns());
                let sink = Sink::new(format, &waiting.columns, &header);
                (Rows::Transitions(waiting), sink)
            }
            Table::Connections => {
                let waiting = Waiting::new(connections::columns());
                let sink = Sink::new(format, &waiting.columns, &header);
                let conns = Box::new(Conns::new(Until::End, DEFAULT_LIMIT));
                (Rows::Connections(waiting, conns), sink)
            }
        };
        let (sink, failure) = match sink {
            Ok(sink) => (Some(sink), None),
            Err(failure) => (None, Some(failure)),
        };
        let about =
            About { header, hz: 0, addresses, cgroups: Cgroups::default(), offset_ns: None };
        Self { rows, about, sink, failure, gaps: Vec::new(), count: 0, ended: false }
    }

    /// Rows that were written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Connections of which too much had to be kept: their times before are not known.
    pub fn evicted(&self) -> u64 {
        match &self.rows {
            Rows::Transitions(_) => 0,
            Rows::Connections(_, conns) => conns.evicted(),
        }
    }

    /// Whether the table is whole.
    ///
    /// # Errors
    /// Why nothing more could be written.
    pub fn finished(&self) -> Result<bool, ExportError> {
        self.failure.clone().map_or(Ok(self.ended), Err)
    }

    fn flush(&mut self, out: &mut BytesMut) {
        let Self { rows, about, sink: Some(sink), .. } = self else { return };
        let written = match rows {
            Rows::Transitions(waiting) => waiting.write(about, sink, out),
            Rows::Connections(waiting, _) => waiting.write(about, sink, out),
        };
        match written {
            Ok(count) => self.count += count,
            Err(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: ExportError) {
        (self.sink, self.failure) = (None, Some(failure));
    }

    fn end(&mut self, accounts: &Accounts, tracker: &Tracker, out: &mut BytesMut) {
        if let Rows::Connections(Waiting { rows, .. }, conns) = &mut self.rows {
            rows.extend(conns.waiting(tracker.census(), accounts.mono_ns));
            rows.extend(conns.open(tracker.census(), accounts.mono_ns));
        }
        self.flush(out);
        if let Some(sink) = &mut self.sink
            && let Err(failure) = sink.finish(&Absent::of(accounts), &self.gaps, out)
        {
            self.fail(failure);
        }
        self.ended = true;
    }
}

impl View for ExportView {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        match input {
            Input::Begin { hz, .. } => self.about.hz = *hz,
            Input::Clock(clock) => {
                // The rows so far are of the clock as it was.
                if self.about.offset_ns.is_some_and(|was| was != clock.realtime_offset_ns) {
                    self.flush(out);
                }
                self.about.offset_ns = Some(clock.realtime_offset_ns);
            }
            Input::Cgroup { id, path } => self.about.cgroups.name(*id, path),
            Input::Gap(gap) if self.gaps.len() < GAPS => self.gaps.push(*gap),
            Input::End(accounts) => self.end(accounts, tracker, out),
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        let waiting = match (&mut self.rows, change) {
            (Rows::Transitions(Waiting { rows, .. }), Change::Moved(moved)) => {
                rows.push(*moved);
                rows.len()
            }
            (Rows::Transitions(_), _) => return,
            (Rows::Connections(Waiting { rows, .. }, conns), change) => {
                rows.extend(conns.change(change));
                rows.len()
            }
        };
        if waiting >= BATCH {
            self.flush(out);
        }
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
    }
}

#[cfg(test)]
mod tests;
