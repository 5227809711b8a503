//! Work that goes on beside other work: what its programs print carries its name, so that the lines
//! of both can be told apart, and is returned too, so that it can be shown once more in one piece.
//!
//! It is a matter of the thread: [`crate::sh`] asks here before it shows anything.

use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, Result};

thread_local! {
    /// The name of what this thread does beside others, and what was said so far.
    static ASIDE: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Does `work` under the name `name`, and returns what its programs printed too.
pub fn aside<T>(name: &str, work: impl FnOnce() -> T) -> (T, String) {
    ASIDE.set(Some((name.to_owned(), String::new())));
    let done = work();
    (done, ASIDE.take().map(|(_, said)| said).unwrap_or_default())
}

/// Whether this thread's work is beside other work.
pub(crate) fn is_aside() -> bool {
    ASIDE.with_borrow(Option::is_some)
}

/// The text as it is to be shown: with the name before each line, if there is one. It is kept.
pub(crate) fn named(text: &str) -> String {
    ASIDE.with_borrow_mut(|aside| match aside {
        None => text.to_owned(),
        Some((name, said)) => {
            said.push_str(text);
            said.push('\n');
            let lines: Vec<_> = text.lines().map(|line| format!("{name} | {line}")).collect();
            lines.join("\n")
        }
    })
}

/// Runs a program and hands each line that it prints, on either output, to `show`.
pub(crate) fn run(command: &mut Command, mut show: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("it does not start")?;
    let (sender, lines) = mpsc::channel();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    thread::scope(|scope| {
        for output in outputs.into_iter().flatten() {
            let sender = sender.clone();
            scope.spawn(move || {
                for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                    // Somebody listens until both have ended.
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        drop(sender);
        lines.iter().for_each(|line| show(&line));
    });
    child.wait().context("waiting for it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    #[test]
    fn what_is_said_beside_others_is_kept() {
        let script = "echo to one; echo to the other >&2; exit 3";
        let (failed, said) =
            aside("step", || sh::run(Command::new("sh").args(["-c", script])).unwrap_err());
        assert!(failed.to_string().contains("exit status: 3"), "{failed}");
        let mut lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.remove(0), format!("+ sh -c '{script}'"));
        lines.sort_unstable();
        assert_eq!(lines, ["to one", "to the other"]);
        assert!(!is_aside());
        assert_eq!(named("a\nb"), "a\nb");
        aside("step", || assert_eq!(named("a\nb"), "step | a\nstep | b"));
    }
}
