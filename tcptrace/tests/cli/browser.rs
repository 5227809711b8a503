//! Debian's Chromium without a window.

use std::{
    io,
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use crate::run::DEADLINE;

/// Shows `url`, and gives what it prints and what it says; `None`, and a word that the test is skipped, where there is none.
pub fn browser(url: &str, width: u32, dark: bool, more: &[&str]) -> Option<(String, String)> {
    let profile = tempfile::tempdir().unwrap();
    let scheme = if dark { 0 } else { 1 };
    let start = Instant::now();
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--no-first-run", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .args(more)
        .arg(url)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            assert!(start.elapsed() < DEADLINE * 6, "{:?}", start.elapsed());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Some((text(&output.stdout), text(&output.stderr)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Not by eprintln!, which libtest keeps to itself when the test passes.
            io::stderr().write_all(b"skipped: chromium is not installed\n").unwrap();
            None
        }
        Err(error) => panic!("chromium: {error}"),
    }
}

/// What a page says in its text.
pub fn unescaped(html: &str) -> String {
    html.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&")
}

/// What the console says of the page; not what it says of the browser's own.
pub fn spoken(console: &str) -> Vec<&str> {
    let of_page = |line: &&str| line.contains("CONSOLE") && !line.contains("source: chrome://");
    console.lines().filter(of_page).collect()
}
