//! Who is measured, by which command line.

use std::{
    ffi::OsString,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    targets::Names,
    tracer::{Says, Tracer},
};
use xtask::sh;

/// The floor program.
const FLOOR: &str = "floor";
/// Every transition, as JSON to a file.
const JSON: &str = "tcptrace live -o json";
/// A view that only counts.
const STATES: &str = "tcptrace states";
/// What stands in for it where this tcptrace has none: every transition goes all the way but for
/// its formatting.
const LISTEN: &str = "tcptrace live --state listen";
/// libbpf-tools' program that does nearly the same.
const TCPSTATES: &str = "tcpstates";

/// What is compared, and who of them the targets are set for. One that this host or this tcptrace
/// lacks is left out with a note.
pub fn contest(xtask: &Path, tcptrace: &Path, notes: &mut Vec<String>) -> (Vec<Tracer>, Names) {
    let command = |program: &Path, args: &[&str]| {
        [program.into()].into_iter().chain(args.iter().map(OsString::from)).collect()
    };
    let mut tracers = vec![
        Tracer { name: FLOOR, command: command(xtask, &["bench", "floor"]), says: Says::Floor },
        Tracer {
            name: JSON,
            command: command(tcptrace, &["live", "-o", "json"]),
            says: Says::Summary,
        },
    ];
    let (aggregate, args): (_, &[&str]) = if has_states(tcptrace) {
        (STATES, &["states", "-o", "json", "1"])
    } else {
        notes.push(format!("{LISTEN} stands in for {STATES}, which this tcptrace has not"));
        (LISTEN, &["live", "-o", "json", "--state", "listen"])
    };
    let command_line = command(tcptrace, args);
    tracers.push(Tracer { name: aggregate, command: command_line, says: Says::Summary });
    match find_tcpstates() {
        Some(path) => tracers.push(Tracer {
            name: TCPSTATES,
            command: command(&path, &[]),
            says: Says::Lines,
        }),
        None => notes.push(format!(
            "{TCPSTATES} is not installed (Debian: libbpf-tools) and so not compared"
        )),
    }
    (tracers, Names { floor: FLOOR, json: JSON, aggregate })
}

fn has_states(tcptrace: &Path) -> bool {
    let mut help = Command::new(tcptrace);
    help.args(["states", "--help"]).stdout(Stdio::null()).stderr(Stdio::null());
    help.status().is_ok_and(|status| status.success())
}

/// That of libbpf-tools, a compiled program; bcc has a script of that name.
fn find_tcpstates() -> Option<PathBuf> {
    let path = sh::which(TCPSTATES)?;
    let mut magic = [0; 4];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut magic));
    (read.is_ok() && magic == *b"\x7fELF").then_some(path)
}
