//! `cargo xtask bench --build`: what somebody waits for who builds tcptrace, and how large and how
//! quick to start is what comes of it, beside what is to be reached.
//!
//! All of it is done in a copy of the tree with a target directory of its own, which is removed
//! before and after: the tree is not edited, and what was built before is neither used nor lost.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::{
    root::{Root, root},
    sh,
};

use super::{report::Spread, targets::Target};
use crate::{child::bound, markers};

/// How often the start is measured.
const STARTS: usize = 11;
/// How long a command may take until its first line.
const PATIENCE: Duration = Duration::from_mins(20);
/// The file of the crate `track` that is edited.
const EDITED: &str = "tcptrace/track/src/lib.rs";
/// Where the table goes, and the name of its marks.
const DOCS: (&str, &str) = ("docs/COST.md", "bench-build");

/// Measures, prints the figures, and writes their table into the documentation.
///
/// # Errors
/// Without root, or if something does not build or does not start.
pub fn main() -> Result<ExitCode> {
    if root() != Root::Already {
        bail!("bench --build starts `live`: run it as root");
    }
    let tree = Tree::new()?;
    let targets = measure(&tree)?;
    let mut stdout = io::stdout().lock();
    for target in &targets {
        writeln!(stdout, "- {target}")?;
    }
    let file = sh::workspace()?.join(DOCS.0);
    markers::write_between(&file, DOCS.1, &table(&targets))?;
    writeln!(stdout, "wrote {}", file.display())?;
    Ok(ExitCode::SUCCESS)
}

fn measure(tree: &Tree) -> Result<Vec<Target>> {
    // With the crates downloaded: how fast a network is does not belong here.
    sh::run(tree.cargo().args(["fetch", "--locked"]))?;
    let run = || tree.cargo_of(&["run", "--locked", "--package", "xtask", "--", "run", "live"]);
    let unit_tests =
        || tree.cargo_of(&["test", "--locked", "--package", "tcptrace-track", "--lib"]);

    let cold = until_it_listens(&mut run())?;
    sh::run(&mut unit_tests())?;
    tree.edit(1)?;
    let start = Instant::now();
    sh::run(&mut unit_tests())?;
    let to_tests = start.elapsed();
    tree.edit(2)?;
    let to_live = until_it_listens(&mut run())?;

    sh::run(tree.cargo().args(["build", "--release", "--locked", "--package", "tcptrace"]))?;
    let binary = tree.target().join("release/tcptrace");
    let bytes = fs::metadata(&binary).context("reading the size of the binary")?.len();
    let starts = (0..STARTS)
        .map(|_| until_it_listens(Command::new(&binary).arg("live")))
        .collect::<Result<Vec<_>>>()?;
    let start = Spread::of(starts.iter().map(Duration::as_secs_f64)).map(|start| start.median);

    let under = |what: &str, measured: Option<f64>, limit: f64| {
        Target::new(what.to_owned(), measured, &format!("under {limit}"), |figure| figure < limit)
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with three decimals of a megabyte")]
    let megabytes = bytes as f64 / 1e6;
    let seconds = |duration: Duration| Some(duration.as_secs_f64());
    Ok(vec![
        under(
            "from an empty target directory to the first line of `live`, s",
            seconds(cold),
            120.0,
        ),
        under(
            "from a function added to `track` to the end of its unit tests, s",
            seconds(to_tests),
            12.0,
        ),
        under(
            "from a function added to `track` to the first line of `live`, s",
            seconds(to_live),
            25.0,
        ),
        under("the release binary, MB", Some(megabytes), 12.0),
        under("from its start to the first line of `live`, median, s", start, 0.25),
    ])
}

/// Markdown.
fn table(targets: &[Target]) -> String {
    let mut text = "| what | to reach | measured | |\n| --- | --- | --- | --- |\n".to_owned();
    for Target { what, goal, measured, met } in targets {
        let measured = measured.map_or("–".to_owned(), |figure| {
            format!("{figure:.*}", if figure < 1.0 { 3 } else { 1 })
        });
        let word = match met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        text.push_str(&format!("| {what} | {goal} | {measured} | {word} |\n"));
    }
    text.push('\n');
    text
}

/// A copy of the tree.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Result<Self> {
        let workspace = sh::workspace()?;
        let dir = sh::target_dir()?.join("bench-build");
        remove(&dir)?;
        // Those of git, and those that it does not know yet.
        let listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let names = sh::output(Command::new("git").current_dir(&workspace).args(listed))
            .context("bench --build copies what git lists")?;
        let tree = Self(dir);
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (workspace.join(name), tree.0.join(name));
            // What is deleted but not yet committed so, or a link.
            if !from.is_file() {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file in no directory")?)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {name}"))?;
        }
        Ok(tree)
    }

    fn target(&self) -> PathBuf {
        self.0.join("target")
    }

    fn cargo(&self) -> Command {
        let mut cargo = sh::cargo();
        cargo
            .current_dir(&self.0)
            .env("CARGO_TARGET_DIR", self.target())
            .env_remove("CARGO_BUILD_BUILD_DIR");
        cargo
    }

    fn cargo_of(&self, arguments: &[&str]) -> Command {
        let mut cargo = self.cargo();
        cargo.args(arguments).env("CARGO_NET_OFFLINE", "true");
        cargo
    }

    /// Changes the crate `track`.
    fn edit(&self, number: u32) -> Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.0.join(EDITED))
            .with_context(|| format!("cannot edit {EDITED}"))?;
        let function = format!("pub fn edited_{number}() -> u32 {{\n    {number}\n}}\n");
        writeln!(file, "\n/// What an edit added.\n#[must_use]\n{function}")?;
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // It is below the target directory, and the next run removes it.
        let _ = remove(&self.0);
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// What `live` says on standard error when it is attached. Its header, on standard output, is there
/// by then or comes with it.
const LISTENS: &str = "tcptrace: listening ";

