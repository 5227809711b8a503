//! Which processes hold which sockets, and what a process says of itself.
//!
//! Holders are found by reading all of `/proc/PID/fd`, about 5 µs for each open file; or among the open
//! sockets that a caller lists who has the kernel's iterator over them, which takes a program. The work
//! is bounded, and it is the caller who decides that it is needed.
//!
//! Own loop rather than `procfs` 0.18, which makes a path, a link and a `stat` of each file: for
//! 19,800 sockets it took 190 ms and this 94 ms.
//!
//! What `/proc` does not show: processes of other users without CAP_SYS_PTRACE, those that `hidepid` or
//! another PID namespace hides, and the files of a thread that shares them with no first thread of a
//! process, or whose first thread has ended. Process ids and users are those of this process's namespaces.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw},
    io::Errno,
};

use super::clock;
use tcptrace_model::{Comm, Holder, Task};

/// Processes looked at before the search stops.
const MAX_PROCESSES: usize = 65_536;
/// Open files looked at before the search stops: about 2.5 s.
const MAX_FILES: usize = 1 << 19;
/// Of one process, so that it cannot hide all others.
const MAX_FILES_OF_ONE: usize = 1 << 18;
/// Bytes read of a command line.
const MAX_COMMAND_LINE: u64 = 64 * 1024;

/// What a search found.
#[derive(Debug, Default)]
pub struct Holders {
    /// By the socket's inode.
    pub by_inode: HashMap<u32, Holder>,
    /// Processes whose files could not be looked at.
    pub refused: usize,
    /// The search stopped at a limit.
    pub cut: bool,
    /// Processes that were looked at.
    pub processes: usize,
    /// Open files that were looked at.
    pub files: usize,
}

/// A socket that a process has open, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenSocket {
    /// The process's number, in the PID namespace of `/proc`.
    pub tgid: u32,
    /// When it was started, in nanoseconds of the kernel's CLOCK_BOOTTIME.
    pub started_ns: u64,
    /// The socket's inode.
    pub inode: u32,
}

/// Open sockets on their way to [`Holders`]: those that are wanted, and not more than a search looks at.
#[derive(Debug)]
pub struct OpenSockets<'a> {
    wanted: &'a HashSet<u32>,
    all: Vec<OpenSocket>,
    files: usize,
    cut: bool,
}

impl<'a> OpenSockets<'a> {
    /// For the holders of the sockets with these inodes.
    pub fn wanted(wanted: &'a HashSet<u32>) -> Self {
        Self { wanted, all: Vec::new(), files: 0, cut: false }
    }

    /// Takes one more; false where no more are to be looked at.
    pub fn take(&mut self, socket: OpenSocket) -> bool {
        if self.files >= MAX_FILES {
            self.cut = true;
            return false;
        }
        self.files += 1;
        if self.wanted.contains(&socket.inode) {
            self.all.push(socket);
        }
        true
    }

    /// Who holds them. Of a process that has ended meanwhile nothing is told, nor of one that is hidden
    /// (`hidepid`).
    pub fn holders(mut self) -> Holders {
        // One process after the other, and each socket of it once.
        self.all.sort_unstable();
        self.all.dedup();
        let mut found = Holders { files: self.files, cut: self.cut, ..Holders::default() };
        let mut candidates = HashMap::new();
        for sockets in self.all.chunk_by(|a, b| (a.tgid, a.started_ns) == (b.tgid, b.started_ns)) {
            let [OpenSocket { tgid, started_ns, .. }, ..] = *sockets else { continue };
            found.processes += 1;
            let process = match open(tgid).and_then(|home| describe(tgid, &home)) {
                Ok(process) => process,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                    continue;
                }
                Err(_) => {
                    found.refused += 1;
                    continue;
                }
            };
            // The number is another's by now. (A time namespace's offset may round by one.)
            if process.started.abs_diff(clock::kernel_start_ticks(started_ns)) > 1 {
                continue;
            }
            for socket in sockets {
                add(&mut candidates, socket.inode, process);
            }
        }
        found.by_inode = chosen(candidates);
        found
    }
}

/// A process, read when the first wanted socket of it was found.
#[derive(Clone, Copy)]
struct Process {
    task: Task,
    /// Clock ticks from boot to its start.
    started: u64,
}

impl Process {
    /// Whether it was started before `other`; of two in one tick, the lower number.
    fn is_before(&self, other: &Self) -> bool {
        (self.started, self.task.tgid) < (other.started, other.task.tgid)
    }
}

