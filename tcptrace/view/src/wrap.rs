//! Text that people read, in lines of 80 columns.

use tcptrace_model::text::harmless;

/// Characters of a line.
const WIDTH: usize = 80;

/// Appends `text`, which may quote the kernel, from column `indent` on, where the line already is.
pub fn put_wrapped(out: &mut String, text: &str, indent: usize) {
    let safe = harmless(text);
    let mut at = indent;
    for word in safe.split(' ').filter(|word| !word.is_empty()) {
        let mut word = word.chars();
        let mut left = word.clone().count();
        let fresh = at == indent;
        if !fresh && at + 1 + left <= WIDTH {
            out.push(' ');
            at += 1;
        } else if !fresh {
            at = put_break(out, indent);
        }
        // A word longer than a line is cut.
        while left > 0 {
            let part = left.min(WIDTH - at);
            out.extend(word.by_ref().take(part));
            left -= part;
            at += part;
            if left > 0 {
                at = put_break(out, indent);
            }
        }
    }
    out.push('\n');
}

fn put_break(out: &mut String, indent: usize) -> usize {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
    indent
}

/// At most `width` characters, the last an ellipsis where some were cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}
