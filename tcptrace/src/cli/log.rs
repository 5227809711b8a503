//! What goes to stderr.

use std::io::Write as _;

use log::{Level, Log, Metadata, Record};

/// Writes one line to stderr, with the program's name. That nobody reads it is no reason to end.
pub(crate) fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tcptrace: {message}");
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
