//! `tcptrace live`: every transition as it happens.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

pub use super::table::{Columns, WIDTH_WITH_OWNER};
use super::{AT_ONCE, View, csv, csv::Csv, json::Json, loss, table::Table};
use tcptrace_model::{Change, Input, StateSet, select::Wanted};
use tcptrace_track::{Tracker, namespaces::Namespaces};

/// How the stream is written.
pub enum Format {
    /// Columns.
    Table(Columns),
    /// One object a line.
    Json,
    /// Comma-separated values.
    Csv,
}

/// What the view shows of the stream.
pub struct Selection {
    /// Transitions out of or into one of these.
    pub states: StateSet,
    /// Of connections that are whose and ended how. The verdict is on the transitions that settle
    /// it, so asking for one shows those.
    pub wanted: Wanted,
    /// At most so many lines in a second of event time.
    pub rate_limit: Option<u64>,
    /// Stop after so many lines.
    pub count: Option<u64>,
    /// Whether to print a header.
    pub header: bool,
}

enum Printer {
    Table(Table),
    Json(Json),
    Csv(Csv),
}

/// The view.
pub struct LiveView {
    printer: Printer,
    names: Namespaces,
    selection: Selection,
    printed: u64,
    /// The second of event time that is being printed, and what it has had.
    second: u64,
    in_second: u64,
    left_out_in_second: u64,
    left_out: u64,
}

impl LiveView {
    /// A view of what `selection` names, written as `format`.
    pub fn new(format: Format, selection: Selection) -> Self {
        let printer = match format {
            Format::Table(columns) => Printer::Table(Table::new(columns)),
            Format::Json => Printer::Json(Json::new()),
            Format::Csv => Printer::Csv(Csv::new()),
        };
        Self {
            printer,
            names: Namespaces::default(),
            selection,
            printed: 0,
            second: 0,
            in_second: 0,
            left_out_in_second: 0,
            left_out: 0,
        }
    }

    /// How many transitions `--rate-limit` kept from being printed.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Counts against the limit. Time is the events', so that a replay leaves out the same.
    fn within_limit(&mut self, mono_ns: u64, out: &mut BytesMut) -> bool {
        let Some(limit) = self.selection.rate_limit else { return true };
        let second = mono_ns / 1_000_000_000;
        if second != self.second {
            self.tell_left_out(out);
            self.second = second;
            self.in_second = 0;
        }
        self.in_second += 1;
        if self.in_second <= limit {
            return true;
        }
        self.left_out_in_second += 1;
        self.left_out += 1;
        false
    }

    fn tell_left_out(&mut self, out: &mut BytesMut) {
        let count = std::mem::take(&mut self.left_out_in_second);
        if count == 0 {
            return;
        }
        let end_ns = (self.second + 1) * 1_000_000_000;
        match &self.printer {
            Printer::Json(json) => json.left_out(count, end_ns, out),
            Printer::Table(table) => {
                table.remark(&format!("{count} more in this second left out (--rate-limit)"), out);
            }
            Printer::Csv(_) => {} // a row of another kind would break the reader; stderr says it
        }
    }
}

impl View for LiveView {
    fn begin(&mut self, out: &mut BytesMut) {
        if !self.selection.header {
            return;
        }
        match &self.printer {
            Printer::Table(table) => table.header(out),
            Printer::Csv(_) => out.put_slice(csv::HEADER.as_bytes()),
            Printer::Json(_) => {}
        }
    }

