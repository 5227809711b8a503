//! The tutorials in `docs/tutorials`, as they are written: each is run by bash in a network namespace of
//! its own, and what it quotes from the output has to be in the output.
//!
//! A tutorial begins by opening a shell in a namespace (its `console` block), which is done here. Its `sh`
//! blocks are run in order by one shell. A `text` block quotes the output of the `sh` block before it:
//! what it has in words, in this order, without numbers, which differ from run to run. A line `...`
//! stands for what is left out.

use std::{
    fmt::Write as _,
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::run::can_trace;

/// How long one may take: some wait for what the kernel does after seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// The blocks of a document, each with its language.
fn blocks(document: &str) -> impl Iterator<Item = (&str, &str)> {
    document.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

/// Words alone: what has a digit in it differs from run to run.
fn words(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.filter(|word| word.contains(|c: char| c.is_alphabetic())).collect::<Vec<_>>().join(" ")
}

/// The first part of a quotation that is not in `said`, behind those before it.
fn missing(quoted: &str, said: &str) -> Option<String> {
    let said = words(said);
    let mut rest = said.as_str();
    for part in quoted.split("\n...\n").map(words).filter(|part| !part.is_empty()) {
        match rest.split_once(&part) {
            Some((_, after)) => rest = after,
            None => return Some(part),
        }
    }
    None
}

#[test]
fn a_quotation_is_held_to_the_output() {
    let said = "WARNING  close-wait\nseen  20 in CLOSE_WAIT: leaky,\n      pid 7";
    assert_eq!(missing("WARNING  close-wait\n...\n12 in CLOSE_WAIT: leaky, pid 9", said), None);
    assert_eq!(missing("CRITICAL  close-wait", said).as_deref(), Some("CRITICAL close-wait"));
    assert_eq!(missing("leaky, pid\n...\nWARNING", said).as_deref(), Some("WARNING"));
}

#[test]
fn words_have_no_numbers() {
    assert_eq!(
        words("WARNING  close-wait\nseen   20 connections (3.5 s)"),
        "WARNING close-wait seen connections s)"
    );
    let found: Vec<_> = blocks("a\n```sh\nx\n```\nb\n```text\ny\n```\n").collect();
    assert_eq!(found, [("sh", "x"), ("text", "y")]);
}

/// Runs a tutorial, and returns the first quotation that its output lacks.
fn lacks(document: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_tcptrace"), at("bin/tcptrace")).unwrap();
    let mut script = "ip link set lo up\n".to_owned();
    let mut count = 0;
    let mut quoted = Vec::new();
    for (language, text) in blocks(document) {
        match language {
            "sh" => {
                count += 1;
                let output = at(&format!("output.{count}"));
                write!(script, "exec >{} 2>&1\n{text}\n", output.display()).unwrap();
            }
            "text" => quoted.push((count, text)),
            _ => {}
        }
    }
    assert!(count > 2 && quoted.len() > 1, "{count} blocks, {} quotations", quoted.len());
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("unshare");
    shell
        .args(["--net", "bash", "-c", &script])
        .current_dir(&directory)
        .env("PATH", format!("{}:{path}", at("bin").display()))
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .process_group(0);
    let mut shell = shell.spawn().unwrap();
    let end = Instant::now() + DEADLINE;
    let ended = loop {
        if shell.try_wait().unwrap().is_some() {
            break true;
        }
        if Instant::now() > end {
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // What it started in the background ends with it; none may be left.
    let _ = killpg(Pid::from_raw(shell.id().try_into().unwrap()), Signal::SIGKILL);
    shell.wait().unwrap();
    let output = |number| fs::read_to_string(at(&format!("output.{number}"))).unwrap_or_default();
    if !ended {
        let so_far: String = (1..=count).map(output).collect();
        return Some(format!("it has not ended after {DEADLINE:?}:\n{so_far}"));
    }
    for (number, text) in quoted {
        let said = output(number);
        if let Some(part) = missing(text, &said) {
            return Some(format!("{part:?}, after its block {number}, which printed:\n{said}"));
        }
    }
    None
}

/// The tutorial runs, and prints what it says.
fn holds(name: &str) {
    if !can_trace() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorials").join(name);
    let document = fs::read_to_string(path).unwrap();
    if let Some(lack) = lacks(&document) {
        panic!("docs/tutorials/{name}: {lack}");
    }
}

#[test]
fn time_wait() {
    holds("time-wait.md");
}

#[test]
fn close_wait() {
    holds("close-wait.md");
}

#[test]
fn port_exhaustion() {
    holds("port-exhaustion.md");
}

#[test]
fn rst_storm() {
    holds("rst-storm.md");
}

#[test]
fn black_hole() {
    holds("black-hole.md");
}

#[test]
fn every_tutorial_has_a_test() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorials");
    let own = include_str!("tutorials.rs");
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(own.contains(&format!("holds(\"{name}\")")), "{name} is run by no test");
    }
}
