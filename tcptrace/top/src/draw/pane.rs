//! Text onto the screen, cut where there is no room.

use ratatui::{buffer::Buffer, layout::Rect, style::Style as Looks};

use super::super::{
    listing::{Row, Tone},
    theme::Style,
};

/// Puts text onto the screen.
pub(super) struct Painter<'a> {
    pub(super) buffer: &'a mut Buffer,
    pub(super) style: Style,
}

impl Painter<'_> {
    /// One row, in the first line of `area`.
    pub(super) fn line(&mut self, area: Rect, row: &Row) {
        let area = area.intersection(self.buffer.area);
        if area.is_empty() {
            return;
        }
        let end = area.x + area.width;
        let mut x = area.x;
        for (text, tone) in &row.spans {
            if x >= end {
                break;
            }
            let looks = self.style.of(*tone);
            x = self.buffer.set_stringn(x, area.y, text, usize::from(end - x), looks).0;
        }
    }

    /// Rows, one a line.
    pub(super) fn rows(&mut self, area: Rect, rows: &[Row]) {
        for (y, row) in (area.y..area.y.saturating_add(area.height)).zip(rows) {
            self.line(Rect { y, height: 1, ..area }, row);
        }
    }

    /// Points at a line of `area`.
    pub(super) fn point(&mut self, area: Rect, at: usize) {
        let Ok(at) = u16::try_from(at) else { return };
        if at < area.height {
            let line = Rect { y: area.y + at, height: 1, ..area };
            let looks = self.style.selected();
            self.buffer.set_style(line.intersection(self.buffer.area), looks);
        }
    }

    /// Text at the right end of the first line of `area`.
    pub(super) fn right(&mut self, area: Rect, text: &str, tone: Tone) {
        let width = u16::try_from(text.chars().count()).unwrap_or(u16::MAX).min(area.width);
        let place = Rect { x: area.x + area.width - width, width, ..area };
        self.line(place, &Row::new(text, tone));
    }

    /// A line that stands out as a whole.
    pub(super) fn bar(&mut self, area: Rect, looks: Looks) {
        self.buffer.set_style(area.intersection(self.buffer.area), looks);
    }
}
