//! Owner, closer and holder are three facts: with processes that pass sockets on, inherit them, rename
//! themselves and end, against what `/proc` says of these.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, RawFd},
    process, thread,
};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{
        CloserFrom, Moved, OwnerFrom, Task,
        TcpState::{Close, CloseWait, Established, FinWait1, LastAck, SynSent},
        filter::Filter,
    },
    probe::{AcceptChoice, Backend, Options},
    stats::group::{self, By, Key},
};

use crate::{
    checks::{is_process, settle},
    child::Child,
    net::Netns,
    scenario::conn::{Ends, Family, Listener, local_address},
    trace::{Trace, by},
    wait::until,
};

fn trace(netns: &Netns) -> Result<Trace> {
    let filter = Filter { netns: Some(netns.inode()), ..Filter::default() };
    Trace::start(&Options { filter, accept: AcceptChoice::Auto, ..by(Backend::TpBtf) })
}

fn each(check: impl Fn(Family) -> Result<()>) {
    for family in Family::ALL {
        settle(&format!("{family:?}"), check(family));
    }
}

/// The move out of `old` of the server's end.
fn of_server(
    trace: &mut Trace,
    netns: &Netns,
    ends: Ends,
    old: tcptrace::model::TcpState,
    new: tcptrace::model::TcpState,
) -> Result<Moved> {
    until("the server's end to close", || {
        trace.drain()?;
        Ok(trace.of_netns(0, netns).of(ends.server, ends.client).one(old, new).ok())
    })
}

/// It accepts, passes the descriptor on by SCM_RIGHTS, and another process alone closes.
fn passed_on(family: Family) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = trace(&netns)?;
    let hears_accept = trace.live().probe().accept().is_some();
    let mut worker = Child::receiving(&netns)?;
    let pid = worker.pid();
    let connection = netns.run(|| Listener::open(family, 0)?.connect(None))?;
    let ends = connection.ends;
    worker.send(&connection.server)?;
    worker.done()?;
    drop(connection.server);
    let named = crate::witness::process(pid)?;
    worker.end()?;
    let moved = of_server(&mut trace, &netns, ends, Established, FinWait1)?;
    let closer = moved.closer.context("no closer")?;
    ensure!(closer.task.tgid == pid && closer.from == CloserFrom::Fin, "{closer:?}");
    ensure!(u64::from(closer.task.started) == named.started, "{closer:?}");
    ensure!(closer.task.comm.as_bytes() == named.comm, "{closer:?}");
    let owner = moved.owner.context("no owner")?;
    if hears_accept {
        ensure!(owner.from == OwnerFrom::Accept, "{owner:?}");
        is_process(&owner.task, process::id())?;
    }
    // The ranking is by who closed.
    let Key::Service(Some(name), _) = group::service(&moved) else { anyhow::bail!("no process") };
    ensure!(name.comm.as_bytes() == named.comm, "{name:?}");
    drop(connection.client);
    Ok(())
}

#[test]
fn who_closes_is_not_who_accepted() {
    each(passed_on);
}

/// Of a connection that the peer closed first, the closer is who answered; of one that is reset, who
/// reset it; of one that the peer reset, nobody.
fn other_ends(family: Family) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = trace(&netns)?;
    let (answered, reset) = netns.run(|| -> Result<_> {
        let listener = Listener::open(family, 0)?;
        let answered = listener.connect(None)?;
        drop(answered.client);
        crate::witness::wait_state(answered.ends.of_server(), crate::witness::State::CloseWait)?;
        drop(answered.server);
        let reset = listener.connect(None)?;
        reset.server.set_linger(Some(std::time::Duration::ZERO))?;
        drop(reset.server);
        // The RST has been sent; the client finds it.
        let _ = std::io::Read::read(&mut &reset.client, &mut [0]);
        drop(reset.client);
        Ok((answered.ends, reset.ends))
    })?;
    let moved = of_server(&mut trace, &netns, answered, CloseWait, LastAck)?;
    let closer = moved.closer.context("no closer")?;
    is_process(&closer.task, process::id())?;
    ensure!(closer.from == CloserFrom::Fin, "{closer:?}");
    let moved = of_server(&mut trace, &netns, reset, Established, Close)?;
    let closer = moved.closer.context("no closer")?;
    is_process(&closer.task, process::id())?;
    ensure!(closer.from == CloserFrom::Rst, "{closer:?}");
    let peers = trace.of_netns(0, &netns).of(reset.client, reset.server).one(Established, Close)?;
    ensure!(peers.closer.is_none(), "{peers:?}");
    Ok(())
}

#[test]
fn who_answers_or_resets_is_the_closer_and_who_is_reset_has_none() {
    each(other_ends);
}

/// Names itself and connects, twice, by system calls alone.
fn connect_as(control: RawFd, to: &socket2::SockAddr, names: &[&[u8; 16]]) -> bool {
    let mut byte = 0_u8;
    // SAFETY: a live byte.
    if unsafe { libc::read(control, (&raw mut byte).cast(), 1) } != 1 {
        return false;
    }
    names.iter().all(|name| {
        // SAFETY: the name ends with a NUL.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        // SAFETY: takes three numbers.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
        // SAFETY: `to` is a live address, and its own length is given with it.
        unsafe { libc::connect(socket, to.as_ptr().cast(), to.len()) == 0 }
    })
}

