//! What a person may write to name a network namespace (`-N`), made into one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{NAMED, Netns, NetnsId, namespaces};

/// The highest process number that any kernel gives (`PID_MAX_LIMIT`, 2²²). Inodes of namespaces
/// begin far above it (`PROC_DYNAMIC_FIRST`, 0xf0000000).
const MAX_PID: u32 = 1 << 22;

/// Why no namespace could be made of what was written.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Not of a form that can name one.
    #[error("'{0}' is no network namespace: give a name, a path, an inode or a process number")]
    Form(String),
    /// Nothing of that name.
    #[error(
        "no network namespace is named '{name}': {NAMED}/{name} does not exist ({})",
        known(.names)
    )]
    Name {
        /// What was written.
        name: String,
        /// The names that there are.
        names: Vec<String>,
    },
    /// A number that is both a name and a process.
    #[error(
        "'{0}' is both a named network namespace and a process: write {NAMED}/{0} or \
         /proc/{0}/ns/net"
    )]
    Ambiguous(String),
    /// No process of that number.
    #[error("no process {0}, whose network namespace was asked for")]
    Process(u32),
    /// No reachable namespace has that inode.
    #[error(
        "no reachable network namespace has inode {inode} ({found} were found{}); `lsns -t net` \
         lists them",
        if *.refused > 0 { format!(", {} files could not be looked at", .refused) }
        else { String::new() }
    )]
    Inode {
        /// What was asked for.
        inode: u32,
        /// How many namespaces there are.
        found: usize,
        /// How many files might lead to further ones.
        refused: usize,
    },
    /// The file is something else.
    #[error("{} is not a network namespace", .0.display())]
    NotNetns(PathBuf),
    /// The file could not be opened, or the list not made.
    #[error("cannot look at {}: {error}{}", .path.display(), hint(.error))]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn known(names: &[String]) -> String {
    if names.is_empty() { "none has a name".into() } else { format!("known: {}", names.join(", ")) }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; another user's process needs CAP_SYS_PTRACE",
        _ => "",
    }
}

impl NetnsError {
    /// Whether the host refused, rather than the user erred.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host { .. })
    }
}

/// Finds the network namespace that `text` names:
///
/// - a path, if it has a `/` in it: a bind mount or `/proc/PID/ns/net`;
/// - a name under `/run/netns`, as `ip netns` shows it;
/// - `net:[INODE]`, as `readlink /proc/PID/ns/net` prints it;
/// - a number: a process if it is at most 4194304, else an inode.
pub fn resolve(text: &str) -> Result<Netns, NetnsError> {
    if text.is_empty() || matches!(text, "." | "..") || text.contains('\0') {
        return Err(NetnsError::Form(text.into()));
    }
    if text.contains('/') {
        return by_path(PathBuf::from(text), None, None);
    }
    if let Some(inode) = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')) {
        let inode = inode.parse().map_err(|_| NetnsError::Form(text.into()))?;
        return by_inode(inode);
    }
    let named = Path::new(NAMED).join(text);
    let is_named = named.exists();
    match text.parse::<u32>() {
        Ok(pid) if pid <= MAX_PID => {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            match (is_named, path.symlink_metadata().is_ok()) {
                (true, true) => Err(NetnsError::Ambiguous(text.into())),
                (true, false) => by_path(named, Some(text), None),
                (false, true) => by_path(path, None, Some(pid)),
                (false, false) => Err(NetnsError::Process(pid)),
            }
        }
        _ if is_named => by_path(named, Some(text), None),
        Ok(inode) => by_inode(inode),
        Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(NetnsError::Form(text.into()))
        }
        Err(_) => Err(NetnsError::Name { name: text.into(), names: names() }),
    }
}

fn by_path(path: PathBuf, name: Option<&str>, pid: Option<u32>) -> Result<Netns, NetnsError> {
    let host = |error| NetnsError::Host { path: path.clone(), error };
    // A namespace's file is a regular one; opening a FIFO would wait for its other end.
    if !path.metadata().map_err(host)?.is_file() {
        return Err(NetnsError::NotNetns(path));
    }
    let file = File::open(&path).map_err(host)?;
    if !is_netns(&file) {
        return Err(NetnsError::NotNetns(path));
    }
    let metadata = file.metadata().map_err(host)?;
    let id = NetnsId::from_metadata(&metadata).map_err(host)?;
    let is_ip_netns = path.parent() == Some(Path::new(NAMED));
    let of_file = || path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.map(str::to_owned).or_else(|| of_file().filter(|_| is_ip_netns));
    Ok(Netns { id, path, name, is_ip_netns, pid })
}

fn by_inode(inode: u32) -> Result<Netns, NetnsError> {
    let all = namespaces().map_err(|error| NetnsError::Host { path: "/proc".into(), error })?;
    let refused = all.refused.len() + all.refused_more;
    let found = all.found.len();
    all.found.into_iter().find(|ns| ns.id.inode == inode).ok_or(NetnsError::Inode {
        inode,
        found,
        refused,
    })
}

/// The names under [`NAMED`], escaped; none where it cannot be read.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(NAMED).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().escape_debug().to_string())
        .collect();
    names.sort();
    names
}

mod ioctl {
    // `NS_GET_NSTYPE`, linux/nsfs.h (4.11): the CLONE_NEW* flag of a namespace's file.
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
}

/// Whether an open file is a network namespace's. Other files answer ENOTTY.
fn is_netns(file: &File) -> bool {
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the request takes no
    // argument, so the kernel neither reads nor writes this process's memory.
    let kind = unsafe { ioctl::ns_get_nstype(file.as_raw_fd()) };
    kind == Ok(libc::CLONE_NEWNET)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        resolve(text).unwrap_err().to_string()
    }

    #[test]
    fn every_way_of_naming_ones_own_gives_the_same() {
        let own = NetnsId::own().unwrap();
        let pid = std::process::id().to_string();
        let path = format!("/proc/{pid}/ns/net");
        for text in [&pid, &path, &own.inode.to_string(), &format!("net:[{}]", own.inode)] {
            let ns = resolve(text).unwrap();
            assert_eq!(ns.id, own, "{text}");
            ns.open().unwrap();
        }
    }

    #[test]
    fn refusals_say_what_was_tried() {
        assert!(refusal("no-such").contains("/run/netns/no-such does not exist"));
        assert!(refusal("4194304").contains("no process 4194304"));
        assert!(refusal("4194305").contains("has inode 4194305"));
        assert!(refusal("99999999999").contains("give a name, a path, an inode"));
        assert!(refusal("net:[x]").contains("give a name"));
        assert!(refusal("/proc/self/ns/mnt").contains("is not a network namespace"));
        assert!(refusal("/proc/self/stat").contains("is not a network namespace"));
        assert!(refusal("/proc").contains("is not a network namespace"));
        assert!(refusal("/no/such").contains("No such file"));
        for text in ["", ".", "..", "a\0b"] {
            assert!(matches!(resolve(text), Err(NetnsError::Form(_))), "{text:?}");
        }
        assert!(resolve("/no/such").unwrap_err().is_host());
        assert!(!resolve("no-such").unwrap_err().is_host());
    }
}
