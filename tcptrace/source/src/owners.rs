//! Who holds the sockets of snapshots.
//!
//! All of them are looked for at once, in each round unless that would take too much: among the open
//! files that the kernel's iterator tells, or where that is not to be had, in `/proc`. Keeps what was
//! found by cookie meanwhile, for as long as rounds have the socket. Must not name a process
//! that has ended: those that an earlier search found are asked for again.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Mutex, PoisonError},
};

use super::dump::Space;
use tcptrace_host::{caps::Capabilities, clock, process};
use tcptrace_model::{Holder, Task};
use tcptrace_probe::{SocketFile, SocketFiles};

/// Processes of an earlier search that are asked for again in a round: some 10 µs each.
const ASKED: usize = 1024;

/// After a search nothing is searched for so many times as long as it took: 2 % of a CPU at most.
/// Whose a socket is that opens meanwhile, its events tell.
const REST: u64 = 50;

/// What is remembered between rounds. Those are taken one after the other, each on another thread.
#[derive(Debug, Default)]
pub struct Owners(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// By cookie, an index into `holders`; [`NOBODY`] was looked for and not found. There may be a
    /// million sockets, and few processes.
    known: HashMap<u64, u32>,
    holders: Vec<Option<Holder>>,
    not_before_ns: u64,
    refusal_said: bool,
    cut_said: bool,
    files: Files,
}

/// The kernel's iterator over open files.
#[derive(Debug, Default)]
enum Files {
    /// Not asked for yet.
    #[default]
    Unasked,
    Open(SocketFiles),
    /// Not to be had, or refused: `/proc` has to do.
    Refused,
}

impl Files {
    fn open(&mut self) {
        if matches!(self, Self::Unasked) {
            *self = SocketFiles::open().map_or(Self::Refused, Self::Open);
        }
    }

    /// Searches by it, or by `/proc`.
    fn holders(&mut self, inodes: &HashSet<u32>) -> io::Result<process::Holders> {
        self.open();
        if let Self::Open(files) = self {
            if let Ok(found) = holders_by(files, inodes) {
                return Ok(found);
            }
            *self = Self::Refused;
        }
        process::holders(inodes)
    }
}

/// Who holds the sockets with these inodes, by the kernel's iterator over open files: as
/// [`process::holders`] by `/proc`.
///
/// # Errors
/// The kernel refuses.
pub fn holders_by(files: &SocketFiles, inodes: &HashSet<u32>) -> io::Result<process::Holders> {
    let mut open = process::OpenSockets::wanted(inodes);
    files.each(|SocketFile { started_ns, tgid, inode }| {
        open.take(process::OpenSocket { tgid, started_ns, inode })
    })?;
    Ok(open.holders())
}

const NOBODY: u32 = u32::MAX;

impl Owners {
    /// Opens what a search needs, as long as there is the right to: else it is opened when the first
    /// search is made.
    pub(super) fn prepare(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).files.open();
    }

    /// Says of each socket who holds it, as far as that can be found out. `all`: these are all
    /// namespaces, so what is in none of them is gone.
    pub(super) fn fill(&self, spaces: &mut [Space], all: bool, remarks: &mut Vec<String>) {
        // Half of what a search found is no worse than none.
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.fill(spaces, all, remarks);
    }
}

impl Memory {
    fn fill(&mut self, spaces: &mut [Space], all: bool, remarks: &mut Vec<String>) {
        let now = clock::monotonic_ns().unwrap_or(0);
        if now >= self.not_before_ns && held(spaces).next().is_some() {
            self.search(spaces, remarks);
            let ended_ns = clock::monotonic_ns().unwrap_or(now);
            self.not_before_ns = ended_ns.saturating_add(REST * ended_ns.saturating_sub(now));
        } else {
            self.forget_ended();
        }
        if all {
            let there: HashSet<u64> = held(spaces).map(|(cookie, _)| cookie).collect();
            self.known.retain(|cookie, _| there.contains(cookie));
        }
        let Self { known, holders, .. } = self;
        for (cookie, holder) in held_mut(spaces) {
            let index = known.get(&cookie).copied().unwrap_or(NOBODY);
            *holder = holders.get(index as usize).copied().flatten();
        }
    }

    /// Takes out the processes that have ended since.
    fn forget_ended(&mut self) {
        let has_ended = |task: &Task| process::has_ended(task);
        for holder in self.holders.iter_mut().rev().take(ASKED) {
            let Some(known) = *holder else { continue };
            let ended = [known.task, known.first].into_iter().filter(has_ended);
            *holder = ended.fold(*holder, |left, task| left?.without(task.tgid, task.started));
        }
    }

