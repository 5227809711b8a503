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
use tcptrace_host::{
    caps::{Capabilities, Capability},
    clock, process,
};
use tcptrace_model::{Exited, Holder, Task};
use tcptrace_probe::{SocketFile, SocketFiles};

/// Processes of an earlier search that are asked for again in a round: some 10 µs each.
const ASKED: usize = 1024;
/// As many are asked for between rounds, at each check of the source: one after the other, in turns.
const ASKED_BETWEEN: usize = 64;

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
    /// Which of `holders` is asked for next between rounds.
    next: usize,
    refusal_said: bool,
    cut_said: bool,
    ways: Ways,
}

/// The two ways to search. `/proc` costs by the open file and nothing before; the iterator is five times as
/// fast, and costs once what it takes to read the kernel's BTF and load a program. So `/proc` is read until
/// it has cost as much, which a one-shot command on a host with few open files never comes to (13 ms for
/// `stuck`, and 42 with the iterator): that order can never cost more than twice what the better one would
/// have. Where `/proc` did not show the holder of each, the iterator is asked.
#[derive(Debug, Default)]
struct Ways {
    files: Files,
    /// What searches of `/proc` have taken, in nanoseconds.
    spent_ns: u64,
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

/// What opening the iterator takes, most of it to read BTF and to load the program.
const OPENING_NS: u64 = 25_000_000;
/// What `/proc` takes for each open file.
const PROC_NS: u64 = 5_000;

impl Ways {
    fn open(&mut self) {
        if matches!(self.files, Files::Unasked) {
            self.files = SocketFiles::open().map_or(Files::Refused, Files::Open);
        }
    }

    fn holders(&mut self, inodes: &HashSet<u32>) -> io::Result<process::Holders> {
        let mut by_proc = None;
        if self.proc_would_do(process::allocated_files(), can_look_anywhere()) {
            let began = clock::monotonic_ns()?;
            let found = process::holders(inodes)?;
            let ended = clock::monotonic_ns()?;
            self.spent_ns = self.spent_ns.saturating_add(ended.saturating_sub(began));
            if found.by_inode.len() == inodes.len() {
                return Ok(found);
            }
            by_proc = Some(found);
        }
        self.open();
        if let Files::Open(files) = &self.files {
            if let Ok(found) = holders_by(files, inodes) {
                return Ok(found);
            }
            self.files = Files::Refused;
        }
        by_proc.map_or_else(|| process::holders(inodes), Ok)
    }

    /// Whether `/proc` is searched first: where that sees as much, and costs no more than to open the
    /// iterator, as far as that can be told from the number of all open files.
    fn proc_would_do(&self, open_files: Option<u64>, sees_all: bool) -> bool {
        let cost = |files: u64| self.spent_ns.saturating_add(files.saturating_mul(PROC_NS));
        matches!(self.files, Files::Unasked)
            && sees_all
            && open_files.is_some_and(|files| cost(files) <= OPENING_NS)
    }
}

/// Whether the open files of other users' processes can be listed.
fn can_look_anywhere() -> bool {
    Capabilities::effective().is_ok_and(|held| held.has(Capability::SysPtrace))
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ways.open();
    }

    /// Says of each socket who holds it, as far as that can be found out. `all`: these are all
    /// namespaces, so what is in none of them is gone.
    pub(super) fn fill(&self, spaces: &mut [Space], all: bool, remarks: &mut Vec<String>) {
        // Half of what a search found is no worse than none.
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.fill(spaces, all, remarks);
    }

