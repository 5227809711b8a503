//! `cargo xtask vm-test`: the kernel tests on real Debian kernels, booted under qemu's software
//! emulation, as any user.
//!
//! This module decides what runs and when; each step is a module of its own, and none of them
//! knows another's business.

pub(crate) mod apt;
mod args;
pub(crate) mod boot;
pub(crate) mod cache;
pub(crate) mod guest;
pub(crate) mod host;
mod initramfs;
mod kernel;
pub(crate) mod line;
pub(crate) mod report;
pub(crate) mod serial;
pub(crate) mod session;

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use xtask::sh;

use crate::{markers, outcome::TRIED_AGAIN};

pub use self::args::VmTestArgs;
use self::{
    boot::Machine,
    cache::Cache,
    guest::Guest,
    kernel::Kernel,
    line::Line,
    report::Report,
    session::{Session, Wanted},
};

/// Debian's stable kernels: without these nothing is proved.
const REQUIRED: &[Line] = &[Line::new(6, 1), Line::new(6, 12)];

/// Others that are tested where they can be had: the oldest, those of the project's hosts, the
/// newest.
const WANTED: &[Line] = &[Line::new(5, 10), Line::new(6, 18), Line::new(7, 3)];

/// What the tests on some kernels proved.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// They passed on all.
    Passed,
    /// They passed on those that there were, or at the second attempt; which not, and why.
    Partly(String),
    /// They failed on some.
    Failed(String),
}

/// What a guest may take with all tests, so that one that hangs leaves CI within its time.
const TIME_FOR_ALL: Duration = Duration::from_mins(25);

/// The same with a test of each kind.
const TIME_FOR_SOME: Duration = Duration::from_mins(8);

/// Runs all tests on the required kernels.
pub fn prove_required() -> Result<Proof> {
    prove(REQUIRED, TIME_FOR_ALL, &[])
}

/// Runs these tests, by their whole names, on the other kernels.
pub fn prove_wanted(tests: &[String]) -> Result<Proof> {
    prove(WANTED, TIME_FOR_SOME, tests)
}

/// Runs these tests, or all if none is named.
fn prove(lines: &[Line], time: Duration, tests: &[String]) -> Result<Proof> {
    if let Err(lacking) = Machine::require() {
        return Ok(Proof::Partly(format!("none was booted: {lacking:#}")));
    }
    let mut words: Vec<_> = lines.iter().map(Line::to_string).collect();
    words.extend(["--timeout".to_owned(), time.as_secs().to_string()]);
    if !tests.is_empty() {
        words.extend(["--", "--exact"].map(str::to_owned));
        words.extend(tests.iter().cloned());
    }
    let (_, mut reports) = test(&VmTestArgs::of(&words)?)?;
    let mut again = Vec::new();
    for report in &mut reports {
        let failed: Vec<_> = report.failures().iter().map(|name| (*name).to_owned()).collect();
        if !(1..=TRIED_AGAIN).contains(&failed.len()) {
            continue;
        }
        // As with the tests on this host: see `kernel_tests`.
        let out = sh::target_dir()?.join("vm-test-again");
        let mut words = vec![report.label.clone(), "--out".to_owned(), out.display().to_string()];
        words.extend(["--", "--exact"].map(str::to_owned));
        words.extend(failed.iter().cloned());
        let (_, mut second) = test(&VmTestArgs::of(&words)?)?;
        if let Some(second) = second.pop().filter(Report::passed) {
            let names = failed.join(", ");
            again.push(format!("{}: passed at the second attempt only: {names}", report.label));
            *report = second;
        }
    }
    Ok(match (verdict(&reports), again.is_empty()) {
        (Proof::Passed, false) => Proof::Partly(again.join("\n")),
        (Proof::Partly(why), false) => Proof::Partly(format!("{why}\n{}", again.join("\n"))),
        (proof, _) => proof,
    })
}

