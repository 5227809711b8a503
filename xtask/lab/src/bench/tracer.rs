//! One tracer as a child process: started, waited for until it is attached, measured, stopped.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeValLike as _,
    },
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::child::bound;

use super::{floor, proc};

/// A tracer that the bench can run.
pub struct Tracer {
    /// What the report calls it.
    pub name: &'static str,
    /// The command line; it traces until SIGINT.
    pub command: Vec<OsString>,
    /// How it tells what it delivered.
    pub says: Says,
}

/// How a tracer tells what it delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// [`floor::Report`] on stdout.
    Floor,
    /// The last line of `-o json` is a `summary`.
    Summary,
    /// One line for each transition after one of headings; `lost N events` on stderr.
    Lines,
}

/// What became of the transitions. `None`: the tracer does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub seen: Option<u64>,
    pub delivered: u64,
    pub filtered: Option<u64>,
    pub lost: Option<u64>,
    pub missed: Option<u64>,
}

/// A tracer at work. Killed when dropped.
pub struct Running {
    child: Child,
    pid: Pid,
    output: PathBuf,
    errors: PathBuf,
}

/// What a tracer has used until now.
#[derive(Clone, Copy)]
pub struct Usage {
    at: Instant,
    cpu: Duration,
    sleeps: u64,
}

/// How long a tracer may take to attach, and to leave.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

impl Tracer {
    /// The command line, to be read.
    pub fn shown(&self) -> String {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// Starts it with its output in files under `scratch`, and waits until it is attached.
    ///
    /// # Errors
    /// If it cannot be started, ends early (with what it said), or does not attach.
    pub fn start(&self, scratch: &Path) -> Result<Running> {
        let output = scratch.join("output");
        let file = File::create(&output)
            .with_context(|| format!("cannot write to {}", output.display()))?;
        self.start_into(Stdio::null(), file.into(), output, scratch)
    }

    /// The same with its stdout in a pipe, which the caller takes from [`Running::stdout`].
    pub fn start_piped(&self, scratch: &Path) -> Result<Running> {
        self.start_into(Stdio::null(), Stdio::piped(), scratch.join("output"), scratch)
    }

    /// The same on a terminal, which somebody must read.
    pub fn start_on(&self, terminal: OwnedFd, scratch: &Path) -> Result<Running> {
        let stdin = terminal.try_clone().context("cannot open the terminal twice")?;
        self.start_into(stdin.into(), terminal.into(), scratch.join("output"), scratch)
    }

    fn start_into(
        &self,
        stdin: Stdio,
        stdout: Stdio,
        output: PathBuf,
        scratch: &Path,
    ) -> Result<Running> {
        let errors = scratch.join("errors");
        let [program, args @ ..] = self.command.as_slice() else { bail!("an empty command") };
        let child = bound(program, "KILL")
            .args(args)
            // Who has a terminal asks for its kind; this one does not depend on the caller's.
            .env("TERM", "xterm-256color")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(File::create(&errors)?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut running = Running { child, pid, output, errors };
        running.wait_until_attached()?;
        Ok(running)
    }
}

impl Running {
    /// It may try several hooks, so one look is not enough: attached is what it still is after
    /// the next one.
    fn wait_until_attached(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut looks = 0;
        while looks < 2 {
            self.must_run()?;
            if Instant::now() > deadline {
                bail!("not attached after {PATIENCE:?}: {}", self.complaint());
            }
            sleep(POLL);
            // the process may just have ended
            let attached = proc::programs(self.pid).is_ok_and(|programs| programs.attached);
            looks = if attached { looks + 1 } else { 0 };
        }
        Ok(())
    }

    /// Fails with what it said if it has ended: some hooks may have been attached when it was
    /// refused another.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended before it was attached ({status}): {}", self.complaint()),
        }
    }

