//! Draws the model: the header, the tabs, the pane that has the screen, and the last line.

mod frame;
mod pane;

use ratatui::{
    Frame,
    layout::{Position, Rect},
};

use self::frame::{footer_lines, header, tabs};
use super::{
    Top, help,
    keys::Tab,
    listing::{Row, Tone},
    panes,
    size::{LEFT, columns, is_large},
    ui::What,
};
use pane::Painter;

/// The least that there is something to see in.
const LEAST: (u16, u16) = (60, 12);

/// Lines of the header and the tabs.
const HEAD: u16 = 3;

/// Lines of the states in the overview.
const STATES: u16 = 11;

/// Which tab is at this place, if one is.
pub(super) fn tab_at(size: (u16, u16), x: u16, y: u16) -> Option<Tab> {
    let is_it = |(at, text, _): &(u16, String, Tab)| {
        y == HEAD - 1 && x >= *at && x < *at + text.len() as u16 && x < size.0
    };
    tabs().find(is_it).map(|(_, _, tab)| tab)
}

/// Where the list is in which one moves: its rows.
fn list_area(top: &Top, area: Rect) -> Rect {
    let body = body(top, area);
    let height = match top.ui.spot().what {
        What::Tab(Tab::Overview) => body.height.min(STATES).saturating_sub(1),
        What::Tab(Tab::Live) => body.height.saturating_sub(2),
        _ => {
            let list = &top.lists.main;
            let selected = list.rows.get(top.ui.spot().selected);
            let below = list.notes.len() + selected.map_or(0, |row| row.detail.len());
            // The rows come first: what is below has at most half.
            let below = u16::try_from(below).unwrap_or(u16::MAX).min(body.height / 2);
            body.height.saturating_sub(1 + below)
        }
    };
    // Beside the states there may be more.
    let width = match top.ui.spot().what {
        What::Tab(Tab::Overview) => u16::try_from(columns(top.size).0).unwrap_or(u16::MAX),
        _ => body.width,
    };
    Rect { y: body.y + 1, height, width: width.min(body.width), ..body }
}

/// Between the tabs and the last lines.
fn body(top: &Top, area: Rect) -> Rect {
    let rest = area.height.saturating_sub(HEAD + footer_lines(top));
    Rect { y: area.y + HEAD, height: rest, ..area }
}

/// Which row of the list on the screen is at this place, if one is.
pub(super) fn row_at(top: &Top, x: u16, y: u16) -> Option<usize> {
    let area = Rect::new(0, 0, top.size.0, top.size.1);
    let list = list_area(top, area);
    list.contains(Position { x, y }).then(|| usize::from(y - list.y))
}

impl Top {
    /// Draws it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        self.dirty = false;
        draw(self, frame);
    }
}

/// Draws all of it.
fn draw(top: &mut Top, frame: &mut Frame<'_>) {
    let area = frame.area();
    let style = top.style;
    let buffer = frame.buffer_mut();
    let mut painter = Painter { buffer, style };
    if area.width < LEAST.0 || area.height < LEAST.1 {
        too_small(&mut painter, area);
    } else {
        header(top, &mut painter, area);
        let body = body(top, area);
        top.ui.page = usize::from(list_area(top, area).height);
        if let Some(first) = top.ui.help {
            let lines = help::LINES.iter().skip(first);
            let rows: Vec<Row> = lines.map(|line| Row::new(*line, tone_of_help(line))).collect();
            painter.rows(body, &rows);
        } else {
            match top.ui.spot().what {
                What::Tab(Tab::Overview) => overview(top, &mut painter, area, body),
                What::Tab(Tab::Lifetimes) => {
                    let size = (usize::from(body.width), usize::from(body.height));
                    lifetimes(top, &mut painter, body, size);
                }
                What::Tab(Tab::Live) => live(top, &mut painter, body, true),
                _ => list(top, &mut painter, area, body),
            }
        }
        frame::footer(top, &mut painter, area);
    }
    style.finish(frame.buffer_mut());
}

fn too_small(painter: &mut Painter<'_>, area: Rect) {
    let lines = [
        "too small a terminal".to_owned(),
        format!("it is {} x {}", area.width, area.height),
        format!("{} x {} it needs", LEAST.0, LEAST.1),
        "q quits".to_owned(),
    ];
    let rows: Vec<Row> = lines.into_iter().map(|line| Row::new(line, Tone::Plain)).collect();
    painter.rows(area, &rows);
}

