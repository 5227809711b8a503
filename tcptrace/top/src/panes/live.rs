//! The live stream: the last transitions, the newest at the bottom.
//!
//! A place in it is the number of a transition since the start, so that it stays where it is while
//! others come and go.

use super::super::{
    listing::{Goes, Listing, Row, Tone},
    shown::Shown,
    stream::{Kept, Stream},
};
use tcptrace_model::TcpState;
use tcptrace_view::{
    number::age_within,
    stuck::text::cut,
    table::{end, short_how, short_reason},
    time::WallClock,
};

/// Where in the stream one is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in super::super) struct Place {
    /// The transition that is pointed at; `None`: the newest, whatever comes.
    pub(in super::super) at: Option<u64>,
    /// The first one on the screen.
    top: u64,
}

/// A part of the stream.
pub(in super::super) struct Window {
    pub(in super::super) listing: Listing,
    /// The row that is pointed at.
    pub(in super::super) selected: usize,
}

/// The transitions that are kept and shown, with their numbers.
fn kept<'a>(stream: &'a Stream, shown: &'a Shown) -> Vec<(u64, &'a Kept)> {
    let all = shown.is_all();
    let numbered = (stream.dropped()..).zip(stream.iter());
    numbered.filter(|(_, moved)| all || shown.kept(moved)).collect()
}

impl Place {
    /// Moves by so many.
    pub(in super::super) fn go(&mut self, stream: &Stream, shown: &Shown, by: isize) {
        let kept = kept(stream, shown);
        let last = kept.len().saturating_sub(1);
        let now = self.index(&kept);
        let to = now.saturating_add_signed(by).min(last);
        // At the newest it goes with the stream.
        self.at = if to == last { None } else { kept.get(to).map(|(number, _)| *number) };
    }

    /// To the oldest or the newest.
    pub(in super::super) fn go_to_end(&mut self, stream: &Stream, shown: &Shown, newest: bool) {
        self.at = match newest {
            true => None,
            false => kept(stream, shown).first().map(|(number, _)| *number),
        };
    }

    /// To the row at `row` of the screen.
    pub(in super::super) fn point(&mut self, stream: &Stream, shown: &Shown, row: usize) {
        let kept = kept(stream, shown);
        let top = kept.partition_point(|(number, _)| *number < self.top);
        let to = top + row;
        if to < kept.len() {
            self.at = if to + 1 == kept.len() { None } else { Some(kept[to].0) };
        }
    }

    fn index(&self, kept: &[(u64, &Kept)]) -> usize {
        let last = kept.len().saturating_sub(1);
        self.at.map_or(last, |at| kept.partition_point(|(number, _)| *number < at).min(last))
    }

    /// What is on a screen of `height` rows.
    pub(in super::super) fn window(
        &mut self,
        stream: &Stream,
        shown: &Shown,
        wall: &mut WallClock,
        (width, height): (usize, usize),
    ) -> Window {
        let kept = kept(stream, shown);
        let at = self.index(&kept);
        let mut top = kept.partition_point(|(number, _)| *number < self.top);
        let height = height.max(1);
        if self.at.is_none() || at >= top + height {
            top = (at + 1).saturating_sub(height);
        }
        top = top.min(at);
        self.top = kept.get(top).map_or(0, |(number, _)| *number);
        let on_screen: Vec<&Kept> =
            kept.iter().skip(top).take(height).map(|(_, moved)| *moved).collect();
        let columns = Columns::of(&on_screen, width);
        let rows = on_screen.iter().map(|moved| row(moved, wall, columns)).collect();
        let mut notes = Vec::new();
        match self.at {
            None => notes.push(format!("{} transitions, and what comes", kept.len())),
            Some(_) => notes.push(format!("{} of {} (G: the newest)", at + 1, kept.len())),
        }
        if stream.dropped() > 0 {
            notes.push(format!("{} before are not kept any more", stream.dropped()));
        }
        if stream.passed() > 0 {
            notes.push(format!("{} went by while it held still", stream.passed()));
        }
        let listing = Listing { head: columns.head(), rows, notes: vec![notes.join("; ")] };
        Window { listing, selected: at - top }
    }
}

/// How wide the columns are.
#[derive(Clone, Copy)]
struct Columns {
    owner: bool,
    local: usize,
    peer: usize,
}

impl Columns {
    /// As wide as what is in them, so that the rest has room; where there is room for all, always
    /// the same.
    fn of(moves: &[&Kept], width: usize) -> Self {
        if width >= 110 {
            return Self { owner: true, local: END, peer: END };
        }
        let widest = |text: fn(&Kept) -> String| {
            moves.iter().map(|moved| text(moved).chars().count()).max().unwrap_or(0)
        };
        let least = END - 7;
        Self { owner: false, local: widest(local).max(least), peer: widest(peer).max(least) }
    }

    fn head(&self) -> String {
        let Self { owner, local, peer } = *self;
        let owner = if owner { format!("{:>7} {:15} ", "PID", "OWNER") } else { String::new() };
        format!("{:12} {owner}{:local$} {:peer$} FROM, MS, TO", "TIME", "LOCAL", "PEER")
    }
}

/// Characters of an IPv4 address and a port.
const END: usize = 21;

fn local(moved: &Kept) -> String {
    end(moved.tuple.local_ip(), moved.tuple.lport)
}

fn peer(moved: &Kept) -> String {
    let listens = moved.new == TcpState::Listen
        || moved.old == TcpState::Listen && moved.new == TcpState::Close;
    if listens { "*".to_owned() } else { end(moved.tuple.remote_ip(), moved.tuple.rport) }
}

/// One transition.
fn row(moved: &Kept, wall: &mut WallClock, columns: Columns) -> Row {
    let time = wall.at(moved.mono_ns);
    let time = time.map_or("-".to_owned(), |(text, ns)| format!("{text}.{:03}", ns / 1_000_000));
    let owner = match moved.owner.map(|owner| owner.task) {
        _ if !columns.owner => String::new(),
        Some(task) => format!("{:>7} {:15} ", task.pid_text(), cut(&task.name().to_string(), 15)),
        None => format!("{:>7} {:15} ", "-", "-"),
    };
    let why = match (moved.end_reason, moved.verdict.how) {
        (Some(reason), _) => format!(" {}", short_reason(reason)),
        (None, Some(how)) if moved.new == TcpState::Close => format!(" {}", short_how(how)),
        _ => String::new(),
    };
    let tone = match moved.new {
        TcpState::Established => Tone::Good,
        TcpState::CloseWait | TcpState::FinWait2 | TcpState::LastAck | TcpState::Closing => {
            Tone::Warn
        }
        TcpState::Close => Tone::Dim,
        _ => Tone::Plain,
    };
    let in_old = match age_within(moved.in_old, 8).as_str() {
        "-" => String::new(),
        ms => format!(" {ms}"),
    };
    let Columns { local: width, peer: peer_width, .. } = columns;
    let ends = format!("{:width$} {:peer_width$}", local(moved), peer(moved));
    let text = format!("{time:12} {owner}{ends} {}{in_old} ", short(moved.old));
    Row::new(text, Tone::Plain)
        .and(format!("{}{why}", short(moved.new)), tone)
        .leading(Goes::Connection(moved.id))
}

/// A state in few characters, as ss has it.
fn short(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTAB",
        state => state.name(),
    }
}
