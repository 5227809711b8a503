//! Files that are written: nothing is overwritten, followed or shown to others unasked.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
};

use crate::run::{Running, can_trace, run, tcptrace};

const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.tcptrace");

/// Each command that writes a file, without its name.
const WRITERS: [&[&str]; 9] = [
    &["live", "-r", V1, "--out"],
    &["conns", "-r", V1, "--out"],
    &["states", "-r", V1, "--out"],
    &["hist", "-r", V1, "--out"],
    &["closers", "-r", V1, "--out"],
    &["stuck", "-r", V1, "--out"],
    &["ports", "-r", V1, "--out"],
    &["export", "-r", V1, "--format", "csv", "--out"],
    &["report", "-r", V1, "--out"],
];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn nothing_is_overwritten_without_force_and_no_link_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let (precious, link, out) = (place("precious"), place("link"), place("out"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &link).unwrap();
    let nowhere = place("nowhere");
    symlink(place("made"), &nowhere).unwrap();
    for writer in WRITERS {
        for (path, force, says) in [
            (&precious, false, "exists"),
            (&link, false, "is a symbolic link"),
            (&link, true, "is a symbolic link"),
            (&nowhere, true, "is a symbolic link"),
        ] {
            let force = &["--force"][..usize::from(force)];
            let ended = run(tcptrace(&[writer, &[text(path)], force].concat()));
            assert!(ended.refusal(1).contains(says), "{writer:?} {ended:?}");
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{writer:?}");
        assert!(!place("made").exists());
        // A file of its own, for nobody else; another name of it keeps what it was.
        let _ = fs::remove_file(&out);
        for force in [false, true] {
            let force = &["--force"][..usize::from(force)];
            let ended = run(tcptrace(&[writer, &[text(&out)], force].concat()));
            assert_eq!(ended.code, Some(0), "{writer:?} {ended:?}");
            let metadata = fs::metadata(&out).unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o600, "{writer:?}");
            assert!(metadata.len() > 0, "{writer:?}");
            let other = place("other");
            let _ = fs::remove_file(&other);
            fs::hard_link(&out, &other).unwrap();
        }
    }
}

#[test]
fn what_is_read_is_never_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("rec.tcptrace");
    fs::copy(V1, &recording).unwrap();
    let other = directory.path().join("other-name");
    fs::hard_link(&recording, &other).unwrap();
    let before = fs::read(&recording).unwrap();
    for writer in WRITERS {
        let mut arguments = writer.to_vec();
        let at = arguments.iter().position(|word| *word == V1).unwrap();
        arguments[at] = text(&recording);
        for path in [&recording, &other] {
            let ended = run(tcptrace(&[&arguments[..], &[text(path), "--force"]].concat()));
            assert!(ended.refusal(1).contains("is what is read"), "{writer:?} {ended:?}");
            assert_eq!(fs::read(&recording).unwrap(), before, "{writer:?}");
        }
    }
    // As stdout, too.
    let mut command = tcptrace(&["live", "-r", text(&recording)]);
    command.stdout(fs::File::options().append(true).open(&recording).unwrap());
    let ended = Running::start_with_stdout(&mut command).end();
    assert!(ended.code == Some(1) && ended.stderr.contains("is what is read"), "{ended:?}");
    assert_eq!(fs::read(&recording).unwrap(), before);
}

#[test]
fn kernel_addresses_are_exported_only_when_asked_for() {
    let of = |more: &[&str]| {
        let arguments = ["export", "-r", V1, "--format", "ndjson", "--out", "-"];
        let ended = run(tcptrace(&[&arguments[..], more].concat()));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.text().to_owned()
    };
    assert!(!of(&[]).contains("\"0x"));
    let asked = of(&["--kernel-addresses"]);
    assert!(asked.contains(r#""skaddr":"0x"#), "{asked}");
    // Numbers that a double does not hold are text, as in the JSON of live.
    let line: serde_json::Value = serde_json::from_str(asked.lines().next().unwrap()).unwrap();
    for name in ["mono_ns", "time_ns", "conn"] {
        assert!(line[name].is_string(), "{name}: {line}");
    }
    assert!(line["cookie"].is_string() || line["cookie"].is_null(), "{line}");
}

#[test]
fn a_recording_follows_no_planted_link_in_any_of_its_files() {
    if !can_trace() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let precious = place("precious");
    fs::write(&precious, "precious").unwrap();
    for (plant, arguments) in [
        ("rec", &["record", "--duration", "0.1"][..]),
        ("rec.000001", &["record", "--duration", "0.1", "--rotate", "1s"]),
        ("rec", &["live", "--duration", "0.1", "--save"]),
    ] {
        for force in [false, true] {
            let link = place(plant);
            symlink(&precious, &link).unwrap();
            let force = &["--force"][..usize::from(force)];
            let ended = run(tcptrace(&[arguments, &[text(&place("rec"))], force].concat()));
            assert_eq!(ended.code, Some(1), "{arguments:?} {ended:?}");
            fs::remove_file(&link).unwrap();
        }
    }
    // The second file of a rotation, planted while the first is written: it ends there.
    symlink(&precious, place("rot.000002")).unwrap();
    let base = place("rot");
    let arguments = ["record", text(&base), "--rotate", "1s", "--duration", "30"];
    let refused = run(tcptrace(&arguments));
    assert!(refused.stderr.contains("exists"), "one that is there before: {refused:?}");
    fs::remove_file(place("rot.000002")).unwrap();
    let running = Running::listening(&mut tcptrace(&arguments));
    symlink(&precious, place("rot.000002")).unwrap();
    let ended = running.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("is a symbolic link"), "{ended:?}");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(fs::metadata(place("rot.000001")).unwrap().mode() & 0o777, 0o600);
}
