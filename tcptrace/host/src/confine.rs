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
use calls::{
    ANSWERING, ANY, ASKING, BPF_ITER_CREATE, BPF_USES, PUSHES_BY, PUSHING, READING_TABLES, TRACING,
    WRITING,
};

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

/// These calls; those that have `conditions` only where one of them holds.
struct Allowed {
    rules: Rules,
}

impl Allowed {
    fn calls(lists: &[&[c_long]]) -> Self {
        Self { rules: unconditional(lists) }
    }

    fn only_if(mut self, call: c_long, conditions: Vec<SeccompRule>) -> Self {
        self.rules.insert(call, conditions);
        self
    }

    /// Files can be opened to read only.
    fn reads_files(self) -> io::Result<Self> {
        let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
        let reads = rule(2, SeccompCmpOp::MaskedEq(writes), libc::O_RDONLY as u64)?;
        Ok(self.only_if(libc::SYS_openat, vec![reads]))
    }

    /// Threads can be started, but no processes, and their limits be read.
    fn starts_threads(self) -> io::Result<Self> {
        let thread = libc::CLONE_THREAD as u64;
        let starts = rule(0, SeccompCmpOp::MaskedEq(thread), thread)?;
        let nothing_new = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
        let reads = SeccompRule::new(vec![nothing_new.map_err(failed)?]).map_err(failed)?;
        Ok(self.only_if(libc::SYS_clone, vec![starts]).only_if(libc::SYS_prlimit64, vec![reads]))
    }

    /// Has the kernel refuse the calling thread, and those that it starts from now on, all else.
    fn apply(self) -> io::Result<()> {
        if self.rules.contains_key(&libc::SYS_clone) {
            // The flags of clone3() are in memory, where a filter cannot look. Where there is no such
            // call, clone() is used.
            let lacks = SeccompAction::Errno(libc::ENOSYS as u32);
            let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
            apply(clone3, lacks, SeccompAction::Allow)?;
        }
        apply(self.rules, SeccompAction::Allow, REFUSE)
    }
}

/// One rule for each of `values` that the argument at `index` may have.
fn one_of(index: u8, values: impl IntoIterator<Item = u64>) -> io::Result<Vec<SeccompRule>> {
    values.into_iter().map(|value| rule(index, SeccompCmpOp::Eq, value)).collect()
}

fn tracing() -> io::Result<Allowed> {
    let allowed = Allowed::calls(&[ANY, ANSWERING, ASKING, TRACING]).reads_files()?;
    Ok(allowed
        .starts_threads()?
        .only_if(libc::SYS_bpf, one_of(0, BPF_USES)?)
        .only_if(libc::SYS_kill, one_of(1, [libc::SIGKILL as u64])?))
}

fn answering() -> io::Result<Allowed> {
    Allowed::calls(&[ANY, ANSWERING]).reads_files()
}

fn pushing() -> io::Result<Allowed> {
    let allowed = Allowed::calls(&[ANY, ANSWERING, ASKING, PUSHING]).reads_files()?;
    let families = one_of(0, PUSHES_BY.map(|family| family as u64))?;
    Ok(allowed.starts_threads()?.only_if(libc::SYS_socket, families))
}

fn writing() -> Allowed {
    Allowed::calls(&[ANY, ASKING, WRITING])
}

fn reading_tables() -> io::Result<Allowed> {
    let allowed = Allowed::calls(&[ANY, READING_TABLES]).reads_files()?;
    Ok(allowed
        .starts_threads()?
        .only_if(libc::SYS_setns, one_of(1, [libc::CLONE_NEWNET as u64])?)
        .only_if(libc::SYS_socket, one_of(0, [libc::AF_NETLINK as u64])?)
        .only_if(libc::SYS_bpf, one_of(0, [BPF_ITER_CREATE])?))
}

/// Has the kernel refuse the calling thread, and those that it starts from now on, all that is not
/// needed once the hooks are on: of bpf() all but the use of what is loaded, of files any but reading
/// and removing, any new socket to elsewhere, any new process, and any signal to one but its end.
///
/// # Errors
/// There are no filters, or none for this architecture.
pub fn only_trace() -> io::Result<()> {
    tracing()?.apply()
}

/// Has the kernel refuse the calling thread all that is not needed to answer on sockets that are
/// open already. Files can be opened to read only.
///
/// # Errors
/// As [`only_trace`].
pub fn only_answer() -> io::Result<()> {
    answering()?.apply()
}

/// Has the kernel refuse the calling thread, and those that it starts from now on, all that is not
/// needed to find out addresses and to send to them. Files can be opened to read only.
///
/// # Errors
/// As [`only_trace`].
pub fn only_push() -> io::Result<()> {
    pushing()?.apply()
}

/// Has the kernel refuse the calling thread all that is not needed to write, rename and remove files:
/// it has no way to the network, and cannot change whose a file is or who may use it.
///
/// # Errors
/// As [`only_trace`].
pub fn only_write_files() -> io::Result<()> {
    writing().apply()
}

