//! Kernels in, reports out: fetches, boots and judges them, some at a time.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    boot::{Boot, Files, Machine},
    cache::{Cache, Fetched},
    guest::Guest,
    kernel::Kernel,
    line::Line,
    report::{Report, Run, State},
    serial::{self, End, Transcript},
};

/// One kernel to run.
#[derive(Debug)]
pub enum Wanted {
    Line(Line),
    /// One's own, with a name that is its alone.
    Own(String, Kernel),
    /// One's own, but not usable: a name, and why.
    Bad(String, String),
}

/// All that the boots of one run share.
pub struct Session {
    pub machine: Machine,
    /// Guests at a time; `None` for as many as the host has cores for.
    pub jobs: Option<u32>,
    /// Kernel modules that the guests load.
    pub modules: Vec<String>,
    /// For kernels by line; not needed for one's own.
    pub cache: Option<Cache>,
    pub guest: Guest,
    /// Where the logs go, one directory a kernel.
    pub out: PathBuf,
    /// Whether what was booted stays beside the log.
    pub keep: bool,
}

impl Session {
    /// Fetches and boots, some at a time; the reports are in the order of `wanted`.
    pub fn run_all(&self, wanted: &[Wanted]) -> Vec<Report> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = cores / usize::try_from(self.machine.cpus).unwrap_or(1);
        let jobs = self.jobs.map_or(fitting, |jobs| usize::try_from(jobs).unwrap_or(1));
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, wanted.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(kernel) = wanted.get(index) else { break };
                        let report = self.run_one(kernel);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, report));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, report)| report).collect()
    }

    fn run_one(&self, wanted: &Wanted) -> Report {
        let mut report = Report {
            label: match wanted {
                Wanted::Line(line) => line.to_string(),
                Wanted::Own(name, _) | Wanted::Bad(name, _) => name.clone(),
            },
            release: None,
            state: State::Broken("not tried".to_owned()),
            notes: Vec::new(),
        };
        report.state = self
            .try_one(wanted, &mut report)
            .unwrap_or_else(|error| State::Broken(format!("{error:#}")));
        report
    }

    fn try_one(&self, wanted: &Wanted, report: &mut Report) -> Result<State> {
        let (kernel, lock) = match wanted {
            Wanted::Own(_, kernel) => (kernel.clone(), None),
            Wanted::Bad(_, why) => bail!("{why}"),
            Wanted::Line(line) => {
                let cache = self.cache.as_ref().context("no cache was opened")?;
                match cache.get(*line) {
                    Err(error) => return Ok(State::NotFetched(format!("{error:#}"))),
                    Ok(Fetched::NotAvailable(why)) => return Ok(State::NotAvailable(why)),
                    Ok(Fetched::Kernel { kernel, note, lock }) => {
                        report.notes.extend(note);
                        (kernel, Some(lock))
                    }
                }
            }
        };
        report.release = Some(kernel.release.clone());
        let (modules, missing) = kernel.modules(&self.modules)?;
        if !missing.is_empty() {
            report.notes.push(format!("no module {} (perhaps built in)", missing.join(", ")));
        }

        let suffix = if self.machine.cpus == 1 {
            String::new()
        } else {
            format!("-smp{}", self.machine.cpus)
        };
        let dir = self.out.join(format!("{}{suffix}", report.label));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let files = Files {
            image: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs.cpio"),
            log: dir.join("log"),
        };
        let nonce = nonce()?;
        fs::copy(&kernel.image, &files.image)
            .with_context(|| format!("cannot copy {}", kernel.image.display()))?;
        fs::write(&files.initramfs, self.guest.initramfs(&modules, &nonce)?)
            .with_context(|| format!("cannot write {}", files.initramfs.display()))?;
        // From here on the cached files are not needed.
        drop(lock);

        self.progress(report, "booting");
        let boot = self.machine.boot(&report.label, &files)?;
        if self.keep {
            self.machine.write_script(&files, &dir.join("boot.sh"))?;
        } else {
            for file in [&files.image, &files.initramfs] {
                fs::remove_file(file)
                    .with_context(|| format!("cannot remove {}", file.display()))?;
            }
        }
        let run = self.judge(boot, &nonce, files.log);
        self.progress(report, &format!("ended after {:.1} s", run.wall.as_secs_f64()));
        Ok(State::Ran(run))
    }

    fn judge(&self, boot: Boot, nonce: &str, log: PathBuf) -> Run {
        let transcript = serial::read(boot.lines.iter().map(String::as_str), nonce);
        let trouble = trouble(&transcript, &boot, self.machine.timeout);
        let excerpt = if trouble.is_some() { excerpt(&boot.lines) } else { Vec::new() };
        Run { transcript, wall: boot.wall, trouble, log, excerpt }
    }

    fn progress(&self, report: &Report, what: &str) {
        let release = report.release.as_deref().unwrap_or("-");
        // Nothing depends on whether anybody reads this.
        let _ = writeln!(io::stderr().lock(), "vm-test: {release}: {what}");
    }
}

