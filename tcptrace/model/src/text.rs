//! Text of strangers, made harmless: the one rule for terminals, logs, tables and pages.
//!
//! Names of processes, paths, what a recording says of its host: whoever chose them may have put in what
//! moves the cursor, turns the direction of writing around or cannot be seen. Must not be done in two
//! ways: what one sink escapes another must not let pass.

use std::{borrow::Cow, fmt::Write as _};

/// Whether `c` can be shown as it is: neither a control character, nor one that is invisible, changes
/// the direction, joins others or stands for nothing.
fn is_plain(c: char) -> bool {
    // escape_debug() escapes what Unicode calls control, format, separator and unassigned.
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1
}

fn put(out: &mut String, c: char) {
    if c.is_ascii_control() {
        // Writing to memory does not fail.
        let _ = write!(out, "\\x{:02x}", c as u32);
    } else {
        out.extend(c.escape_debug());
    }
}

/// `bytes` as text that is harmless on a terminal and loses nothing: control characters, bytes
/// that are not UTF-8, invisible and direction-changing characters, and the backslash itself
/// appear as `\x1b`, `\u{202e}`, `\\`.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if is_plain(c) => out.push(c),
                c => put(&mut out, c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// `text` without what is harmful, for what is text of ours with something of a stranger in it, or was
/// escaped already: as [`escape`], but a backslash stays one.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_plain(c) { out.push(c) } else { put(&mut out, c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What must not reach a terminal.
    const HARMFUL: [char; 12] = [
        '\0', '\x1b', '\n', '\r', '\x7f', '\u{85}', '\u{9b}', '\u{200b}', '\u{202e}', '\u{2066}',
        '\u{2028}', '\u{feff}',
    ];

    #[test]
    fn nothing_harmful_is_left_by_either() {
        for c in HARMFUL {
            let text = format!("a{c}b");
            for shown in [escape(text.as_bytes()), harmless(&text).into_owned()] {
                assert!(!shown.contains(c), "{c:?}: {shown:?}");
                assert!(shown.starts_with('a') && shown.ends_with('b'), "{shown:?}");
            }
        }
        assert_eq!(escape(b"a\\b\xff'\"\xc3\xbc"), "a\\\\b\\xff'\"ü");
        assert_eq!(harmless("a\\x1b 'ü' \u{202e}"), "a\\x1b 'ü' \\u{202e}");
        assert!(matches!(harmless("plain: 'x' \\"), Cow::Borrowed(_)));
        // What was made harmless stays as it is.
        let once = escape("\x1b\u{202e}\\".as_bytes());
        assert_eq!(harmless(&once), once);
    }
}
