//! What a cgroup (v2) is called, by its id.
//!
//! The id is that of its directory in kernfs: the inode, and since 5.5 also the file handle (no
//! kernel before 5.8 tells an id for a socket). So one
//! `open_by_handle_at()` finds it, at about 2 µs; that needs CAP_DAC_READ_SEARCH. Where it is
//! refused, the tree is walked, at most once a second and so far as [`MAX_WALKED`] goes.
//!
//! A cgroup that is gone has no name any more: who must know it later asks early. Ids are not
//! reused. The path is seen from the cgroup namespace and the mount that this process has; what is
//! outside of them has none.

mod resolve;

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::DirEntryExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::mounts::{self, Mount};

pub use resolve::{CgroupError, resolve};

/// Directories that a walk looks at: about 40 ms.
const MAX_WALKED: usize = 4_096;
/// The least between two walks.
const WALK_EVERY_NS: u64 = 1_000_000_000;
/// `FILEID_KERNFS` of `linux/exportfs.h`: a handle that is a 64-bit id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with room for a kernfs id.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The path from the root of the hierarchy; `/` for the root itself. Untrusted text; bytes that
    /// are no UTF-8 are replaced.
    Path(Box<str>),
    /// There is none (any more), or none that can be seen from here.
    Nowhere,
    /// It may have come since the last walk; asked again in a second, it will be found.
    NotYet,
}

/// The hierarchy of cgroups as this process sees it.
#[derive(Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    point: PathBuf,
    /// The cgroup that is mounted there, without a `/` at the end.
    root: String,
    handle: File,
    walked: Option<Walked>,
}

/// What a walk has found.
#[derive(Debug, Default)]
struct Walked {
    paths: HashMap<u64, Box<str>>,
    at_ns: u64,
}

impl Hierarchy {
    /// Finds where cgroup2 is mounted.
    ///
    /// # Errors
    /// `NotFound` where it is not, and what opening it was answered.
    pub fn open() -> io::Result<Self> {
        let mounts = mounts::mounts()?;
        let mount = best(&mounts).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no cgroup2 file system is mounted")
        })?;
        let handle = File::open(&mount.point)?;
        let root = mount.root.to_string_lossy();
        let root = root.trim_end_matches('/').to_owned();
        Ok(Self { point: mount.point.clone(), root, handle, walked: None })
    }

    /// The path of a cgroup, at `now` (`CLOCK_MONOTONIC`, nanoseconds).
    pub fn path(&mut self, id: u64, now: u64) -> Answer {
        if self.walked.is_none() {
            match self.by_handle(id) {
                Ok(answer) => return answer,
                Err(error) if refused(&error) => self.walked = Some(self.walk(now)),
                // Out of memory or descriptors: that may pass.
                Err(_) => return Answer::NotYet,
            }
        }
        let walked = self.walked.as_ref();
        if let Some(path) = walked.and_then(|walked| walked.paths.get(&id)) {
            return Answer::Path(path.clone());
        }
        let fresh = walked.is_some_and(|walked| walked.at_ns == now);
        let rest = walked.map_or(0, |walked| now.saturating_sub(walked.at_ns)) < WALK_EVERY_NS;
        if fresh {
            return Answer::Nowhere;
        }
        if rest {
            return Answer::NotYet;
        }
        let walked = self.walked.insert(self.walk(now));
        walked.paths.get(&id).map_or(Answer::Nowhere, |path| Answer::Path(path.clone()))
    }

    fn by_handle(&self, id: u64) -> io::Result<Answer> {
        let handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id };
        // SAFETY: the pointer is to a live `struct file_handle` whose `bytes` is the length of what
        // follows its two header fields; the call reads it alone and keeps nothing. `libc` has no
        // such function for all of its C libraries, so it is called by its number, with the three
        // arguments that it takes.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.handle.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ESTALE) => Ok(Answer::Nowhere),
                _ => Err(error),
            };
        }
        // A file descriptor is an `int`.
        let fd = fd as i32;
        // SAFETY: the call just gave this descriptor, and nothing else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))?;
        Ok(self.named(&path).map_or(Answer::Nowhere, Answer::Path))
    }

    /// The name of a cgroup whose directory is `path`, unless that is outside of the mount, or was
    /// removed at this very moment.
    fn named(&self, path: &Path) -> Option<Box<str>> {
        let inside = path.strip_prefix(&self.point).ok()?.as_os_str().as_bytes();
        if inside.ends_with(b" (deleted)") && !path.exists() {
            return None;
        }
        let name = match (self.root.as_str(), inside) {
            ("", b"") => "/".to_owned(),
            (root, b"") => root.to_owned(),
            (root, inside) => format!("{root}/{}", String::from_utf8_lossy(inside)),
        };
        Some(name.into())
    }

    /// Looks at the whole tree, breadth first, as far as it may be read. Costs about 10 µs for each
    /// cgroup: it has dozens of files.
    fn walk(&self, now: u64) -> Walked {
        let mut paths = HashMap::new();
        let mut found = 0;
        let mut level = Vec::new();
        if let Ok(root) = self.handle.metadata() {
            level.push((root.ino(), self.point.clone()));
        }
        while !level.is_empty() && found < MAX_WALKED {
            let mut next = Vec::new();
            for (id, path) in level {
                found += 1;
                if found > MAX_WALKED {
                    break;
                }
                if let Some(name) = self.named(&path) {
                    paths.insert(id, name);
                }
                let Ok(entries) = fs::read_dir(&path) else { continue };
                next.extend(entries.filter_map(|entry| {
                    let entry = entry.ok()?;
                    entry.file_type().ok()?.is_dir().then(|| (entry.ino(), entry.path()))
                }));
            }
            level = next;
        }
        Walked { paths, at_ns: now }
    }
}

