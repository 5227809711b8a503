//! What every command prints as JSON is what `docs/tcptrace.schema.json` says. Of recordings, so that it
//! takes no kernel; the cli tests hold all that they see to the same schema.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::validator;

/// What has JSON of a recording, as it is typed.
const COMMANDS: &[&str] = &[
    "live",
    "states",
    "states 1",
    "states --by owner",
    "states --by netns 1",
    "hist",
    "hist 1 --by port",
    "hist --steps",
    "closers",
    "closers 1 --by peer",
    "conns --open",
    "conns --no-time-wait",
    "ports",
    "ports 1",
    "stuck --older 0",
    "stuck 1 --by peer",
    "doctor",
    "live --rate-limit 1",
];

/// What has JSON and reads no recording.
const HERE: &[&str] = &["check", "doctor --sysctl-file"];

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/v1.tcptrace")
}

/// The types of the lines that `command` prints.
fn types(command: &str, more: &[&str]) -> BTreeSet<String> {
    let run = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .args(command.split(' '))
        .args(more)
        .args(["-o", "json"])
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(!text.is_empty(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    text.lines().map(validator::check).collect()
}

#[test]
fn all_json_is_what_the_schema_says() {
    let file = recording();
    let mut seen = BTreeSet::new();
    for command in COMMANDS {
        seen.append(&mut types(command, &["-r", file.to_str().unwrap()]));
    }
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("x.conf");
    fs::write(&conf, "net.ipv4.tcp_tw_recycle = 1\nnonsense\n").unwrap();
    seen.append(&mut types("doctor --sysctl-file", &[conf.to_str().unwrap()]));
    seen.append(&mut types("check", &[]));
    // A damaged block is a gap.
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x55;
    let damaged = directory.path().join("damaged.tcptrace");
    fs::write(&damaged, bytes).unwrap();
    seen.append(&mut types("live", &["-r", damaged.to_str().unwrap()]));
    // Losses are in no recording here: the cli tests have them.
    let rare = BTreeSet::from(["lost", "missed"].map(str::to_owned));
    let seen: BTreeSet<&str> = seen.union(&rare).map(String::as_str).collect();
    assert_eq!(seen, validator::types(), "types that were seen, and those of the schema");
}

#[test]
fn every_command_that_has_json_is_held_to_the_schema() {
    let tried: BTreeSet<&str> =
        COMMANDS.iter().chain(HERE).filter_map(|command| command.split(' ').next()).collect();
    for command in tcptrace::cli::command().get_subcommands() {
        let has_json = command.get_arguments().any(|argument| {
            argument.get_long() == Some("output")
                && argument.get_possible_values().iter().any(|value| value.get_name() == "json")
        });
        assert_eq!(has_json, tried.contains(command.get_name()), "{}", command.get_name());
    }
}

#[test]
#[should_panic(expected = "surprise")]
fn a_key_that_the_schema_does_not_have_is_found() {
    validator::check(r#"{"v":2,"type":"missed","count":1,"mono_ns":"5","surprise":1}"#);
}