/// A holder as long as the search lasts.
struct Candidate {
    first: Process,
    last: Process,
    holders: u32,
    /// The process that was seen last with it: one may have it open several times.
    seen: u32,
}

/// Finds who holds the sockets with these inodes. A process that ends meanwhile is passed over.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn holders(inodes: &HashSet<u32>) -> io::Result<Holders> {
    let mut found = Holders::default();
    let mut candidates: HashMap<u32, Candidate> = HashMap::new();
    // Room for some hundred entries a call.
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse().ok())
        else {
            continue;
        };
        if found.processes >= MAX_PROCESSES || found.files >= MAX_FILES {
            found.cut = true;
            break;
        }
        found.processes += 1;
        match files(pid, inodes, &mut buffer, &mut candidates) {
            Ok(files) => {
                found.files += files;
                found.cut |= files >= MAX_FILES_OF_ONE;
            }
            // It ended, or is a zombie.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(_) => found.refused += 1,
        }
    }
    found.by_inode = chosen(candidates);
    Ok(found)
}

/// Adds a process that has the socket open: all of one process's come together.
fn add(candidates: &mut HashMap<u32, Candidate>, inode: u32, process: Process) {
    let pid = process.task.tgid;
    let candidate = candidates.entry(inode).or_insert(Candidate {
        first: process,
        last: process,
        holders: 0,
        seen: 0,
    });
    if candidate.seen != pid {
        candidate.seen = pid;
        candidate.holders += 1;
        if process.is_before(&candidate.first) {
            candidate.first = process;
        }
        if candidate.last.is_before(&process) {
            candidate.last = process;
        }
    }
}

fn chosen(candidates: HashMap<u32, Candidate>) -> HashMap<u32, Holder> {
    let holder = |Candidate { first, last, holders, .. }| Holder {
        task: last.task,
        first: first.task,
        holders,
    };
    candidates.into_iter().map(|(inode, candidate)| (inode, holder(candidate))).collect()
}

/// Looks at the open files of one process, and says how many those were. All goes through one
/// descriptor of its directory: should the process end, its number cannot lead to another one.
fn files(
    pid: u32,
    inodes: &HashSet<u32>,
    buffer: &mut [MaybeUninit<u8>],
    candidates: &mut HashMap<u32, Candidate>,
) -> io::Result<usize> {
    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let home = openat(CWD, format!("/proc/{pid}"), DIRECTORY, Mode::empty())?;
    let fds = openat(&home, c"fd", DIRECTORY, Mode::empty())?;
    let mut process = None;
    let mut count = 0;
    let mut entries = RawDir::new(&fds, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if count >= MAX_FILES_OF_ONE {
            break;
        }
        // The directory of a process that may not be looked into can be listed all the same.
        let Some(inode) = socket_at(&fds, entry.file_name())? else { continue };
        count += 1;
        let Some(inode) = inode.filter(|inode| inodes.contains(inode)) else { continue };
        let process = match &mut process {
            Some(process) => *process,
            none => *none.insert(describe(pid, &home)?),
        };
        add(candidates, inode, process);
    }
    Ok(count)
}

