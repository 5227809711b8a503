//! Giving up what is not needed any more: capabilities, new privileges, system calls.
//!
//! Capabilities and filters are a thread's own and go on to the threads that it starts. Each step
//! is one way: nothing here can be taken back.

mod calls;

use std::{collections::BTreeMap, io};

use caps::{CapSet, CapsHashSet};
use libc::c_long;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::caps::Capability;
use calls::{ANSWERING, ANY, BPF_ITER_CREATE, BPF_MAKES, NEVER, READING_TABLES};

/// From now on no program that is started can have more privileges than its starter.
///
/// # Errors
/// The kernel refuses.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Gives up all capabilities of the calling thread but those of `keep` that it holds.
///
/// # Errors
/// The kernel refuses.
pub fn keep_only(keep: &[Capability]) -> io::Result<()> {
    let wanted = |cap: &caps::Capability| keep.iter().any(|keep| *keep as u8 == cap.index());
    // Before permitted ones: what is ambient must be permitted.
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = held.into_iter().filter(wanted).collect();
    // Effective ones first, which must be permitted.
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}

/// Gives up all capabilities of the calling thread but those of the first of `choices` with which
/// `works` says so, tried in order. What it does not hold of a choice, it goes without.
///
/// # Errors
/// The kernel refuses; or no choice works, and then nothing is given up.
pub fn keep_fewest(choices: &[&[Capability]], works: impl Fn() -> bool) -> io::Result<()> {
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    for choice in choices {
        let wanted = |cap: &caps::Capability| choice.iter().any(|keep| *keep as u8 == cap.index());
        let tried: CapsHashSet = held.iter().copied().filter(wanted).collect();
        caps::set(None, CapSet::Effective, &tried).map_err(failed)?;
        if works() {
            return keep_only(choice);
        }
    }
    caps::set(None, CapSet::Effective, &held).map_err(failed)?;
    Err(io::Error::other("it does not work with fewer"))
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// These calls, whatever their arguments.
fn unconditional(lists: &[&[c_long]]) -> Rules {
    lists.iter().copied().flatten().map(|&call| (call, Vec::new())).collect()
}

fn failed(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

/// One rule that holds where the argument at `index` compares so.
fn rule(index: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    SeccompRule::new(vec![condition.map_err(failed)?]).map_err(failed)
}

fn apply(rules: Rules, matched: SeccompAction, other: SeccompAction) -> io::Result<()> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, other, matched, arch).map_err(failed)?;
    let program = BpfProgram::try_from(filter).map_err(failed)?;
    seccompiler::apply_filter(&program).map_err(failed)
}

const REFUSE: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// Has the kernel refuse the calling thread, and those that it starts from now on, what nobody
/// needs who only listens.
///
/// # Errors
/// There are no filters, or none for this architecture.
pub fn only_listen() -> io::Result<()> {
    let mut rules = unconditional(&[NEVER]);
    let makes = BPF_MAKES.map(|command| rule(0, SeccompCmpOp::Eq, command));
    rules.insert(libc::SYS_bpf, makes.into_iter().collect::<io::Result<_>>()?);
    apply(rules, REFUSE, SeccompAction::Allow)
}

/// Has the kernel refuse the calling thread all that is not needed to answer on sockets that are
/// open already. Files can be opened to read only.
///
/// # Errors
/// As [`only_listen`].
pub fn only_answer() -> io::Result<()> {
    let mut rules = unconditional(&[ANY, ANSWERING]);
    rules.insert(libc::SYS_openat, vec![opens_to_read()?]);
    apply(rules, SeccompAction::Allow, REFUSE)
}

fn opens_to_read() -> io::Result<SeccompRule> {
    let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    rule(2, SeccompCmpOp::MaskedEq(writes), libc::O_RDONLY as u64)
}

