//! Why a build failed, where the machine is to blame: one line each, with what to do about it. What
//! is wrong with the code is the compiler's to say.

use std::{fmt, path::Path, process::Command};

use crate::sh;

/// What the machine lacks.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// No room for what is built; how much there is, if that is known.
    DiskFull(Option<Room>),
    /// A linker or a C compiler: its name.
    NoCompiler(String),
    /// rustc: the version that is needed, and the one that is here.
    OldRustc {
        /// The lowest that will do.
        needed: String,
        /// The one that cargo uses.
        found: String,
    },
    /// Crates that are not here cannot be downloaded: cargo's reason.
    NoDownload(String),
}

/// With less than this the disk is what a build failed for, whatever the compiler made of it: linkers
/// die of a bus error.
const FULL_KIB: u64 = 16 * 1024;

/// What a build takes.
const ROOM_KIB: u64 = 1024 * 1024;

impl Failure {
    /// The reason in what cargo said, without color; `target_dir` is where it builds.
    #[must_use]
    pub fn of(said: &str, target_dir: &Path) -> Option<Self> {
        match Self::said(said) {
            // Another disk, if this one has room for a build.
            Some(Self::DiskFull(_)) => match room(target_dir) {
                Some(room) if room.available_kib >= ROOM_KIB => None,
                room => Some(Self::DiskFull(room)),
            },
            None => {
                let room = room(target_dir)?;
                (room.available_kib < FULL_KIB).then_some(Self::DiskFull(Some(room)))
            }
            failure => failure,
        }
    }

    /// What the words alone tell.
    fn said(said: &str) -> Option<Self> {
        let said = said.lines().filter(|line| !is_source(line)).collect::<Vec<_>>().join("\n");
        let said = said.as_str();
        if said.contains("No space left on device") {
            return Some(Self::DiskFull(None));
        }
        let needed = said.lines().filter_map(needed_rustc).max_by_key(|version| numbers(version));
        if let Some(needed) = needed {
            let found = said.lines().find_map(found_rustc).unwrap_or("this rustc");
            return Some(Self::OldRustc { needed: needed.to_owned(), found: found.to_owned() });
        }
        if let Some(compiler) = said.lines().find_map(missing_compiler) {
            return Some(Self::NoCompiler(compiler.to_owned()));
        }
        const DOWNLOADS: [&str; 5] = [
            "failed to download",
            "unable to update registry",
            "failed to get `",
            "attempting to make an HTTP request, but --offline was specified",
            "spurious network error",
        ];
        if DOWNLOADS.iter().any(|words| said.to_lowercase().contains(&words.to_lowercase())) {
            return Some(Self::NoDownload(innermost(said).to_owned()));
        }
        None
    }
}

/// Whether a line is of the code that the compiler shows, as `12 | let x = "...";`: what is in there
/// is nobody's message.
fn is_source(line: &str) -> bool {
    let rest = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
    rest.trim_start().starts_with('|')
}

/// The numbers of a version, in order.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

/// The last cause that cargo names.
fn innermost(said: &str) -> &str {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("cargo does not say why")
}

/// `1.95` in `  tcptrace@0.1.0 requires rustc 1.95`.
fn needed_rustc(line: &str) -> Option<&str> {
    line.trim().split_once(" requires rustc ").map(|(_, version)| version)
}

/// `rustc 1.90.0` in `error: rustc 1.90.0 is not supported by the following packages:`.
fn found_rustc(line: &str) -> Option<&str> {
    line.strip_prefix("error: ")?.split_once(" is not supported by").map(|(version, _)| version)
}