/// What the file is: `None` if it was closed meanwhile, else the inode if it is a socket.
fn socket_at(fds: &OwnedFd, name: &CStr) -> io::Result<Option<Option<u32>>> {
    // `socket:[4294967295]` is the longest that matters.
    let mut link = [MaybeUninit::uninit(); 24];
    match readlinkat_raw(fds.as_fd(), name, &mut link) {
        Ok((link, _)) => Ok(Some(socket_inode(link))),
        // `.` and `..` are no links.
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// `socket:[INODE]`, which `sockfs_dname()` writes.
fn socket_inode(link: &[u8]) -> Option<u32> {
    let inode = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

fn describe(pid: u32, home: &OwnedFd) -> io::Result<Process> {
    let started = started(&read(home, c"stat")?).ok_or_else(odd)?;
    let started = clock::kernel_start_time(started);
    let uid = real_uid(&read(home, c"status")?).ok_or_else(odd)?;
    let comm = comm(&read(home, c"comm")?);
    // Cut as the kernel side cuts it.
    Ok(Process { task: Task::process(pid, uid, started as u32, comm), started })
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not what the kernel writes of a process")
}

fn read(home: &OwnedFd, name: &CStr) -> io::Result<Vec<u8>> {
    let file = openat(home, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut fs::File::from(file), &mut bytes)?;
    Ok(bytes)
}

/// `starttime` of `/proc/PID/stat`, its 22nd field.
fn started(stat: &[u8]) -> Option<u64> {
    field(stat, 22)
}

/// The state in `/proc/PID/stat`, its third field.
fn state(stat: &[u8]) -> Option<u8> {
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    stat.get(after..)?.iter().copied().find(|byte| *byte != b' ')
}

/// `num_threads` of `/proc/PID/stat`, its 20th field.
fn threads(stat: &[u8]) -> Option<u64> {
    field(stat, 20)
}

/// A number in `/proc/PID/stat`, by its place, which is above 2. The name before the third field may have
/// blanks and brackets in it.
fn field(stat: &[u8], place: usize) -> Option<u64> {
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let fields = std::str::from_utf8(stat.get(after..)?).ok()?;
    fields.split_ascii_whitespace().nth(place.checked_sub(3)?)?.parse().ok()
}

/// Files that are open on the whole host, in all namespaces: `/proc/sys/fs/file-nr`, whose first number
/// is that (its second, of free ones, is 0 since 2.6). One that several processes share is counted once.
pub fn allocated_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/file-nr").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The first number of the line `Uid:` of `/proc/PID/status`: the same as `bpf_get_current_uid_gid()`.
/// No name can forge that line: the kernel escapes newlines in it.
fn real_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The name in `/proc/PID/comm`, which a newline follows.
fn comm(text: &[u8]) -> Comm {
    let name = text.strip_suffix(b"\n").unwrap_or(text);
    let mut raw = [0; 16];
    // The last byte stays 0.
    for (to, from) in raw[..15].iter_mut().zip(name) {
        *to = *from;
    }
    Comm::new(raw)
}

/// What a process says of itself now: it may not be the one that had this number before.
///
/// # Errors
/// `NotFound` if it has ended.
pub fn task(pid: u32) -> io::Result<Task> {
    Ok(describe(pid, &open(pid)?)?.task)
}

/// Whether this very process has ended, though it may not have been waited for: its number may be
/// another's by now. False where that cannot be found out.
pub fn has_ended(task: &Task) -> bool {
    let stat = match open(task.tgid).and_then(|home| read(&home, c"stat")) {
        Ok(stat) => stat,
        Err(error) => return matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    };
    // The first thread may have ended before the others, which have the files.
    let is_dead = state(&stat).is_some_and(|state| matches!(state, b'Z' | b'X' | b'x'))
        && threads(&stat).is_none_or(|threads| threads <= 1);
    let started = started(&stat).map(|started| clock::kernel_start_time(started) as u32);
    is_dead || started.is_some_and(|started| started != task.started)
}

/// The arguments that a process was started with, or what it made of them: untrusted bytes, at
/// most 64 KiB. Empty for a thread of the kernel.
///
/// # Errors
/// `NotFound` if it has ended.
pub fn command_line(pid: u32) -> io::Result<Vec<Vec<u8>>> {
    let file = openat(open(pid)?, c"cmdline", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut limited = io::Read::take(fs::File::from(file), MAX_COMMAND_LINE);
    io::Read::read_to_end(&mut limited, &mut bytes)?;
    Ok(arguments(&bytes))
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?)
}

/// Splits at the NULs: one ends each argument.
fn arguments(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{Ipv4Addr, TcpListener, TcpStream},
        os::fd::AsFd as _,
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use nix::sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::fstat,
    };

    use super::*;

    fn inode(socket: impl AsFd) -> u32 {
        u32::try_from(fstat(socket).unwrap().st_ino).unwrap()
    }

    #[test]
    fn only_sockets_have_an_inode() {
        assert_eq!(socket_inode(b"socket:[4294967295]"), Some(u32::MAX));
        for other in ["socket:[4294967296]", "socket:[]", "socket:[7", "pipe:[7]", "/socket:[7]"] {
            assert_eq!(socket_inode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_hostile_name_moves_no_field() {
        let stat = b"12 (a) 1 (b\n) S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 8154 1 1\n";
        assert_eq!(started(stat), Some(8154));
        assert_eq!(threads(stat), Some(1));
        assert_eq!((state(stat), state(b"12 (a)")), (Some(b'S'), None));
        assert_eq!(started(b"12 (a"), None);
        assert_eq!(started(b"12 (a) S 1"), None);
        let status = b"Name:\tUid:\\n\nUmask:\t0022\nUid:\t1000\t0\t0\t0\n";
        assert_eq!(real_uid(status), Some(1000));
        assert_eq!(real_uid(b"Uid:"), None);
        assert_eq!(comm(b"a\nb\n").as_bytes(), b"a\nb");
        assert_eq!(comm(b"0123456789abcdef0\n").as_bytes().len(), 15);
    }

    #[test]
    fn arguments_are_split_at_their_ends() {
        let words = |bytes: &[u8]| {
            let all = arguments(bytes);
            all.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(words(b"a\0b c\0\0"), ["a", "b c", ""]);
        assert_eq!(words(b"nginx: worker"), ["nginx: worker"]);
        assert!(words(b"").is_empty());
    }

    #[test]
    fn this_process_is_found_and_says_who_it_is() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let again = listener.try_clone().unwrap();
        let wanted = inode(&listener);
        let found = holders(&HashSet::from([wanted])).unwrap();
        assert!(found.processes > 0 && found.files > 0 && !found.cut);
        let holder = found.by_inode[&wanted];
        // Other tests of this process may be about to start a child, which has it for a moment.
        assert!(holder.holders >= 1);
        assert_eq!(holder.task, task(std::process::id()).unwrap());
        assert_eq!(holder.task.uid, nix::unistd::getuid().as_raw());
        drop((listener, again));
        let arguments = command_line(std::process::id()).unwrap();
        let own: Vec<_> = std::env::args().map(String::into_bytes).collect();
        assert_eq!(arguments, own);
        let gone = task(u32::MAX >> 1).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_process_has_ended_when_it_only_waits_to_be_waited_for() {
        let own = task(std::process::id()).unwrap();
        assert!(!has_ended(&own));
        assert!(has_ended(&Task { started: own.started + 1, ..own }), "the number is another's");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let other = task(child.id()).unwrap();
        assert!(!has_ended(&other));
        child.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !has_ended(&other) {
            assert!(Instant::now() < deadline, "it was killed");
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(has_ended(&other));
    }

    /// A child has what its parent gave it; the parent was first.
    #[test]
    fn of_several_the_last_one_is_the_holder_and_the_first_is_named_beside_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let shared: OwnedFd = listener.as_fd().try_clone_to_owned().unwrap();
        // Its standard input is the listener, and it waits for its output to be read to the end.
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; exec sleep 60"])
            .stdin(shared)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let found = holders(&HashSet::from([inode(&listener)])).unwrap();
        let holder = found.by_inode[&inode(&listener)];
        assert_eq!(holder.first.tgid, std::process::id());
        // Other tests of this process may be about to start a child, which has it for a moment.
        assert!(holder.holders >= 2 && holder.task.tgid != std::process::id(), "{holder:?}");
        assert_eq!(holder.also(), Some(holder.first));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn open_sockets_that_are_listed_are_those_of_processes_that_are_still_there() {
        let own = describe(std::process::id(), &open(std::process::id()).unwrap()).unwrap();
        let tgid = std::process::id();
        let wanted = HashSet::from([7, 8]);
        let holders = |sockets: &[OpenSocket]| {
            let mut open = OpenSockets::wanted(&wanted);
            assert!(sockets.iter().all(|socket| open.take(*socket)));
            open.holders()
        };
        // In this time namespace or another: the kernel's ticks.
        let socket = OpenSocket { tgid, started_ns: own.started * 10_000_000, inode: 7 };
        let twice = holders(&[socket, OpenSocket { inode: 9, ..socket }, socket]);
        let only = Holder { task: own.task, first: own.task, holders: 1 };
        assert_eq!(twice.by_inode, HashMap::from([(7, only)]));
        assert_eq!((twice.files, twice.processes, twice.refused, twice.cut), (3, 1, 0, false));
        let before = OpenSocket { started_ns: socket.started_ns - 1_000_000_000, ..socket };
        assert!(holders(&[before]).by_inode.is_empty(), "another had the number");
        let gone = OpenSocket { tgid: u32::MAX >> 1, ..socket };
        assert_eq!(holders(&[gone, socket]).by_inode, HashMap::from([(7, only)]));
    }

    /// What one search costs: run it by name, with `--nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn the_cost_of_twenty_thousand_sockets() {
        const PAIRS: usize = 9_900;
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let pairs: Vec<_> = (0..PAIRS)
            .map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0))
            .collect();
        let inodes = pairs.iter().flat_map(|(one, other)| [inode(one), inode(other)]).collect();
        let mut best = Duration::MAX;
        let mut found = Holders::default();
        for _ in 0..5 {
            let start = Instant::now();
            found = holders(&inodes).unwrap();
            best = best.min(start.elapsed());
        }
        assert_eq!(found.by_inode.len(), 2 * PAIRS);
        let mut out = io::stderr();
        writeln!(out, "{best:?} for {} files of {} processes", found.files, found.processes)
            .unwrap();
    }
}
