//! `cargo xtask vm-test`: the kernel tests on real Debian kernels, booted under qemu's software
//! emulation, as any user.
//!
//! This module decides what runs and when; each step is a module of its own, and none of them
//! knows another's business.

mod apt;
mod boot;
mod cache;
mod guest;
mod host;
mod initramfs;
mod kernel;
mod line;
mod report;
mod serial;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    boot::{Boot, Files, Machine},
    cache::{Cache, Fetched},
    guest::{Guest, Program},
    kernel::Kernel,
    line::Line,
    report::{Report, Run, State},
    serial::{End, Transcript},
};

/// Debian's stable kernels: without these nothing is proved.
const REQUIRED: &[Line] = &[Line::new(6, 1), Line::new(6, 12)];

/// What runs if nothing is asked for: the oldest that is supported, the required, the newest.
const DEFAULT: &[Line] =
    &[Line::new(5, 10), Line::new(6, 1), Line::new(6, 12), Line::new(6, 18), Line::new(7, 3)];

/// Modules on Debian kernels that the tests need.
const MODULES: &[&str] = &["inet_diag", "tcp_diag", "veth"];

/// Run the kernel tests on real Debian kernels under qemu (needs no root)
///
/// Kernels come from the Debian mirror of the host's apt sources (VM_MIRROR=URI names another),
/// the newest of each line, and are kept in the cache; nothing is installed. VM_KERNELS=DIR adds
/// kernels of your own: unpacked packages, or directories with a vmlinuz and perhaps modules/.
///
/// The exit status is 0 if something booted, 6.1 and 6.12 are there if they were asked for, and
/// all tests passed on every kernel that booted; else 1.
#[derive(Args, Debug)]
pub struct VmTestArgs {
    /// Kernel lines, such as 6.1 [default: 5.10 6.1 6.12 6.18 7.3; with VM_KERNELS only those]
    versions: Vec<Line>,
    /// Every line that the mirror has
    #[arg(long, conflicts_with = "versions")]
    all: bool,
    /// Only kernels that are in the cache
    #[arg(long)]
    offline: bool,
    /// CPUs of a guest. With one, its clock skips idle time; with more, it runs in real time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    smp: u32,
    /// Guests at a time [default: the host's cores / --smp]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "FILTER", conflicts_with = "binary")]
    tests: Vec<String>,
    /// Wall time of a boot in seconds [default: 300; in real time 1800]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Memory of a guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory: u32,
    /// More for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Run this static program (or shell script) instead of the kernel tests
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// One more module to load; may be repeated
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// One more file for the guest; may be repeated
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_file)]
    file: Vec<(PathBuf, String)>,
    /// Set a variable for the program in the guest; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_env)]
    env: Vec<(String, String)>,
    /// `ulimit -l` for the program in the guest [default: the kernel's, so that it must raise it]
    #[arg(long, value_name = "KIB|unlimited")]
    memlock: Option<String>,
    /// Show what the guests print as they print it
    #[arg(long, short)]
    verbose: bool,
    /// Keep image, initramfs and a script that boots them again, beside the log
    #[arg(long)]
    keep: bool,
    /// Write the table to docs/KERNELS.md
    #[arg(long, conflicts_with_all = ["versions", "tests", "binary"])]
    write_docs: bool,
    /// Where kernels are kept [default: $XDG_CACHE_HOME/tcptrace-vm, ~/.cache/tcptrace-vm]
    #[arg(long, value_name = "DIR", env = "VM_CACHE")]
    cache: Option<PathBuf>,
    /// Where logs go [default: target/vm-test]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Arguments for the test program, after `--`
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

fn parse_file(text: &str) -> Result<(PathBuf, String)> {
    match text.rsplit_once(':') {
        Some((host, guest)) if guest.starts_with('/') => Ok((host.into(), guest.to_owned())),
        _ => bail!("not HOST:GUEST with an absolute GUEST path"),
    }
}

fn parse_env(text: &str) -> Result<(String, String)> {
    let name = |key: &str| {
        key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    };
    match text.split_once('=') {
        Some((key, value)) if name(key) => Ok((key.to_owned(), value.to_owned())),
        _ => bail!("not KEY=VALUE"),
    }
}

/// One kernel to run.
#[derive(Debug)]
enum Wanted {
    Line(Line),
    /// One's own, with a name that is its alone.
    Own(String, Kernel),
    /// One's own, but not usable: a name, and why.
    Bad(String, String),
}

