//! Screens as people see them, from scripted input, and what keys do.
//!
//! Each screen is a file in `tests/`: with `TCPTRACE_WRITE_SCREENS` set they are written anew, to be
//! looked at and committed.

mod keys;
mod scene;

use std::{env, fs, path::PathBuf};

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers},
};

use super::{Shown, Style, Top};
use tcptrace_doctor::collect::Setup;
use tcptrace_model::{
    Input,
    filter::{Filter, PortSet},
    script,
    select::Wanted,
};
use tcptrace_record::{Header, HookInForce};
use tcptrace_track::Tracker;
use tcptrace_view::View as _;

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (160, 50);

/// What there is before the screen.
pub(super) struct Stage {
    pub(super) top: Top,
    pub(super) tracker: Tracker,
    size: (u16, u16),
}

impl Stage {
    /// An empty one.
    pub(super) fn new(size: (u16, u16), style: Style) -> Self {
        let defaults = Err("not asked for here".to_owned());
        let setup = Setup { defaults, files: Vec::new(), events: Ok(()), own_netns: None };
        let mut top = Top::new(setup, Shown::default(), Box::new(parse), style);
        let hook = |of: &str, by: &str| HookInForce {
            of: of.to_owned(),
            by: Some(by.to_owned()),
            ..HookInForce::default()
        };
        top.describe(&Header {
            host: "web1".to_owned(),
            kernel: "6.18.0".to_owned(),
            hooks: vec![hook("transitions", "tp_btf"), hook("time-wait", "functions")],
            ..Header::default()
        });
        top.resize(size);
        Self { top, tracker: Tracker::default(), size }
    }

    /// One that has seen the scene.
    pub(super) fn played(size: (u16, u16)) -> Self {
        let mut stage = Self::new(size, Style { color: true, ascii: false });
        stage.tell(&scene::script());
        stage.frame();
        stage
    }

    pub(super) fn tell(&mut self, text: &str) {
        let mut nothing = bytes::BytesMut::new();
        for input in script::inputs(text).unwrap() {
            let top = &mut self.top;
            self.tracker.apply(&input, &mut |change| top.change(&change, &mut nothing));
            if !matches!(input, Input::Event(_)) {
                top.input(&input, &self.tracker, &mut nothing);
            }
        }
    }

