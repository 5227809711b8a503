//! The system calls that are left to each thread, by name. Whatever is not listed is refused, also what
//! later kernels add.

use libc::c_long;

/// Commands of bpf() that use what is loaded and attached already (`enum bpf_cmd`,
/// `include/uapi/linux/bpf.h`). None of them makes, loads, pins or attaches anything.
pub(super) const BPF_USES: [u64; 8] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    10, // BPF_PROG_TEST_RUN
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
    34, // BPF_LINK_DETACH
];

/// The command of bpf() by which an iterator that is loaded is run.
pub(super) const BPF_ITER_CREATE: u64 = 33;

/// The families of sockets that a push may take: to the collector, and to who knows its address.
pub(super) const PUSHES_BY: [libc::c_int; 4] =
    [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK];

/// What any thread of an allow list does: reads and writes what is open, waits, allocates, looks at
/// files, ends.
pub(super) const ANY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_read,
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
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// What the thread does besides that answers over the network.
pub(super) const ANSWERING: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_ioctl,
    libc::SYS_nanosleep,
    libc::SYS_readv,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What the helper process does besides that reads the socket tables: looks at processes, dumps by
/// netlink, finds cgroups. It also starts threads that enter a namespace; conditions are on `bpf`,
/// `clone`, `openat`, `setns` and `socket`.
pub(super) const READING_TABLES: &[c_long] = &[
    // Answered with ENOSYS by the filter above this one.
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_open_by_handle_at,
    libc::SYS_prlimit64,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// What the thread does besides that traces, once the hooks are on: it ends the helper process and
/// the file of its socket. Conditions are on `bpf`, `clone`, `kill`, `openat` and `prlimit64`. Other
/// network namespaces are the helper process's.
pub(super) const TRACING: &[c_long] = &[
    // Answered with ENOSYS by the filter above this one.
    libc::SYS_clone3,
    libc::SYS_unlinkat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// What the thread does besides that pushes metrics: finds out an address, on a thread that the C
/// library has do that, and connects. Conditions are on `clone`, `openat`, `prlimit64` and `socket`.
pub(super) const PUSHING: &[c_long] = &[
    // Answered with ENOSYS by the filter above this one.
    libc::SYS_clone3,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_recvmmsg,
    libc::SYS_sendmmsg,
];

/// What the thread does besides that writes files and removes those that are too many.
pub(super) const WRITING: &[c_long] = &[
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_openat,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// What a C library asks for itself in any of these three, and what a panic says.
pub(super) const ASKING: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_pread64,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];