    fn input(&mut self, input: &Input, _tracker: &Tracker, out: &mut BytesMut) {
        self.names.input(input);
        match (&mut self.printer, input) {
            (Printer::Table(table), Input::Begin { mono_ns, hz, .. }) => table.begin(*mono_ns, *hz),
            (Printer::Json(json), Input::Begin { hz, .. }) => json.set_hz(*hz),
            (Printer::Csv(csv), Input::Begin { hz, .. }) => csv.set_hz(*hz),
            (Printer::Table(table), Input::Clock(clock)) => table.wall().set(*clock),
            (Printer::Json(json), Input::Clock(clock)) => json.wall().set(*clock),
            (Printer::Csv(csv), Input::Clock(clock)) => csv.wall().set(*clock),
            (printer, Input::Lost(_) | Input::Missed { .. } | Input::Gap(_)) => match printer {
                Printer::Table(_) => loss::text(input, out),
                Printer::Json(_) => loss::json(input, out),
                Printer::Csv(csv) => csv.loss(input, out),
            },
            (_, Input::End(accounts)) => {
                self.tell_left_out(out);
                if let Printer::Json(json) = &self.printer {
                    json.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, out: &mut BytesMut) {
        let Change::Moved(moved) = change else { return };
        let asked =
            self.selection.states.contains(moved.old) || self.selection.states.contains(moved.new);
        let asked = asked && self.selection.wanted.matches(moved.into());
        if !asked || self.is_done() || !self.within_limit(moved.mono_ns, out) {
            return;
        }
        self.printed += 1;
        let name = moved.sock.and_then(|sock| self.names.name(sock.netns));
        match &mut self.printer {
            Printer::Table(table) => table.transition(moved, &self.names, out),
            Printer::Json(json) => json.transition(moved, name, out),
            Printer::Csv(csv) => csv.transition(moved, name, out),
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
mod tests {
    use super::*;
    use tcptrace_model::{Initiator, script};
    use tcptrace_track::Tracker;

    fn show(format: Format, selection: Selection, text: &str) -> String {
        let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
        let mut view = LiveView::new(format, selection);
        view.begin(&mut out);
        for input in script::inputs(text).unwrap() {
            tracker.apply(&input, &mut |change| view.change(&change, &mut out));
            view.input(&input, &tracker, &mut out);
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn everything() -> Selection {
        Selection {
            states: StateSet::all(),
            wanted: Wanted::default(),
            rate_limit: None,
            count: None,
            header: true,
        }
    }

    const SCRIPT: &str = "0ms begin\n\
        1ms sk=a CLOSE>SYN_SENT 192.168.123.234:0 192.168.234.123:54321 pid=812 comm=curl\n\
        3ms sk=a SYN_SENT>ESTABLISHED 192.168.123.234:40001 192.168.234.123:54321\n\
        60003.5ms sk=a ESTABLISHED>CLOSE_WAIT 192.168.123.234:40001 192.168.234.123:54321\n\
        60004ms sk=b ESTABLISHED>FIN_WAIT1 [2001:db8::1]:80 [2001:db8::2]:7 comm=x\n\
        60005ms sk=c CLOSE>LISTEN 0.0.0.0:80 0.0.0.0:0 comm=x\n\
        60006ms lost 17\n";

    #[test]
    fn the_table_fits_eighty_columns() {
        let text = show(Format::Table(Columns::default()), everything(), SCRIPT);
        let expected = "\
LADDR:LPORT           RADDR:RPORT           OLDSTATE       NEWSTATE           MS
192.168.123.234:-     192.168.234.123:54321 CLOSE       -> SYN_SENT            -
192.168.123.234:40001 192.168.234.123:54321 SYN_SENT    -> ESTABLISHED     2.000
192.168.123.234:40001 192.168.234.123:54321 ESTABLISHED -> CLOSE_WAIT  60000.500
[2001:db8::1]:80      [2001:db8::2]:7       ESTABLISHED -> FIN_WAIT1   ≥60004.00
0.0.0.0:80            *                     CLOSE       -> LISTEN              -
... 17 events lost
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn the_reason_of_an_end_fits_too() {
        let text = show(
            Format::Table(Columns::default()),
            Selection { header: false, ..everything() },
            "0ms begin\n\
             1ms tw=1 expired TIME_WAIT 192.168.123.234:40001 192.168.234.123:54321\n\
             2ms tw=2 stopped-by-receive FIN_WAIT2 192.168.123.234:40002 192.168.234.123:54321\n\
             60003ms tw=3 stopped-by-connect TIME_WAIT 192.168.123.234:40003 192.168.234.123:1\n\
             60004ms sk=a FIN_WAIT2>CLOSE 10.0.0.1:7 10.0.0.2:443 full\n",
        );
        let expected = "\
192.168.123.234:40001 192.168.234.123:54321 TIME_WAIT -> CLOSE expired         -
192.168.123.234:40002 192.168.234.123:54321 FIN_WAIT2 -> CLOSE rst-sent        -
192.168.123.234:40003 192.168.234.123:1     TIME_WAIT -> CLOSE connect ≥60000.00
10.0.0.1:7            10.0.0.2:443          FIN_WAIT2 -> CLOSE never   ≥60004.00
";
        assert_eq!(text, expected);
    }

    #[test]
    fn how_it_ended_fits_too() {
        let script = "0ms begin\n\
             9ms sk=a ESTABLISHED>CLOSE 192.168.123.234:40001 192.168.234.123:54321 shut=3 \
             linger=0 unread=0 comm=x\n\
             60003.5ms sk=b ESTABLISHED>CLOSE 192.168.123.234:40002 192.168.234.123:54321 err=104\n";
        let without = Selection { header: false, ..everything() };
        let text = show(Format::Table(Columns::default()), without, script);
        let expected = "\
192.168.123.234:40001 192.168.234.123:54321 ESTABLISHED -> CLOSE linger0  ≥9.000
192.168.123.234:40002 192.168.234.123:54321 ESTABLISHED -> CLOSE rst-in ≥60003.5
";
        assert_eq!(text, expected);
        let columns = Columns { owner: true, ..Columns::default() };
        let text = show(Format::Table(columns), everything(), script);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(WIDTH_WITH_OWNER.into()), "{text}");
    }

    #[test]
    fn wide_shows_whose_socket_it_is() {
        let columns = Columns { wide: true, timestamp: true, ..Columns::default() };
        let script = SCRIPT.replace("0ms begin\n", "0ms begin\n0ms netns 0 blue\n");
        let text = show(Format::Table(columns), everything(), &script);
        let row = text.lines().nth(2).unwrap();
        assert!(
            row.starts_with(
                "0.003000   0xa                blue                    812 curl            connect  curl            192."
            ),
            "{row}"
        );
        assert!(
            row.ends_with("2.000 off    0            -      -                       -"),
            "{row}"
        );
    }

    #[test]
    fn a_selection_of_states_is_into_or_out_of_them() {
        let states = "close-wait".parse().unwrap();
        let text = show(Format::Csv, Selection { states, ..everything() }, SCRIPT);
        // The header, one transition, and the loss, of which nobody knows the states.
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with(",17,\n"), "{text}");
        let none = show(
            Format::Table(Columns::default()),
            Selection { states: StateSet::EMPTY, header: false, ..everything() },
            "1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n",
        );
        assert_eq!(none, "");
    }

    #[test]
    fn whose_and_how_select_the_lines_that_say_so() {
        let script = "0ms begin\n\
             1ms sk=a ESTABLISHED>FIN_WAIT1 10.0.0.1:7 10.0.0.2:443 pid=1 comm=curl\n\
             2ms sk=a FIN_WAIT1>CLOSE 10.0.0.1:7 10.0.0.2:443 err=104 shut=2\n\
             3ms sk=b ESTABLISHED>CLOSE 10.0.0.1:8 10.0.0.2:443 err=104\n";
        let lines = |wanted: Wanted| {
            let selection = Selection { wanted, header: false, ..everything() };
            show(Format::Table(Columns::default()), selection, script).lines().count()
        };
        assert_eq!(lines(Wanted { pids: vec![1], ..Wanted::default() }), 2);
        assert_eq!(lines(Wanted { how: "rst".parse().ok(), ..Wanted::default() }), 2);
        let local = Wanted { closed_by: vec![Initiator::Local], ..Wanted::default() };
        assert_eq!(lines(local), 2, "settled, and at the end");
    }

    #[test]
    fn a_limit_says_what_it_left_out() {
        let script: String = (0..30)
            .map(|i| format!("{}ms sk={i:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n", 100 * i))
            .collect();
        let selection = Selection { rate_limit: Some(3), ..everything() };
        let text = show(Format::Json, selection, &script);
        let left_out: Vec<_> = text.lines().filter(|l| l.contains("left_out")).collect();
        assert_eq!(text.lines().count(), 9 + 2, "the last second is not over");
        assert!(left_out.iter().all(|l| l.contains(r#""count":7,"#)), "{left_out:?}");
    }

    #[test]
    fn count_ends_the_view() {
        let selection = Selection { count: Some(2), header: false, ..everything() };
        let text = show(Format::Table(Columns::default()), selection, SCRIPT);
        assert_eq!(text.lines().filter(|l| l.contains("->")).count(), 2);
    }
}
