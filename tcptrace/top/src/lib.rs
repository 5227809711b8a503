//! `tcptrace top`: an incident on one screen.
//!
//! [`Top`] is the model: what is shown, fed by inputs and changes as any view, and by keys. Its time
//! is that of the inputs. Drawing is a function of it. Must not touch a terminal: who does, asks it
//! for a frame when there is something new.

mod act;
mod data;
mod draw;
mod findings;
mod flow;
mod help;
mod history;
mod keys;
mod line;
mod listing;
mod panes;
mod player;
mod shown;
mod size;
mod stream;
mod theme;
mod ui;

use std::time::Duration;

use bytes::BytesMut;
use ratatui::crossterm::event::Event;

use self::{
    data::{Data, patience},
    keys::Tab,
    listing::{Goes, Listing},
    panes::{Look, closers::Rates},
    ui::{Ui, What},
};
pub use self::{
    flow::Flow,
    player::{Order, Player},
    shown::Shown,
    theme::Style,
};
use tcptrace_doctor::collect::Setup;
use tcptrace_model::{Change, Input, task::escape};
use tcptrace_record::Header;
use tcptrace_track::Tracker;
use tcptrace_view::{View, time::WallClock};

/// Between two samples of the counts, and between two looks at what a list shows.
const SAMPLE_NS: u64 = 1_000_000_000;

/// How long something that is said stays.
const SAID_NS: u64 = 8_000_000_000;

/// Reads a filter line, as the flags are read.
pub type Parse = Box<dyn Fn(&str) -> Result<Shown, String>>;

/// What is said of the host and the hooks.
#[derive(Clone, Debug, Default)]
struct About {
    host: String,
    hooks: String,
    /// What was kept at all, in words.
    kept: String,
    /// What cannot be observed, each with why.
    lacking: Vec<String>,
}

/// What was computed for the lists, when there last was reason to.
#[derive(Default)]
struct Lists {
    main: Listing,
    /// Beside the overview, where there is room.
    closers: Listing,
    stuck: Listing,
}

/// The model.
pub struct Top {
    setup: Setup,
    parse: Parse,
    style: Style,
    about: About,
    data: Data,
    rates: Rates,
    shown: Shown,
    ui: Ui,
    player: Option<Player>,
    flow: Option<Flow>,
    wall: WallClock,
    now_ns: u64,
    sampled_ns: Option<u64>,
    sampled_moves: u64,
    /// Transitions a second.
    rate: f64,
    tracked: u64,
    evicted: u64,
    lists: Lists,
    listed_ns: u64,
    /// Where the recording was then.
    listed_at_ns: Option<u64>,
    /// Columns and lines.
    size: (u16, u16),
    /// The lists are of something else than what is asked for by now.
    stale: bool,
    /// Something changed since the last frame.
    dirty: bool,
    streamed: u64,
    quit: bool,
    suspend: bool,
    redraw: bool,
}

impl Top {
    /// A model that shows `shown`, and reads filter lines by `parse`.
    pub fn new(setup: Setup, shown: Shown, parse: Parse, style: Style) -> Self {
        Self {
            data: Data::new(setup.clone()),
            setup,
            parse,
            style,
            about: About::default(),
            rates: Rates::default(),
            shown,
            ui: Ui::default(),
            player: None,
            flow: None,
            wall: WallClock::local_time_of_day(),
            now_ns: 0,
            sampled_ns: None,
            sampled_moves: 0,
            rate: 0.0,
            tracked: 0,
            evicted: 0,
            lists: Lists::default(),
            listed_ns: 0,
            listed_at_ns: None,
            size: (80, 24),
            stale: true,
            dirty: true,
            streamed: 0,
            quit: false,
            suspend: false,
            redraw: false,
        }
    }

    /// Tells whose events these are, and how they are told.
    pub fn describe(&mut self, header: &Header) {
        let safe = |text: &str| escape(text.as_bytes());
        let hooks = header.hooks.iter().filter_map(|hook| {
            let by = safe(hook.by.as_deref()?);
            Some(match hook.of.as_str() {
                "transitions" => by,
                of => format!("{} {by}", safe(of)),
            })
        });
        self.about = About {
            host: format!("{}  Linux {}", safe(&header.host), safe(&header.kernel)),
            hooks: hooks.take(2).collect::<Vec<_>>().join(", "),
            kept: safe(&header.filter.join(", ")),
            lacking: header.not_observable.iter().map(|lack| safe(lack)).collect(),
        };
        self.dirty = true;
    }

