//! What each line of a sysctl file would do.
//!
//! ```json
//! {"v":2,"type":"sysctl-file","file":"x.conf","severity":"warning","cut":false,
//!  "lines":[{"line":3,"text":"net.ipv4.tcp_tw_recycle = 1","effect":"nothing","says":"..."}]}
//! ```
//! `effect` is `nothing` (no such sysctl), `default`, `change`, `harm`, `refused`, `other` (not ours
//! to judge) or `bad` (nonsense).

use std::fmt::Write as _;

use serde_json::json;

use crate::wrap::put_wrapped;
use tcptrace_doctor::{finding::Severity, sysctl_file::Judged};

/// Where what is said begins.
const SAYS_AT: usize = 10;

/// The worst of all lines.
pub fn severity(lines: &[Judged]) -> Severity {
    lines.iter().map(|line| line.effect.severity()).max().unwrap_or(Severity::Ok)
}

/// As one JSON object. `cut`: there were more lines than were looked at.
pub fn json(file: &str, lines: &[Judged], cut: bool) -> String {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({"line": line.line, "text": line.text, "effect": line.effect.name(),
                   "says": line.says})
        })
        .collect();
    let object = json!({"v": 2, "type": "sysctl-file", "file": file,
                        "severity": severity(lines).name(), "cut": cut, "lines": rows});
    object.to_string() + "\n"
}

/// For people, in 80 columns.
pub fn text(file: &str, lines: &[Judged], cut: bool) -> String {
    let mut out = String::new();
    if lines.is_empty() {
        put_wrapped(&mut out, &format!("{file}: it sets nothing"), 0);
    }
    for line in lines {
        put_wrapped(&mut out, &format!("line {}: {}", line.line, line.text), 0);
        let _ = write!(out, "  {:8}", line.effect.name());
        put_wrapped(&mut out, &line.says, SAYS_AT);
    }
    if cut {
        put_wrapped(&mut out, "there is more in the file than was looked at", 0);
    }
    out
}