/// Starts the command, which becomes `tcptrace live`; how long it takes until that is attached and has
/// printed its first line. Ends it.
///
/// # Errors
/// If it ends before.
fn until_it_listens(command: &mut Command) -> Result<Duration> {
    let mut bound = bound(command.get_program(), "INT");
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    let start = Instant::now();
    let mut child = bound
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("it does not start")?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone(), |_| Line::Output);
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender, Line::Message);
    }
    let (mut printed, mut attached) = (false, false);
    while !(printed && attached) {
        match lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            Ok(Line::Output) => printed = true,
            Ok(Line::Message(text)) if text.starts_with(LISTENS) => attached = true,
            Ok(Line::Message(text)) => sh::say(&text),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("live ended before it listened ({})", child.wait()?)
            }
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    let elapsed = start.elapsed();
    // cargo and xtask have become it by exec.
    // Not SIGINT, which what is started in the background may ignore.
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).context("cannot end live")?;
    child.wait().context("waiting for live")?;
    ensure!(printed && attached, "live did not listen within {PATIENCE:?}");
    sh::say(&format!("bench: live listens after {:.2} s", elapsed.as_secs_f64()));
    Ok(elapsed)
}

enum Line {
    Output,
    Message(String),
}

/// Sends each line on, in a thread of its own.
fn forward(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<Line>,
    kind: impl Fn(String) -> Line + Send + 'static,
) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            // Nobody listens any more once it was there: the rest is thrown away.
            let _ = lines.send(kind(String::from_utf8_lossy(&line).into_owned()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_when_it_said_so_and_has_printed() {
        let script = "trap 'exit 0' TERM; echo building >&2; \
                      echo 'tcptrace: listening by x' >&2; echo LADDR; while :; do sleep 0.05; done";
        until_it_listens(Command::new("sh").args(["-c", script])).unwrap();
        let script = "echo 'error: no' >&2; exit 3";
        let error = until_it_listens(Command::new("sh").args(["-c", script])).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn the_table_has_the_goals_beside_the_figures() {
        let targets = [
            Target::new("size".to_owned(), Some(12.25), "under 12", |figure| figure < 12.0),
            Target::new("start".to_owned(), Some(0.2), "under 0.25", |figure| figure < 0.25),
            Target::new("speed".to_owned(), None, "any", |_| true),
        ];
        let text = table(&targets);
        assert!(text.contains("| size | under 12 | 12.2 | MISSED |\n"), "{text}");
        assert!(text.contains("| start | under 0.25 | 0.200 | met |\n"), "{text}");
        assert!(text.contains("| speed | any | – | not measured |\n"), "{text}");
    }
}
