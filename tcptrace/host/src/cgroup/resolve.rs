//! What a person may write to name a cgroup (`--cgroup`), made into its id.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::Hierarchy;
use tcptrace_model::task::escape;

/// Why no cgroup could be made of what was written.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Not of a form that can name one.
    #[error(
        "no cgroup: give a path from the root of the hierarchy, as /system.slice/nginx.service, \
         or an id, which is the inode of its directory"
    )]
    Form,
    /// Nothing is there.
    #[error("no such cgroup: {} does not exist", shown(.0))]
    Missing(PathBuf),
    /// The directory is of another file system, or of a hierarchy of v1.
    #[error("{} is no cgroup of v2", shown(.0))]
    NotCgroup(PathBuf),
    /// This process does not see the hierarchy from its root.
    #[error("outside of {0}, which is all of the hierarchy that can be seen from here")]
    Unseen(String),
    /// There is nothing to look in.
    #[error("cannot find a cgroup by its path: {0}; its id can be given instead")]
    NoHierarchy(io::Error),
    /// The directory could not be looked at.
    #[error("cannot look at {}: {error}", shown(.path))]
    Host {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

impl CgroupError {
    /// Whether the host refused, rather than the user erred.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::NoHierarchy(_) | Self::Host { .. })
    }
}

/// Finds the id of the cgroup (v2) that `text` names:
///
/// - a number: the id itself;
/// - a path to its directory, as /sys/fs/cgroup/system.slice;
/// - a path from the root of the hierarchy, as /system.slice: as `/proc/PID/cgroup` has it.
///
/// # Errors
/// See [`CgroupError`].
pub fn resolve(text: &str) -> Result<u64, CgroupError> {
    if let Ok(id) = text.parse() {
        return if id == 0 { Err(CgroupError::Form) } else { Ok(id) };
    }
    if !text.starts_with('/') || text.contains('\0') {
        return Err(CgroupError::Form);
    }
    match look(Path::new(text)) {
        Err(CgroupError::Missing(_) | CgroupError::NotCgroup(_)) => {}
        found => return found,
    }
    let hierarchy = Hierarchy::open().map_err(CgroupError::NoHierarchy)?;
    look(&hierarchy.directory(text)?)
}

impl Hierarchy {
    /// Where the cgroup is that is called `name` from the root of the hierarchy.
    fn directory(&self, name: &str) -> Result<PathBuf, CgroupError> {
        let Ok(inside) = Path::new(name).strip_prefix(Path::new("/").join(&self.root)) else {
            return Err(CgroupError::Unseen(escape(self.root.as_bytes())));
        };
        Ok(self.point.join(inside))
    }
}

/// The id of the cgroup whose directory is at `path`.
fn look(path: &Path) -> Result<u64, CgroupError> {
    let host = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            CgroupError::Missing(path.to_owned())
        }
        _ => CgroupError::Host { path: path.to_owned(), error },
    };
    let directory = File::open(path).map_err(host)?;
    let metadata = directory.metadata().map_err(host)?;
    let kind = fstatfs(&directory).map_err(|errno| host(errno.into()))?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC || !metadata.is_dir() {
        return Err(CgroupError::NotCgroup(path.to_owned()));
    }
    Ok(metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (bool, String) {
        let error = resolve(text).unwrap_err();
        (error.is_host(), error.to_string())
    }

    #[test]
    fn an_id_is_one_and_a_bare_word_is_not() {
        assert_eq!(resolve("7").unwrap(), 7);
        for text in ["", "0", "-1", "nginx.service", "system.slice/nginx.service", "/a\0b"] {
            let (host, said) = refusal(text);
            assert!(!host && said.starts_with("no cgroup: give a path"), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_not_there_or_none_is_told_apart() {
        // Where there is no cgroup2 at all, that is what is said.
        let Ok(hierarchy) = Hierarchy::open() else {
            assert!(refusal("/no-such.slice").0);
            return;
        };
        let (host, said) = refusal("/no-such.slice/\x1b[31m.service");
        let point = hierarchy.point.display();
        assert_eq!(
            (host, said),
            (
                false,
                format!("no such cgroup: {point}/no-such.slice/\\x1b[31m.service does not exist")
            )
        );
        let file = hierarchy.point.join("cgroup.procs");
        let (host, said) = refusal(file.to_str().unwrap());
        assert!(!host && said.starts_with("no such cgroup: "), "{said}");
        assert!(matches!(look(Path::new("/proc")), Err(CgroupError::NotCgroup(_))));
        assert!(matches!(look(&file), Err(CgroupError::NotCgroup(_))));
    }

    #[test]
    fn the_root_is_found_by_either_path() {
        let Ok(hierarchy) = Hierarchy::open() else { return };
        let id = hierarchy.handle.metadata().unwrap().ino();
        assert_eq!(resolve(hierarchy.point.to_str().unwrap()).unwrap(), id);
        let name = if hierarchy.root.is_empty() { "/" } else { &hierarchy.root };
        assert_eq!(resolve(name).unwrap(), id);
    }

    #[test]
    fn a_part_of_the_hierarchy_is_entered_at_its_root() {
        let hierarchy = |root: &str| Hierarchy {
            point: "/m".into(),
            root: root.to_owned(),
            handle: File::open("/").unwrap(),
            walked: None,
        };
        let directory = |root, name| hierarchy(root).directory(name).map_err(|e| e.to_string());
        assert_eq!(directory("", "/a/b"), Ok("/m/a/b".into()));
        assert_eq!(directory("", "/"), Ok("/m".into()));
        assert_eq!(directory("/x", "/x/a"), Ok("/m/a".into()));
        assert_eq!(
            directory("/x", "/xa"),
            Err("outside of /x, which is all of the hierarchy that can be seen from here".into())
        );
    }
}
