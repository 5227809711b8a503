//! Processes that hold what a test gives them and nothing else.
//!
//! Other tests run beside, and a fork copies all descriptors: a child would keep their sockets open
//! for a moment, and so put off their ends. So it is forked by a thread that has left the shared
//! table (`CLOSE_RANGE_UNSHARE` copies none of what it closes, kernel 5.9) and then fetched what
//! it is to have (`pidfd_getfd()`, kernel 5.6). Between fork and exit a child makes system calls only:
//! it has no other threads, and locks that these held stay locked.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process, ptr,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessage, MsgFlags, sendmsg},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use crate::{net::Netns, unsupported::supported};

/// A child. It ends when this is dropped.
pub struct Child {
    pid: Pid,
    control: Option<UnixStream>,
}

impl Child {
    /// One in `netns` that has `files` open, and runs by now.
    ///
    /// # Errors
    /// `Unsupported` on kernels before 5.9; else what the kernel answered.
    pub fn holding(netns: &Netns, files: &[BorrowedFd<'_>]) -> Result<Self> {
        let mut child = Self::fork(netns, files, |_, _| true)?;
        // Ended before it has said so, it would find nobody to say it to, and count as failed.
        child.done()?;
        Ok(child)
    }

    /// One in `netns` that, when told to, connects a socket of its own making to an IPv4 address.
    ///
    /// # Errors
    /// As [`Self::holding`].
    pub fn connecting(netns: &Netns, to: SocketAddr) -> Result<Self> {
        let to = socket2::SockAddr::from(to);
        Self::fork(netns, &[], move |control, _| {
            if !read_byte(control) {
                return false;
            }
            // SAFETY: takes three numbers.
            let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
            // SAFETY: `to` is a live address, and its own length is given with it.
            unsafe { libc::connect(socket, to.as_ptr().cast(), to.len()) == 0 }
        })
    }

    /// One in `netns` that takes a file over a Unix socket when one is [sent](Self::send).
    ///
    /// # Errors
    /// As [`Self::holding`].
    pub fn receiving(netns: &Netns) -> Result<Self> {
        Self::fork(netns, &[], |control, _| receive(control))
    }

    /// One in `netns` that does `work` and waits for its end. `work` gets the child's end of the
    /// control socket and its copies of `files`, and makes system calls only.
    ///
    /// # Errors
    /// As [`Self::holding`].
    pub fn fork(
        netns: &Netns,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce(RawFd, &[OwnedFd]) -> bool + Send,
    ) -> Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_read_timeout(Some(crate::wait::DEADLINE))?;
        let mut wanted = vec![theirs.as_raw_fd()];
        wanted.extend(files.iter().map(|file| file.as_raw_fd()));
        let pid = netns.run(|| -> Result<Pid> {
            // SAFETY: this thread alone gets the new, nearly empty table, and ends after this; it
            // owns no descriptor.
            let left = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) };
            supported("leave the table of open files", &[libc::ENOSYS], result(left))?;
            let mut fetched = fetch(&wanted)?;
            let control = fetched.remove(0);
            // SAFETY: the child makes system calls only, and leaves by _exit().
            match unsafe { fork() }.context("fork")? {
                ForkResult::Parent { child } => Ok(child),
                ForkResult::Child => {
                    let control = control.as_raw_fd();
                    let done = work(control, &fetched) && write_byte(control);
                    // Until the other end is closed.
                    while read_byte(control) {}
                    // SAFETY: takes a number.
                    unsafe { libc::_exit(i32::from(!done)) }
                }
            }
        })?;
        let child = Self { pid, control: Some(control) };
        drop(theirs);
        Ok(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Tells it to go on.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.control.as_mut().context("the child was ended")?.write_all(&[1])?)
    }

    /// Sends it a file.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn send(&self, file: impl AsFd) -> Result<()> {
        let control = self.control.as_ref().context("the child was ended")?;
        let files = [file.as_fd().as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&files)];
        let byte = [io::IoSlice::new(&[1])];
        sendmsg::<()>(control.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None)?;
        Ok(())
    }

    /// Waits until it has done what it is there for.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub fn done(&mut self) -> Result<()> {
        let control = self.control.as_mut().context("the child was ended")?;
        control.read_exact(&mut [0]).context("the child did not do its work")
    }

    /// Ends it.
    ///
    /// # Errors
    /// It failed.
    pub fn end(mut self) -> Result<()> {
        self.control = None;
        let status = waitpid(self.pid, None)?;
        ensure!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        // Drop would wait for another process that may have this number by now.
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.control = None;
        // It may wait for something else than the other end. It was not waited for, so the number
        // is its own still.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// Copies of files of the process's table in that of the calling thread.
fn fetch(wanted: &[RawFd]) -> Result<Vec<OwnedFd>> {
    let take = |fd: i64| -> io::Result<OwnedFd> {
        let fd = result(fd as i32)?;
        // SAFETY: the kernel just gave it, and nothing else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: takes two numbers.
    let own = take(unsafe { libc::syscall(libc::SYS_pidfd_open, process::id(), 0) })?;
    let fetch = |fd: &RawFd| {
        // SAFETY: takes three numbers; `own` is open.
        take(unsafe { libc::syscall(libc::SYS_pidfd_getfd, own.as_raw_fd(), *fd, 0) })
    };
    Ok(wanted.iter().map(fetch).collect::<io::Result<_>>()?)
}

fn result(returned: i32) -> io::Result<i32> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

fn read_byte(fd: RawFd) -> bool {
    let mut byte = 0_u8;
    // SAFETY: one byte is written to a live one at most.
    unsafe { libc::read(fd, (&raw mut byte).cast(), 1) == 1 }
}

fn write_byte(fd: RawFd) -> bool {
    // SAFETY: one byte is read from a live one.
    unsafe { libc::write(fd, (&raw const *b"1").cast(), 1) == 1 }
}

/// Receives one byte and the file that comes with it.
fn receive(control: RawFd) -> bool {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // Room for one `struct cmsghdr` with one descriptor, aligned as it.
    let mut rights = [0_u64; 4];
    let mut message = libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: &raw mut part,
        msg_iovlen: 1,
        msg_control: rights.as_mut_ptr().cast(),
        msg_controllen: size_of_val(&rights) as _,
        msg_flags: 0,
    };
    // SAFETY: all that `message` points to is alive, and its lengths are theirs.
    let received = unsafe { libc::recvmsg(control, &raw mut message, 0) };
    received == 1 && message.msg_controllen > 0 && message.msg_flags & libc::MSG_CTRUNC == 0
}
