//! Where the user is: which pane, what is pointed at, what is being typed.

use super::{
    keys::{Mode, Tab},
    line::Line,
    listing::{Among, Goes, Listing},
    panes::{self, live},
    shown::Shown,
};
use tcptrace_model::TcpState;

/// How deep one can go: each step of it is kept.
const DEPTH: usize = 16;

/// What has the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    Tab(Tab),
    Among(Among),
    Connection(u64),
    Finding(&'static str, u32),
}

/// A place, and what is pointed at there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) what: What,
    /// The row that is pointed at.
    pub(super) selected: usize,
    /// What is behind that row, which may be in another place soon.
    goes: Option<Goes>,
    /// The first row on the screen.
    pub(super) top: usize,
}

impl Spot {
    fn new(what: What) -> Self {
        Self { what, selected: 0, goes: None, top: 0 }
    }
}

/// What a line is for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Typing {
    /// What it can be read as; else why not.
    Filter(Result<Box<Shown>, String>),
    /// Why it is no moment, once it was tried.
    Jump(Option<String>),
}

/// Where the user is.
#[derive(Debug)]
pub(super) struct Ui {
    /// The last one has the screen.
    spots: Vec<Spot>,
    pub(super) typing: Option<(Typing, Line)>,
    /// The first line of the help that is shown.
    pub(super) help: Option<usize>,
    /// The lists and the stream hold still.
    pub(super) held: bool,
    pub(super) live: live::Place,
    sorts: [usize; Tab::ALL.len() + 1],
    chosen: usize,
    /// What was said last, and when: `CLOCK_MONOTONIC`, nanoseconds.
    pub(super) message: Option<(String, u64)>,
    /// Rows of the list that were on the screen last.
    pub(super) page: usize,
}

impl Default for Ui {
    fn default() -> Self {
        Self {
            spots: vec![Spot::new(What::Tab(Tab::Overview))],
            typing: None,
            help: None,
            held: false,
            live: live::Place::default(),
            sorts: [0; Tab::ALL.len() + 1],
            chosen: 0,
            message: None,
            page: 10,
        }
    }
}

impl Ui {
    pub(super) fn mode(&self) -> Mode {
        match (&self.typing, self.help) {
            (Some(_), _) => Mode::Line,
            (None, Some(_)) => Mode::Help,
            (None, None) => Mode::Normal,
        }
    }

    /// The place that has the screen.
    pub(super) fn spot(&self) -> Spot {
        self.spots.last().copied().unwrap_or(Spot::new(What::Tab(Tab::Overview)))
    }

    pub(super) fn spot_mut(&mut self) -> &mut Spot {
        if self.spots.is_empty() {
            self.spots.push(Spot::new(What::Tab(Tab::Overview)));
        }
        let last = self.spots.len() - 1;
        &mut self.spots[last]
    }

    /// The pane from which one came here.
    pub(super) fn tab(&self) -> Tab {
        match self.spots.first().map(|spot| spot.what) {
            Some(What::Tab(tab)) => tab,
            _ => Tab::Overview,
        }
    }

    pub(super) fn show(&mut self, tab: Tab) {
        self.spots = vec![Spot::new(What::Tab(tab))];
    }

    pub(super) fn enter(&mut self, what: What) {
        if self.spots.len() < DEPTH {
            self.spots.push(Spot::new(what));
        }
    }

    /// One step back, where there is one.
    pub(super) fn back(&mut self) {
        if self.spots.len() > 1 {
            self.spots.pop();
        }
    }

    /// What the filter line would show, if it can be read.
    pub(super) fn preview(&self) -> Option<&Shown> {
        match &self.typing {
            Some((Typing::Filter(Ok(shown)), _)) => Some(shown),
            _ => None,
        }
    }

    fn sort_slot(&self) -> usize {
        match self.spot().what {
            What::Tab(tab) => Tab::ALL.iter().position(|&one| one == tab).unwrap_or(0),
            _ => Tab::ALL.len(),
        }
    }

    /// Which order the list is in.
    pub(super) fn sort(&self) -> usize {
        self.sorts[self.sort_slot()]
    }

    /// Another order. Its name, where there is one.
    pub(super) fn sort_next(&mut self) -> Option<&'static str> {
        let names: Vec<&'static str> = match self.spot().what {
            What::Tab(Tab::Closers) => panes::closers::SORTS.map(|sort| sort.name()).to_vec(),
            What::Tab(Tab::Stuck) => panes::stuck::SORTS.to_vec(),
            What::Tab(Tab::Ports) => panes::ports::SORTS.to_vec(),
            What::Among(_) => panes::conns::SORTS.to_vec(),
            _ => return None,
        };
        let slot = self.sort_slot();
        self.sorts[slot] = (self.sorts[slot] + 1) % names.len();
        Some(names[self.sorts[slot]])
    }

    /// The state whose histogram is shown.
    pub(super) fn chosen(&self) -> TcpState {
        panes::lifetimes::STATES[self.chosen]
    }

    pub(super) fn choose_next(&mut self) {
        self.chosen = (self.chosen + 1) % panes::lifetimes::STATES.len();
    }

    /// Points at what was pointed at, wherever that is in `listing`.
    pub(super) fn keep_place(&mut self, listing: &Listing) {
        let spot = self.spot_mut();
        let last = listing.rows.len().saturating_sub(1);
        if spot.goes.is_some() && spot.selected > 0 {
            let same = listing.rows.iter().position(|row| row.goes == spot.goes);
            spot.selected = same.unwrap_or(spot.selected);
        }
        spot.selected = spot.selected.min(last);
        spot.goes = listing.rows.get(spot.selected).and_then(|row| row.goes);
    }

    /// Points at row `to` of `listing`.
    pub(super) fn point(&mut self, listing: &Listing, to: usize) {
        let spot = self.spot_mut();
        spot.selected = to.min(listing.rows.len().saturating_sub(1));
        spot.goes = listing.rows.get(spot.selected).and_then(|row| row.goes);
    }
}