/// Has the kernel refuse the calling thread, and those that it starts from now on, all that is not
/// needed to read the tables of all namespaces and hand them over on a socket that is open already.
/// Threads can be started, but no processes; files opened to read only; of namespaces network ones
/// entered; sockets opened of netlink only; of bpf() an iterator run that is there already.
///
/// # Errors
/// As [`only_trace`].
pub fn only_read_tables() -> io::Result<()> {
    reading_tables()?.apply()
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

    /// What the kernel says to a system call with arguments that are wrong for any.
    fn call(number: c_long) -> i32 {
        // SAFETY: all its arguments are 0, so there is no memory that it could read or write; whoever
        // calls this has made sure that the filter refuses it before the kernel acts on it.
        let returned = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
        assert_eq!(returned, -1, "system call {number} works");
        io::Error::last_os_error().raw_os_error().unwrap()
    }

    /// Asks, under each filter, for each system call that there is or may come to be. What is on the
    /// list is left out; what has conditions is asked with arguments for which none of them holds,
    /// unless 0 is such a one.
    #[test]
    fn whatever_is_not_listed_is_refused_under_every_filter() {
        // Without a filter the kernel would complain of the arguments.
        assert_eq!(call(libc::SYS_fchmodat), libc::EFAULT);
        type Filter = fn() -> io::Result<Allowed>;
        let filters: [(&str, Filter); 5] = [
            ("tracing", tracing),
            ("answering", answering),
            ("pushing", pushing),
            ("writing", || Ok(writing())),
            ("reading tables", reading_tables),
        ];
        // Where 0 is what a condition allows: a file to read, no new limit.
        let zero_is_allowed = [libc::SYS_openat, libc::SYS_prlimit64];
        for (name, filter) in filters {
            on_a_thread(|| {
                let rules = filter().unwrap().rules;
                let is_allowed = |number: &c_long| {
                    rules.get(number).is_some_and(|conditions| {
                        conditions.is_empty() || zero_is_allowed.contains(number)
                    })
                };
                no_new_privileges().unwrap();
                filter().unwrap().apply().unwrap();
                // If the filter did nothing, nothing else is to be tried.
                assert_eq!(call(libc::SYS_fchmodat), libc::EPERM, "{name}");
                let mut refused = 0;
                // uretprobe() and uprobe() of x86-64 pass any filter, and end whoever calls them from
                // elsewhere than where the kernel has put them (`seccomp_uprobe_exception()`).
                let of_uprobes = 335..=336;
                for number in (0..1024).filter(|number| !of_uprobes.contains(number)) {
                    if number == libc::SYS_clone3 && rules.contains_key(&libc::SYS_clone) {
                        assert_eq!(call(number), libc::ENOSYS, "{name}: clone3()");
                    } else if !is_allowed(&number) {
                        assert_eq!(call(number), libc::EPERM, "{name}: system call {number}");
                        refused += 1;
                    }
                }
                assert!(refused > 800, "{name}: {refused}");
            });
        }
    }

    /// Those that a list of what is forbidden has to name one by one, and once did not.
    #[test]
    fn no_thread_changes_who_may_use_a_file_or_starts_anything() {
        const FCHMODAT2: c_long = 452;
        let forbidden = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_fchmod,
            libc::SYS_fchmodat,
            FCHMODAT2,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_linkat,
            libc::SYS_symlinkat,
            libc::SYS_mknodat,
            libc::SYS_mkdirat,
            libc::SYS_renameat2,
            libc::SYS_truncate,
            libc::SYS_setxattr,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_open_tree,
            libc::SYS_init_module,
            libc::SYS_setuid,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_memfd_create,
            libc::SYS_seccomp,
            libc::SYS_pidfd_open,
            libc::SYS_openat2,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open,
        ];
        let filters = [tracing(), answering(), pushing(), Ok(writing()), reading_tables()];
        for filter in filters {
            let rules = filter.unwrap().rules;
            for call in forbidden {
                assert!(!rules.contains_key(&call), "system call {call}");
            }
        }
    }

    #[test]
    fn who_only_traces_reads_but_starts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        on_a_thread(|| {
            no_new_privileges().unwrap();
            only_trace().unwrap();
            assert!(Command::new("/bin/true").status().is_err());
            let makes = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS);
            assert_eq!(makes, Err(nix::Error::EPERM));
            assert!(is_refused(fs::write(&file, "x")));
            assert!(is_refused(std::net::TcpStream::connect("127.0.0.1:1")));
            let to_itself = nix::sys::signal::kill(nix::unistd::Pid::this(), None);
            assert_eq!(to_itself, Err(nix::Error::EPERM));
            assert!(fs::read_to_string("/proc/self/status").is_ok());
            thread::scope(|scope| {
                let child = scope.spawn(|| Command::new("/bin/true").status().is_err());
                assert!(child.join().unwrap(), "threads of it are bound too");
            });
        });
        assert!(!file.exists());
    }

    #[test]
    fn who_only_pushes_finds_addresses_and_connects() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        on_a_thread(|| {
            no_new_privileges().unwrap();
            only_push().unwrap();
            std::net::TcpStream::connect(("localhost", port)).unwrap();
            thread::scope(|scope| {
                let looks_up = move || std::net::TcpStream::connect(("localhost", port)).is_ok();
                assert!(scope.spawn(looks_up).join().unwrap());
            });
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
            assert!(is_refused(fs::write("/dev/null", "x")));
            assert!(Command::new("/bin/true").status().is_err());
        });
    }

    #[test]
    fn who_only_writes_files_has_no_way_to_the_network() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        on_a_thread(|| {
            no_new_privileges().unwrap();
            only_write_files().unwrap();
            let file = fs::File::create(&one).unwrap();
            file.try_lock().unwrap();
            file.sync_all().unwrap();
            fs::rename(&one, &other).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            assert!(is_refused(fs::set_permissions(&other, mode)));
            assert!(is_refused(fs::hard_link(&other, &one)));
            assert!(is_refused(std::os::unix::fs::symlink(&other, &one)));
            assert!(is_refused(fs::create_dir(&one)));
            assert!(is_refused(std::net::TcpStream::connect("127.0.0.1:1")));
            fs::remove_file(&other).unwrap();
        });
        assert!(!one.exists() && !other.exists());
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
            assert!(
                super::super::sysctl::sysctls(&here).unwrap().tcp_fin_timeout.value().is_some()
            );
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