/// Has the kernel refuse the calling thread, and those that it starts from now on, all that is not
/// needed to read the tables of all namespaces and hand them over on a socket that is open already.
/// Threads can be started, but no processes; files opened to read only; of namespaces network ones
/// entered; sockets opened of netlink only; of bpf() an iterator run that is there already.
///
/// # Errors
/// As [`only_listen`].
pub fn only_read_tables() -> io::Result<()> {
    let mut rules = unconditional(&[ANY, READING_TABLES]);
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![rule(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    rules.insert(libc::SYS_openat, vec![opens_to_read()?]);
    let network = libc::CLONE_NEWNET as u64;
    rules.insert(libc::SYS_setns, vec![rule(1, SeccompCmpOp::Eq, network)?]);
    let netlink = libc::AF_NETLINK as u64;
    rules.insert(libc::SYS_socket, vec![rule(0, SeccompCmpOp::Eq, netlink)?]);
    rules.insert(libc::SYS_bpf, vec![rule(0, SeccompCmpOp::Eq, BPF_ITER_CREATE)?]);
    // The flags of clone3() are in memory, where a filter cannot look. Where there is no such call,
    // clone() is used.
    let lacks = SeccompAction::Errno(libc::ENOSYS as u32);
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    apply(clone3, lacks, SeccompAction::Allow)?;
    apply(rules, SeccompAction::Allow, REFUSE)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, thread};

    use super::*;

    /// Filters are for ever, so each test has a thread to spoil.
    fn on_a_thread(work: impl FnOnce() + Send) {
        thread::scope(|scope| scope.spawn(work).join().unwrap());
    }

    fn is_refused<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn who_only_listens_reads_but_starts_nothing() {
        on_a_thread(|| {
            only_listen().unwrap();
            assert!(is_refused(Command::new("/bin/true").status()));
            let makes = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS);
            assert_eq!(makes, Err(nix::Error::EPERM));
            assert!(fs::read_to_string("/proc/self/status").is_ok());
            thread::scope(|scope| {
                let child = scope.spawn(|| Command::new("/bin/true").status());
                assert!(is_refused(child.join().unwrap()), "threads of it are bound too");
            });
        });
    }

    #[test]
    fn who_only_answers_writes_no_file_and_opens_no_connection() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        on_a_thread(|| {
            only_answer().unwrap();
            assert!(is_refused(fs::write(&file, "x")));
            assert!(is_refused(std::net::TcpStream::connect(address)));
            assert!(fs::read_to_string("/proc/self/statm").is_ok());
            assert!(super::super::own::OwnUse::read().resident_bytes > 0);
        });
        assert!(!file.exists());
    }

    #[test]
    fn who_reads_tables_does_so_and_neither_writes_nor_connects_nor_forks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        on_a_thread(|| {
            no_new_privileges().unwrap();
            only_read_tables().unwrap();
            assert!(is_refused(fs::write(&file, "x")));
            assert!(is_refused(std::net::TcpStream::connect(address)));
            assert!(Command::new("/bin/true").status().is_err());
            let leaves = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
            assert_eq!(leaves, Err(nix::Error::EPERM));
            let here = super::super::netns::namespaces().unwrap().found.swap_remove(0);
            here.open_diag().unwrap();
            assert!(super::super::sysctl::knobs(&here).unwrap().tcp_fin_timeout.value().is_some());
            super::super::netstat::read(&here).unwrap();
            let none = std::collections::HashSet::new();
            assert!(super::super::process::holders(&none).unwrap().files > 0);
            assert!(super::super::own::OwnUse::read().cpu_s > 0.0);
            thread::scope(|scope| {
                assert!(is_refused(scope.spawn(|| fs::write(&file, "x")).join().unwrap()));
            });
        });
        assert!(!file.exists());
    }

    #[test]
    fn the_first_choice_that_works_is_kept() {
        let held = super::super::caps::Capabilities::effective().unwrap();
        let now = || super::super::caps::Capabilities::effective().unwrap();
        on_a_thread(|| {
            let none_works = keep_fewest(&[&[], &[Capability::Bpf]], || false);
            assert!(none_works.is_err() && now() == held);
            if held.has(Capability::Bpf) {
                let choices: [&[Capability]; 3] =
                    [&[], &[Capability::Bpf], &[Capability::SysAdmin]];
                keep_fewest(&choices, || now().has(Capability::Bpf)).unwrap();
                assert!(now().has(Capability::Bpf) && !now().has(Capability::SysAdmin));
            }
            keep_fewest(&[&[], &[Capability::Bpf]], || true).unwrap();
            assert!(!now().has(Capability::Bpf));
        });
    }

    #[test]
    fn capabilities_are_gone_for_good() {
        on_a_thread(|| {
            keep_only(&[]).unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                let line = format!("{set}:\t0000000000000000\n");
                assert!(status.contains(&line), "{status}");
            }
            no_new_privileges().unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("NoNewPrivs:\t1\n"));
        });
    }

    #[test]
    fn what_is_kept_is_what_was_held() {
        on_a_thread(|| {
            let held = super::super::caps::Capabilities::effective().unwrap();
            keep_only(&[Capability::Bpf, Capability::SysPtrace]).unwrap();
            let kept = super::super::caps::Capabilities::effective().unwrap();
            for capability in [Capability::Bpf, Capability::SysPtrace] {
                assert_eq!(kept.has(capability), held.has(capability), "{capability}");
            }
            assert!(!kept.has(Capability::SysAdmin));
        });
    }
}
