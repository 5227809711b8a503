//! One boot under qemu's software emulation, bounded in time, with its log.
//!
//! Must not interpret what the guest says; see `serial`.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::child::bound;

use super::{host, initramfs::quote, serial};

/// More of a log is thrown away: a guest that prints without end must not fill the disk.
const LOG_LIMIT: usize = 64 << 20;

/// The machine that every guest gets.
#[derive(Clone, Debug)]
pub struct Machine {
    /// With one CPU the guest's clock skips idle time; with more it runs in real time.
    pub cpus: u32,
    pub memory_mib: u32,
    /// Wall time after which qemu is killed.
    pub timeout: Duration,
    /// More for the kernel's command line.
    pub append: String,
    /// Whether to show the guest's lines as they come.
    pub echo: bool,
}

/// Where one boot's files are.
#[derive(Clone, Debug)]
pub struct Files {
    pub image: PathBuf,
    pub initramfs: PathBuf,
    /// Written while the guest runs: cleaned of escapes, so that it can be read in a terminal.
    pub log: PathBuf,
}

/// What a boot gave.
#[derive(Debug)]
pub struct Boot {
    pub lines: Vec<String>,
    pub wall: Duration,
    pub timed_out: bool,
    /// What qemu itself said, if anything.
    pub complaint: Option<String>,
}

impl Machine {
    /// Checks that qemu is there.
    pub fn require() -> Result<()> {
        host::require(&[
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("busybox", "busybox-static"),
            ("timeout", "coreutils"),
            ("setpriv", "util-linux"),
        ])
    }

    /// The command line, without the time limit.
    fn qemu(&self, files: &Files) -> Vec<String> {
        // KVM may be there and still fail, in odd ways, where the host is itself a guest.
        let clock: &[&str] = if self.cpus == 1 {
            // The guest's clock counts instructions and jumps over idle time, so that a TIME_WAIT
            // of 60 s passes at once. 4 ns each, about what emulation takes, and fixed: with
            // `shift=auto` the guest's CPU is the slower the busier the host is, down to one on
            // which timeouts come before what they wait for.
            &["-accel", "tcg", "-icount", "shift=2,sleep=off"]
        } else {
            &["-accel", "tcg,thread=multi"]
        };
        let mut append =
            "console=ttyS0 quiet panic=-1 rdinit=/init nokaslr mitigations=off".to_owned();
        if !self.append.is_empty() {
            append.push(' ');
            append.push_str(&self.append);
        }
        let mut line = vec!["qemu-system-x86_64".to_owned()];
        line.extend(clock.iter().map(|word| (*word).to_owned()));
        line.extend(
            [
                "-M",
                "q35",
                "-cpu",
                // Without the fast REP MOVSB: emulation does it byte by byte, and a tenth of a
                // guest's time was `clear_page_erms`. The kernel has loops for CPUs that lack it.
                "max,erms=off,fsrm=off",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-nic",
                "none",
                "-serial",
                "stdio",
                "-no-reboot",
            ]
            .map(str::to_owned),
        );
        for (option, value) in [
            ("-smp", self.cpus.to_string()),
            ("-m", self.memory_mib.to_string()),
            ("-kernel", files.image.to_string_lossy().into_owned()),
            ("-initrd", files.initramfs.to_string_lossy().into_owned()),
            ("-append", append),
        ] {
            line.extend([option.to_owned(), value]);
        }
        line
    }

