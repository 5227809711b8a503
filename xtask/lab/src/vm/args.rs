//! What the user says, and what follows from that alone: lines, machine, program. Pure.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Command, FromArgMatches as _};

use super::{
    boot::Machine,
    guest::{Built, Program},
    line::Line,
};

/// What runs if nothing is asked for: the oldest that is supported, the required, the newest.
const DEFAULT: &[Line] =
    &[Line::new(5, 10), Line::new(6, 1), Line::new(6, 12), Line::new(6, 18), Line::new(7, 3)];

/// Modules on Debian kernels that the tests need: sockets by netlink, a link between namespaces, and
/// a protocol that shares the tracepoint with TCP and must not be taken for it.
const MODULES: &[&str] = &["inet_diag", "tcp_diag", "veth", "sctp"];

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
    pub(super) all: bool,
    /// Only kernels that are in the cache
    #[arg(long)]
    pub(super) offline: bool,
    /// CPUs of a guest. With one, its clock skips idle time; with more, it runs in real time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    smp: u32,
    /// Guests at a time [default: the host's cores / --smp]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) jobs: Option<u32>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "FILTER", conflicts_with = "binary")]
    pub(super) tests: Vec<String>,
    /// Wall time of a boot in seconds [default: 2400]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: Option<u64>,
    /// Memory of a guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    pub(super) memory: u32,
    /// More for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub(super) append: String,
    /// Run this static program (or shell script) instead of the kernel tests
    #[arg(long, value_name = "PATH")]
    pub(super) binary: Option<PathBuf>,
    /// One more module to load; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(super) module: Vec<String>,
    /// One more file for the guest; may be repeated
    #[arg(long, value_name = "HOST:GUEST", value_parser = parse_file)]
    pub(super) file: Vec<(PathBuf, String)>,
    /// Set a variable for the program in the guest; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_env)]
    pub(super) env: Vec<(String, String)>,
    /// `ulimit -l` for the program in the guest [default: the kernel's, so that it must raise it]
    #[arg(long, value_name = "KIB|unlimited")]
    pub(super) memlock: Option<String>,
    /// Show what the guests print as they print it
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Keep image, initramfs and a script that boots them again, beside the log
    #[arg(long)]
    pub(super) keep: bool,
    /// Write the table to docs/KERNELS.md, and its beginning to README.md
    #[arg(long, conflicts_with_all = ["versions", "tests", "binary"])]
    pub(super) write_docs: bool,
    /// Where kernels are kept [default: $VM_CACHE, $XDG_CACHE_HOME/tcptrace-vm, ~/.cache/tcptrace-vm]
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
    /// Where logs go [default: target/vm-test]
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Arguments for the test program, after `--`
    #[arg(last = true, value_name = "ARGS")]
    pub(super) args: Vec<String>,
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

impl VmTestArgs {
    /// What `cargo xtask vm-test` with these words would get.
    pub fn of(words: &[String]) -> Result<Self> {
        let command = Self::augment_args(Command::new("vm-test").no_binary_name(true));
        Ok(Self::from_arg_matches(&command.try_get_matches_from(words)?)?)
    }

    /// The lines to fetch. With kernels of one's own, only those that are named.
    pub(super) fn lines(&self, own: bool) -> Vec<Line> {
        let mut lines = self.versions.clone();
        if lines.is_empty() && (self.all || !own) {
            lines = DEFAULT.to_vec();
        }
        lines.sort_unstable();
        lines.dedup();
        lines
    }

    pub(super) fn modules(&self) -> Vec<String> {
        MODULES.iter().map(|name| (*name).to_owned()).chain(self.module.iter().cloned()).collect()
    }

    pub(super) fn machine(&self) -> Machine {
        let seconds = self.timeout.unwrap_or(2400);
        Machine {
            cpus: self.smp,
            memory_mib: self.memory,
            timeout: Duration::from_secs(seconds),
            append: self.append.clone(),
            echo: self.verbose,
        }
    }

