//! `tcptrace conns`: one line for each connection that ended, and what is open where it was
//! asked for.
//!
//! Those that are open are shown once, when the first snapshots have been settled; those that are
//! still in TIME_WAIT when the run ends, at that moment.

mod csv;
mod json;
mod table;

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

pub use self::table::Columns;
use self::table::Table;
use super::{AT_ONCE, View, json::Json as Lines, loss, time::WallClock};
use tcptrace_model::{
    Change, Input, Snapshot,
    select::{Subject, Wanted},
};
use tcptrace_stats::conns::{Connection, Conns, Until, least_ns};
use tcptrace_track::{DEFAULT_LIMIT, Tracker, namespaces::Namespaces};

/// How the lines are written.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// Columns.
    Table(Columns),
    /// One object a line.
    Json,
    /// Comma-separated values.
    Csv,
}

/// What the view shows.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Whose connections, and how they ended.
    pub wanted: Wanted,
    /// Those that are known to have lived for so long, nanoseconds.
    pub min_life_ns: u64,
    /// When a connection is told of.
    pub until: Until,
    /// Also, once, those that are open.
    pub open: bool,
    /// Stop after so many lines.
    pub count: Option<u64>,
    /// Whether to print a header.
    pub header: bool,
}

enum Printer {
    Table(Table),
    Json(Lines, WallClock),
    Csv(WallClock),
}

/// When those that are open are shown.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    /// When a round of snapshots is over.
    AfterRound,
    /// At the first tick after this moment, when all of its time has been told.
    At(u64),
    /// They have been, or were not asked for.
    Done,
}

/// The view.
pub struct ConnsView {
    conns: Conns,
    names: Namespaces,
    printer: Printer,
    selection: Selection,
    open: Open,
    printed: u64,
}

impl ConnsView {
    /// A view of what `selection` names, written as `format`.
    pub fn new(format: Format, selection: Selection) -> Self {
        Self {
            conns: Conns::new(selection.until, DEFAULT_LIMIT),
            names: Namespaces::default(),
            printer: match format {
                Format::Table(columns) => Printer::Table(Table::new(columns)),
                Format::Json => Printer::Json(Lines::new(), WallClock::utc()),
                Format::Csv => Printer::Csv(WallClock::utc()),
            },
            open: if selection.open { Open::AfterRound } else { Open::Done },
            selection,
            printed: 0,
        }
    }

    /// Connections of which too much had to be kept: their times before are not known.
    pub fn evicted(&self) -> u64 {
        self.conns.evicted()
    }

    fn print(&mut self, one: &Connection, out: &mut BytesMut) {
        let Selection { wanted, min_life_ns, .. } = &self.selection;
        let subject = Subject {
            owner: one.owner.as_ref(),
            closer: one.closer.as_ref(),
            holder: one.holder.as_ref(),
            cgroup: one.cgroup,
            verdict: one.verdict,
        };
        let lived = *min_life_ns == 0 || least_ns(one.life()) >= *min_life_ns;
        if self.is_done() || !lived || !wanted.matches(subject) {
            return;
        }
        self.printed += 1;
        let name = one.netns.and_then(|netns| self.names.name(netns));
        match &mut self.printer {
            Printer::Table(table) => table.row(one, &self.names, out),
            Printer::Json(_, wall) => json::print(one, name, wall, out),
            Printer::Csv(wall) => csv::print(one, name, wall, out),
        }
    }

    /// Shows those that are open, if that is due.
    fn print_open(&mut self, now: u64, tracker: &Tracker, out: &mut BytesMut) {
        self.open = Open::Done;
        for one in self.conns.open(tracker.census(), now) {
            self.print(&one, out);
        }
    }

    fn end(&mut self, now: u64, tracker: &Tracker, out: &mut BytesMut) {
        if self.open != Open::Done {
            self.print_open(now, tracker, out);
        }
        for one in self.conns.waiting(tracker.census(), now) {
            self.print(&one, out);
        }
    }
}

impl View for ConnsView {
    fn begin(&mut self, out: &mut BytesMut) {
        if !self.selection.header {
            return;
        }
        match &self.printer {
            Printer::Table(table) => table.header(out),
            Printer::Csv(_) => out.put_slice(csv::HEADER.as_bytes()),
            Printer::Json(..) => {}
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.names.input(input);
        match (&mut self.printer, input) {
            (Printer::Table(table), Input::Begin { mono_ns, .. }) => table.set_begin(*mono_ns),
            (Printer::Table(table), Input::Clock(clock)) => table.wall().set(*clock),
            (Printer::Json(_, wall) | Printer::Csv(wall), Input::Clock(clock)) => wall.set(*clock),
            (Printer::Json(..), Input::Lost(_) | Input::Missed { .. } | Input::Gap(_)) => {
                loss::json(input, out);
            }
            (Printer::Table(_), Input::Lost(_) | Input::Missed { .. } | Input::Gap(_)) => {
                loss::text(input, out);
            }
            (Printer::Csv(wall), Input::Lost(_) | Input::Missed { .. } | Input::Gap(_)) => {
                csv::loss(input, wall, out);
            }
            (_, Input::Snapshot(Snapshot::Over { mono_ns, .. }))
                if self.open == Open::AfterRound =>
            {
                self.open = Open::At(*mono_ns);
            }
            (_, Input::Tick { mono_ns }) => {
                if matches!(self.open, Open::At(over_ns) if over_ns <= *mono_ns) {
                    self.print_open(*mono_ns, tracker, out);
                }
            }
            (_, Input::End(accounts)) => {
                self.end(accounts.mono_ns, tracker, out);
                if let Printer::Json(lines, _) = &self.printer {
                    lines.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        if let Some(one) = self.conns.change(change) {
            self.print(&one, out);
        }
    }

    fn haste(&self) -> Duration {
        AT_ONCE
    }

    fn is_done(&self) -> bool {
        self.selection.count.is_some_and(|count| self.printed >= count)
    }
}

#[cfg(test)]
mod tests;