/// Runs the command. User errors that stop everything come back as an error; what happens to one
/// kernel is in its row of the table.
pub fn run(args: VmTestArgs) -> Result<ExitCode> {
    Machine::require()?;
    let workspace = workspace()?;
    let out = std::path::absolute(args.out.clone().unwrap_or(workspace.join("target/vm-test")))?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    // One run at a time writes these logs.
    let _lock = cache::lock(&out.join("lock"))?;
    let own = std::env::var_os("VM_KERNELS").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let lines = lines(&args, own.is_some());

    // The mirror answers while the tests build.
    let (cache, guest) = std::thread::scope(|scope| {
        let cache = scope.spawn(|| open_cache(&args, &lines, own.is_some()));
        let guest = program(&args, &workspace).and_then(|program| Guest::new(&program));
        match cache.join() {
            Ok(cache) => (cache, guest),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let (cache, guest) = (cache?, guest?);

    let mut wanted = match &own {
        Some(dir) => own_kernels(dir)?,
        None => Vec::new(),
    };
    if let Some(cache) = &cache {
        let mut lines = lines;
        if args.all {
            lines.extend(cache.lines()?);
            lines.sort_unstable();
            lines.dedup();
        }
        wanted.extend(lines.into_iter().map(Wanted::Line));
    }

    let session =
        Session { machine: machine(&args), modules: modules(&args), cache, guest, out, args };
    let reports = session.run_all(&wanted);
    let mut stdout = io::stdout().lock();
    write!(stdout, "{}", report::terminal(&reports))?;
    if session.args.write_docs {
        let file = workspace.join("docs/KERNELS.md");
        report::write_between_markers(&file, &report::markdown(&reports))?;
        writeln!(stdout, "wrote {}", file.display())?;
    }
    Ok(if succeeded(&wanted, &reports) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The workspace that this program was built in.
fn workspace() -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    dir.map(Path::to_owned).context("xtask is not in a workspace")
}

/// The lines to fetch. With kernels of one's own, only those that are named.
fn lines(args: &VmTestArgs, own: bool) -> Vec<Line> {
    let mut lines = args.versions.clone();
    if lines.is_empty() && (args.all || !own) {
        lines = DEFAULT.to_vec();
    }
    lines.sort_unstable();
    lines.dedup();
    lines
}

fn open_cache(args: &VmTestArgs, lines: &[Line], own: bool) -> Result<Option<Cache>> {
    if lines.is_empty() && own {
        return Ok(None);
    }
    let dir = match &args.cache {
        Some(dir) => dir.clone(),
        None => host::cache_dir()?,
    };
    let mirror = std::env::var("VM_MIRROR").ok().filter(|uri| !uri.is_empty());
    Cache::open(&dir, mirror.as_deref(), lines, args.offline).map(Some)
}

/// What the guests run: a program that is given, or the kernel tests.
fn program(args: &VmTestArgs, workspace: &Path) -> Result<Program> {
    let mut program = Program {
        files: args.file.clone(),
        memlock: args.memlock.clone(),
        // So that a test may know what waiting costs.
        env: vec![("VM_TEST".into(), if args.smp == 1 { "icount" } else { "realtime" }.into())],
        ..Program::default()
    };
    if let Some(binary) = &args.binary {
        program.binary.clone_from(binary);
        program.args.clone_from(&args.args);
    } else {
        let built = guest::build(workspace, &workspace.join("target/vm-test-build"))?;
        program.binary = built.tests;
        if let Some(command) = built.command {
            program.files.push((command, "/tcptrace".to_owned()));
            // Cargo's own name for it, which tests look up at run time.
            program.env.push(("CARGO_BIN_EXE_tcptrace".into(), "/tcptrace".into()));
        }
        // One after the other, each named before it starts and with its output below: so the log
        // of a guest that hangs says where. Times are those of the guest; libtest's option for
        // them takes the variable, not a nightly compiler.
        program.env.push(("RUSTC_BOOTSTRAP".into(), "1".into()));
        program.env.push(("RUST_BACKTRACE".into(), "1".into()));
        program.args =
            ["--nocapture", "-Zunstable-options", "--report-time"].map(Into::into).into();
        if !args.args.iter().any(|arg| arg.starts_with("--test-threads")) {
            program.args.push("--test-threads=1".into());
        }
        program.args.extend(args.tests.iter().chain(&args.args).cloned());
    }
    program.env.extend(args.env.iter().cloned());
    Ok(program)
}

fn machine(args: &VmTestArgs) -> Machine {
    let seconds = args.timeout.unwrap_or(if args.smp == 1 { 300 } else { 1800 });
    Machine {
        cpus: args.smp,
        memory_mib: args.memory,
        timeout: Duration::from_secs(seconds),
        append: args.append.clone(),
        echo: args.verbose,
    }
}

fn modules(args: &VmTestArgs) -> Vec<String> {
    MODULES.iter().map(|name| (*name).to_owned()).chain(args.module.iter().cloned()).collect()
}

/// The kernels in `VM_KERNELS`: directly in the directory, and in each of its directories.
fn own_kernels(dir: &Path) -> Result<Vec<Wanted>> {
    let entries = fs::read_dir(dir).with_context(|| format!("VM_KERNELS={}", dir.display()))?;
    let mut places: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    places.retain(|place| place.is_dir());
    places.sort();
    places.insert(0, dir.to_owned());
    let mut wanted = Vec::new();
    let mut seen = HashMap::new();
    for place in places {
        match Kernel::under(&place) {
            Ok(kernels) => wanted.extend(kernels.into_iter().map(|kernel| {
                let count = seen.entry(kernel.release.clone()).and_modify(|n| *n += 1).or_insert(1);
                let name = match *count {
                    1 => kernel.release.clone(),
                    count => format!("{}.{count}", kernel.release),
                };
                Wanted::Own(name, kernel)
            })),
            Err(error) => {
                let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy();
                wanted.push(Wanted::Bad(name.into_owned(), format!("{error:#}")));
            }
        }
    }
    if wanted.is_empty() {
        bail!("VM_KERNELS={}: no vmlinuz in it or in its directories", dir.display());
    }
    Ok(wanted)
}

fn succeeded(wanted: &[Wanted], reports: &[Report]) -> bool {
    let required = wanted.iter().zip(reports).all(|(wanted, report)| match wanted {
        Wanted::Line(line) if REQUIRED.contains(line) => report.passed(),
        _ => !report.failed(),
    });
    required && reports.iter().any(Report::passed)
}

/// All that the boots of one run share.
struct Session {
    args: VmTestArgs,
    machine: Machine,
    modules: Vec<String>,
    cache: Option<Cache>,
    guest: Guest,
    out: PathBuf,
}

impl Session {
    /// Fetches and boots, some at a time; the reports are in the order of `wanted`.
    fn run_all(&self, wanted: &[Wanted]) -> Vec<Report> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let fitting = cores / usize::try_from(self.machine.cpus).unwrap_or(1);
        let jobs = self.args.jobs.map_or(fitting, |jobs| usize::try_from(jobs).unwrap_or(1));
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
                match cache.get(*line)? {
                    Fetched::NotAvailable(why) => return Ok(State::NotAvailable(why)),
                    Fetched::Kernel { kernel, note, lock } => {
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
        if self.args.keep {
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

    fn row(passed: bool, state: State) -> Report {
        let state = if passed {
            State::Ran(Run {
                transcript: serial::read(["@@vm-exit n 0 1.0"], "n"),
                wall: Duration::ZERO,
                trouble: None,
                log: PathBuf::new(),
                excerpt: Vec::new(),
            })
        } else {
            state
        };
        Report { label: String::new(), release: None, state, notes: Vec::new() }
    }

    #[test]
    fn a_required_kernel_must_be_there_and_a_wanted_one_need_not() {
        let absent = || State::NotAvailable(String::new());
        let wanted = [Wanted::Line(Line::new(5, 10)), Wanted::Line(Line::new(6, 1))];
        let outcome = |old: Report, required: Report| succeeded(&wanted, &[old, required]);
        assert!(outcome(row(true, absent()), row(true, absent())));
        assert!(outcome(row(false, absent()), row(true, absent())));
        assert!(!outcome(row(true, absent()), row(false, absent())));
        assert!(!outcome(row(false, State::Broken(String::new())), row(true, absent())));
        assert!(!succeeded(&wanted[..1], &[row(false, absent())]), "nothing ran");
        assert!(!succeeded(&[], &[]));
    }

    #[test]
    fn options_are_checked_before_anything_runs() {
        assert_eq!(parse_env("A_1=b=c").unwrap(), ("A_1".into(), "b=c".into()));
        for bad in ["=x", "A", "1A=x", "A B=x", "A;reboot=x"] {
            assert!(parse_env(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_file("a:b:/c").unwrap(), (PathBuf::from("a:b"), "/c".into()));
        assert!(parse_file("a:b").is_err() && parse_file("/a").is_err());
    }
}