    /// What it last said on stderr.
    fn complaint(&self) -> String {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        said.trim().lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The reading end of its stdout, once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// What it has used until now.
    pub fn usage(&self) -> Result<Usage> {
        let clock = ClockId::pid_cpu_clock_id(self.pid)?;
        Ok(Usage {
            at: Instant::now(),
            cpu: clock_gettime(clock)?.into(),
            sleeps: proc::sleeps(self.pid)?,
        })
    }

    /// Tells it to leave, and waits; the CPU time of its whole life.
    ///
    /// # Errors
    /// If it does not leave, or fails.
    pub fn stop(&mut self) -> Result<Duration> {
        // No other child of this process ends meanwhile, so the difference is this child's.
        let before = children_cpu()?;
        kill(self.pid, Signal::SIGINT).context("cannot send SIGINT")?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("still there {PATIENCE:?} after SIGINT");
            }
            sleep(POLL);
        };
        // libbpf-tools' programs end with 0 or by the signal's number, depending on the moment.
        if !status.success() && std::os::unix::process::ExitStatusExt::signal(&status).is_none() {
            bail!("failed ({status}): {}", self.complaint());
        }
        Ok(children_cpu()?.saturating_sub(before))
    }

    /// Bytes that it wrote to its output.
    pub fn output_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(&self.output)?.len())
    }

    /// What it says it delivered, once it has ended.
    pub fn delivery(&self, says: Says) -> Result<Delivery> {
        match says {
            Says::Floor => {
                let floor::Report { delivered, lost } =
                    serde_json::from_str(&fs::read_to_string(&self.output)?)?;
                Ok(Delivery { delivered, lost: Some(lost), ..Delivery::default() })
            }
            Says::Summary => parse_summary(&last_line(&self.output)?),
            Says::Lines => Ok(Delivery {
                delivered: count_lines(&self.output)?.saturating_sub(1),
                lost: Some(parse_lost(&fs::read_to_string(&self.errors)?)),
                ..Delivery::default()
            }),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has already been waited for, which is the rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// CPU time.
    pub fn cpu(&self) -> Duration {
        self.cpu
    }

    /// Times it was woken for each second since `before`.
    pub fn wakeups_per_second(&self, before: &Self) -> f64 {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        self.sleeps.saturating_sub(before.sleeps) as f64 / seconds
    }
}

fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// The last line of a file that may be large.
fn last_line(path: &Path) -> Result<String> {
    const TAIL: u64 = 64 * 1024;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    Ok(tail.trim_end().lines().last().unwrap_or_default().to_owned())
}

fn count_lines(path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    let mut lines = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(lines),
            read => lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

fn parse_summary(line: &str) -> Result<Delivery> {
    #[derive(Deserialize)]
    struct Summary {
        r#type: String,
        seen: u64,
        delivered: u64,
        filtered: u64,
        lost: u64,
        missed: u64,
    }
    let summary: Summary =
        serde_json::from_str(line).with_context(|| format!("no summary at the end: {line:?}"))?;
    if summary.r#type != "summary" {
        bail!("the last line is a {:?}, not the summary", summary.r#type);
    }
    let Summary { seen, delivered, filtered, lost, missed, .. } = summary;
    if seen != delivered + filtered + lost {
        bail!("its own sum does not hold: {line}");
    }
    Ok(Delivery {
        seen: Some(seen),
        delivered,
        filtered: Some(filtered),
        lost: Some(lost),
        missed: Some(missed),
    })
}

/// The sum of `lost N events on CPU #M`.
fn parse_lost(errors: &str) -> u64 {
    let number = |line: &str| line.split_once("lost ")?.1.split(' ').next()?.parse::<u64>().ok();
    errors.lines().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_must_add_up() {
        let line = |delivered| {
            format!(
                r#"{{"v":2,"type":"summary","seconds":1.5,"seen":10,"delivered":{delivered},"filtered":2,"lost":1,"missed":0}}"#
            )
        };
        let delivery = parse_summary(&line(7)).expect("it adds up");
        assert_eq!((delivery.delivered, delivery.lost), (7, Some(1)));
        assert!(parse_summary(&line(8)).is_err());
        assert!(parse_summary(r#"{"v":2,"type":"transition"}"#).is_err());
    }

    #[test]
    fn losses_of_libbpf_tools_add_up() {
        assert_eq!(parse_lost("lost 17 events on CPU #0\nlost 3 events on CPU #1\n"), 20);
        assert_eq!(parse_lost(""), 0);
    }
}
