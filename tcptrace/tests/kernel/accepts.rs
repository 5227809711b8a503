//! Who accepts: each connection that a process takes from a listener is told once, with the task
//! that took it, whichever thread or process that was.

use std::{
    os::{fd::AsRawFd as _, unix::net::UnixListener},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork, getpid, gettid},
};
use socket2::Socket;
use tcptrace::{
    model::{
        Accept,
        TcpState::{Established, Listen, SynRecv},
        filter::Filter,
    },
    probe::{AcceptBackend, AcceptChoice, Backend, Options, ProbeError},
};

use crate::{
    checks::{is_process, settle},
    net::Netns,
    scenario::conn::{Ends, Family, Listener, bound_in_time, local_address},
    trace::{Trace, by},
    unsupported::Unsupported,
    wait::until,
};

/// The name of the thread that accepts.
const ACCEPTOR: &str = "acceptor";

/// A tracer of what happens in `netns`.
fn trace(netns: &Netns, backend: AcceptBackend) -> Result<Trace> {
    let options = Options {
        filter: Filter { netns: Some(netns.inode()), ..Filter::default() },
        accept: AcceptChoice::Only(backend),
        ..by(Backend::TpBtf)
    };
    match Trace::start(&options) {
        Err(error) => match error.downcast_ref::<ProbeError>() {
            Some(ProbeError::Accept { backend: AcceptBackend::Function, reason })
                if reason.contains("Operation not permitted")
                    && std::env::var_os("VM_TEST").is_none() =>
            {
                Err(Unsupported(format!("not available: {reason}")).into())
            }
            _ => Err(error),
        },
        started => started,
    }
}

fn each(check: impl Fn(AcceptBackend, Family) -> Result<()>) {
    for backend in AcceptBackend::ALL {
        for family in Family::ALL {
            settle(&format!("{backend} {family:?}"), check(backend, family));
        }
    }
}

/// Connects to `listener` and has `accept` take it.
fn connect<T>(listener: &Listener, accept: impl FnOnce() -> Result<T>) -> Result<(Ends, T)> {
    let client = listener.family.socket()?;
    client.connect(&listener.address.into())?;
    let ends = Ends { client: local_address(&client)?, server: listener.address };
    let accepted = accept()?;
    Ok((ends, accepted))
}

/// The one accept of the connection's end on the server, by its socket.
fn of_server(trace: &mut Trace, netns: &Netns, ends: Ends) -> Result<Accept> {
    let seen = until("the accept", || {
        trace.drain()?;
        let seen = trace.of_netns(0, netns).of(ends.server, ends.client);
        let Ok(born) = seen.one(Listen, SynRecv) else { return Ok(None) };
        let its = |accept: &&Accept| accept.skaddr == born.skaddr;
        let found: Vec<_> = trace.accepts.iter().filter(its).copied().collect();
        Ok((!found.is_empty()).then_some((seen, found)))
    })?;
    let (transitions, accepts) = seen;
    let [accept] = accepts.as_slice() else { anyhow::bail!("accepted twice: {accepts:?}") };
    let established = transitions.one(SynRecv, Established)?;
    ensure!(accept.mono_ns > established.mono_ns, "{accept:?} before {transitions:?}");
    ensure!(accept.netns == netns.inode() && accept.task.uid == 0, "{accept:?}");
    Ok(*accept)
}

fn finish(mut trace: Trace, accepted: usize) -> Result<()> {
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0 && account.lost == 0, "{account:?}");
    ensure!(trace.accepts.len() == accepted, "{:?}", trace.accepts);
    Ok(())
}

/// By accept4(), which std uses, and by accept().
fn accept(listener: &Socket) -> Result<()> {
    let (server, _) = listener.accept()?;
    bound_in_time(&server)
}

fn accept_the_old_way(listener: &Socket) -> Result<()> {
    // SAFETY: the descriptor is open for the length of the borrow, and no address is asked for.
    let fd =
        unsafe { libc::accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) };
    ensure!(fd >= 0, "accept: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
    Ok(())
}