    /// Writes a script that does the same boot by hand.
    pub fn write_script(&self, files: &Files, script: &Path) -> Result<()> {
        let words: Vec<_> = self.qemu(files).iter().map(|word| quote(word)).collect();
        fs::write(script, format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" ")))
            .with_context(|| format!("cannot write {}", script.display()))
    }

    /// Boots, and waits for the end of the guest or of its time.
    ///
    /// # Errors
    ///
    /// If qemu cannot be started or the log cannot be written. What happens in the guest is not
    /// an error here.
    pub fn boot(&self, label: &str, files: &Files) -> Result<Boot> {
        let mut log = File::create(&files.log)
            .with_context(|| format!("cannot write {}", files.log.display()))?;
        let start = Instant::now();
        // `timeout` keeps the limit, and hands on the signal that it gets when this process is
        // gone. `--foreground` lets Ctrl-C reach qemu.
        let mut child = bound("timeout", "TERM")
            .args(["--foreground", "--signal=KILL"])
            .arg(self.timeout.as_secs().max(1).to_string())
            .args(self.qemu(files))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64")?;
        let (serial, stderr) = (child.stdout.take(), child.stderr.take());
        let prefix = self.echo.then_some(label);
        let (lines, complaint) = std::thread::scope(|scope| {
            let complaint = scope.spawn(|| {
                let mut text = String::new();
                // What qemu says is a help, not a result.
                if let Some(stderr) = stderr {
                    let _ = stderr.take(64 << 10).read_to_string(&mut text);
                }
                text
            });
            let lines = match serial {
                Some(serial) => copy(serial, &mut log, prefix),
                None => Ok(Vec::new()),
            };
            (lines, complaint.join().unwrap_or_default())
        });
        let status = child.wait().context("cannot wait for qemu")?;
        let lines = lines.with_context(|| format!("cannot write {}", files.log.display()))?;
        let wall = start.elapsed();
        let complaint = complaint
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty())
            .map(str::to_owned)
            .or_else(|| (!status.success()).then(|| status.to_string()));
        Ok(Boot { lines, wall, timed_out: wall >= self.timeout, complaint })
    }
}

/// Copies the serial port to the log, line by line, and returns the lines.
///
/// Reads to the end even if the log cannot be written: the guest would stall on a full pipe.
fn copy(serial: impl Read, log: &mut File, echo: Option<&str>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut result = Ok(());
    let mut written = 0;
    let mut reader = BufReader::new(serial);
    let mut raw = Vec::new();
    // A "line" of a guest that prints no newline is cut.
    while reader.by_ref().take(64 << 10).read_until(b'\n', &mut raw)? > 0 {
        let line = serial::clean(&raw);
        raw.clear();
        if let Some(label) = echo {
            // Nothing depends on whether anybody reads this.
            let _ = writeln!(io::stderr().lock(), "{label:>8} | {line}");
        }
        if written <= LOG_LIMIT && result.is_ok() {
            written += line.len() + 1;
            result = writeln!(log, "{line}");
            lines.push(line);
            if written > LOG_LIMIT && result.is_ok() {
                result = writeln!(log, "(the rest is not kept: the log has {LOG_LIMIT} bytes)");
            }
        }
    }
    result.map(|()| lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: u32) -> Machine {
        let timeout = Duration::from_secs(9);
        Machine { cpus, memory_mib: 512, timeout, append: "x=1".into(), echo: false }
    }

    fn files(dir: &Path) -> Files {
        let file = |name| dir.join(name);
        Files { image: file("vmlinuz"), initramfs: file("initramfs"), log: file("log") }
    }

    #[test]
    fn emulation_is_forced_and_the_clock_is_chosen_by_the_cpus() {
        let files = files(Path::new("/x"));
        let one = machine(1).qemu(&files).join(" ");
        assert!(one.contains("-accel tcg -icount shift=2,sleep=off"), "{one}");
        assert!(one.ends_with("mitigations=off x=1"), "{one}");
        let two = machine(2).qemu(&files).join(" ");
        assert!(two.contains("-accel tcg,thread=multi") && two.contains("-smp 2"), "{two}");
        assert!(!two.contains("icount"), "{two}");
    }

    #[test]
    fn the_log_is_clean_and_complete_to_its_unfinished_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = File::create(&path).unwrap();
        let raw: &[u8] = b"\x1b[2Jone\r\ntwo\r\ntest x ... ";
        let lines = copy(raw, &mut log, None).unwrap();
        assert_eq!(lines, ["one", "two", "test x ... "]);
        assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\ntest x ... \n");
    }
}