/// Whether the way by handles is closed for good: no privilege, a seccomp profile, or a kernel that
/// has other handles.
fn refused(error: &io::Error) -> bool {
    const FOR_GOOD: [i32; 5] =
        [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP, libc::EINVAL];
    error.raw_os_error().is_some_and(|errno| FOR_GOOD.contains(&errno))
}

/// The mount that shows most: rather the whole hierarchy than a part, rather here than elsewhere.
fn best(mounts: &[Mount]) -> Option<&Mount> {
    let cgroup2 = mounts.iter().filter(|mount| mount.kind == "cgroup2");
    // A mount of what is above one's own cgroup namespace has a root of `/..`: no names there.
    let inside = cgroup2.filter(|mount| !mount.root.as_bytes().starts_with(b"/.."));
    inside.min_by_key(|mount| (mount.root.len(), mount.point.as_os_str().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_taken_before_a_part() {
        let text = b"1 2 0:1 /system.slice/docker-1.scope /c rw - cgroup2 x rw\n\
            1 2 0:1 / /sys/fs/cgroup/unified rw - cgroup2 x rw\n\
            1 2 0:1 / /sys/fs/cgroup rw - tmpfs x rw\n\
            1 2 0:1 /.. /sys rw - cgroup2 x rw\n";
        let mounts = mounts::parse(text);
        assert_eq!(best(&mounts).unwrap().point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(best(&mounts[..1]).unwrap().point, Path::new("/c"));
        assert_eq!(best(&mounts[2..]), None);
    }

    fn hierarchy(root: &str) -> Hierarchy {
        let directory = Path::new("/");
        let handle = File::open(directory).unwrap();
        Hierarchy { point: "/m".into(), root: root.to_owned(), handle, walked: None }
    }

    #[test]
    fn a_path_is_seen_from_the_root_of_the_hierarchy() {
        let named = |root, path: &str| hierarchy(root).named(Path::new(path));
        assert_eq!(named("", "/m").as_deref(), Some("/"));
        assert_eq!(named("", "/m/a/b").as_deref(), Some("/a/b"));
        assert_eq!(named("/x", "/m").as_deref(), Some("/x"));
        assert_eq!(named("/x", "/m/a").as_deref(), Some("/x/a"));
        assert_eq!(named("", "/a"), None);
        assert_eq!(named("", "/m/a (deleted)"), None);
    }

    /// Any tree will do to be walked.
    #[test]
    fn a_walk_finds_directories_by_their_inodes_and_asks_again_after_a_second() {
        let tree = tempfile::tempdir().unwrap();
        let (one, other) = (tree.path().join("a/b"), tree.path().join("c"));
        fs::create_dir_all(&one).unwrap();
        fs::write(tree.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/", tree.path().join("link")).unwrap();
        let mut hierarchy = Hierarchy {
            point: tree.path().to_owned(),
            root: String::new(),
            handle: File::open(tree.path()).unwrap(),
            walked: Some(Walked::default()),
        };
        let mut ask = |path: &Path, now| {
            let id = fs::metadata(path).unwrap().ino();
            hierarchy.path(id, now)
        };
        let second = WALK_EVERY_NS;
        assert_eq!(ask(&one, second), Answer::Path("/a/b".into()));
        assert_eq!(ask(tree.path(), second), Answer::Path("/".into()));
        fs::create_dir(&other).unwrap();
        assert_eq!(ask(&other, second + 1), Answer::NotYet);
        assert_eq!(ask(&other, 2 * second), Answer::Path("/c".into()));
        assert_eq!(ask(Path::new("/"), 2 * second), Answer::Nowhere);
        assert_eq!(ask(Path::new("/"), 3 * second), Answer::Nowhere);
        let gone = fs::metadata(&other).unwrap().ino();
        fs::remove_dir(&other).unwrap();
        // What was known stays so.
        assert_eq!(hierarchy.path(gone, 4 * second), Answer::Path("/c".into()));
    }
}