/// The listener's thread is not the one that accepts.
fn by_a_thread(
    backend: AcceptBackend,
    family: Family,
    take: fn(&Socket) -> Result<()>,
) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = trace(&netns, backend)?;
    let (ends, tid) = netns.run(|| -> Result<_> {
        let listener = Listener::open(family, 0)?;
        connect(&listener, || {
            thread::scope(|scope| {
                let accepting = || -> Result<Pid> {
                    take(&listener.socket)?;
                    Ok(gettid())
                };
                let builder = thread::Builder::new().name(ACCEPTOR.to_owned());
                let acceptor = builder.spawn_scoped(scope, accepting)?;
                acceptor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    })?;
    let accept = of_server(&mut trace, &netns, ends)?;
    let task = accept.task;
    ensure!(task.tgid == getpid().as_raw() as u32, "{task:?}");
    ensure!(task.tid == tid.as_raw() as u32, "{task:?}, not thread {tid}");
    is_process(&task, std::process::id())?;
    ensure!(task.thread.to_string() == ACCEPTOR, "{task:?}");
    finish(trace, 1)
}

#[test]
fn a_thread_by_accept4() {
    each(|backend, family| by_a_thread(backend, family, accept));
}

#[test]
fn a_thread_by_accept() {
    each(|backend, family| by_a_thread(backend, family, accept_the_old_way));
}

/// A process forked after listen(), as pre-fork servers do.
fn by_a_child(backend: AcceptBackend, family: Family) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = trace(&netns, backend)?;
    let (ends, child) = netns.run(|| -> Result<_> {
        let listener = Listener::open(family, 0)?;
        let fd = listener.socket.as_raw_fd();
        // SAFETY: the child calls nothing but accept() and _exit(), which are async-signal-safe.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                // SAFETY: the descriptor is the child's own copy; no address is asked for.
                let taken = unsafe { libc::accept(fd, std::ptr::null_mut(), std::ptr::null_mut()) };
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(taken < 0)) }
            }
        };
        connect(&listener, || {
            let ended = waitpid(child, None)?;
            ensure!(ended == WaitStatus::Exited(child, 0), "{ended:?}");
            Ok(child)
        })
    })?;
    let task = of_server(&mut trace, &netns, ends)?.task;
    let child = child.as_raw() as u32;
    ensure!((task.tgid, task.tid) == (child, child), "{task:?}, not process {child}");
    finish(trace, 1)
}

#[test]
fn a_process_forked_before() {
    each(by_a_child);
}

/// What is no accept of a TCP connection: of a Unix socket, and one that fails.
fn others(backend: AcceptBackend, family: Family) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = trace(&netns, backend)?;
    let ends = netns.run(|| -> Result<_> {
        let listener = Listener::open(family, 0)?;
        listener.socket.set_nonblocking(true)?;
        let none = listener.socket.accept().err().context("accepted out of nothing")?;
        ensure!(none.kind() == std::io::ErrorKind::WouldBlock, "{none}");
        listener.socket.set_nonblocking(false)?;

        let name = format!("tcptrace-accepts-{}-{}", std::process::id(), gettid());
        let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::
            from_abstract_name(name)?;
        let unix = UnixListener::bind_addr(&address)?;
        let client = std::os::unix::net::UnixStream::connect_addr(&address)?;
        drop((unix.accept()?, client));

        // The one that is: it comes last.
        Ok(connect(&listener, || accept(&listener.socket))?.0)
    })?;
    of_server(&mut trace, &netns, ends)?;
    finish(trace, 1)
}

#[test]
fn nothing_else() {
    each(others);
}

/// Another namespace's are held back, and counted.
#[test]
fn pass_the_filter_with_their_connection() {
    for backend in AcceptBackend::ALL {
        settle(
            backend.name(),
            (|| {
                let (netns, other) = (Netns::new()?, Netns::new()?);
                let mut trace = trace(&netns, backend)?;
                let one = |netns: &Netns| {
                    netns.run(|| -> Result<Ends> {
                        let listener = Listener::open(Family::V4, 0)?;
                        Ok(connect(&listener, || accept(&listener.socket))?.0)
                    })
                };
                one(&other)?;
                let ends = one(&netns)?;
                of_server(&mut trace, &netns, ends)?;
                let filtered =
                    trace.live().probe().totals(tcptrace_common::counters::Hook::Accept)?;
                ensure!(filtered.filtered >= 1, "{filtered:?}");
                finish(trace, 1)
            })(),
        );
    }
}
