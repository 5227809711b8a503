//! Giving up what is not needed any more: capabilities, new privileges, system calls.
//!
//! Capabilities and filters are a thread's own and go on to the threads that it starts. Each step
//! is one way: nothing here can be taken back.

use std::{collections::BTreeMap, io};

use caps::{CapSet, CapsHashSet, errors::CapsError};
use libc::c_long;
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::caps::Capability;

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
    let failed = |error: CapsError| io::Error::other(error.to_string());
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

/// What no thread needs once the hooks are on: `EPERM`. Of bpf(), to look at maps and to run what
/// is loaded stays; to load or to attach anything more does not.
const NEVER: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fchownat,
    libc::SYS_fchown,
    libc::SYS_fchmodat,
    libc::SYS_fchmod,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_renameat2,
    libc::SYS_truncate,
    libc::SYS_setxattr,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_memfd_create,
    libc::SYS_seccomp,
];

/// Commands of bpf() that make or attach something (`enum bpf_cmd`, `include/uapi/linux/bpf.h`).
const BPF_MAKES: [u64; 8] = [
    0,  // BPF_MAP_CREATE
    5,  // BPF_PROG_LOAD
    6,  // BPF_OBJ_PIN
    8,  // BPF_PROG_ATTACH
    17, // BPF_RAW_TRACEPOINT_OPEN
    18, // BPF_BTF_LOAD
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
];

/// What the thread does that answers over the network: reads and writes what is open, waits,
/// allocates, and reads a few files of `/proc`.
const ANSWERING: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_socketpair,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

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
    let mut rules: Rules = NEVER.iter().map(|&call| (call, Vec::new())).collect();
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
    let mut rules: Rules = ANSWERING.iter().map(|&call| (call, Vec::new())).collect();
    let writes = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
    let reads = rule(2, SeccompCmpOp::MaskedEq(writes), libc::O_RDONLY as u64)?;
    rules.insert(libc::SYS_openat, vec![reads]);
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
