//! What a crate has of others, and which of that is I/O or a clock.

use super::{
    graph::{Target, resolve},
    source::{ModPath, Named, Sources},
};

/// Every path into another crate, in full, whatever it is imported as.
pub(super) fn reaches(sources: &Sources) -> Vec<(ModPath, Named)> {
    let mut reaches = Vec::new();
    for (at, module) in &sources.modules {
        let named = module.paths.iter().map(|(path, line)| (path, *line));
        let imported = module.uses.iter().map(|import| (&import.from.path, import.from.line));
        for (path, line) in named.chain(imported) {
            if let Target::Outside(path) = resolve(sources, at, path) {
                reaches.push((at.clone(), Named { path, line }));
            }
        }
    }
    reaches
}

/// Paths that begin so are not for what is pure, and why.
const IMPURE: [(&[&str], &str); 26] = [
    (&["std", "fs"], "I/O"),
    (&["std", "path", "Path", "exists"], "I/O"),
    (&["std", "os"], "I/O"),
    (&["std", "io", "stdin"], "I/O"),
    (&["std", "io", "stdout"], "I/O"),
    (&["std", "io", "stderr"], "I/O"),
    (&["std", "net", "TcpStream"], "I/O"),
    (&["std", "net", "TcpListener"], "I/O"),
    (&["std", "net", "UdpSocket"], "I/O"),
    (&["std", "net", "ToSocketAddrs"], "asks a resolver"),
    (&["std", "env"], "the environment"),
    (&["std", "process"], "processes"),
    (&["std", "thread"], "threads"),
    (&["std", "time", "Instant"], "a clock"),
    (&["std", "time", "SystemTime"], "a clock"),
    (&["std", "time", "UNIX_EPOCH"], "a clock"),
    (&["jiff", "Timestamp", "now"], "a clock"),
    (&["jiff", "Zoned", "now"], "a clock"),
    (&["tokio"], "I/O"),
    (&["aya"], "the kernel"),
    (&["socket2"], "I/O"),
    (&["rustix"], "system calls"),
    (&["tempfile"], "I/O"),
    (&["tcptrace_host"], "the host"),
    (&["tcptrace_probe"], "the kernel"),
    (&["tcptrace_source"], "the host"),
];

/// Why `path`, into another crate, is not for what is pure.
///
/// The user's time zone is an exception (`jiff::tz::TimeZone::system`): times of day are told in it.
pub(super) fn is_impure(path: &[String]) -> Option<&'static str> {
    let begins =
        |with: &[&str]| path.len() >= with.len() && path.iter().zip(with).all(|(a, b)| a == b);
    let known = IMPURE.iter().find(|(with, _)| begins(with)).map(|(_, why)| *why);
    // Of these two only names of numbers: errno and the like.
    let only_numbers = match path {
        [name, rest @ ..] if name == "libc" => rest.first().is_some_and(|name| {
            name.chars().any(|char| char.is_ascii_lowercase()) && !is_type(name)
        }),
        [name, rest @ ..] if name == "nix" => rest.first().is_some_and(|name| name != "errno"),
        _ => false,
    };
    known.or(only_numbers.then_some("a system call"))
}

/// Whether this is a type of C's.
fn is_type(name: &str) -> bool {
    name.starts_with("c_") || name.ends_with("_t")
}
