//! Recordings that have lost a part: whatever is made of one says so, with the time that it is about.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::Value;
use tcptrace::{
    model::{Accounts, Input, script},
    record::{Every, Header, NewFile, Rotation, Tap, parts},
};

use crate::run::{Ended, run, tcptrace};

/// A recording of 20 seconds in several files, and how many events are in it.
pub fn rotation(base: &Path) -> u64 {
    let header = Header {
        host: "web1".to_owned(),
        run: "boot/1/2".to_owned(),
        part: 1,
        realtime_offset_ns: 1_795_330_800_000_000_000,
        ..Header::default()
    };
    let rotation = Rotation { every: Every::Bytes(2 << 10), keep: None };
    let files = NewFile::open(base, false, Some(rotation)).unwrap().begin(header).unwrap();
    let mut tap = Tap::start(files).unwrap();
    let mut text = String::from(
        "0ms begin\n0ms clock 1795330800000000000\n0ms snapshot open\n0ms snapshot 5\n\
         0ms snapshot end\n0ms snapshot over\n0ms tick\n",
    );
    let mut events = 0;
    for n in 0..2_000_u32 {
        let (ms, port) = (n * 10 + 1, 1024 + n);
        // Cookies that zstd cannot make small.
        let cookie = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        text += &format!(
            "{ms}ms sk={cookie:x} CLOSE>SYN_SENT 10.0.0.1:0 10.0.0.2:443 pid=7 comm=app netns=5\n\
             {ms}.2ms sk={cookie:x} SYN_SENT>CLOSE 10.0.0.1:{port} 10.0.0.2:443 netns=5 err=111\n\
             {ms}.5ms tick\n",
        );
        events += 2;
    }
    text += "20002ms snapshot open\n20002ms snapshot 5\n20002ms snapshot end\n\
             20002ms snapshot over\n20003ms tick\n";
    script::inputs(&text).unwrap().iter().for_each(|input| tap.put(input));
    tap.put(&Input::End(Accounts {
        mono_ns: 20_010_000_000,
        seconds: 20.01,
        seen: events,
        delivered: events,
        ..Accounts::default()
    }));
    tap.finish().unwrap();
    events
}

struct Holed {
    _directory: tempfile::TempDir,
    base: PathBuf,
    events: u64,
}

/// Such a recording with a gap: a file is missing, or a bit is flipped.
fn holed(damaged: bool) -> Holed {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("rec");
    let events = rotation(&base);
    let files = parts(&base);
    assert!(files.len() > 5, "{files:?}");
    let file = &files[files.len() / 2];
    if damaged {
        let mut bytes = fs::read(file).unwrap();
        // In the contents of its last block.
        let at = bytes.len() - 5;
        bytes[at] ^= 4;
        fs::write(file, bytes).unwrap();
    } else {
        fs::remove_file(file).unwrap();
    }
    Holed { _directory: directory, base, events }
}

fn of(holed: &Holed, arguments: &[&str]) -> Ended {
    run(tcptrace(&[arguments, &["-r", holed.base.to_str().unwrap()]].concat()))
}