fn verdict(reports: &[Report]) -> Proof {
    let told = |is_it: &dyn Fn(&Report) -> bool, why: &dyn Fn(&Report) -> String| {
        reports
            .iter()
            .filter(|report| is_it(report))
            .map(|report| format!("{}: {}", report.label, why(report)))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let absent = told(&|report| report.absent().is_some(), &|report| {
        report.absent().unwrap_or_default().to_owned()
    });
    let failed = told(&|report| report.absent().is_none() && !report.passed(), &Report::verdict);
    match (failed.is_empty(), absent.is_empty()) {
        (true, true) => Proof::Passed,
        (true, false) => Proof::Partly(absent),
        (false, _) => Proof::Failed(failed),
    }
}

/// Runs the command. User errors that stop everything come back as an error; what happens to one
/// kernel is in its row of the table.
pub fn run(args: &VmTestArgs) -> Result<ExitCode> {
    Machine::require()?;
    let (wanted, reports) = test(args)?;
    if args.write_docs {
        let texts = [report::markdown(&reports), report::overview(&reports)];
        for (name, text) in ["docs/KERNELS.md", "README.md"].into_iter().zip(texts) {
            let file = sh::workspace()?.join(name);
            markers::write_between(&file, "vm-test", &text)?;
            writeln!(io::stdout(), "wrote {}", file.display())?;
        }
    }
    Ok(if succeeded(&wanted, &reports) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fetches, boots, and shows the table.
fn test(args: &VmTestArgs) -> Result<(Vec<Wanted>, Vec<Report>)> {
    let out = match &args.out {
        Some(dir) => std::path::absolute(dir)?,
        None => sh::target_dir()?.join("vm-test"),
    };
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    // One run at a time writes these logs.
    let _lock = cache::lock(&out.join("lock"))?;
    let own = std::env::var_os("VM_KERNELS").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    if own.is_some() && args.write_docs {
        bail!("--write-docs is for the mirror's kernels; unset VM_KERNELS");
    }
    let lines = args.lines(own.is_some());

    // The mirror answers while the tests build.
    let (cache, guest) = std::thread::scope(|scope| {
        let cache = scope.spawn(|| open_cache(args, &lines, own.is_some()));
        let guest = guest(args);
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

    let session = Session {
        machine: args.machine(),
        jobs: args.jobs,
        modules: args.modules(),
        cache,
        guest,
        out,
        keep: args.keep,
    };
    let reports = session.run_all(&wanted);
    write!(io::stdout(), "{}", report::terminal(&reports))?;
    Ok((wanted, reports))
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

/// The guest with the program that the user named, or with the kernel tests, built now.
fn guest(args: &VmTestArgs) -> Result<Guest> {
    let program = match args.given() {
        Some(program) => program,
        None => {
            let target_dir = sh::target_dir()?.join("vm-test-build");
            args.kernel_tests(guest::build(&sh::workspace()?, &target_dir)?)
        }
    };
    Guest::new(&program)
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

/// A kernel that the mirror lacks is no failure, unless it is required; but nothing at all is.
fn succeeded(wanted: &[Wanted], reports: &[Report]) -> bool {
    let required = wanted.iter().zip(reports).all(|(wanted, report)| match wanted {
        Wanted::Line(line) if REQUIRED.contains(line) => report.passed(),
        _ => !report.failed(),
    });
    required && reports.iter().any(Report::passed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        report::{Run, State},
        *,
    };

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
    fn what_could_not_be_had_is_neither_passed_nor_failed() {
        let passed = || row(true, State::Broken(String::new()));
        let absent = || row(false, State::NotFetched("no network".into()));
        let broken = || row(false, State::Broken("no image".into()));
        assert_eq!(verdict(&[passed(), passed()]), Proof::Passed);
        assert_eq!(verdict(&[passed(), absent()]), Proof::Partly(": no network".into()));
        assert_eq!(verdict(&[absent(), broken()]), Proof::Failed(": FAILED: no image".into()));
        // On the command line a kernel of one's choice that could not be fetched is a failure.
        let wanted = [Wanted::Line(Line::new(6, 18)), Wanted::Line(Line::new(7, 3))];
        assert!(!succeeded(&wanted, &[passed(), absent()]));
    }
}
