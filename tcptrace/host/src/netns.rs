//! The network namespaces of the host: which there are, and how to ask something inside one.
//!
//! Nothing here holds a namespace open: an open file of a namespace, or a socket in it, keeps it
//! alive, and a tracer must not put off the end that it reports. A [`Netns`] is a path that is
//! checked again whenever it is opened. No thread of the caller changes namespace.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::mounts::{self, Mount};
use super::process;
use super::sock_diag::SockDiag;
use tcptrace_model::Cgroup;

mod resolve;

pub use resolve::{NetnsError, resolve};

/// Where `ip netns` and most container tools mount named namespaces (`/var/run` is `/run`).
const NAMED: &str = "/run/netns";
/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Processes looked at before the search stops.
const MAX_PROCESSES: usize = 65_536;
/// Namespaces listed before the search stops.
const MAX_NAMESPACES: usize = 4_096;
/// Refusals told one by one; the rest are counted.
const MAX_REFUSED: usize = 16;

/// What tells one network namespace from all others that live at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Inode of the namespace's file in nsfs, as in `net:[4026531840]` and in the kernel's
    /// `net.ns.inum`. The kernel reuses it after the namespace's end.
    pub inode: u32,
    /// Device of nsfs, the same for all namespaces of a kernel.
    pub device: u64,
}

impl NetnsId {
    /// Of the file at `path`, which is followed.
    fn of(path: &Path) -> io::Result<Self> {
        Self::from_metadata(&fs::metadata(path)?)
    }

    fn from_metadata(file: &fs::Metadata) -> io::Result<Self> {
        // proc_alloc_inum() gives 32 bits.
        let inode = u32::try_from(file.ino()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "not a namespace: its inode has 64 bits")
        })?;
        Ok(Self { inode, device: file.dev() })
    }

    /// Of the calling thread's namespace.
    pub fn own() -> io::Result<Self> {
        Self::of(Path::new(OWN))
    }
}

/// A network namespace and a way into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Which one.
    pub id: NetnsId,
    /// A file that leads to it: a bind mount, or `/proc/PID/ns/net`. The process may end, and its
    /// number may go to another: [`Self::open`] checks.
    pub path: PathBuf,
    /// Its name: that of the file it is mounted on. Untrusted text.
    pub name: Option<String>,
    /// That name is one that `ip netns` shows.
    pub is_ip_netns: bool,
    /// A process in it, where it was found by one.
    pub pid: Option<u32>,
}

impl Netns {
    /// One that is still to be looked at.
    fn at(path: PathBuf, mount: Option<&Mounted>, pid: Option<u32>) -> Self {
        Self {
            id: NetnsId { inode: 0, device: 0 },
            path,
            name: mount.map(|mount| mount.name.clone()),
            is_ip_netns: mount.is_some_and(|mount| mount.path.starts_with(NAMED)),
            pid,
        }
    }

    /// What people call it: the name that `ip netns` shows, else the container of a process in it, or that
    /// process with its number, else the name of the file it is mounted on. Untrusted text.
    pub fn label(&self) -> Option<String> {
        if self.is_ip_netns {
            return self.name.clone();
        }
        self.pid.and_then(of_process).or_else(|| self.name.clone())
    }

    /// Opens it, and makes sure that the file is still this namespace's. The caller closes it
    /// soon: until then the namespace cannot end.
    pub fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        if NetnsId::from_metadata(&file.metadata()?)? != self.id {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{:?} is another namespace by now", self.path),
            ));
        }
        Ok(file)
    }

    /// Runs `job` inside the namespace, on a thread of its own that ends with it, and waits for
    /// it. Needs CAP_SYS_ADMIN in the namespace's user namespace and in one's own, unless the
    /// namespace is the caller's.
    ///
    /// A path under `/proc` names the thread's namespace only as `/proc/thread-self/net`:
    /// `/proc/net` is that of the process's first thread.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        if NetnsId::own().is_ok_and(|own| own == self.id) {
            return Ok(job());
        }
        thread::scope(|scope| {
            let inside = || {
                let file = self.open()?;
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                drop(file);
                Ok(job())
            };
            let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .map_err(|error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "; that needs CAP_SYS_ADMIN",
                _ => "",
            };
            // Debug, because it escapes: the path may be of another's choosing.
            let (inode, path) = (self.id.inode, &self.path);
            let message =
                format!("cannot enter network namespace {inode} ({path:?}): {error}{hint}");
            io::Error::new(error.kind(), message)
        })
    }

    /// Its cookie, which no other namespace ever gets while the host is up; `None` where the kernel does
    /// not tell (before 5.14).
    ///
    /// # Errors
    /// It cannot be entered.
    pub fn cookie(&self) -> io::Result<Option<u64>> {
        Ok(self.open_diag()?.netns_cookie())
    }

    /// A sock_diag socket inside the namespace. It keeps the namespace alive: see [`SockDiag`].
    pub fn open_diag(&self) -> io::Result<SockDiag> {
        Ok(self.run(SockDiag::open)??)
    }
}