#[test]
fn a_gap_is_in_every_artefact() {
    for damaged in [false, true] {
        let holed = holed(damaged);
        let because = if damaged { "damaged" } else { "missing-file" };
        // JSON: where it is, and at the end what is known of it. All of the rest is there.
        let ended = of(&holed, &["live", "-o", "json"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("nothing is known from 2026-11-22T07:00:"), "{ended:?}");
        assert!(ended.stderr.contains("the recording has 1 gaps"), "{ended:?}");
        let lines: Vec<Value> =
            ended.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let gaps: Vec<_> = lines.iter().filter(|line| line["type"] == "gap").collect();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        assert_eq!(gaps[0]["because"], because);
        let seconds = gaps[0]["seconds"].as_f64().unwrap();
        assert!(seconds > 0.1 && seconds < 10.0, "{gaps:?}");
        let there = lines.iter().filter(|line| line["type"] == "transition").count() as u64;
        let summary = lines.last().unwrap();
        assert_eq!(summary["type"], "summary");
        assert_eq!((&summary["gaps"], &summary["complete"]), (&1.into(), &false.into()));
        assert_eq!(summary["gap_seconds"].as_f64(), Some(seconds));
        assert_eq!(summary["lost"], holed.events - there, "{summary}");
        assert!(there < holed.events && there > holed.events / 2, "{there}");
        let last = lines.iter().rfind(|line| line["type"] == "transition").unwrap();
        assert_eq!(last["lport"], 1024 + 1999, "read to its end");

        // The table and CSV.
        let table = of(&holed, &["live"]);
        assert!(table.text().contains("\n... nothing is known for "), "{because}");
        let csv = of(&holed, &["live", "-o", "csv"]);
        let rows: Vec<Vec<&str>> =
            csv.text().lines().map(|line| line.split(',').collect()).collect();
        let columns = rows[0].len();
        assert_eq!(rows[0][columns - 2..], ["lost", "gap_ms"]);
        let losses: Vec<_> = rows[1..].iter().filter(|row| !row[columns - 1].is_empty()).collect();
        assert_eq!(losses.len(), 1, "{losses:?}");
        assert_eq!(losses[0].len(), columns);
        let ms: f64 = losses[0][columns - 1].parse().unwrap();
        assert!((ms - 1e3 * seconds).abs() < 2.0, "{losses:?}");

        // Every view: a line of it, and the exit code.
        for view in ["conns", "hist", "closers", "states", "stuck", "ports"] {
            for (format, says) in [("table", "nothing is known for"), ("json", r#""type":"gap""#)] {
                let arguments =
                    [&[view, "-o", format][..], &["1"][..usize::from(view == "states")]];
                let ended = of(&holed, &arguments.concat());
                assert_eq!(ended.code, Some(1), "{view}: {ended:?}");
                assert!(ended.text().contains(says), "{view} {format}: {}", ended.text());
            }
        }
        let doctor = of(&holed, &["doctor", "-o", "json"]);
        assert_ne!(doctor.code, Some(0), "{doctor:?}");
        let said: Value = serde_json::from_str(doctor.text()).unwrap();
        assert_eq!(said["lossy"], true);

        // Files are written all the same.
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.html");
        let report = of(&holed, &["report", "--out", page.to_str().unwrap()]);
        assert_eq!(report.code, Some(1), "{report:?}");
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains("Nothing is known of:"), "{page}");
        assert!(!page.contains("No event is missing"));
        let table = directory.path().join("t.parquet");
        let export = of(&holed, &["export", "--out", table.to_str().unwrap()]);
        assert_eq!(export.code, Some(1), "{export:?}");
        let reader = SerializedFileReader::new(File::open(table).unwrap()).unwrap();
        let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let value = |name: &str| {
            metadata.iter().find(|it| it.key == name).and_then(|it| it.value.clone()).unwrap()
        };
        assert_eq!(value("tcptrace.lost"), (holed.events - there).to_string());
        assert_eq!(
            (value("tcptrace.gaps"), value("tcptrace.complete")),
            ("1".into(), "false".into())
        );
        let spans: Value = serde_json::from_str(&value("tcptrace.gap_spans")).unwrap();
        assert_eq!(spans[0]["because"], because);
        assert_eq!(spans[0]["mono_ns"], gaps[0]["mono_ns"]);
    }
}

#[test]
fn a_recording_with_nothing_missing_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("rec");
    let events = rotation(&base);
    let holed = Holed { _directory: directory, base, events };
    let ended = of(&holed, &["live", "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let summary: Value = serde_json::from_str(ended.text().lines().last().unwrap()).unwrap();
    assert_eq!((&summary["gaps"], &summary["complete"]), (&0.into(), &true.into()));
    assert_eq!((&summary["delivered"], &summary["lost"]), (&events.into(), &0.into()));
    // Without its beginning it is whole, as far as it goes.
    fs::remove_file(&parts(&holed.base)[0]).unwrap();
    let ended = of(&holed, &["live", "-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("begins with file 2 of its run"), "{ended:?}");
    let summary: Value = serde_json::from_str(ended.text().lines().last().unwrap()).unwrap();
    assert_eq!((&summary["gaps"], &summary["complete"]), (&0.into(), &false.into()));
}