    /// What earlier searches found is forgotten: files are passed on and closed.
    fn search(&mut self, spaces: &[Space], remarks: &mut Vec<String>) {
        let inodes: HashSet<u32> = held(spaces).map(|(_, inode)| inode).collect();
        let found = match self.files.holders(&inodes) {
            Ok(found) => found,
            Err(error) => {
                remarks.push(format!("whose the sockets are cannot be looked up: {error}"));
                return;
            }
        };
        if found.cut && !std::mem::replace(&mut self.cut_said, true) {
            remarks.push(
                "more processes or open files than are looked at: not all owners of sockets from \
                 before are known"
                    .to_owned(),
            );
        }
        self.known.clear();
        self.holders.clear();
        let mut numbers: HashMap<Holder, u32> = HashMap::new();
        for (cookie, inode) in held(spaces) {
            let number = found.by_inode.get(&inode).map_or(NOBODY, |holder| {
                *numbers.entry(*holder).or_insert_with(|| {
                    self.holders.push(Some(*holder));
                    // At most one for each of the sockets, whose inodes have 32 bits.
                    (self.holders.len() - 1) as u32
                })
            });
            self.known.insert(cookie, number);
        }
        self.say_refused(&found, remarks);
    }

    /// Says once that processes could not be searched, if a socket may be theirs: one that a process
    /// holds and none of the others does.
    fn say_refused(&mut self, found: &process::Holders, remarks: &mut Vec<String>) {
        let without = self.known.values().filter(|number| **number == NOBODY).count();
        if found.refused == 0 || without == 0 || std::mem::replace(&mut self.refusal_said, true) {
            return;
        }
        remarks.push(format!(
            "no process is known for {without} open sockets: the open files of {} of {} \
             processes cannot be read; {}",
            found.refused,
            found.processes,
            Capabilities::effective().map_or("", Capabilities::for_other_users),
        ));
    }
}

/// The sockets that a process holds: their cookies and the inodes of their files.
fn held(spaces: &[Space]) -> impl Iterator<Item = (u64, u32)> {
    let sockets = spaces.iter().flat_map(|space| &space.sockets);
    let sockets = sockets.filter_map(|socket| Some((socket.cookie, socket.full.as_ref()?.inode)));
    let bound = spaces.iter().flat_map(|space| space.bound.values());
    let bound = bound.map(|bound| (bound.cookie, bound.inode));
    sockets.chain(bound).filter(|(_, inode)| *inode != 0)
}

/// The same sockets, and where to say who holds them.
fn held_mut(spaces: &mut [Space]) -> impl Iterator<Item = (u64, &mut Option<Holder>)> {
    spaces.iter_mut().flat_map(|space| {
        let Space { sockets, bound, .. } = space;
        let sockets = sockets.iter_mut().filter_map(|socket| {
            let full = socket.full.as_deref_mut().filter(|full| full.inode != 0)?;
            Some((socket.cookie, &mut full.holder))
        });
        let bound = bound.values_mut().filter(|bound| bound.inode != 0);
        sockets.chain(bound.map(|bound| (bound.cookie, &mut bound.port.holder)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks(refused: usize, known: &[u32]) -> Vec<String> {
        let known = known.iter().enumerate().map(|(i, holder)| (i as u64, *holder)).collect();
        let mut memory = Memory { known, ..Memory::default() };
        let found = process::Holders { refused, processes: 9, ..Default::default() };
        let mut remarks = Vec::new();
        memory.say_refused(&found, &mut remarks);
        memory.say_refused(&found, &mut remarks);
        remarks
    }

    #[test]
    fn processes_that_cannot_be_searched_matter_where_a_socket_has_no_owner() {
        assert_eq!(remarks(1, &[0, 1]), [""; 0]);
        assert_eq!(remarks(0, &[0, NOBODY]), [""; 0]);
        let said = remarks(2, &[0, NOBODY, NOBODY]);
        let [said] = &said[..] else { panic!("{said:?}") };
        assert!(said.starts_with("no process is known for 2 open sockets"), "{said}");
        assert!(said.contains("2 of 9 processes"), "{said}");
    }

    /// As root, and with a kernel that has it: else there is nothing to compare.
    #[test]
    fn the_iterator_and_proc_find_the_same_holders() {
        let files = match SocketFiles::open() {
            Ok(files) => files,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = |file: &std::net::TcpListener| {
            let file = std::fs::File::from(std::os::fd::OwnedFd::from(file.try_clone().unwrap()));
            std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()) as u32
        };
        let wanted = HashSet::from([inode(&listener)]);
        // Other tests start processes, which may have it for a moment.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let by_proc = process::holders(&wanted).unwrap();
            let by_kernel = holders_by(&files, &wanted).unwrap();
            assert_eq!(by_kernel.by_inode.len(), 1);
            if by_kernel.by_inode == by_proc.by_inode {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{by_kernel:?} {by_proc:?}");
        }
    }

    /// Who has the capability is not told to get it.
    #[test]
    fn the_capability_is_named_as_missing_only_where_it_is() {
        let said = remarks(1, &[NOBODY]).remove(0);
        let has =
            Capabilities::effective().unwrap().has(tcptrace_host::caps::Capability::SysPtrace);
        assert_eq!(said.contains("need CAP_SYS_PTRACE"), !has, "{said}");
    }
}
