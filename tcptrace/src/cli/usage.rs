//! Errors of whoever typed the command: what was wrong and what would have been right, in one line.

/// An error that is the user's, with exit code 2: which word, and what would have been right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// clap's several paragraphs about an error (what, possible values, a tip, the usage) in one line.
pub(super) fn misuse(rendered: &str) -> String {
    let mut parts: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect();
    parts.push("see tcptrace --help");
    // What ends in a colon has its list below it.
    parts.join("; ").replace(":; ", ": ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::Cli;

    fn refusal(arguments: &[&str]) -> String {
        let words = [&["tcptrace"], arguments].concat();
        misuse(&Cli::try_parse_from(words).unwrap_err().render().to_string())
    }

    #[test]
    fn misuse_is_one_line_that_says_what_would_be_right() {
        for (arguments, says) in [
            (&["--state", "x"][..], "unknown state 'x': ESTABLISHED, "),
            (
                &["-o", "yaml"],
                "'yaml' for '--output <FORMAT>'; [possible values: table, json, csv]",
            ),
            (&["--colour", "auto"], "unexpected argument '--colour' found; tip: "),
            (&["hist", "--by", "pid"], "unknown key 'pid': reason, owner, closer, holder, port"),
            (&["frobnicate"], "unrecognized subcommand 'frobnicate'; see tcptrace --help"),
            (&["-4", "-6"], "cannot be used with"),
        ] {
            let line = refusal(arguments);
            assert!(line.contains(says) && line.ends_with("; see tcptrace --help"), "{line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
    }
}
