//! What cargo says while it builds: split into lines and states of its progress bar, and shown so
//! that nobody waits for long without a word. It starts nothing and judges nothing.
//!
//! On a terminal the bar is passed on as it is. Elsewhere (CI, a pipe) cargo has none, and says
//! nothing while a crate compiles for half a minute; there a line says each few seconds how far it
//! is.

use std::{
    io::{self, IsTerminal as _, Read, Write as _},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// How long nothing is printed, where there is no bar, before a line says how far it is.
const SILENCE: Duration = Duration::from_secs(4);

/// How wide the bar is where the width of the terminal is not known.
const WIDTH: u16 = 80;

/// What makes cargo draw its bar into a pipe; and in color, where it ends up on a terminal.
#[must_use]
pub fn environment() -> Vec<(&'static str, String)> {
    let stderr = io::stderr();
    let width = terminal_size::terminal_size_of(&stderr).map_or(WIDTH, |(width, _)| width.0);
    let mut environment = vec![
        ("CARGO_TERM_PROGRESS_WHEN", "always".to_owned()),
        ("CARGO_TERM_PROGRESS_WIDTH", width.to_string()),
    ];
    let colored = |name| std::env::var_os(name).is_some();
    if stderr.is_terminal() && !colored("NO_COLOR") && !colored("CARGO_TERM_COLOR") {
        environment.push(("CARGO_TERM_COLOR", "always".to_owned()));
    }
    environment
}

/// Reads what cargo says to its end, shows it as it comes, and returns what it held back: from the
/// first error on, each line as cargo printed it.
///
/// # Errors
/// If it cannot be read, or not be shown.
pub fn watch(said: impl Read + Send + 'static) -> Result<Vec<String>> {
    let (sender, segments) = mpsc::channel();
    let reader = thread::spawn(move || read(said, &sender));
    let mut screen = Screen::new(io::stderr().is_terminal(), Instant::now());
    let mut out = io::stderr();
    loop {
        let text = match segments.recv_timeout(screen.patience(Instant::now())) {
            Ok(segment) => screen.take(segment, Instant::now()),
            Err(RecvTimeoutError::Timeout) => screen.overdue(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        out.write_all(text.as_bytes()).context("cannot write to standard error")?;
    }
    out.write_all(screen.end().as_bytes()).context("cannot write to standard error")?;
    match reader.join() {
        Ok(read) => read.context("reading what cargo says")?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(screen.held)
}

/// A piece of what cargo says.
#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// A line, without its end.
    Line(String),
    /// A state of the bar, which the next one overwrites.
    Bar(String),
}

fn read(mut said: impl Read, segments: &mpsc::Sender<Segment>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut begun = Vec::new();
    loop {
        let count = said.read(&mut buffer)?;
        if count == 0 {
            if !begun.is_empty() {
                let _ = segments.send(Segment::Line(String::from_utf8_lossy(&begun).into_owned()));
            }
            return Ok(());
        }
        for &byte in &buffer[..count] {
            let text = |begun: &[u8]| String::from_utf8_lossy(begun).into_owned();
            let segment = match byte {
                b'\n' => Segment::Line(text(&begun)),
                b'\r' => Segment::Bar(text(&begun)),
                byte => {
                    begun.push(byte);
                    continue;
                }
            };
            begun.clear();
            // Nobody listens only where the other side has failed already.
            let _ = segments.send(segment);
        }
    }
}

/// What was shown so far, and what is held back.
struct Screen {
    terminal: bool,
    begun: Instant,
    /// When something was printed last.
    shown: Instant,
    /// What the bar said last.
    bar: String,
    /// The lines from the first error on.
    held: Vec<String>,
}

impl Screen {
    fn new(terminal: bool, now: Instant) -> Self {
        Self { terminal, begun: now, shown: now, bar: String::new(), held: Vec::new() }
    }

    /// How long to wait for cargo before [`Self::overdue`] is due.
    fn patience(&self, now: Instant) -> Duration {
        // A terminal has the bar.
        if self.terminal { Duration::from_secs(3600) } else { (self.shown + SILENCE) - now }
    }

    /// The text that shows `segment`, if it is to be shown.
    fn take(&mut self, segment: Segment, now: Instant) -> String {
        match segment {
            Segment::Line(line) if self.held.is_empty() && !is_error(&line) => {
                self.shown = now;
                if plain(&line).contains("Blocking waiting for file lock") {
                    self.bar = "waiting until another cargo has finished".to_owned();
                }
                if self.terminal { format!("{CLEAR}{line}\n") } else { format!("{line}\n") }
            }
            Segment::Line(line) => {
                self.held.push(line);
                String::new()
            }
            Segment::Bar(bar) => {
                let text = if self.terminal { format!("{CLEAR}{bar}") } else { String::new() };
                if !plain(&bar).trim().is_empty() {
                    self.bar = bar;
                }
                text
            }
        }
    }

    /// The line that says how far it is.
    fn overdue(&mut self, now: Instant) -> String {
        self.shown = now;
        let seconds = (now - self.begun).as_secs();
        format!("building: {}{seconds} s\n", how_far(&plain(&self.bar)))
    }

    /// What leaves the screen as it should be.
    fn end(&self) -> &'static str {
        if self.terminal { CLEAR } else { "" }
    }
}

/// To the first column, and nothing behind it.
const CLEAR: &str = "\r\x1b[K";

/// Whether a line begins cargo's account of why it fails; retries are part of it, as they come first.
fn is_error(line: &str) -> bool {
    let line = plain(line);
    ["error:", "error[", "warning: spurious network error"]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// A state of the bar, in words: `84 of 158 steps, now zstd-sys, `.
fn how_far(bar: &str) -> String {
    let bar = bar.trim();
    let Some((_, counted)) = bar.split_once("] ") else {
        return if bar.is_empty() { String::new() } else { format!("{bar}, ") };
    };
    let (count, names) = counted.split_once(':').unwrap_or((counted, ""));
    let count = count.trim().replacen('/', " of ", 1);
    // Cut where the bar had no room for more.
    let names = names.trim().trim_end_matches("...").trim_end_matches([',', ' ']);
    if names.is_empty() {
        format!("{count} steps, ")
    } else {
        format!("{count} steps, now {names}, ")
    }
}

/// The text without what colors it.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\x1b') {
        plain.push_str(before);
        let Some(parameters) = escape.strip_prefix('[') else {
            rest = escape;
            continue;
        };
        // ECMA-48: parameters, then one byte from 0x40 on that ends it.
        let end = parameters.find(|c: char| ('@'..='~').contains(&c));
        rest = end.map_or("", |end| &parameters[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As cargo 1.95 prints them, in color, for a bar of 80 columns.
    const BAR: &str = "\x1b[1m\x1b[36m    Building\x1b[0m [=========>                ] 84/158: zstd-sys(build.rs), aya...";

    fn segments(said: &[u8]) -> Vec<Segment> {
        let (sender, receiver) = mpsc::channel();
        read(said, &sender).unwrap();
        drop(sender);
        receiver.into_iter().collect()
    }

    #[test]
    fn lines_and_states_of_the_bar_are_told_apart() {
        let said =
            b"   Compiling a v1\n    Building [> ] 1/2: a\r    Building [=>] 2/2: b\rerror: x";
        let expected = [
            Segment::Line("   Compiling a v1".into()),
            Segment::Bar("    Building [> ] 1/2: a".into()),
            Segment::Bar("    Building [=>] 2/2: b".into()),
            Segment::Line("error: x".into()),
        ];
        assert_eq!(segments(said), expected);
    }

    #[test]
    fn the_bar_is_put_in_words() {
        let bar = plain(BAR);
        assert_eq!(how_far(&bar), "84 of 158 steps, now zstd-sys(build.rs), aya, ");
        assert_eq!(how_far("    Building [=> ] 3/9"), "3 of 9 steps, ");
        assert_eq!(
            how_far(" Downloading 3 crates, remaining bytes: 1.2MB"),
            "Downloading 3 crates, remaining bytes: 1.2MB, "
        );
        assert_eq!(how_far(""), "");
    }

    #[test]
    fn without_a_terminal_a_line_comes_each_few_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut screen = Screen::new(false, start);
        assert_eq!(
            screen.take(Segment::Line("   Compiling a v1".into()), after(3)),
            "   Compiling a v1\n"
        );
        assert_eq!(screen.take(Segment::Bar(BAR.into()), after(5)), "");
        assert_eq!(screen.patience(after(5)), Duration::from_secs(2));
        assert_eq!(screen.patience(after(9)), Duration::ZERO);
        let line = "building: 84 of 158 steps, now zstd-sys(build.rs), aya, 7 s\n";
        assert_eq!(screen.overdue(after(7)), line);
        assert_eq!(screen.patience(after(7)), SILENCE);
    }

    #[test]
    fn a_terminal_has_the_bar() {
        let now = Instant::now();
        let mut screen = Screen::new(true, now);
        assert_eq!(screen.take(Segment::Bar("x".into()), now), "\r\x1b[Kx");
        assert_eq!(screen.take(Segment::Line("y".into()), now), "\r\x1b[Ky\n");
        assert!(screen.patience(now) > Duration::from_secs(60));
    }

    #[test]
    fn what_comes_with_an_error_is_held_back() {
        let now = Instant::now();
        let mut screen = Screen::new(false, now);
        screen.take(Segment::Line("warning: unused".into()), now);
        for line in ["\x1b[1m\x1b[91merror\x1b[0m: no", "  caused by", "   Compiling b v1"] {
            assert_eq!(screen.take(Segment::Line(line.into()), now), "");
        }
        assert_eq!(screen.held.len(), 3);
        assert!(is_error("error[E0425]: cannot find value"));
        assert!(is_error(
            "warning: spurious network error (3 tries remaining): [6] Could not resolve"
        ));
        assert!(!is_error("   Compiling thiserror v2.0"));
    }
}
