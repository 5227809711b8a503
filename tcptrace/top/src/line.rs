//! A line that is typed: bounded, and without control characters.

/// Characters of a line at the most.
const MOST: usize = 512;

/// What was typed so far, and where in it the next character goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    chars: Vec<char>,
    at: usize,
}

impl Line {
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().take(MOST).collect();
        Self { at: chars.len(), chars }
    }

    pub(super) fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// Before, under, and after the cursor.
    pub(super) fn parts(&self) -> (String, char, String) {
        let (before, after) = self.chars.split_at(self.at);
        let under = after.first().copied().unwrap_or(' ');
        (before.iter().collect(), under, after.iter().skip(1).collect())
    }

    pub(super) fn insert(&mut self, c: char) {
        if !c.is_control() && self.chars.len() < MOST {
            self.chars.insert(self.at, c);
            self.at += 1;
        }
    }

    pub(super) fn erase(&mut self) {
        if self.at > 0 {
            self.at -= 1;
            self.chars.remove(self.at);
        }
    }

    pub(super) fn erase_word(&mut self) {
        let before = &self.chars[..self.at];
        let end = before.iter().rposition(|c| *c != ' ').map_or(0, |at| at + 1);
        let from = before[..end].iter().rposition(|c| *c == ' ').map_or(0, |at| at + 1);
        self.chars.drain(from..self.at);
        self.at = from;
    }

    pub(super) fn erase_all(&mut self) {
        *self = Self::default();
    }

    pub(super) fn go(&mut self, by: isize) {
        self.at = self.at.saturating_add_signed(by).min(self.chars.len());
    }

    pub(super) fn go_to_end(&mut self, last: bool) {
        self.at = if last { self.chars.len() } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_edited_as_lines_are() {
        let mut line = Line::new("-D 44");
        line.insert('3');
        line.insert('\x1b');
        assert_eq!(line.text(), "-D 443");
        line.go_to_end(false);
        line.erase();
        line.go(2);
        line.erase();
        assert_eq!((line.text().as_str(), line.parts().1), ("- 443", ' '));
        line.go(99);
        line.erase_word();
        assert_eq!(line.text(), "- ");
        line.erase_word();
        assert_eq!(line.text(), "");
        line.erase_word();
        line.erase();
        assert_eq!(line.parts(), (String::new(), ' ', String::new()));
    }

    #[test]
    fn it_is_bounded() {
        let mut line = Line::default();
        (0..2 * MOST).for_each(|_| line.insert('ü'));
        assert_eq!(line.text().chars().count(), MOST);
    }
}
