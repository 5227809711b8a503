//! What goes to stderr: one line a message, harmless on a terminal.

use std::{borrow::Cow, io::Write as _};

use log::{Level, Log, Metadata, Record};
use tcptrace_model::text::harmless;

/// Writes one line to stderr, with the program's name. That nobody reads it is no reason to end.
pub(crate) fn say(message: &str) {
    // In one write, so that the lines of processes that share a stderr do not mix.
    let line = format!("tcptrace: {}\n", one_line(message));
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// `message` in one line that is harmless on a terminal: it may quote a path, an argument, a recording
/// or the kernel.
pub(super) fn one_line(message: &str) -> Cow<'_, str> {
    if !message.contains(['\n', '\r']) {
        return harmless(message);
    }
    let parts: Vec<_> =
        message.lines().map(str::trim).filter(|part| !part.is_empty()).map(harmless).collect();
    Cow::Owned(parts.join(" | "))
}

/// Where the kernel side's log records go (aya-log).
pub(crate) struct ToStderr;

impl Log for ToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&format!("kernel side: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_harmless_line() {
        assert_eq!(one_line("a\nb\n"), "a | b");
        assert_eq!(one_line("\n\x1b[2J\u{85}x\ty"), "\\x1b[2J\\u{85}x\\x09y");
        assert_eq!(one_line("grün: 'x'"), "grün: 'x'");
        assert_eq!(one_line("of \u{202e}evil"), "of \\u{202e}evil");
    }
}