/// The program that rustc, or the crate cc in a build script, did not find.
fn missing_compiler(line: &str) -> Option<&str> {
    let line = line.trim();
    // rustc: "error: linker `cc` not found".
    if let Some(rest) = line.strip_prefix("error: linker `") {
        return rest.strip_suffix("` not found");
    }
    // The crate cc: "error occurred in cc-rs: failed to find tool "cc": No such file ...".
    let (_, rest) = line.split_once("failed to find tool \"")?;
    rest.split_once('"').map(|(tool, _)| tool)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull(room) => {
                write!(f, "the disk is full")?;
                if let Some(room) = room {
                    write!(f, " ({room})")?;
                }
                write!(
                    f,
                    ": a build takes about 1 GB; free some, or set CARGO_TARGET_DIR to a directory \
                     elsewhere"
                )
            }
            Self::NoCompiler(name) => write!(
                f,
                "`{name}` was not found, which compiles C and links: install it, for example with \
                 `apt install gcc libc6-dev` or `dnf install gcc`"
            ),
            Self::OldRustc { needed, found } => write!(
                f,
                "{found} is too old: tcptrace needs rustc {needed} or later; `rustup update stable` \
                 brings it, then `cargo +stable xtask ...` (no rustup: https://rustup.rs)"
            ),
            Self::NoDownload(why) => write!(
                f,
                "cannot download the crates that this needs ({why}): run `cargo fetch --locked` once \
                 where there is a network; from then on it builds without"
            ),
        }
    }
}

/// What is left where a directory is.
#[derive(Debug, PartialEq, Eq)]
pub struct Room {
    available_kib: u64,
    mounted_on: String,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB left on {}", self.available_kib / 1024, self.mounted_on)
    }
}

fn room(directory: &Path) -> Option<Room> {
    let mut df = Command::new("df");
    df.args(["-k", "--output=avail,target"]).arg(directory);
    parse_df(&sh::output(&mut df).ok()?)
}

/// `df`'s line below its head.
fn parse_df(text: &str) -> Option<Room> {
    let (available, mounted_on) = text.lines().nth(1)?.trim().split_once(' ')?;
    Some(Room { available_kib: available.parse().ok()?, mounted_on: mounted_on.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_is_told_from_the_others() {
        for (said, expected) in [
            (
                "error: linker `cc` not found\n  |\n  = note: No such file or directory (os error 2)\n",
                Failure::NoCompiler("cc".into()),
            ),
            (
                "error: failed to run custom build command for `zstd-sys v2.0.16`\n\n  --- stderr\n\n  \
                 error occurred in cc-rs: failed to find tool \"musl-gcc\": No such file or directory\n",
                Failure::NoCompiler("musl-gcc".into()),
            ),
            (
                "error: rustc 1.90.0 is not supported by the following packages:\n  \
                 clap@4.6.0 requires rustc 1.85.0\n  tcptrace@0.1.0 requires rustc 1.95\n  \
                 tcptrace-view@0.1.0 requires rustc 1.9.9\n",
                Failure::OldRustc { needed: "1.95".into(), found: "rustc 1.90.0".into() },
            ),
            (
                "error: failed to download from `https://example.org/a`\n\nCaused by:\n  \
                 [6] Could not resolve hostname\n",
                Failure::NoDownload("[6] Could not resolve hostname".into()),
            ),
            (
                "error: could not write output to a.o: No space left on device\n",
                Failure::DiskFull(None),
            ),
        ] {
            let failure = Failure::said(said).unwrap();
            assert_eq!(failure, expected);
            assert!(!failure.to_string().contains('\n'), "{failure}");
        }
        for code in [
            "error[E0425]: cannot find value `x` in this scope\n",
            "error[E0308]: mismatched types\n  --> src/a.rs:218:9\n   |\n218 |     \
             say(\"No space left on device\");\n   | \"failed to get `x`, spurious network error\"\n",
        ] {
            assert_eq!(Failure::said(code), None, "{code}");
        }
    }

    #[test]
    fn what_df_says_is_read() {
        let room = parse_df(" Avail Mounted on\n 14336 /a place\n").unwrap();
        assert_eq!(room.to_string(), "14 MB left on /a place");
        assert!(parse_df("").is_none());
        // The machine's own.
        assert!(super::room(Path::new("/")).is_some());
        assert!(super::room(Path::new("/no such place")).is_none());
    }
}
