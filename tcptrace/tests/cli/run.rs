//! Runs the command and waits for what it does, always with a deadline.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::validator;

use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};

/// How long any one step may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(2);

/// The command that is tested.
pub fn tcptrace(arguments: &[&str]) -> Command {
    command(env!("CARGO_BIN_EXE_tcptrace"), arguments)
}

/// The name of this process: that of its first thread, whatever the one that calls is named.
pub fn own_name() -> String {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", std::process::id())).unwrap();
    name.trim_end().to_owned()
}

/// `program` with `arguments`, in an environment that decides nothing.
pub fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("NO_COLOR").env_remove("COLUMNS").stdin(Stdio::null());
    let defaults = || {
        for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: no handler is installed, only the default action restored: whoever started
            // the tests may have had them ignored.
            unsafe { signal(number, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only signal(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(defaults) };
    command
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The one line on stderr, with the exit code that it came with.
    #[track_caller]
    pub fn refusal(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(line.starts_with("tcptrace: ") && !line.contains(['\n', '\x1b']), "{line}");
        line
    }
}

/// A run that goes on. Dropping it ends it.
pub struct Running {
    child: Child,
    stderr: Receiver<String>,
    heard: String,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts it; stdout is read to the end on the side, if it is a pipe and still there.
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped());
        Self::start_with_stdout(command)
    }

    /// Starts it with the stdout that `command` has.
    pub fn start_with_stdout(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (send, stderr) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).into_owned() + "\n").is_err() {
                    break;
                }
            }
        });
        let stdout = child.stdout.take().map(|mut pipe| {
            thread::spawn(move || {
                let mut all = Vec::new();
                pipe.read_to_end(&mut all).unwrap();
                all
            })
        });
        Self { child, stderr, heard: String::new(), stdout }
    }

    /// Starts it and waits until it listens.
    pub fn listening(command: &mut Command) -> Self {
        let mut running = Self::start(command);
        running.hear("listening by");
        running
    }

    /// Waits for a line on stderr with `part` in it.
    #[track_caller]
    pub fn hear(&mut self, part: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.heard.push_str(&line);
                    if line.contains(part) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("waited for '{part}' and heard: {}", self.heard)
                }
            }
        }
    }

    /// What it said until the last line that was waited for.
    pub fn heard(&self) -> &str {
        &self.heard
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let status = until("its end", || self.child.try_wait().unwrap());
        self.ended(status)
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        let stdout = self.stdout.take().map_or_else(Vec::new, |reader| reader.join().unwrap());
        let mut stderr = std::mem::take(&mut self.heard);
        stderr.extend(self.stderr.iter());
        held_to_the_schema(&stdout);
        Ended { code: status.code(), stdout, stderr }
    }

    /// Asks it to end, and waits for that.
    #[track_caller]
    pub fn interrupt(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // No error matters: it may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many lines of one run are held to the schema: some tests print hundreds of thousands.
const HELD: usize = 1000;

/// Wants what is JSON to be as `docs/tcptrace.schema.json` says; a last line may be cut.
fn held_to_the_schema(stdout: &[u8]) {
    if stdout.starts_with(br#"{"v":"#) {
        let lines = stdout.split_inclusive(|byte| *byte == b'\n').take(HELD);
        for line in lines.filter_map(|line| line.strip_suffix(b"\n")) {
            validator::check(std::str::from_utf8(line).unwrap());
        }
    }
}

/// Runs `command` to its end.
#[track_caller]
pub fn run(mut command: Command) -> Ended {
    Running::start(&mut command).end()
}

/// Asks `probe` until it answers, for at most [`DEADLINE`].
#[track_caller]
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(TICK);
    }
}

/// Whether live tracing works here; else says that the test is skipped, or fails where it is known
/// to work.
pub fn can_trace() -> bool {
    static WORKS: OnceLock<Result<(), String>> = OnceLock::new();
    let works = WORKS.get_or_init(|| {
        let ended = run(tcptrace(&["check"]));
        if ended.code == Some(0) { Ok(()) } else { Err(ended.text().to_owned()) }
    });
    if let Err(report) = works {
        assert_ne!(env::var("TCPTRACE_TEST_BPF_WORKS").as_deref(), Ok("1"), "{report}");
        // Not by eprintln!, which libtest keeps to itself when the test passes.
        let says = b"skipped: live tracing does not work here (tcptrace check says why)\n";
        io::stderr().write_all(says).unwrap();
    }
    works.is_ok()
}
