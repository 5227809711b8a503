//! Python with packages of PyPI, for what only others' programs can say.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

pub fn skipped(why: &str) {
    // Not by eprintln!, which libtest keeps to itself when the test passes.
    io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// A Python with `packages`, as pip has them, made below `target` under `name` once; `None`, and a
/// word that the test is skipped, where there is none or no way to PyPI.
pub fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = venv.join("bin/python");
    let stamp = venv.join("engines");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == packages.join("\n")) {
        return Some(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    for (command, what) in [(&mut make, "python3 -m venv"), (&mut install, "pip install")] {
        match command.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().last().unwrap_or_default();
                skipped(&format!("{what} does not work here: {last}"));
                return None;
            }
            Err(error) => {
                skipped(&format!("{what}: {error}"));
                return None;
            }
        }
    }
    fs::write(stamp, packages.join("\n")).unwrap();
    Some(python)
}
