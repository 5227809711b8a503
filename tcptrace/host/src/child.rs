//! A process that this one makes of itself, and that lives no longer than it.
//!
//! It is a fork without an exec: it goes on with a function of this program, by its own rights.
//! What it does is the caller's.

use std::{
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd, RawFd},
    panic::{self, AssertUnwindSafe},
    process,
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigHandler, Signal, kill, signal},
        wait::{WaitStatus, waitpid},
    },
    unistd::{self, ForkResult, Pid},
};

/// Signals that a terminal or a service manager sends to all processes at once: when the child
/// ends, its parent decides.
const FOR_THE_PARENT: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The child's exit code where it could not be made what it is to be.
const EXIT_UNFIT: i32 = 70;

/// A child, until it is waited for. Dropping it ends it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// How it ended.
    ended: Mutex<Option<String>>,
}

impl Child {
    /// Has a new process called `name` (at most 15 bytes) run `work` and end. Of what is open it
    /// keeps stderr and `files`, nothing else; these are closed here. It ends at once when the
    /// calling thread does, whatever ended that.
    ///
    /// # Errors
    /// This process has more than one thread: a lock that another one holds would never be let go
    /// of in the child. Or the kernel refuses.
    pub fn start<F: AsRawFd, const N: usize>(
        name: &CStr,
        files: [F; N],
        work: impl FnOnce([F; N]),
    ) -> io::Result<Self> {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other("this process has threads already"));
        }
        let parent = unistd::getpid();
        // SAFETY: the process has one thread, as was just seen, so the child is whole: no lock is
        // held by a thread that it does not have.
        match unsafe { unistd::fork() }? {
            ForkResult::Parent { child } => Ok(Self { pid: child, ended: Mutex::new(None) }),
            ForkResult::Child => {
                let keep = files.each_ref().map(F::as_raw_fd);
                // What unwinds would go on with the parent's work.
                let run = AssertUnwindSafe(|| match become_child(name, parent, &keep) {
                    Ok(()) => {
                        work(files);
                        0
                    }
                    Err(_) => EXIT_UNFIT,
                });
                process::exit(panic::catch_unwind(run).unwrap_or(EXIT_UNFIT))
            }
        }
    }

    /// Ends it, if it has not ended, waits for it, and says how it ended.
    pub fn end(&self) -> String {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended
            .get_or_insert_with(|| {
                // Of one that has begun to end this changes nothing. Its number is its own until it
                // is waited for.
                let _ = kill(self.pid, Signal::SIGKILL);
                loop {
                    match waitpid(self.pid, None) {
                        Ok(WaitStatus::Signaled(_, signal, _)) => {
                            break format!("killed by {signal}");
                        }
                        Ok(WaitStatus::Exited(_, code)) => break format!("ended with code {code}"),
                        Ok(_) | Err(Errno::EINTR) => {}
                        // Whoever started us has children waited for by nobody.
                        Err(_) => break "gone".to_owned(),
                    }
                }
            })
            .clone()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

fn become_child(name: &CStr, parent: Pid, keep: &[RawFd]) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before that.
    if unistd::getppid() != parent {
        return Err(io::ErrorKind::NotFound.into());
    }
    for number in FOR_THE_PARENT {
        // SAFETY: no handler is installed that could run at a bad time: the signals are ignored.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    prctl::set_name(name)?;
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    drop(null);
    let open = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let open: Vec<RawFd> = open.collect();
    for file in open.into_iter().filter(|file| *file > libc::STDERR_FILENO && !keep.contains(file))
    {
        // That of the list itself is closed already.
        let _ = unistd::close(file);
    }
    Ok(())
}