    /// Gives it the controls of a recording.
    pub fn set_player(&mut self, player: Player) {
        self.player = Some(player);
    }

    /// The controls of the recording, if it is one.
    pub fn player(&mut self) -> Option<&mut Player> {
        self.player.as_mut()
    }

    /// Says how a recording comes that cannot be wound, because it comes through a pipe.
    pub fn set_flow(&mut self, flow: Flow) {
        self.dirty |= self.flow.replace(flow) != Some(flow);
    }

    /// Says something in the last line.
    pub fn remark(&mut self, text: &str) {
        self.say(escape(text.as_bytes()));
    }

    fn say(&mut self, text: String) {
        self.ui.message = Some((text, self.now_ns));
        self.dirty = true;
    }

    /// The recording begins again, at an earlier moment: forgets all that was told.
    pub fn rewind(&mut self) {
        self.data = Data::new(self.setup.clone());
        self.data.stream.hold(self.ui.held);
        self.rates = Rates::default();
        self.sampled_ns = None;
        self.sampled_moves = 0;
        self.stale = true;
    }

    /// Takes in a key, the mouse, or a new size.
    pub fn event(&mut self, event: &Event) {
        if let Some(action) = keys::action(self.ui.mode(), event) {
            self.act(action);
            self.dirty = true;
        }
    }

    /// Takes in how large the screen is, in columns and lines.
    pub fn resize(&mut self, size: (u16, u16)) {
        if self.size != size {
            self.size = size;
            self.stale = true;
            self.dirty = true;
        }
    }

    /// Nobody looks any more.
    pub fn quit(&mut self) {
        self.quit = true;
    }

    /// Whether nobody does.
    pub fn is_quitting(&self) -> bool {
        self.quit
    }

    /// Whether the user asked to be put in the background since the last call.
    pub fn take_suspend(&mut self) -> bool {
        std::mem::take(&mut self.suspend)
    }

    /// Has all of the screen drawn again: somebody else may have written on it.
    pub fn redraw(&mut self) {
        self.redraw = true;
    }

    /// Whether all of the screen is to be drawn again, since the last call.
    pub fn take_redraw(&mut self) -> bool {
        std::mem::take(&mut self.redraw)
    }

    /// Whether there is something that the last frame did not show. To be called where a frame
    /// could be drawn; makes the lists, where they are due.
    pub fn has_news(&mut self, tracker: &Tracker) -> bool {
        let due = self.listed_ns.saturating_add(self.every_ns());
        // What holds still is looked at closely.
        self.stale |= self.player.as_ref().is_some_and(|player| {
            !player.is_playing() && self.listed_at_ns != Some(player.at_ns())
        });
        if self.stale || (!self.ui.held && self.now_ns >= due) {
            self.make_lists(tracker);
        }
        if matches!(self.ui.spot().what, What::Tab(Tab::Live | Tab::Overview)) {
            let total = self.data.stream.total();
            let live = self.ui.spot().what == What::Tab(Tab::Live) || self.is_large();
            self.dirty |= live && std::mem::replace(&mut self.streamed, total) != total;
        }
        self.dirty
    }

    /// How long a list is good for: what looks at all connections is not to cost much.
    fn every_ns(&self) -> u64 {
        let cheap = match self.ui.spot().what {
            What::Tab(Tab::Overview) => !self.is_large(),
            What::Tab(Tab::Lifetimes | Tab::Doctor | Tab::Live) | What::Finding(..) => true,
            _ => false,
        };
        if cheap { SAMPLE_NS } else { nanos(patience(self.tracked)) }
    }

    /// Whether the overview has room for more panes.
    fn is_large(&self) -> bool {
        size::is_large(self.size)
    }

    /// What the lists show: what is being typed, if that can be read, else the filter in force.
    fn seen(&self) -> &Shown {
        self.ui.preview().unwrap_or(&self.shown)
    }