/// What a process says of its namespace: its container, else its own name and number.
fn of_process(pid: u32) -> Option<String> {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    if let Some(cgroup) = path.map(Cgroup::parse)
        && cgroup.container().is_some()
    {
        return Some(cgroup.name().to_owned());
    }
    // Those of the kernel are in its first namespace, and say nothing of it.
    if process::task(pid).is_ok_and(|task| task.is_kernel) {
        return None;
    }
    let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let comm = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned();
    Some(format!("{comm}[{pid}]"))
}

/// The namespaces that were found, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// Each namespace once, the caller's own first.
    pub found: Vec<Netns>,
    /// Files that could not be looked at, up to [`Self::refused_more`]; there may be further
    /// namespaces behind them. Those of processes that ended meanwhile are not among them, nor those
    /// of processes that are in a namespace of [`Self::found`], by what else `/proc` shows of it.
    pub refused: Vec<Refused>,
    /// How many more of those there were than are told.
    pub refused_more: usize,
    /// The search stopped at a limit, of processes or of namespaces.
    pub cut: bool,
}

/// A file that could lead to a namespace and could not be looked at.
#[derive(Debug)]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Namespaces {
    fn add_mounted(&mut self, mount: &Mounted) {
        let path = mount.path.clone();
        let looked = NetnsId::of(&path);
        self.take(looked, Netns::at(path, Some(mount), None));
    }

    fn add_process(&mut self, pid: u32) {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let looked = NetnsId::of(&path);
        let own = std::process::id();
        match self.found.iter_mut().find(|known| looked.as_ref().is_ok_and(|id| *id == known.id)) {
            // Who a namespace is named after is the first process in it, and not this one.
            Some(known) if known.pid.is_none_or(|pid| pid == own) => known.pid = Some(pid),
            Some(_) => {}
            None => self.take(looked, Netns::at(path, None, Some(pid))),
        }
    }

    /// Adds what looking at the path of `netns` gave.
    fn take(&mut self, looked: io::Result<NetnsId>, netns: Netns) {
        match looked {
            Ok(id) if self.found.iter().any(|known| known.id == id) => {}
            Ok(_) if self.found.len() >= MAX_NAMESPACES => self.cut = true,
            Ok(id) => self.found.push(Netns { id, ..netns }),
            // Gone between the listing and the look, or a zombie, which has no namespaces.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(_) if self.refused.len() >= MAX_REFUSED => self.refused_more += 1,
            Err(error) => self.refused.push(Refused { path: netns.path, error }),
        }
    }
}

impl Namespaces {
    /// Takes out the refusals of processes that are in a namespace that was found. `files` gives
    /// [`files_of`] of a process, and `own` is that of this one.
    ///
    /// A security module, or a process that may not be traced, can refuse `ns/net` whatever the
    /// capabilities; pid 1 of a container host often does. Nothing is missing then.
    fn forget_known_refusals(&mut self, files: &dyn Fn(u32) -> Option<u64>, own: Option<u64>) {
        if self.refused.is_empty() {
            return;
        }
        let found = self.found.iter().filter_map(|namespace| files(namespace.pid?));
        let known: Vec<u64> = found.chain(own).collect();
        self.refused.retain(|refused| {
            let pid = refused.path.iter().nth(2).and_then(|pid| pid.to_str()?.parse().ok());
            pid.and_then(files).is_none_or(|inode| !known.contains(&inode))
        });
    }
}

/// Finds the network namespaces that the caller can reach: its own, those mounted anywhere in its
/// mount namespace, and those of processes (the first thread of each). One that is held only by
/// an open file or a socket, or only by a later thread, is not found.
///
/// Costs one `stat` for each process. Seeing other users' processes needs CAP_SYS_PTRACE.
pub fn namespaces() -> io::Result<Namespaces> {
    let mut all = Namespaces::default();
    let own = PathBuf::from(OWN);
    let own_id = NetnsId::of(&own)?;
    let mounted = mounted(&mounts::mounts()?);
    let own_name = mounted.iter().find(|mount| mount.inode == own_id.inode);
    all.take(Ok(own_id), Netns::at(own, own_name, Some(std::process::id())));
    mounted.iter().for_each(|mount| all.add_mounted(mount));
    let processes = fs::read_dir("/proc")?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    for (index, pid) in processes.enumerate() {
        if index >= MAX_PROCESSES || all.cut {
            all.cut = true;
            break;
        }
        all.add_process(pid);
    }
    all.forget_known_refusals(&|pid| files_of(&pid.to_string()), files_of("thread-self"));
    Ok(all)
}

