//! What each tone looks like, with and without colour and Unicode.

use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier, Style as Looks},
};

use super::listing::Tone;

/// What the terminal is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colours.
    pub color: bool,
    /// Nothing but ASCII.
    pub ascii: bool,
}

impl Style {
    pub(super) fn of(self, tone: Tone) -> Looks {
        let plain = Looks::new();
        match (tone, self.color) {
            (Tone::Plain, _) | (Tone::Good, false) => plain,
            (Tone::Dim, _) => plain.add_modifier(Modifier::DIM),
            (Tone::Head, _) => plain.add_modifier(Modifier::BOLD),
            (Tone::Good, true) => plain.fg(Color::Green),
            (Tone::Warn, true) => plain.fg(Color::Yellow),
            (Tone::Warn, false) => plain.add_modifier(Modifier::BOLD),
            (Tone::Bad, true) => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Tone::Bad, false) => plain.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
        }
    }

    /// What is pointed at.
    pub(super) fn selected(self) -> Looks {
        Looks::new().add_modifier(Modifier::REVERSED)
    }

    /// Has nothing but ASCII in `buffer`, if that was asked for. Last of all, so that nothing is
    /// forgotten.
    pub(super) fn finish(self, buffer: &mut Buffer) {
        if !self.ascii {
            return;
        }
        for cell in &mut buffer.content {
            if !cell.symbol().is_ascii() {
                let plain = cell.symbol().chars().next().map_or("?", ascii);
                cell.set_symbol(plain);
            }
        }
    }
}

/// What stands for a character that is not ASCII, in one column.
fn ascii(c: char) -> &'static str {
    match c {
        '▁' => ".",
        '▂' => "_",
        '▃' | '▄' => "-",
        '▅' | '▆' => "=",
        '▇' | '█' => "#",
        '≥' | '→' => ">",
        '≤' => "<",
        '…' => "~",
        '▲' => "^",
        _ => "?",
    }
}