    /// Processes that rounds have named and that have ended since; none while a round is taken, which
    /// asks for them itself.
    pub(super) fn ended(&self, now: u64) -> Vec<Exited> {
        match self.0.try_lock() {
            Ok(mut memory) => memory.ended(now, process::has_ended),
            Err(_) => Vec::new(),
        }
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

    /// Asks for a few of those that were found, and takes out and tells those that have ended.
    fn ended(&mut self, now: u64, has_ended: impl Fn(&Task) -> bool) -> Vec<Exited> {
        let asked = self.holders.len().min(ASKED_BETWEEN);
        let mut ended: Vec<Exited> = Vec::new();
        for _ in 0..asked {
            self.next %= self.holders.len();
            let holder = self.holders[self.next];
            self.next += 1;
            for task in holder.iter().flat_map(|holder| [holder.task, holder.first]) {
                let one = Exited { mono_ns: now, tgid: task.tgid, started: task.started };
                if !ended.contains(&one) && has_ended(&task) {
                    ended.push(one);
                }
            }
        }
        if !ended.is_empty() {
            let without = |left: Holder, one: &Exited| left.without(one.tgid, one.started);
            for holder in &mut self.holders {
                *holder = holder.and_then(|holder| ended.iter().try_fold(holder, without));
            }
        }
        ended
    }

    /// What earlier searches found is forgotten: files are passed on and closed.
    fn search(&mut self, spaces: &[Space], remarks: &mut Vec<String>) {
        let inodes: HashSet<u32> = held(spaces).map(|(_, inode)| inode).collect();
        let found = match self.ways.holders(&inodes) {
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
            "open sockets with no known process: {without}; the open files of {} of {} processes \
             cannot be read ({})",
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
        assert!(said.starts_with("open sockets with no known process: 2;"), "{said}");
        assert!(said.contains("2 of 9 processes"), "{said}");
    }

    fn holder(tgid: u32) -> Holder {
        let task = Task::process(tgid, 0, 0, tcptrace_model::Comm::from("app"));
        Holder::one(Task { started: tgid + 1, ..task })
    }

    #[test]
    fn a_process_that_ends_between_rounds_is_told_once_and_named_no_more() {
        let both = Holder { first: holder(7).task, holders: 2, ..holder(8) };
        let holders = vec![Some(holder(7)), Some(both), Some(holder(9))];
        let mut memory = Memory { holders, ..Memory::default() };
        assert_eq!(memory.ended(5, |_| false), []);
        let ended = memory.ended(6, |task| task.tgid == 7);
        assert_eq!(ended, [Exited { mono_ns: 6, tgid: 7, started: 8 }]);
        let left: Vec<_> = memory.holders.iter().map(|one| one.map(|one| one.task.tgid)).collect();
        assert_eq!(left, [None, Some(8), Some(9)]);
        assert_eq!(memory.holders[1].and_then(|one| one.also()), None);
        assert_eq!(memory.ended(7, |task| task.tgid == 7), []);
    }

    #[test]
    fn each_check_asks_for_few_and_in_the_end_for_all() {
        let holders: Vec<_> = (1..=1000).map(|tgid| Some(holder(tgid))).collect();
        let mut memory = Memory { holders, ..Memory::default() };
        let asked = std::cell::RefCell::new(HashSet::new());
        for check in 1..=16 {
            memory.ended(check, |task| {
                asked.borrow_mut().insert(task.tgid);
                false
            });
            let most = ASKED_BETWEEN * usize::try_from(check).unwrap();
            assert_eq!(asked.borrow().len(), most.min(1000));
        }
    }

    /// As many open files as this are searched by `/proc` before the iterator is opened.
    const FEW: u64 = OPENING_NS / PROC_NS;

    #[test]
    fn proc_is_searched_until_that_has_cost_what_the_iterator_costs() {
        let mut ways = Ways::default();
        assert!(ways.proc_would_do(Some(FEW), true));
        assert!(!ways.proc_would_do(Some(FEW + 1), true), "many files");
        assert!(!ways.proc_would_do(Some(FEW), false), "sees less");
        assert!(!ways.proc_would_do(None, true), "of unknown cost");
        ways.spent_ns = OPENING_NS / 2;
        assert!(ways.proc_would_do(Some(FEW / 2), true));
        ways.spent_ns = OPENING_NS;
        assert!(!ways.proc_would_do(Some(1), true), "again and again");
        ways = Ways { files: Files::Refused, spent_ns: 0 };
        assert!(!ways.proc_would_do(Some(1), true), "there is no other way to be spared");
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