    /// Presses keys, each followed by a frame: a letter is itself, `\n` Enter, `\x1b` Escape,
    /// `\x08` Backspace.
    pub(super) fn press(&mut self, keys: &str) {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                c => KeyCode::Char(c),
            };
            self.top.event(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
            self.frame();
        }
    }

    pub(super) fn frame(&mut self) -> Buffer {
        self.top.has_news(&self.tracker);
        let mut terminal = Terminal::new(TestBackend::new(self.size.0, self.size.1)).unwrap();
        terminal.draw(|frame| self.top.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    /// The screen as text, lines without the blanks at their ends.
    pub(super) fn screen(&mut self) -> String {
        text(&self.frame())
    }
}

pub(super) fn text(buffer: &Buffer) -> String {
    let lines = buffer.content.chunks(usize::from(buffer.area.width).max(1));
    let mut text = String::new();
    for line in lines {
        let line: String = line.iter().map(|cell| cell.symbol()).collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A filter language of two words: what it reads is what the flags are read to.
fn parse(text: &str) -> Result<Shown, String> {
    let (mut filter, mut wanted) = (Filter::default(), Wanted::default());
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [] => {}
        ["-D", port] => {
            let mut set = PortSet::default();
            set.add(port).map_err(|error| error.to_string())?;
            filter.rports = Some(set);
        }
        ["--comm", name] => wanted.comms = vec![(*name).into()],
        [word, ..] => return Err(format!("unexpected argument '{word}' found")),
    }
    Ok(Shown::new(filter, wanted, text.to_owned()))
}

/// Holds a screen against the one that is committed.
#[track_caller]
fn same(name: &str, size: (u16, u16), screen: &str) {
    let file = format!("src/tests/{name}-{}x{}.txt", size.0, size.1);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&file);
    if env::var_os("TCPTRACE_WRITE_SCREENS").is_some() {
        fs::write(&path, screen).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == screen, "{file} has\n{committed}\nand this is\n{screen}");
}

/// Each screen, by the keys that lead to it.
const SCREENS: [(&str, &str); 17] = [
    ("overview", ""),
    ("overview-fin-wait2", "tt"),
    ("states-of-close-wait", "jjjjjjjj\n"),
    ("lifetimes", "2t"),
    ("closers", "3j"),
    ("closers-by-failed", "3ssss"),
    ("connections", "3\n"),
    ("life", "3\n\n"),
    ("stuck", "4"),
    ("stuck-connections", "4j\n"),
    ("ports", "5"),
    ("doctor", "6"),
    ("finding", "6\n"),
    ("live", "7"),
    ("live-scrolled", "7kkkkkkkkkkkkkkkkkkkkkkkkkkkkk"),
    ("help", "?"),
    ("filter-error", "4/-D http"),
];

#[test]
fn every_screen_is_as_committed() {
    for size in [SMALL, LARGE] {
        for (name, keys) in SCREENS {
            let mut stage = Stage::played(size);
            stage.press(keys);
            same(name, size, &stage.screen());
        }
    }
}

#[test]
fn a_leak_that_begins_late_is_found_and_so_is_one_that_is_over() {
    for (until_s, says) in
        [(1000, "warning   close-wait         600"), (60, "close-wait         over: 600")]
    {
        let mut stage = Stage::new(SMALL, Style { color: false, ascii: false });
        stage.tell(&script::late_leak(600, 30, until_s, 120));
        stage.press("6");
        let screen = stage.screen();
        assert!(screen.contains(says), "{screen}");
    }
}

#[test]
fn ports_that_are_bound_are_shown_without_a_connection_and_whose_they_are() {
    let bound: String =
        (20000..20030).map(|port| format!("0ms bound {port} pid=7 comm=binds\n")).collect();
    let mut stage = Stage::new(SMALL, Style { color: false, ascii: false });
    stage.tell(&format!(
        "0ms begin\n0ms snapshot open\n0ms sysctls 5 ip_local_port_range=20000-20029 \
         ip_local_reserved_ports= tcp_tw_reuse=0\n0ms snapshot 5\n{bound}0ms snapshot end \
         lists-bound\n0ms snapshot over\n2ms tick\n1002ms tick\n"
    ));
    stage.press("5");
    let screen = stage.screen();
    assert!(screen.contains("30 of 20000-20029, 30 bound"), "{screen}");
    assert!(screen.contains("bound by binds, pid 7 (30)"), "{screen}");
}

#[test]
fn a_recording_has_a_cursor() {
    let mut stage = Stage::played(SMALL);
    stage.top.set_player(super::Player::new((0, 90_000_000_000)));
    if let Some(player) = stage.top.player() {
        player.reached(70_000_000_000, false);
    }
    same("recording", SMALL, &stage.screen());
}

#[test]
fn ascii_is_ascii() {
    let style = Style { color: false, ascii: true };
    for (name, keys) in SCREENS {
        let mut stage = Stage::new(SMALL, style);
        stage.tell(&scene::script());
        stage.press(keys);
        let screen = stage.screen();
        assert!(screen.is_ascii(), "{name}:\n{screen}");
        if name == "overview" {
            same("overview-ascii", SMALL, &screen);
        }
    }
}

#[test]
fn nothing_is_coloured_without_colours_and_a_loss_is_red_with_them() {
    for (name, keys) in SCREENS {
        let mut stage = Stage::new(LARGE, Style { color: false, ascii: false });
        stage.tell(&scene::script());
        stage.press(keys);
        let buffer = stage.frame();
        let is_plain = |cell: &ratatui::buffer::Cell| {
            cell.fg == ratatui::style::Color::Reset && cell.bg == ratatui::style::Color::Reset
        };
        assert!(buffer.content.iter().all(is_plain), "{name}");
    }
    let red = |stage: &mut Stage| {
        let buffer = stage.frame();
        let at = text(&buffer).lines().nth(1).unwrap().find("lost").unwrap();
        buffer[(at as u16, 1)].fg == ratatui::style::Color::Red
    };
    let mut stage = Stage::new(SMALL, Style { color: true, ascii: false });
    stage.tell("0ms begin\n1ms tick\n");
    assert!(!red(&mut stage));
    stage.tell("2ms lost 1\n3ms tick\n");
    assert!(red(&mut stage));
}

#[test]
fn too_small_a_terminal_says_so() {
    for size in [(40, 10), (59, 50), (200, 11), (9, 3), (1, 1), (0, 0)] {
        let mut stage = Stage::played(size);
        let screen = stage.screen();
        assert!(size.0 < 40 || screen.starts_with("too small a terminal\n"), "{screen}");
        stage.press("1234567\n?");
    }
    same("too-small", (40, 10), &Stage::played((40, 10)).screen());
}

#[test]
fn every_pane_is_drawn_in_whatever_there_is() {
    for size in [(60, 12), (61, 13), (79, 23), (140, 40), (300, 100)] {
        for (_, keys) in SCREENS {
            let mut stage = Stage::played(size);
            stage.press(keys);
            assert!(stage.screen().starts_with("tcptrace web1"));
        }
    }
}

#[test]
fn names_cannot_write_on_the_screen() {
    let mut stage = Stage::new(LARGE, Style { color: true, ascii: false });
    stage.tell(
        "0ms begin\n\
         1ms cgroup 7 /system.slice/\u{1b}[2J\u{202e}.service\n\
         1ms sk=a CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=9 comm=\u{1b}[31m\u{7} cgroup=7\n\
         2ms sk=a SYN_SENT>ESTABLISHED 10.0.0.1:7 10.0.0.2:443 cgroup=7\n\
         3ms sk=a ESTABLISHED>CLOSE_WAIT 10.0.0.1:7 10.0.0.2:443 cgroup=7\n\
         4ms sk=b CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=9 comm=\u{1b}[31m\u{7} cgroup=7\n\
         5ms sk=b SYN_SENT>CLOSE 10.0.0.1:8 10.0.0.2:443 err=111 cgroup=7\n\
         400000ms tick\n",
    );
    let mut seen = 0;
    for keys in ["", "3", "3\n", "3\n\n", "4", "4j\n", "4j\n\n", "7", "7\n"] {
        stage.press("1");
        stage.press(keys);
        for cell in &stage.frame().content {
            let safe = |c: char| !c.is_control() && c != '\u{202e}';
            assert!(cell.symbol().chars().all(safe), "{keys}: {:?}", cell.symbol());
        }
        seen += usize::from(stage.screen().contains("\\x1b[31m\\x07"));
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn where_nothing_is_new_there_is_no_frame() {
    let mut stage = Stage::played(SMALL);
    assert!(!stage.top.has_news(&stage.tracker));
    stage.tell("70100ms tick\n");
    assert!(!stage.top.has_news(&stage.tracker), "not a second has passed");
    stage.tell("71100ms tick\n");
    assert!(stage.top.has_news(&stage.tracker));
    stage.frame();
    stage.press("7");
    assert!(!stage.top.has_news(&stage.tracker));
    stage.tell("71101ms sk=abcd CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443\n");
    assert!(stage.top.has_news(&stage.tracker), "the stream goes on");
}

#[test]
fn it_survives_all_that_a_tracker_may_be_told() {
    let mut stage = Stage::new(SMALL, Style { color: true, ascii: false });
    for keys in ["1", "2", "3\n\n", "4\n", "5\n", "6\n", "7\n", "@", "/--comm x\n", "c"] {
        stage.press(keys);
        stage.press("jkgG \x1b");
    }
    // Time that stands still, goes back, and leaps.
    stage.tell("5ms tick\n5ms tick\n1ms tick\n0ms begin\n9000000000ms tick\n");
    stage.press("1234567");
    assert!(stage.screen().contains("tcptrace web1"));
}
