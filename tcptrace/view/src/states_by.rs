//! `tcptrace states --by`: how many connections each group has in each state.
//!
//! Counted anew from what is known at the end of each interval: a connection may change its
//! group when its owner becomes known, so counting up and down by changes would drift.

use std::{collections::HashMap, fmt::Write as _};

use bytes::{BufMut as _, BytesMut};

use super::{
    View,
    csv::put_field,
    json::Json,
    lines::{Lines, Schedule},
    loss,
    states::Format,
    time::WallClock,
};
use tcptrace_model::{Change, Input, TcpState};
use tcptrace_stats::{
    group::{By, Key},
    named::{Group, named},
};
use tcptrace_track::Tracker;

/// Groups shown in a table; the others are in `(other)`.
const SHOWN: usize = 20;

/// Groups counted; the others are in `(other)`.
const LIMIT: usize = 10_000;

const CSV_HEADER: &str = "time,mono_ns,by,group,state,count\n";

/// A column: its state, its name and its width. With the label, 80 characters.
const COLUMNS: [(TcpState, &str, usize); 10] = [
    (TcpState::Established, "EST", 8),
    (TcpState::SynSent, "SYNS", 5),
    (TcpState::SynRecv, "SYNR", 5),
    (TcpState::FinWait1, "FW1", 5),
    (TcpState::FinWait2, "FW2", 6),
    (TcpState::TimeWait, "TW", 8),
    (TcpState::CloseWait, "CLW", 6),
    (TcpState::LastAck, "LACK", 5),
    (TcpState::Listen, "LIS", 5),
    (TcpState::Closing, "CLSG", 5),
];

const LABEL: usize = 22;

/// Counts by [`COLUMNS`].
type Counts = [u64; COLUMNS.len()];

/// The view.
pub struct StatesByView {
    by: By,
    format: Format,
    schedule: Schedule,
    header: bool,
    wall: WallClock,
    json: Json,
}

impl StatesByView {
    /// A view that prints `lines`, by groups.
    pub fn new(by: By, format: Format, lines: Lines, header: bool) -> Self {
        Self {
            by,
            format,
            schedule: Schedule::new(lines),
            header,
            wall: match format {
                Format::Table => WallClock::local_time_of_day(),
                Format::Json | Format::Csv => WallClock::utc(),
            },
            json: Json::new(),
        }
    }

    fn print(&mut self, mono_ns: u64, tracker: &Tracker, out: &mut BytesMut) {
        let groups = census(self.by, tracker);
        match self.format {
            Format::Table => {
                let time = self.wall.at(mono_ns).map_or("-", |(text, _)| text);
                table(self.by, time, self.header, &groups, out);
            }
            Format::Json => self.json_line(mono_ns, &groups, out),
            Format::Csv => self.csv_rows(mono_ns, &groups, out),
        }
        self.schedule.printed_at(mono_ns);
    }

    fn json_line(&mut self, mono_ns: u64, groups: &[(Group, Counts)], out: &mut BytesMut) {
        out.put_slice(br#"{"v":2,"type":"states","time":"#);
        self.wall.put_json(out, mono_ns);
        let rows: Vec<_> = groups
            .iter()
            .map(|(group, counts)| {
                let states: serde_json::Map<_, _> = COLUMNS
                    .iter()
                    .zip(counts)
                    .map(|((state, ..), count)| (state.name().to_owned(), (*count).into()))
                    .collect();
                serde_json::json!({
                    "group": group.label(), "other": group.key() == Key::Other, "states": states
                })
            })
            .collect();
        // Writing to memory does not fail.
        let _ = writeln!(
            out,
            r#","mono_ns":"{mono_ns}","by":"{}","rows":{}}}"#,
            self.by.name(),
            serde_json::Value::Array(rows)
        );
    }

    fn csv_rows(&mut self, mono_ns: u64, groups: &[(Group, Counts)], out: &mut BytesMut) {
        for (group, counts) in groups {
            for ((state, ..), count) in COLUMNS.iter().zip(counts) {
                self.wall.put_rfc3339(out, mono_ns);
                put_field(out, Some(mono_ns));
                put_field(out, Some(self.by.name()));
                put_field(out, group.label().map(|label| super::csv::quoted(&label)));
                put_field(out, Some(state));
                put_field(out, Some(count));
                out.put_u8(b'\n');
            }
        }
    }
}

/// Counts all that is known, the largest group first.
fn census(by: By, tracker: &Tracker) -> Vec<(Group, Counts)> {
    let mut groups: HashMap<Key, Counts> = HashMap::new();
    for found in tracker.census() {
        let Some(column) = COLUMNS.iter().position(|(state, ..)| *state == found.state) else {
            continue;
        };
        let mut key = by.key(&found);
        if groups.len() >= LIMIT && !groups.contains_key(&key) {
            key = Key::Other;
        }
        groups.entry(key).or_default()[column] += 1;
    }
    let mut groups = named(groups, tracker, |sum, more| {
        sum.iter_mut().zip(more).for_each(|(sum, count)| *sum += count)
    });
    groups.sort_by_cached_key(|(group, counts)| {
        (std::cmp::Reverse(counts.iter().sum::<u64>()), group.clone())
    });
    groups
}

fn table(by: By, time: &str, header: bool, groups: &[(Group, Counts)], out: &mut BytesMut) {
    let mut text = String::new();
    // Writing to memory does not fail.
    if header {
        let _ = write!(text, "{:LABEL$}", format!("{time} {}", by.name().to_uppercase()));
        for (_, name, width) in COLUMNS {
            let _ = write!(text, "{name:>width$}");
        }
        text.push('\n');
    }
    let mut rest = Counts::default();
    for (index, (group, counts)) in groups.iter().enumerate() {
        if index >= SHOWN {
            rest.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        } else {
            row(&group.to_string(), counts, &mut text);
        }
    }
    if groups.len() > SHOWN {
        row(&format!("({} others)", groups.len() - SHOWN), &rest, &mut text);
    }
    out.put_slice(text.as_bytes());
}

fn row(label: &str, counts: &Counts, text: &mut String) {
    let shown: String = label.chars().take(LABEL - 1).collect();
    // Writing to memory does not fail.
    let _ = write!(text, "{shown:LABEL$}");
    for ((_, _, width), count) in COLUMNS.iter().zip(counts) {
        let _ = write!(text, "{count:>width$}");
    }
    text.push('\n');
}

impl View for StatesByView {
    fn begin(&mut self, out: &mut BytesMut) {
        if self.format == Format::Csv && self.header {
            out.put_slice(CSV_HEADER.as_bytes());
        }
    }

