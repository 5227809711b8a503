//! What keys and the mouse mean: as in htop and less.
//!
//! One pure function: must not know what is on the screen.

use ratatui::crossterm::event::{
    Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

/// The panes that have the whole screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Lifetimes,
    Closers,
    Stuck,
    Ports,
    Doctor,
    Live,
}

impl Tab {
    pub(super) const ALL: [Self; 7] = [
        Self::Overview,
        Self::Lifetimes,
        Self::Closers,
        Self::Stuck,
        Self::Ports,
        Self::Doctor,
        Self::Live,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Lifetimes => "Lifetimes",
            Self::Closers => "Closers",
            Self::Stuck => "Stuck",
            Self::Ports => "Ports",
            Self::Doctor => "Doctor",
            Self::Live => "Live",
        }
    }

    /// The next one, or the one before.
    pub(super) fn beside(self, by: isize) -> Self {
        let at = Self::ALL.iter().position(|&tab| tab == self).unwrap_or(0) as isize;
        Self::ALL[(at + by).rem_euclid(Self::ALL.len() as isize) as usize]
    }
}

/// What the keyboard is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Commands.
    Normal,
    /// A line that is typed: the filter, or a moment.
    Line,
    /// The help is shown.
    Help,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Show(Tab),
    Beside(isize),
    Move(isize),
    /// By so many screens.
    Page(isize),
    First,
    Last,
    Enter,
    Back,
    Sort,
    State,
    Filter,
    Restart,
    Help,
    Pause,
    /// Of a recording: on to the next transition.
    Step,
    /// Of a recording: by so many seconds.
    Seek(i64),
    /// Of a recording: to a moment, which is to be typed.
    Jump,
    Faster,
    Slower,
    Suspend,
    Redraw,
    Click(u16, u16),
    /// Of the line.
    Type(char),
    Erase,
    EraseWord,
    EraseAll,
    Left,
    Right,
    Accept,
    Cancel,
}

/// What `event` asks for, if anything.
pub(super) fn action(mode: Mode, event: &Event) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key_action(mode, key),
        Event::Mouse(mouse) => mouse_action(mode, mouse),
        Event::Resize(..) => Some(Action::Redraw),
        _ => None,
    }
}

fn key_action(mode: Mode, key: &KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return control(mode, key.code);
    }
    match mode {
        Mode::Line => Some(match key.code {
            KeyCode::Enter => Action::Accept,
            KeyCode::Esc => Action::Cancel,
            KeyCode::Backspace => Action::Erase,
            KeyCode::Left => Action::Left,
            KeyCode::Right => Action::Right,
            KeyCode::Home => Action::First,
            KeyCode::End => Action::Last,
            KeyCode::Char(c) if !key.modifiers.contains(KeyModifiers::ALT) => Action::Type(c),
            _ => return None,
        }),
        Mode::Help => Some(match key.code {
            KeyCode::Char('j') | KeyCode::Down => Action::Move(1),
            KeyCode::Char('k') | KeyCode::Up => Action::Move(-1),
            _ => Action::Cancel,
        }),
        Mode::Normal => normal(key.code),
    }
}

/// Ctrl and a key.
fn control(mode: Mode, code: KeyCode) -> Option<Action> {
    let KeyCode::Char(c) = code else { return None };
    Some(match (c, mode) {
        ('c', _) => Action::Quit,
        ('z', _) => Action::Suspend,
        ('l', _) => Action::Redraw,
        ('u', Mode::Line) => Action::EraseAll,
        ('w', Mode::Line) => Action::EraseWord,
        ('h', Mode::Line) => Action::Erase,
        ('a', Mode::Line) => Action::First,
        ('e', Mode::Line) => Action::Last,
        ('f', Mode::Normal) => Action::Page(1),
        ('b', Mode::Normal) => Action::Page(-1),
        _ => return None,
    })
}

fn normal(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char('q') | KeyCode::F(10) => Action::Quit,
        KeyCode::Char('?') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('/') | KeyCode::F(4) => Action::Filter,
        KeyCode::Char('s') | KeyCode::F(6) => Action::Sort,
        KeyCode::Char('t') => Action::State,
        KeyCode::Char('c') => Action::Restart,
        KeyCode::Char(' ') => Action::Pause,
        KeyCode::Char('.') => Action::Step,
        KeyCode::Char(']') => Action::Seek(10),
        KeyCode::Char('[') => Action::Seek(-10),
        KeyCode::Char('}') => Action::Seek(60),
        KeyCode::Char('{') => Action::Seek(-60),
        KeyCode::Char('@') => Action::Jump,
        KeyCode::Char('+') => Action::Faster,
        KeyCode::Char('-') => Action::Slower,
        KeyCode::Char(c @ '1'..='7') => {
            Action::Show(*Tab::ALL.get((c as usize).checked_sub('1' as usize)?)?)
        }
        KeyCode::Tab => Action::Beside(1),
        KeyCode::BackTab => Action::Beside(-1),
        KeyCode::Right | KeyCode::Char('l') | KeyCode::Enter => Action::Enter,
        KeyCode::Left | KeyCode::Char('h') | KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        _ => return None,
    })
}