/// From where the kernel complains, else the end.
fn excerpt(lines: &[String]) -> Vec<String> {
    const LINES: usize = 15;
    const COMPLAINTS: &[&str] = &["BUG: ", "Oops: ", "WARNING: ", "Kernel panic"];
    let complaint = lines.iter().position(|line| COMPLAINTS.iter().any(|mark| line.contains(mark)));
    let written = |line: &&String| !line.trim().is_empty();
    match complaint {
        Some(from) => lines[from..].iter().filter(written).take(LINES).cloned().collect(),
        None => {
            let mut end: Vec<_> = lines.iter().rev().filter(written).take(LINES).cloned().collect();
            end.reverse();
            end
        }
    }
}

/// What went wrong with a guest, apart from tests that failed and said so.
fn trouble(transcript: &Transcript, boot: &Boot, timeout: Duration) -> Option<String> {
    let failed = transcript.tests.iter().any(|test| test.outcome == serial::Outcome::Failed);
    let qemu = boot.complaint.as_deref().unwrap_or("nothing");
    match &transcript.end {
        End::Panicked(message) => Some(format!("kernel panic: {message}")),
        End::Silent if boot.timed_out => {
            Some(format!("hung: killed after {} s", timeout.as_secs()))
        }
        End::Silent if boot.lines.is_empty() => Some(format!("did not boot; qemu says: {qemu}")),
        End::Silent => Some(format!("ended before its time; qemu says: {qemu}")),
        End::Exited { .. } if !transcript.faults.is_empty() => {
            Some("the kernel reported a fault of its own".to_owned())
        }
        End::Exited { .. } if transcript.mismatch.is_some() => transcript.mismatch.clone(),
        End::Exited { status: 0, .. } => None,
        End::Exited { status: 101, .. } if failed => None,
        End::Exited { status, .. } => Some(format!("the program ended with status {status}")),
    }
}

/// What a guest cannot guess.
fn nonce() -> Result<String> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(lines: &[&str], timed_out: bool, complaint: Option<&str>) -> Boot {
        Boot {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            wall: Duration::ZERO,
            timed_out,
            complaint: complaint.map(str::to_owned),
        }
    }

    fn judge(boot: &Boot) -> Option<String> {
        let transcript = serial::read(boot.lines.iter().map(String::as_str), "n");
        trouble(&transcript, boot, Duration::from_secs(9))
    }

    #[test]
    fn only_the_sentinel_with_zero_is_a_success() {
        assert_eq!(judge(&boot(&["test a ... ok", "@@vm-exit n 0 1.0"], false, None)), None);
        for (lines, timed_out, complaint, expected) in [
            (&["@@vm-exit n 3 1.0"][..], false, None, "the program ended with status 3"),
            (&["@@vm-exit n 101 1.0"], false, None, "the program ended with status 101"),
            (&["booting"], true, None, "hung: killed after 9 s"),
            (&["booting"], false, None, "ended before its time; qemu says: nothing"),
            (&[], false, Some("bad image"), "did not boot; qemu says: bad image"),
            (&["Kernel panic - not syncing: x"], false, None, "kernel panic: x"),
            (
                &["@@vm-dmesg begin", "WARNING: y", "@@vm-dmesg end", "@@vm-exit n 0 1.0"],
                false,
                None,
                "the kernel reported a fault of its own",
            ),
        ] {
            assert_eq!(judge(&boot(lines, timed_out, complaint)).as_deref(), Some(expected));
        }
        // A failed test has a row of its own.
        assert_eq!(judge(&boot(&["test a ... FAILED", "@@vm-exit n 101 1.0"], false, None)), None);
    }
}
