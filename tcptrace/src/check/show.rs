//! How `tcptrace check` is shown: columns of at most 80 characters, or one JSON object.
//!
//! ```json
//! {"v":2,"type":"check","tcptrace":"0.1.0","kernel":"6.18.5","works":true,"hook":"tp_btf",
//!  "rows":[{"topic":"kernel","name":"BTF","verdict":"ok","found":"/sys/kernel/btf/vmlinux","means":null}]}
//! ```
//! `kernel` and `hook` are null where there is none; `topic` is `kernel`, `privileges`, `hooks` or
//! `truth`; `verdict` is `ok`, `lacks` (not there, which costs what `means` says), `refused` (tried,
//! the kernel's answer in `found`) or `unknown`.

use std::fmt::Write as _;

use serde::Serialize;

use tcptrace_view::wrap::put_wrapped;

use super::{Report, row::Topic};

/// Where the third column begins.
const TEXT_AT: usize = 2 + 19 + 1 + 7 + 1;

/// The report as a JSON object, with a line end.
pub fn json(report: &Report) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        v: u8,
        r#type: &'static str,
        #[serde(flatten)]
        report: &'a Report,
    }
    serde_json::to_string(&Line { v: 2, r#type: "check", report }).map(|line| line + "\n")
}

/// The report as a table.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let verdict = match &report.hook {
        Some(hook) => format!("live tracing works, by {hook}"),
        None => "live tracing does not work".to_owned(),
    };
    let kernel = report.kernel.as_deref().unwrap_or("(unknown)");
    let title = format!("tcptrace {} on Linux {kernel}: {verdict}", report.tcptrace);
    put_wrapped(&mut out, &title, 0);
    let mut topic = None;
    for row in &report.rows {
        if topic.replace(row.topic) != Some(row.topic) {
            // Writing to memory does not fail.
            let _ = write!(out, "\n{}\n", heading(row.topic));
        }
        let _ = write!(out, "  {:19} {:7} ", row.name, row.verdict.name());
        let text = match &row.means {
            Some(means) => format!("{}; {means}", row.found),
            None => row.found.clone(),
        };
        put_wrapped(&mut out, &text, TEXT_AT);
    }
    out
}

const fn heading(topic: Topic) -> &'static str {
    match topic {
        Topic::Kernel => "KERNEL",
        Topic::Privileges => "PRIVILEGES",
        Topic::Hooks => "HOOKS",
        Topic::Truth => "WHAT A TRACE TELLS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Row, Verdict};

    fn report() -> Report {
        let row = |topic, name: &str, verdict, found: &str, means: Option<&str>| Row {
            topic,
            name: name.to_owned(),
            verdict,
            found: found.to_owned(),
            means: means.map(str::to_owned),
        };
        Report {
            tcptrace: "0.1.0".to_owned(),
            kernel: Some("6.1.0-\x1b[31m".to_owned()),
            works: false,
            hook: None,
            rows: vec![
                row(Topic::Kernel, "release", Verdict::Ok, "6.1.0", None),
                row(Topic::Hooks, "tp_btf", Verdict::Refused, &"x".repeat(99), Some("a b")),
                row(
                    Topic::Hooks,
                    "tracepoint",
                    Verdict::Unknown,
                    "words that go on until they no longer fit",
                    Some("and so are wrapped"),
                ),
            ],
        }
    }

    #[test]
    fn the_table_fits_eighty_columns() {
        let x = |count| "x".repeat(count);
        let expected = format!(
            "\
tcptrace 0.1.0 on Linux 6.1.0-\\x1b[31m: live tracing does not work

KERNEL
  release             ok      6.1.0

HOOKS
  tp_btf              refused {}
                              {};
                              a b
  tracepoint          unknown words that go on until they no longer fit; and so
                              are wrapped
",
            x(50),
            x(49)
        );
        assert_eq!(table(&report()), expected);
    }

    #[test]
    fn the_object_is_the_one_that_is_documented() {
        let line = json(&report()).unwrap();
        assert!(line.starts_with(r#"{"v":2,"type":"check","tcptrace":"0.1.0","kernel":"6.1.0-"#));
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["works"], false);
        assert_eq!(object["hook"], serde_json::Value::Null);
        let row = serde_json::json!({
            "topic": "kernel", "name": "release", "verdict": "ok", "found": "6.1.0", "means": null
        });
        assert_eq!(object["rows"][0], row);
        assert!(!line.contains('\x1b'));
    }
}
