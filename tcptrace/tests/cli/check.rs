//! `tcptrace check`.

use serde_json::Value;

use crate::{
    host::Unprivileged,
    run::{Ended, can_trace, run, tcptrace},
};

fn object(ended: &Ended) -> Value {
    assert_eq!((ended.stderr.as_str(), ended.text().lines().count()), ("", 1), "{ended:?}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut rows = report["rows"].as_array().unwrap().iter();
    rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

fn assert_fits(ended: &Ended) {
    let text = ended.text();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\x1b') && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn where_tracing_works_it_says_by_what_and_ends_with_0() {
    if !can_trace() {
        return;
    }
    let table = run(tcptrace(&["check"]));
    assert_eq!(table.code, Some(0));
    assert_fits(&table);
    assert!(table.text().lines().next().unwrap().contains("live tracing works, by t"));

    let ended = run(tcptrace(&["check", "-o", "json"]));
    assert_eq!(ended.code, Some(0));
    let report = object(&ended);
    assert_eq!((&report["v"], &report["type"]), (&2.into(), &"check".into()));
    assert_eq!(report["works"], true);
    let hook = report["hook"].as_str().unwrap();
    assert_eq!(row(&report, hook)["verdict"], "ok");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(report["kernel"], release.trim_end());
    for name in ["BTF", "tracefs", "ring buffers", "lockdown", "CAP_BPF", "CAP_SYSLOG", "TIME_WAIT"]
    {
        let row = row(&report, name);
        assert!(row["found"].is_string() && row["topic"].is_string(), "{row}");
    }
}

#[test]
fn a_user_without_capabilities_gets_the_whole_report_and_1() {
    let unprivileged = Unprivileged::new();
    let table = run(unprivileged.tcptrace(&["check"]));
    assert_eq!(table.code, Some(1));
    assert_fits(&table);
    assert!(table.text().lines().next().unwrap().ends_with("live tracing does not work"));

    let ended = run(unprivileged.tcptrace(&["check", "-o", "json"]));
    assert_eq!(ended.code, Some(1));
    let report = object(&ended);
    assert_eq!((&report["works"], &report["hook"]), (&false.into(), &Value::Null));
    for name in ["CAP_BPF", "CAP_PERFMON"] {
        assert_eq!(row(&report, name)["verdict"], "lacks");
    }
    for hook in ["tp_btf", "tracepoint"] {
        let row = row(&report, hook);
        assert_eq!(row["verdict"], "refused");
        assert!(row["found"].as_str().unwrap().contains("CAP_BPF and CAP_PERFMON"), "{row}");
    }
}
