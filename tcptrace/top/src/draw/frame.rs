//! What is around every pane: the header, the tabs, and the last lines.

use ratatui::layout::Rect;

use super::{
    super::{
        Top,
        keys::Tab,
        listing::{Row, Tone},
        panes::{conns, doctor},
        ui::{Typing, What},
    },
    pane::Painter,
};
use tcptrace_view::{closers::text::tenths, number::fit};

/// The tabs: where each begins, and what it says.
pub(super) fn tabs() -> impl Iterator<Item = (u16, String, Tab)> {
    let mut x = 0;
    (1..).zip(Tab::ALL).map(move |(number, tab)| {
        let text = format!("{number} {}", tab.name());
        let at = x;
        x += text.len() as u16 + 2;
        (at, text, tab)
    })
}

pub(super) fn header(top: &mut Top, painter: &mut Painter<'_>, area: Rect) {
    let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
    let now = top.wall.at(top.now_ns).map_or("-", |(text, _)| text).to_owned();
    let first = Row::new("tcptrace ", Tone::Head).and(top.about.host.as_str(), Tone::Plain);
    painter.line(line(0), &first);
    let clock = match &top.player {
        Some(player) => format!("  {}  {now}", player.words()),
        None => {
            let held = if top.ui.held { "  held" } else { "" };
            let flow = top.flow.map(|flow| format!("  {}", flow.words())).unwrap_or_default();
            format!("{flow}{held}  {now}")
        }
    };
    painter.right(line(0), &clock, Tone::Head);

    let lost = top.data.lost;
    let second = Row::new(format!("{}/s", tenths(top.rate, 8)), Tone::Head)
        .and(format!("  {} known  ", fit(top.tracked, 9)), Tone::Plain)
        .and(format!("lost {lost}"), if lost > 0 { Tone::Bad } else { Tone::Plain })
        .and(format!("  missed {}", top.data.missed), warn(top.data.missed));
    let second = match top.data.gaps {
        0 => second,
        gaps => {
            let seconds = top.data.gap_ns / 1_000_000_000;
            second.and(format!("  gaps {gaps} ({seconds} s)"), Tone::Bad)
        }
    };
    let second = match top.evicted {
        0 => second,
        evicted => second.and(format!("  evicted {evicted}"), Tone::Warn),
    };
    let kept = match top.about.kept.as_str() {
        "" => String::new(),
        kept => format!("  kept: {kept}"),
    };
    let filter = match top.shown.is_all() {
        true => String::new(),
        false => format!("  filter: {}", top.shown.text()),
    };
    // What is left out matters more than how it is told.
    let second = match kept.is_empty() && filter.is_empty() {
        true => second.and(format!("  {}", top.about.hooks), Tone::Dim),
        false => second,
    };
    let second = match top.about.lacking.len() {
        0 => second,
        some => second.and(format!("  {some} not observable"), Tone::Warn),
    };
    painter.line(line(1), &second);
    painter.right(line(1), &format!("{kept}{filter}"), Tone::Warn);

    let current = top.ui.tab();
    for (x, text, tab) in tabs() {
        let width = text.len() as u16;
        let place = Rect { x: area.x + x, width, ..line(2) };
        let place = place.intersection(line(2));
        let tone = match tab {
            Tab::Doctor => doctor::worst(&top.data.findings).map_or(Tone::Plain, |(_, tone)| tone),
            _ => Tone::Plain,
        };
        painter.line(place, &Row::new(text, tone));
        if tab == current {
            painter.bar(place, top.style.selected());
        }
    }
    let inside = match top.ui.spot().what {
        What::Tab(_) => String::new(),
        What::Among(among) => format!(" > {}", conns::title(&among)),
        What::Connection(_) => " > life".to_owned(),
        What::Finding(rule, _) => format!(" > {rule}"),
    };
    let end = tabs().last().map_or(0, |(x, text, _)| x + text.len() as u16);
    let rest = Rect { x: area.x + end, width: area.width.saturating_sub(end), ..line(2) };
    painter.line(rest, &Row::new(inside, Tone::Head));
}

fn warn(count: u64) -> Tone {
    if count > 0 { Tone::Warn } else { Tone::Plain }
}

/// Lines at the bottom.
pub(super) fn footer_lines(top: &Top) -> u16 {
    if top.ui.typing.is_some() { 2 } else { 1 }
}

pub(super) fn footer(top: &Top, painter: &mut Painter<'_>, area: Rect) {
    let height = footer_lines(top);
    let last = Rect { y: area.y + area.height - height, height: 1, ..area };
    let Some((typing, line)) = &top.ui.typing else {
        let keys = match (&top.ui.message, &top.player) {
            (Some((message, _)), _) => {
                return painter.line(last, &Row::new(message.as_str(), Tone::Warn));
            }
            _ if top.ui.help.is_some() => "j k: further, any other key: back",
            (None, None) => "?help /filter  sort  enter: into it  esc: back  space: hold  quit",
            (None, Some(_)) => {
                "?help /filter  enter esc  space: play  . step  [ ] 10 s  @ jump  + - speed  quit"
            }
        };
        return painter.line(last, &Row::new(keys, Tone::Dim));
    };
    let (prompt, said) = match typing {
        Typing::Filter(Ok(_)) => {
            ("filter: ", Row::new("enter: count by it; esc: as before", Tone::Dim))
        }
        Typing::Filter(Err(error)) => ("filter: ", Row::new(error.as_str(), Tone::Bad)),
        Typing::Jump(None) => (
            "to: ",
            Row::new("12:00:05, 90s (after the beginning), -30s (before the end)", Tone::Dim),
        ),
        Typing::Jump(Some(error)) => ("to: ", Row::new(error.as_str(), Tone::Bad)),
    };
    let (before, under, after) = line.parts();
    // Of a long line its end is what one looks at.
    let room = usize::from(area.width).saturating_sub(prompt.len() + 2);
    let hidden = before.chars().count().saturating_sub(room);
    let before: String = before.chars().skip(hidden).collect();
    let at = u16::try_from(prompt.len() + before.chars().count()).unwrap_or(u16::MAX);
    let row = Row::new(prompt, Tone::Head).and(format!("{before}{under}{after}"), Tone::Plain);
    painter.line(last, &row);
    let cursor = Rect { x: area.x + at.min(area.width - 1), width: 1, ..last };
    painter.bar(cursor, top.style.selected());
    painter.line(Rect { y: last.y + 1, ..last }, &said);
}