    fn input(&mut self, input: &Input, tracker: &Tracker, out: &mut BytesMut) {
        self.schedule.input(input);
        match input {
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Lost(_) | Input::Missed { .. } | Input::Gap(_) => match self.format {
                Format::Table => loss::text(input, out),
                Format::Json => loss::json(input, out),
                Format::Csv => {} // a row of another kind would break the reader; stderr says it
            },
            Input::Tick { mono_ns }
                if !self.is_done()
                    && (self.schedule.may_begin(*mono_ns) || self.schedule.is_over(*mono_ns)) =>
            {
                self.print(*mono_ns, tracker, out);
            }
            Input::End(accounts) => {
                if self.schedule.may_end() {
                    self.print(accounts.mono_ns, tracker, out);
                }
                if self.format == Format::Json {
                    self.json.summary(accounts, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, _change: &Change, _out: &mut BytesMut) {}

    fn due_ns(&self) -> Option<u64> {
        self.schedule.due_ns()
    }

    fn is_done(&self) -> bool {
        self.schedule.is_done()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tcptrace_model::script;

    #[test]
    fn cgroups_of_one_unit_are_one_row() {
        let lines = Lines { every: None, count: None, at_end: false };
        let mut view = StatesByView::new(By::Unit, Format::Table, lines, true);
        let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
        let script = "0ms begin\n0ms cgroup 7 /a.service\n\
            0ms cgroup 9 /\x1b]0;owned\x07\u{202e}gpj.elif.service\n\
            0ms snapshot open\n0ms snapshot 5\n\
            0ms socket CLOSE_WAIT 1 10.0.0.1:1 10.0.0.2:443 cgroup=7\n\
            0ms socket CLOSE_WAIT 2 10.0.0.1:2 10.0.0.2:443 cgroup=8\n\
            0ms socket ESTABLISHED 3 10.0.0.1:3 10.0.0.2:443 cgroup=9\n\
            0ms socket TIME_WAIT 4 10.0.0.1:4 10.0.0.2:443 60000\n\
            0ms socket CLOSE_WAIT 5 10.0.0.1:5 10.0.0.2:443 cgroup=10\n\
            0ms snapshot end\n0ms snapshot over\n0ms cgroup 10 /a.service/below\n1ms tick\n";
        for input in script::inputs(script).unwrap() {
            tracker.apply(&input, &mut |change| view.change(&change, &mut out));
            view.input(&input, &tracker, &mut out);
        }
        let text = std::str::from_utf8(&out).unwrap();
        let expected = "\
- UNIT                     EST SYNS SYNR  FW1   FW2      TW   CLW LACK  LIS CLSG
a.service                    0    0    0    0     0       0     2    0    0    0
-                            0    0    0    0     0       1     0    0    0    0
cgroup 8                     0    0    0    0     0       0     1    0    0    0
\\x1b]0;owned\\x07\\u{20        1    0    0    0     0       0     0    0    0    0
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_group_is_counted_by_what_is_known_at_the_end() {
        let lines = Lines { every: Some(Duration::from_secs(1)), count: None, at_end: false };
        let mut view = StatesByView::new(By::Owner, Format::Table, lines, true);
        let (mut tracker, mut out) = (Tracker::default(), BytesMut::new());
        let script = "0ms begin\n0ms snapshot open\n0ms snapshot over\n\
            1ms sk=1 CLOSE>LISTEN 10.0.0.2:443 0.0.0.0:0 comm=nginx\n\
            5ms sk=c LISTEN>SYN_RECV 10.0.0.2:443 10.0.0.1:7\n\
            5ms sk=c SYN_RECV>ESTABLISHED 10.0.0.2:443 10.0.0.1:7\n\
            6ms tick\n\
            6ms sk=c accept comm=worker\n\
            7ms sk=c ESTABLISHED>FIN_WAIT1 10.0.0.2:443 10.0.0.1:7 comm=nginx\n\
            1100ms tick\n";
        for input in script::inputs(script).unwrap() {
            tracker.apply(&input, &mut |change| view.change(&change, &mut out));
            view.input(&input, &tracker, &mut out);
        }
        let text = std::str::from_utf8(&out).unwrap();
        let expected = "\
- OWNER                    EST SYNS SYNR  FW1   FW2      TW   CLW LACK  LIS CLSG
nginx                        1    0    0    0     0       0     0    0    1    0
- OWNER                    EST SYNS SYNR  FW1   FW2      TW   CLW LACK  LIS CLSG
nginx                        0    0    0    0     0       0     0    0    1    0
worker                       0    0    0    1     0       0     0    0    0    0
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }
}