fn mouse_action(mode: Mode, mouse: &MouseEvent) -> Option<Action> {
    Some(match (mode, mouse.kind) {
        (Mode::Normal, MouseEventKind::Down(MouseButton::Left)) => {
            Action::Click(mouse.column, mouse.row)
        }
        (Mode::Normal | Mode::Help, MouseEventKind::ScrollDown) => Action::Move(3),
        (Mode::Normal | Mode::Help, MouseEventKind::ScrollUp) => Action::Move(-3),
        (Mode::Help, MouseEventKind::Down(_)) => Action::Cancel,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(mode: Mode, code: KeyCode) -> Option<Action> {
        action(mode, &Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    fn with_control(mode: Mode, c: char) -> Option<Action> {
        action(mode, &Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL)))
    }

    #[test]
    fn keys_are_those_of_htop_less_and_vi() {
        for (codes, expected) in [
            (&[KeyCode::Char('q'), KeyCode::F(10)][..], Action::Quit),
            (&[KeyCode::Char('?'), KeyCode::F(1)], Action::Help),
            (&[KeyCode::Char('/'), KeyCode::F(4)], Action::Filter),
            (&[KeyCode::Char('s'), KeyCode::F(6)], Action::Sort),
            (&[KeyCode::Char(' ')], Action::Pause),
            (&[KeyCode::Char('j'), KeyCode::Down], Action::Move(1)),
            (&[KeyCode::Char('k'), KeyCode::Up], Action::Move(-1)),
            (&[KeyCode::Char('l'), KeyCode::Right, KeyCode::Enter], Action::Enter),
            (&[KeyCode::Char('h'), KeyCode::Left, KeyCode::Esc], Action::Back),
            (&[KeyCode::Char('g'), KeyCode::Home], Action::First),
            (&[KeyCode::Char('G'), KeyCode::End], Action::Last),
            (&[KeyCode::Char('1')], Action::Show(Tab::Overview)),
            (&[KeyCode::Char('7')], Action::Show(Tab::Live)),
        ] {
            for code in codes {
                assert_eq!(pressed(Mode::Normal, *code), Some(expected), "{code:?}");
            }
        }
        assert_eq!(pressed(Mode::Normal, KeyCode::Char('8')), None);
        assert_eq!(with_control(Mode::Normal, 'f'), Some(Action::Page(1)));
    }

    #[test]
    fn in_a_line_letters_are_letters() {
        for c in ['q', '?', '/', ' ', 's', 'j', '1'] {
            assert_eq!(pressed(Mode::Line, KeyCode::Char(c)), Some(Action::Type(c)));
        }
        assert_eq!(pressed(Mode::Line, KeyCode::Esc), Some(Action::Cancel));
        assert_eq!(with_control(Mode::Line, 'u'), Some(Action::EraseAll));
        assert_eq!(with_control(Mode::Line, 'x'), None, "no control character is typed");
    }

    #[test]
    fn ctrl_c_and_ctrl_z_are_for_every_mode() {
        for mode in [Mode::Normal, Mode::Line, Mode::Help] {
            assert_eq!(with_control(mode, 'c'), Some(Action::Quit));
            assert_eq!(with_control(mode, 'z'), Some(Action::Suspend));
        }
    }

    #[test]
    fn a_key_that_is_let_go_asks_for_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(action(Mode::Normal, &Event::Key(key)), None);
    }

    #[test]
    fn the_wheel_moves_and_a_click_points() {
        let mouse = |kind| {
            let modifiers = KeyModifiers::NONE;
            Event::Mouse(MouseEvent { kind, column: 7, row: 9, modifiers })
        };
        let down = MouseEventKind::Down(MouseButton::Left);
        assert_eq!(action(Mode::Normal, &mouse(down)), Some(Action::Click(7, 9)));
        let wheel = mouse(MouseEventKind::ScrollDown);
        assert_eq!(action(Mode::Normal, &wheel), Some(Action::Move(3)));
        assert_eq!(action(Mode::Line, &wheel), None);
    }

    #[test]
    fn tabs_go_round() {
        assert_eq!(Tab::Live.beside(1), Tab::Overview);
        assert_eq!(Tab::Overview.beside(-1), Tab::Live);
    }
}