/// What tells the `/proc/PID/net` of one network namespace from another's: the inode of a file in it,
/// which each namespace gets from proc_alloc_inum() when it is made (`dev_proc_net_init()`). Unlike
/// `ns/net` it needs no right to trace the process.
fn files_of(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/net/dev")).ok().map(|file| file.ino())
}

/// A bind mount of a network namespace.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    inode: u32,
    path: PathBuf,
    name: String,
}

/// The network namespaces among the mounts: those under [`NAMED`] first, since those names are
/// the ones that people know.
fn mounted(mounts: &[Mount]) -> Vec<Mounted> {
    let namespace = |mount: &Mount| {
        let inode = mount.root.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
        let name = mount.point.file_name()?.to_string_lossy().into_owned();
        (mount.kind == "nsfs").then(|| Mounted { inode, path: mount.point.clone(), name })
    };
    let mut found: Vec<_> = mounts.iter().filter_map(namespace).collect();
    found.sort_by_key(|mount| !mount.path.starts_with(NAMED));
    found
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::fresh_netns;
    use super::*;

    #[test]
    fn only_network_namespaces_are_taken_from_the_mounts() {
        let text = b"1 2 0:4 net:[40] /run/docker/netns/x rw - nsfs nsfs rw\n\
            1 2 0:4 mnt:[41] /run/snapd/ns/y rw - nsfs nsfs rw\n\
            1 2 0:4 net:[99999999999] /too/big rw - nsfs nsfs rw\n\
            1 2 0:4 net:[43] /not/nsfs rw - ext4 nsfs rw\n\
            1 2 0:4 net:[44] /run/netns/z rw - nsfs nsfs rw\n";
        let found = mounted(&mounts::parse(text));
        let found: Vec<_> = found.iter().map(|m| (m.inode, m.name.as_str())).collect();
        assert_eq!(found, [(44, "z"), (40, "x")]);
    }

    #[test]
    fn ones_own_namespace_comes_first_and_once() {
        let all = namespaces().unwrap();
        let own = NetnsId::own().unwrap();
        assert_eq!(all.found[0].id, own);
        assert_eq!(all.found.iter().filter(|ns| ns.id == own).count(), 1);
        assert_eq!(all.found[0].run(NetnsId::own).unwrap().unwrap(), own);
    }

    #[test]
    fn a_refusal_counts_only_where_a_namespace_may_be_missing() {
        let mut all = namespaces().unwrap();
        all.refused.clear();
        for pid in [7, 8, 9] {
            let refused = Err(io::ErrorKind::PermissionDenied.into());
            let path = format!("/proc/{pid}/ns/net").into();
            all.take(refused, Netns::at(path, None, Some(pid)));
        }
        let own = 40;
        // One is in this process's namespace, one in another, and of one that is not known either.
        let files = |pid| [(7, own), (8, 41)].into_iter().find(|(of, _)| *of == pid).map(|f| f.1);
        all.forget_known_refusals(&files, Some(own));
        let left: Vec<_> = all.refused.iter().map(|r| r.path.to_str().unwrap()).collect();
        assert_eq!(left, ["/proc/8/ns/net", "/proc/9/ns/net"]);
    }

    #[test]
    fn the_files_of_a_namespace_are_the_same_for_its_processes_and_no_others() {
        let own = files_of("thread-self");
        assert!(own.is_some());
        assert_eq!(own, files_of(&std::process::id().to_string()));
        fresh_netns::run(|| {
            let other = files_of("thread-self");
            assert!(other.is_some() && other != own, "{other:?} {own:?}");
        });
    }

    #[test]
    fn a_path_that_leads_elsewhere_by_now_is_not_entered() {
        let mut ns = namespaces().unwrap().found.swap_remove(0);
        ns.id.inode ^= 1;
        let error = ns.run(|| ()).unwrap_err().to_string();
        assert!(error.contains("another namespace by now"), "{error}");
    }

    /// A thread other than the first is found by its own path only, which stands for a mount.
    #[test]
    fn a_job_runs_inside_and_the_caller_stays_outside() {
        let before = NetnsId::own().unwrap();
        let (tell, told) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            fresh_netns::run(move || {
                let thread = fs::read_link("/proc/thread-self").unwrap();
                tell.send((NetnsId::own().unwrap(), thread)).unwrap();
                let _ = left.recv();
            });
        });
        if let Ok((id, thread)) = told.recv() {
            let path = Path::new("/proc").join(thread).join("ns/net");
            let ns = Netns { id, ..Netns::at(path.clone(), None, None) };
            assert_ne!(id, before);
            assert_eq!(ns.run(NetnsId::own).unwrap().unwrap(), id);
            assert_eq!(NetnsId::own().unwrap(), before);
            assert_eq!(resolve(path.to_str().unwrap()).unwrap().id, id);
            ns.open_diag().unwrap();
        }
        drop(leave);
        other.join().unwrap();
    }
}