fn tone_of_help(line: &str) -> Tone {
    if line.starts_with(' ') { Tone::Plain } else { Tone::Head }
}

/// The list that has the screen, what is said of the row pointed at, and of the whole.
fn list(top: &mut Top, painter: &mut Painter<'_>, area: Rect, body: Rect) {
    let rows = list_area(top, area);
    painter.line(Rect { height: 1, ..body }, &Row::new(top.lists.main.head.as_str(), Tone::Head));
    let spot = top.ui.spot_mut();
    let height = usize::from(rows.height).max(1);
    let selected = spot.selected;
    spot.top = spot.top.clamp((selected + 1).saturating_sub(height), selected);
    let first = spot.top;
    let listing = &top.lists.main;
    let visible: Vec<Row> = listing.rows.iter().skip(first).take(height).cloned().collect();
    painter.rows(rows, &visible);
    if !listing.rows.is_empty() {
        painter.point(rows, selected - first);
    }
    let detail = listing.rows.get(selected).map_or(&[][..], |row| &row.detail);
    let below = Rect {
        y: rows.y + rows.height,
        height: (body.y + body.height).saturating_sub(rows.y + rows.height),
        ..body
    };
    let detail = detail.iter().map(|line| Row::new(line.as_str(), Tone::Plain));
    let notes = listing.notes.iter().map(|note| Row::new(note.as_str(), Tone::Dim));
    let under: Vec<Row> = detail.chain(notes).collect();
    painter.rows(below, &under);
}

fn lifetimes(top: &Top, painter: &mut Painter<'_>, area: Rect, (width, height): (usize, usize)) {
    let rows = panes::lifetimes::rows(&top.data.durations, top.ui.chosen(), width, height);
    painter.rows(area, &rows);
}

/// The stream; `main`: it has the screen.
fn live(top: &mut Top, painter: &mut Painter<'_>, area: Rect, main: bool) {
    let shown = top.seen().clone();
    let rows = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
    let size = (usize::from(area.width), usize::from(rows.height));
    let mut beside = panes::live::Place::default();
    let place = if main { &mut top.ui.live } else { &mut beside };
    let window = place.window(&top.data.stream, &shown, &mut top.wall, size);
    painter.line(Rect { height: 1, ..area }, &Row::new(window.listing.head, Tone::Head));
    painter.rows(rows, &window.listing.rows);
    if main && !window.listing.rows.is_empty() {
        painter.point(rows, window.selected);
    }
    let note = window.listing.notes.first().map_or("", String::as_str);
    let last = Rect { y: rows.y + rows.height, height: 1, ..area };
    painter.line(last, &Row::new(note, Tone::Dim));
}

/// The states, how long they last, and where there is room: who closes, what is stuck, the stream.
fn overview(top: &mut Top, painter: &mut Painter<'_>, area: Rect, body: Rect) {
    let large = is_large(top.size);
    let (upper, left, right) = if large {
        let upper = body.height * 7 / 10;
        let right = body.width.saturating_sub(LEFT + 1);
        (upper, LEFT, right)
    } else {
        (body.height, body.width, 0)
    };
    let rows = list_area(top, area);
    painter.line(
        Rect { width: left, height: 1, ..body },
        &Row::new(top.lists.main.head.as_str(), Tone::Head),
    );
    let rows = Rect { width: left, ..rows };
    painter.rows(rows, &top.lists.main.rows);
    if !top.lists.main.rows.is_empty() {
        painter.point(rows, top.ui.spot().selected);
    }
    let used = STATES + 1;
    let under = Rect { y: body.y + used, height: upper.saturating_sub(used), width: left, ..body };
    lifetimes(top, painter, under, (usize::from(left), usize::from(under.height)));
    if !large {
        return;
    }
    let x = body.x + left + 1;
    let half = upper / 2;
    let beside =
        [(body.y, half, &top.lists.closers), (body.y + half, upper - half, &top.lists.stuck)];
    for (y, height, listing) in beside {
        let head = Rect { x, y, width: right, height: 1 };
        painter.line(head, &Row::new(listing.head.as_str(), Tone::Head));
        let rows = Rect { y: y + 1, height: height.saturating_sub(2), ..head };
        painter.rows(rows, &listing.rows);
    }
    let lower = Rect { y: body.y + upper, height: body.height - upper, ..body };
    live(top, painter, lower, false);
}
