//! What is done when something is asked for.

use super::{
    Top, draw,
    keys::{Action, Tab},
    led,
    line::Line,
    player::Order,
    ui::{Typing, What},
};
use tcptrace_model::moment::Moment;

impl Top {
    pub(super) fn act(&mut self, action: Action) {
        self.ui.message = None;
        if self.ui.typing.is_some() && self.edit(action) {
            return;
        }
        match action {
            Action::Quit => self.quit = true,
            Action::Suspend => self.suspend = true,
            Action::Redraw => (self.stale, self.redraw) = (true, true),
            Action::Show(tab) => self.go_to(|ui| ui.show(tab)),
            Action::Beside(by) => {
                let tab = self.ui.tab().beside(by);
                self.go_to(|ui| ui.show(tab));
            }
            Action::Move(by) => self.go(by),
            Action::Page(by) => self.go(by * self.ui.page.max(1) as isize),
            Action::First => self.go_to_end(false),
            Action::Last => self.go_to_end(true),
            Action::Enter => self.enter(),
            Action::Back => {
                if self.ui.help.take().is_none() {
                    self.ui.back();
                    self.stale = true;
                }
            }
            Action::Sort => {
                let order = self.ui.sort_next();
                let none = "nothing to sort here".to_owned();
                self.say(order.map_or(none, |name| format!("sorted by {name}")));
                self.stale = true;
            }
            Action::State => self.ui.choose_next(),
            Action::Filter => {
                let line = Line::new(self.shown.text());
                self.ui.typing = Some((Typing::Filter(Ok(Box::new(self.shown.clone()))), line));
            }
            Action::Restart => {
                self.data.restart(self.now_ns);
                self.sampled_ns = None;
                self.say("counts anew".to_owned());
                self.stale = true;
            }
            Action::Help => self.ui.help = Some(0),
            Action::Cancel => self.ui.help = None,
            Action::Pause => self.pause(),
            Action::Click(x, y) => self.click(x, y),
            Action::Step => self.order(Order::Step),
            Action::Seek(seconds) => self.order(Order::By(seconds)),
            Action::Jump if self.player.is_some() => {
                self.ui.typing = Some((Typing::Jump(None), Line::default()));
            }
            Action::Jump => self.order(Order::Step),
            Action::Faster | Action::Slower => match &mut self.player {
                Some(player) => player.faster(if action == Action::Faster { 1 } else { -1 }),
                None => self.only_of_recordings(),
            },
            Action::Type(_)
            | Action::Erase
            | Action::EraseWord
            | Action::EraseAll
            | Action::Left
            | Action::Right
            | Action::Accept => {}
        }
    }

    fn go_to(&mut self, change: impl FnOnce(&mut super::ui::Ui)) {
        change(&mut self.ui);
        self.stale = true;
    }

    fn only_of_recordings(&mut self) {
        self.say(match self.flow {
            Some(_) => "a stream cannot be wound: save it (tee FILE), then -r FILE".to_owned(),
            None => "what happens now cannot be wound: -r FILE".to_owned(),
        });
    }

    fn order(&mut self, order: Order) {
        match &mut self.player {
            Some(player) => player.order(order),
            None => self.only_of_recordings(),
        }
    }

    fn pause(&mut self) {
        if let Some(player) = &mut self.player {
            player.toggle();
            return;
        }
        self.ui.held = !self.ui.held;
        self.data.stream.hold(self.ui.held);
        self.stale |= !self.ui.held;
    }

    fn go(&mut self, by: isize) {
        if let Some(first) = &mut self.ui.help {
            *first = first.saturating_add_signed(by).min(super::help::LINES.len() - 1);
        } else if self.ui.spot().what == What::Tab(Tab::Live) {
            let shown = self.seen().clone();
            self.ui.live.go(&self.data.stream, &shown, by);
        } else {
            let to = self.ui.spot().selected.saturating_add_signed(by);
            self.ui.point(&self.lists.main, to);
        }
    }

    fn go_to_end(&mut self, last: bool) {
        if self.ui.spot().what == What::Tab(Tab::Live) {
            let shown = self.seen().clone();
            self.ui.live.go_to_end(&self.data.stream, &shown, last);
        } else {
            self.ui.point(&self.lists.main, if last { usize::MAX } else { 0 });
        }
    }

    fn enter(&mut self) {
        let spot = self.ui.spot();
        let goes = if spot.what == What::Tab(Tab::Live) {
            let size = (usize::from(self.size.0), self.ui.page);
            let shown = self.seen().clone();
            let window = self.ui.live.window(&self.data.stream, &shown, &mut self.wall, size);
            window.listing.rows.get(window.selected).and_then(|row| row.goes)
        } else {
            self.lists.main.rows.get(spot.selected).and_then(|row| row.goes)
        };
        if let Some(goes) = goes {
            self.go_to(|ui| ui.enter(led(goes)));
        }
    }

    fn click(&mut self, x: u16, y: u16) {
        if let Some(tab) = draw::tab_at(self.size, x, y) {
            self.go_to(|ui| ui.show(tab));
            return;
        }
        let Some(row) = draw::row_at(self, x, y) else { return };
        if self.ui.spot().what == What::Tab(Tab::Live) {
            let shown = self.seen().clone();
            self.ui.live.point(&self.data.stream, &shown, row);
            return;
        }
        let to = self.ui.spot().top + row;
        // A second click on what is pointed at is Enter.
        if to == self.ui.spot().selected {
            self.enter();
        } else if to < self.lists.main.rows.len() {
            self.ui.point(&self.lists.main, to);
        }
    }

    /// What is done in a line; false if it is no matter of the line.
    fn edit(&mut self, action: Action) -> bool {
        let Some((typing, line)) = &mut self.ui.typing else { return false };
        match action {
            Action::Type(c) => line.insert(c),
            Action::Erase => line.erase(),
            Action::EraseWord => line.erase_word(),
            Action::EraseAll => line.erase_all(),
            Action::Left => line.go(-1),
            Action::Right => line.go(1),
            Action::First => line.go_to_end(false),
            Action::Last => line.go_to_end(true),
            Action::Cancel => {
                self.ui.typing = None;
                self.stale = true;
                return true;
            }
            Action::Accept => {
                self.accept();
                return true;
            }
            _ => return false,
        }
        if let Typing::Filter(read) = typing {
            let text = line.text();
            if read.as_ref().map_or(true, |shown| shown.text() != text) {
                *read = (self.parse)(&text).map(Box::new);
                self.stale |= read.is_ok();
            }
        }
        true
    }

    /// What was typed is to hold.
    fn accept(&mut self) {
        match self.ui.typing.take() {
            Some((Typing::Filter(Ok(shown)), _)) => {
                if *shown != self.shown {
                    self.shown = *shown;
                    // What was counted up so far is of others.
                    self.data.restart(self.now_ns);
                    self.sampled_ns = None;
                }
                self.stale = true;
            }
            // The line stays, with the error under it; so does the filter in force.
            Some((typing @ Typing::Filter(Err(_)), line)) => self.ui.typing = Some((typing, line)),
            Some((Typing::Jump(_), line)) => match line.text().trim().parse::<Moment>() {
                Ok(moment) => self.order(Order::To(moment)),
                Err(error) => {
                    self.ui.typing = Some((Typing::Jump(Some(error.to_string())), line));
                }
            },
            None => {}
        }
    }
}
