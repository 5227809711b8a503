//! Which processes have which sockets open, told by the kernel: an iterator over the open files of all
//! tasks (`iter/task_file`, with `bpf_sock_from_file()`: 5.11).
//!
//! About 1.5 µs for each open file, where reading `/proc/PID/fd` takes 5, and no right to look into
//! the processes of others. Must not say who a process is: only its number and when it was started.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{
    VerifierLogLevel,
    programs::{Iter, ProgramError},
};
pub use tcptrace_common::files::SocketFile;
use tcptrace_common::{files::Offsets, globals::Pids};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    btf::{self, Btf, BtfError, Target, Vmlinux},
    error::program_words,
    known::pids,
    loader,
    offsets::task_offsets,
};
use tcptrace_host::{caps::Capabilities, pidns};

/// The kernel object, made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/files.bpf.o");

/// The function that stands for the iterator in BTF.
const TARGET: Target = Target::Function("bpf_iter_task_file");

/// What the program's context has, and where (`struct Context` of the program).
const CONTEXT: [(&str, &str, u32); 4] = [
    ("bpf_iter__task_file", "meta", 0),
    ("bpf_iter__task_file", "task", 8),
    ("bpf_iter__task_file", "file", 24),
    ("bpf_iter_meta", "seq", 0),
];

/// `BPF_LINK_CREATE` (`enum bpf_cmd`): program, target, type, flags
const LINK_CREATE: libc::c_int = 28;
/// `BPF_TRACE_ITER` (`enum bpf_attach_type`)
const TRACE_ITER: u32 = 28;
/// `BPF_ITER_CREATE`: link, flags. All that a search asks of bpf(2).
const ITER_CREATE: libc::c_int = 33;

/// The iterator, loaded: it can be run as often as is wanted.
#[derive(Debug)]
pub struct SocketFiles(OwnedFd);

impl SocketFiles {
    /// Loads it.
    ///
    /// # Errors
    /// Why it is not to be had, in words: before 5.11, without BTF, without CAP_BPF and CAP_PERFMON;
    /// or where `/proc` shows other processes than those of this process's PID namespace.
    pub fn open() -> Result<Self, String> {
        // The kernel tells of the tasks in the namespace of whoever runs it.
        match pidns::proc_is_own() {
            Ok(true) => {}
            Ok(false) => return Err("/proc is not of the PID namespace of this process".to_owned()),
            Err(error) => return Err(format!("the PID namespace here cannot be told: {error}")),
        }
        let data = Vmlinux::open()?;
        let btf = Btf::parse(&data).map_err(|error| error.to_string())?;
        if btf.enum_value("bpf_func_id", "BPF_FUNC_sock_from_file").is_err() {
            return Err("this kernel has no bpf_sock_from_file() (5.11)".to_owned());
        }
        let pids = pids(Ok(&btf), task_offsets(&btf))?;
        let offsets = offsets(&btf, pids).map_err(|error| error.to_string())?;
        for (strukt, field, expected) in CONTEXT {
            let found = btf.offset_of(strukt, field).map_err(|error| error.to_string())?;
            if found != expected {
                return Err(format!("{strukt}.{field} is at {found} and not at {expected}"));
            }
        }
        let targets = btf::targets(&btf, [TARGET])?;
        let mut ebpf = loader::without_btf()
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .load(OBJECT)
            .map_err(|error| denied(&error.to_string()))?;
        let program: &mut Iter = ebpf
            .program_mut("files")
            .ok_or("the object has no program")?
            .try_into()
            .map_err(|error: ProgramError| error.to_string())?;
        let refused = |error| denied(&program_words(error));
        program.load("task_file", &targets).map_err(refused)?;
        // By hand: aya's link runs but once. This one keeps the program, and the object goes.
        let program = program.fd().map_err(|error| error.to_string())?;
        let program = program.as_fd().as_raw_fd() as u32;
        let link = bpf(LINK_CREATE, [program, 0, TRACE_ITER, 0])
            .map_err(|error| denied(&format!("BPF_LINK_CREATE: {error}")))?;
        Ok(Self(link))
    }

    /// Tells of each socket that a process has open, until `take` returns false. Takes bpf(2) no rights
    /// since 5.19 (commit c8644cd0efe7); before, where `kernel.unprivileged_bpf_disabled` is set, those
    /// that it was opened with.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn each(&self, mut take: impl FnMut(SocketFile) -> bool) -> io::Result<()> {
        const ONE: usize = size_of::<SocketFile>();
        let mut file = self.run()?;
        // As long as the kernel's own buffer.
        let mut buffer = [0; 2048 * ONE];
        let mut filled = 0;
        loop {
            let read = match file.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                // After a million files that are no sockets (MAX_ITER_OBJECTS), or a signal.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            filled += read;
            let whole = filled - filled % ONE;
            for bytes in buffer[..whole].chunks_exact(ONE) {
                let Ok(one) = SocketFile::read_from_bytes(bytes) else { continue };
                if !take(one) {
                    return Ok(());
                }
            }
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }

    /// One run, to be read to its end.
    fn run(&self) -> io::Result<File> {
        bpf(ITER_CREATE, [self.0.as_raw_fd() as u32, 0, 0, 0]).map(File::from)
    }
}

/// A command of bpf(2) that makes a file descriptor. `attr` is the beginning of `union bpf_attr`: the
/// kernel takes the rest for zeroes.
fn bpf(command: libc::c_int, attr: [u32; 4]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as told, and are only read.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new file descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The kernel's words, and what is lacking if that is it.
fn denied(words: &str) -> String {
    match Capabilities::effective().map(Capabilities::missing_for_tracing) {
        Ok(missing) if !missing.is_empty() => {
            let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
            format!("{words}: needs {}", names.join(" and "))
        }
        _ => words.to_owned(),
    }
}

fn offsets(btf: &Btf<'_>, pids: Pids) -> Result<Offsets, BtfError> {
    let task = |field| btf.offset_of("task_struct", field);
    Ok(Offsets {
        task_group_leader: task("group_leader")?,
        task_tgid: task("tgid")?,
        task_start_boottime: task("start_boottime")?,
        file_inode: btf.offset_of("file", "f_inode")?,
        inode_ino: btf.offset_of("inode", "i_ino")?,
        pids,
    })
}