/// A name that only kernel threads have, and control characters: one process, one group, its first
/// name, escaped.
#[test]
fn a_process_is_one_group_whatever_it_calls_itself() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let mut trace = trace(&netns)?;
        let listener = netns.run(|| Listener::open(Family::V4, 0))?;
        let to = socket2::SockAddr::from(listener.address);
        let names: [&[u8; 16]; 2] = [b"kworker/u8:2\0\0\0\0", b"\x1b[31mother\n\0\0\0\0\0"];
        let mut child =
            Child::fork(&netns, &[], move |control, _| connect_as(control, &to, &names))?;
        child.go()?;
        child.done()?;
        let connected = until("both connections", || {
            trace.drain()?;
            let all = trace.of_netns(0, &netns).0;
            let opened: Vec<Moved> = all
                .into_iter()
                .filter(|m| m.new == SynSent && m.tuple.rport == to_port(listener.address))
                .collect();
            Ok((opened.len() == 2).then_some(opened))
        })?;
        for moved in &connected {
            let owner = moved.owner.context("no owner")?;
            ensure!(owner.task.tgid == child.pid() && !owner.task.is_kernel, "{owner:?}");
            ensure!(By::Owner.key(moved) == By::Owner.key(&connected[0]), "{connected:?}");
            ensure!(By::Owner.key(moved).to_string() == "kworker/u8:2", "{owner:?}");
        }
        // The thread is called what it called itself: escaped where it is printed.
        let thread = connected[1].owner.context("no owner")?.task.thread.to_string();
        ensure!(thread == "\\x1b[31mother\\x0a", "{thread}");
        drop((child, listener));
        Ok(())
    };
    settle("", outcome());
}

fn to_port(address: SocketAddr) -> u16 {
    address.port()
}

/// Threads that call themselves something are no processes of their own.
#[test]
fn named_threads_are_one_group() {
    let outcome = || -> Result<()> {
        const THREADS: usize = 4;
        let netns = Netns::new()?;
        let mut trace = trace(&netns)?;
        let address = netns.run(|| -> Result<SocketAddr> {
            let listener = Listener::open(Family::V4, 0)?;
            let address = listener.address;
            thread::scope(|scope| -> Result<()> {
                let pool: Vec<_> = (0..THREADS)
                    .map(|number| {
                        let name = format!("pool-0-thread-{number}");
                        thread::Builder::new().name(name).spawn_scoped(scope, || -> Result<()> {
                            let client = Family::V4.socket()?;
                            client.connect(&address.into())?;
                            local_address(&client)?;
                            Ok(())
                        })
                    })
                    .collect::<std::io::Result<_>>()?;
                pool.into_iter().try_for_each(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
            })?;
            Ok(address)
        })?;
        let opened = until("all connections", || {
            trace.drain()?;
            let all = trace.of_netns(0, &netns).0;
            let is_one = |m: &Moved| m.new == SynSent && m.tuple.rport == address.port();
            let opened: Vec<Moved> = all.into_iter().filter(is_one).collect();
            Ok((opened.len() == THREADS).then_some(opened))
        })?;
        for moved in &opened {
            let Task { thread, .. } = moved.owner.context("no owner")?.task;
            is_process(&moved.owner.context("no owner")?.task, process::id())?;
            ensure!(thread.to_string().starts_with("pool-0-thread-"), "{thread}");
            ensure!(By::Owner.key(moved) == By::Owner.key(&opened[0]));
        }
        Ok(())
    };
    settle("", outcome());
}

/// A child inherits a connection, and both have it open; then the parent lets go of its copy.
#[test]
fn of_a_connection_that_was_inherited_the_child_is_the_holder() {
    use std::collections::HashSet;

    use nix::sys::stat::fstat;
    use tcptrace::host::process::{has_ended, holders};

    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let connection = netns.run(|| Listener::open(Family::V4, 0)?.connect(None))?;
        let inode = u32::try_from(fstat(&connection.server)?.st_ino)?;
        let child = Child::holding(&netns, &[connection.server.as_fd()])?;
        let held = || -> Result<_> {
            let found = holders(&HashSet::from([inode]))?;
            found.by_inode.get(&inode).copied().context("nobody holds it")
        };
        let both = held()?;
        ensure!(both.task.tgid == child.pid() && both.holders == 2, "{both:?}");
        ensure!(both.also().map(|also| also.tgid) == Some(process::id()), "{both:?}");
        drop(connection.server);
        let one = held()?;
        ensure!(one.task.tgid == child.pid() && one.holders == 1, "{one:?}");
        is_process(&Task { execs: 0, ..one.task }, child.pid())?;
        ensure!(!has_ended(&one.task));
        child.end()?;
        ensure!(has_ended(&one.task), "{one:?}");
        ensure!(one.without(one.task.tgid, one.task.started).is_none());
        ensure!(connection.client.as_raw_fd() >= 0);
        Ok(())
    };
    settle("", outcome());
}