    fn make_lists(&mut self, tracker: &Tracker) {
        let shown = self.seen().clone();
        let what = self.ui.spot().what;
        let large = self.is_large();
        let full = usize::from(self.size.0);
        let (left, right) = size::columns(self.size);
        let sort = self.ui.sort();
        let mut look = Look {
            data: &mut self.data,
            tracker,
            shown: &shown,
            wall: &mut self.wall,
            now_ns: self.now_ns,
            width: full,
            sort,
        };
        let main = match what {
            What::Tab(Tab::Overview) => {
                // Of some of them, only samples are taken.
                let now = shown.is_all().then(|| look.data.flows());
                panes::states::listing(&look.data.history, now, left)
            }
            What::Tab(Tab::Closers) => panes::closers::listing(&mut look, &mut self.rates),
            What::Tab(Tab::Stuck) => panes::stuck::listing(&mut look),
            What::Tab(Tab::Ports) => panes::ports::listing(&mut look),
            What::Tab(Tab::Doctor) => panes::doctor::listing(&look.data.findings, look.now_ns),
            What::Tab(Tab::Lifetimes | Tab::Live) => Listing::default(),
            What::Among(among) => panes::conns::listing(&mut look, &among),
            What::Connection(id) => panes::connection::listing(&mut look, id),
            What::Finding(rule, netns) => {
                panes::doctor::finding(&look.data.findings, rule, netns, look.now_ns)
            }
        };
        let mut lists = Lists { main, ..Lists::default() };
        if what == What::Tab(Tab::Overview) && large {
            (look.width, look.sort) = (right, 0);
            lists.closers = panes::closers::listing(&mut look, &mut self.rates);
            lists.stuck = panes::stuck::listing(&mut look);
        }
        self.lists = lists;
        self.ui.keep_place(&self.lists.main);
        self.listed_ns = self.now_ns;
        self.listed_at_ns = self.player.as_ref().map(Player::at_ns);
        self.stale = false;
        self.dirty = true;
    }

    /// It is `now`, and nothing of before is to come.
    fn reach(&mut self, now: u64, tracker: &Tracker) {
        self.now_ns = self.now_ns.max(now);
        let counts = tracker.counts();
        (self.tracked, self.evicted) = (counts.tracked, counts.evicted);
        if self.due_ns().is_some_and(|due| now < due) {
            return;
        }
        if let Some(before) = self.sampled_ns {
            let seconds = now.saturating_sub(before).max(1) as f64 / 1e9;
            self.rate = (self.data.moves - self.sampled_moves) as f64 / seconds;
        }
        // What was said has been read.
        self.ui.message.take_if(|(_, said)| now.saturating_sub(*said) > SAID_NS);
        self.sampled_moves = self.data.moves;
        self.sampled_ns = Some(now);
        self.data.sample(now, tracker, &self.shown);
        self.dirty = true;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl View for Top {
    fn begin(&mut self, _out: &mut BytesMut) {}

    fn input(&mut self, input: &Input, tracker: &Tracker, _out: &mut BytesMut) {
        self.data.input(input, tracker);
        match input {
            Input::Begin { mono_ns, .. } => self.now_ns = *mono_ns,
            Input::Clock(clock) => self.wall.set(*clock),
            Input::Tick { mono_ns } => self.reach(*mono_ns, tracker),
            Input::End(accounts) => self.reach(accounts.mono_ns, tracker),
            _ => {}
        }
    }

    fn change(&mut self, change: &Change, _out: &mut BytesMut) {
        self.data.change(change, &self.shown);
    }

    fn due_ns(&self) -> Option<u64> {
        // To count some of them, all are looked at.
        let every = if self.shown.is_all() { SAMPLE_NS } else { nanos(patience(self.tracked)) };
        self.sampled_ns.map(|sampled| sampled.saturating_add(every))
    }

    fn is_done(&self) -> bool {
        self.quit
    }
}

/// Where Enter leads from a row.
fn led(goes: Goes) -> What {
    match goes {
        Goes::Among(among) => What::Among(among),
        Goes::Connection(id) => What::Connection(id),
        Goes::Finding(rule, netns) => What::Finding(rule, netns),
    }
}

#[cfg(test)]
mod tests;