    fn common(&self, binary: PathBuf) -> Program {
        // So that a test may know what waiting costs.
        let clock = if self.smp == 1 { "icount" } else { "realtime" };
        Program {
            binary,
            args: self.args.clone(),
            env: vec![("VM_TEST".into(), clock.into())],
            files: self.file.clone(),
            memlock: self.memlock.clone(),
        }
    }

    /// What the guests run, if the user named it.
    pub(super) fn given(&self) -> Option<Program> {
        let mut program = self.common(self.binary.clone()?);
        program.env.extend(self.env.iter().cloned());
        Some(program)
    }

    /// What the guests run otherwise: the kernel tests.
    pub(super) fn kernel_tests(&self, built: Built) -> Program {
        let mut program = self.common(built.tests);
        program.files.push((built.command, "/tcptrace".to_owned()));
        // Cargo's own name for it, which tests look up at run time.
        program.env.push(("CARGO_BIN_EXE_tcptrace".into(), "/tcptrace".into()));
        program.env.push(("RUST_BACKTRACE".into(), "1".into()));
        // One after the other, each named before it starts and with its output below: so the log
        // of a guest that hangs says where.
        let mut args = vec!["--nocapture".to_owned()];
        if !self.args.iter().any(|arg| arg.starts_with("--test-threads")) {
            args.push("--test-threads=1".to_owned());
        }
        // Times are those of the guest. For this option libtest wants the variable, not a nightly
        // compiler.
        args.extend(["-Zunstable-options", "--report-time"].map(str::to_owned));
        program.env.push(("RUSTC_BOOTSTRAP".into(), "1".into()));
        args.extend(self.tests.iter().cloned());
        program.args.splice(0..0, args);
        program.env.extend(self.env.iter().cloned());
        program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_before_anything_runs() {
        assert_eq!(parse_env("A_1=b=c").unwrap(), ("A_1".into(), "b=c".into()));
        for bad in ["=x", "A", "1A=x", "A B=x", "A;reboot=x"] {
            assert!(parse_env(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_file("a:b:/c").unwrap(), (PathBuf::from("a:b"), "/c".into()));
        assert!(parse_file("a:b").is_err() && parse_file("/a").is_err());
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: VmTestArgs,
    }

    fn parse(words: &str) -> VmTestArgs {
        let words = std::iter::once("vm-test").chain(words.split_whitespace());
        <Cli as clap::Parser>::try_parse_from(words).unwrap().args
    }

    #[test]
    fn the_lines_are_those_named_else_the_default() {
        assert_eq!(parse("6.12 6.1 6.12").lines(false), [Line::new(6, 1), Line::new(6, 12)]);
        assert_eq!(parse("").lines(false), DEFAULT);
        assert_eq!(parse("").lines(true), []);
        assert_eq!(parse("--all").lines(true), DEFAULT);
        assert_eq!(parse("6.1").lines(true), [Line::new(6, 1)]);
    }

    #[test]
    fn a_program_of_ones_own_gets_its_arguments_as_they_are() {
        let program = parse("--binary /b --env A=1 -- x --test-threads=9").given().unwrap();
        assert_eq!(program.args, ["x", "--test-threads=9"]);
        assert_eq!(program.env.last().unwrap(), &("A".into(), "1".into()));
        assert!(parse("").given().is_none());
    }

    #[test]
    fn kernel_tests_run_one_by_one_with_the_command_beside_them() {
        let built = || Built { tests: "/k".into(), command: "/t".into() };
        let program = parse("--tests live --smp 2").kernel_tests(built());
        let args = "--nocapture --test-threads=1 -Zunstable-options --report-time live";
        assert_eq!(program.args.join(" "), args);
        assert_eq!(program.files, [(PathBuf::from("/t"), "/tcptrace".to_owned())]);
        assert_eq!(program.env[0], ("VM_TEST".into(), "realtime".into()));
        let program = parse("-- --test-threads=4").kernel_tests(built());
        assert_eq!(program.args.last().unwrap(), "--test-threads=4");
        assert!(!program.args.contains(&"--test-threads=1".to_owned()));
    }
}
