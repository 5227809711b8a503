//! `live` against real connections: each test makes one thing happen in a fresh namespace and
//! asserts the exact transitions of each socket, with ports, namespace and times within bounds.

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{
        Age, Linger, OwnerFrom, TcpState,
        TcpState::{
            Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv,
            SynSent,
        },
    },
    probe::Backend,
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close,
        conn::{Ends, Family, Span},
        linger, noise, open, simultaneous,
    },
    trace::{Trace, Transitions, by},
};

const CLIENT_FIRST: &str = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE";
const SERVER_SECOND: &str = "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";
const SERVER_FIRST: &str = "LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE";
const CLIENT_SECOND: &str = "CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";

/// Runs `work` under `backend` for each address family, each in a fresh namespace.
fn each<T: Send>(
    backend: Backend,
    work: impl Fn(Family) -> Result<T> + Sync,
    check: impl Fn(Family, &T, &Transitions, &Netns) -> Result<()>,
) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let mut trace = Trace::start(&by(backend))?;
            let (done, seen) = trace.of(&netns, family, || work(family))?;
            check(family, &done, &seen, &netns).with_context(|| format!("{seen:?}"))?;
            common(backend, family, &seen, &netns)?;
            let account = trace.finish()?;
            ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
            Ok(())
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
}

/// What holds of every transition.
fn common(backend: Backend, family: Family, seen: &Transitions, netns: &Netns) -> Result<()> {
    ensure!(seen.0.is_sorted_by_key(|moved| moved.mono_ns), "out of order: {seen:?}");
    for moved in &seen.0 {
        match backend {
            Backend::TpBtf => {
                let sock = moved.sock.context("no socket facts")?;
                ensure!(sock.netns == netns.inode(), "{sock:?}");
            }
            Backend::Tracepoint => ensure!(moved.sock.is_none()),
        }
        // The scenarios bind their listeners to v4-mapped loopback too.
        ensure!(moved.tuple.mapped() == (family == Family::Mapped), "mapped: {moved:?}");
        ensure!(moved.tuple.v6_socket == (family != Family::V4), "{moved:?}");
    }
    Ok(())
}

fn paths(seen: &Transitions, ends: Ends, client: &str, server: &str) -> Result<()> {
    let of_client = seen.of(ends.client, ends.server);
    let of_server = seen.of(ends.server, ends.client);
    ensure!(of_client.path() == client, "client: {}", of_client.path());
    ensure!(of_server.path() == server, "server: {}", of_server.path());
    Ok(())
}

/// A time between the start of one step and the end of another, in `old`.
fn lasted(
    seen: &Transitions,
    (old, new): (TcpState, TcpState),
    entered: Span,
    left: Span,
) -> Result<()> {
    let ns = seen.exactly(old, new)?;
    let (least, most) = (left.from.saturating_sub(entered.to), left.to - entered.from);
    ensure!((least..=most).contains(&ns), "{old} for {ns} ns, not {least} to {most}");
    Ok(())
}

fn at(moved: &tcptrace::model::Moved, span: Span) -> Result<()> {
    ensure!(
        (span.from..=span.to).contains(&moved.mono_ns),
        "{} -> {} at {}, not in {span:?}",
        moved.old,
        moved.new,
        moved.mono_ns
    );
    Ok(())
}

fn active_close(backend: Backend) {
    each(backend, close::active, |_, done, seen, _| {
        paths(seen, done.ends, CLIENT_FIRST, SERVER_SECOND)?;
        let client = seen.of(done.ends.client, done.ends.server);
        at(&client.one(Close, SynSent)?, done.connect)?;
        at(&client.one(Established, FinWait1)?, done.first_close)?;
        // The hand-over to the minisock, when the FIN is acknowledged: not the end.
        let handed_over = client.one(FinWait2, Close)?.mono_ns;
        ensure!((done.first_close.from..done.second_close.from).contains(&handed_over));
        lasted(&client, (Established, FinWait1), done.connect, done.first_close)?;
        let server = seen.of(done.ends.server, done.ends.client);
        lasted(&server, (CloseWait, LastAck), done.first_close, done.second_close)?;
        ensure!(client.one(Close, SynSent)?.in_old == Age::Unknown);
        ensure!(server.one(Listen, SynRecv)?.in_old == Age::Unknown);
        ensure!(matches!(server.one(SynRecv, Established)?.in_old, Age::AtLeast(_)));
        Ok(())
    });
}

fn passive_close(backend: Backend) {
    each(backend, close::passive, |_, done, seen, _| {
        paths(seen, done.ends, CLIENT_SECOND, SERVER_FIRST)?;
        let client = seen.of(done.ends.client, done.ends.server);
        lasted(&client, (CloseWait, LastAck), done.first_close, done.second_close)
    });
}

fn linger_zero(backend: Backend) {
    each(backend, close::with_linger_zero, |_, done, seen, _| {
        let client = "CLOSE SYN_SENT ESTABLISHED CLOSE";
        paths(seen, done.ends, client, "LISTEN SYN_RECV ESTABLISHED CLOSE")?;
        let closed = seen.of(done.ends.client, done.ends.server).one(Established, Close)?;
        at(&closed, done.close)?;
        if let Some(sock) = closed.sock {
            ensure!(sock.linger == Linger::Jiffies(0) && sock.err == 0, "{sock:?}");
            let peer = seen.of(done.ends.server, done.ends.client).one(Established, Close)?;
            let sock = peer.sock.context("no socket facts")?;
            ensure!(i32::from(sock.err) == libc::ECONNRESET, "{sock:?}");
        }
        Ok(())
    });
}

fn unread_data(backend: Backend) {
    each(backend, close::with_unread_data, |_, done, seen, _| {
        let client = "CLOSE SYN_SENT ESTABLISHED CLOSE";
        paths(seen, done.ends, client, "LISTEN SYN_RECV ESTABLISHED CLOSE")?;
        let closed = seen.of(done.ends.client, done.ends.server).one(Established, Close)?;
        if let Some(sock) = closed.sock {
            ensure!(sock.linger == Linger::Off && sock.err == 0 && !sock.dead, "{sock:?}");
            ensure!(sock.shutdown == 3, "{sock:?}");
        }
        Ok(())
    });
}

fn linger_two_seconds(backend: Backend) {
    let setting = Some(std::time::Duration::from_secs(2));
    each(
        backend,
        |family| linger::close(family, setting, linger::Peer::Answers),
        |_, done, seen, _| {
            let client = seen.of(done.ends.client, done.ends.server);
            let fin = client.one(Established, FinWait1)?;
            if let Some(sock) = fin.sock {
                let hz = tcptrace::host::clock::hz()?;
                ensure!(sock.linger == Linger::Jiffies(2 * hz), "{sock:?} with {hz} Hz");
            }
            Ok(())
        },
    );
}

fn refused_connect(backend: Backend) {
    each(backend, open::refused, |_, done, seen, _| {
        ensure!(seen.path() == "CLOSE SYN_SENT CLOSE", "{}", seen.path());
        ensure!(done.errno == libc::ECONNREFUSED);
        let closed = seen.one(SynSent, Close)?;
        at(&closed, done.connect)?;
        ensure!(closed.tuple.rport == done.server.port() && closed.tuple.lport != 0, "{closed:?}");
        if let Some(sock) = closed.sock {
            ensure!(i32::from(sock.err) == libc::ECONNREFUSED, "{sock:?}");
        }
        Ok(())
    });
}

fn no_ports(backend: Backend) {
    each(backend, open::no_ports, |_, done, seen, _| {
        let failed: Vec<_> = seen.0.iter().filter(|m| m.old == SynSent && m.new == Close).collect();
        ensure!(failed.len() == 1, "{failed:?}");
        ensure!(failed[0].tuple.lport == 0, "a port where there was none: {failed:?}");
        at(failed[0], done.failed.connect)
    });
}

fn half_close(backend: Backend) {
    let hold = std::time::Duration::from_millis(300);
    each(
        backend,
        |family| close::by_halves(family, hold),
        |_, done, seen, _| {
            paths(seen, done.ends, CLIENT_FIRST, SERVER_SECOND)?;
            let client = seen.of(done.ends.client, done.ends.server);
            // Held by its owner, so a full socket to the end. It entered FIN_WAIT2 when the peer
            // acknowledged, some time after shutdown() returned.
            let in_fin_wait2 = client.exactly(FinWait2, Close)?;
            let most = done.server_close.to - done.shutdown.from;
            ensure!(in_fin_wait2 <= most, "{in_fin_wait2} of {most} ns");
            ensure!(in_fin_wait2 + client.exactly(FinWait1, FinWait2)? >= 300_000_000);
            at(&client.one(FinWait2, Close)?, done.server_close)
        },
    );
}

fn listener(backend: Backend) {
    each(backend, open::listener, |family, done, seen, _| {
        ensure!(seen.path() == "CLOSE LISTEN CLOSE", "{}", seen.path());
        let (opened, closed) = (seen.one(Close, Listen)?, seen.one(Listen, Close)?);
        at(&opened, done.listen)?;
        at(&closed, done.close)?;
        lasted(seen, (Listen, Close), done.listen, done.close)?;
        ensure!(opened.tuple.lport == done.address.port() && opened.tuple.rport == 0);
        ensure!(closed.tuple.lport == done.address.port(), "{family:?} {closed:?}");
        let owner = closed.owner.context("no owner")?;
        ensure!(owner.from == OwnerFrom::Listener && owner.task.tgid == std::process::id());
        Ok(())
    });
}

fn bound_client(backend: Backend) {
    each(backend, open::bound, |_, done, seen, _| {
        paths(seen, done.ends, CLIENT_FIRST, SERVER_SECOND)?;
        if backend == Backend::TpBtf {
            let first = seen.of(done.ends.client, done.ends.server).one(Close, SynSent)?;
            ensure!(first.tuple.lport == done.ends.client.port(), "bound, so known: {first:?}");
        }
        Ok(())
    });
}

fn hostile_comm(backend: Backend) {
    each(backend, open::hostile_comm, |_, done, seen, _| {
        let connected = seen.of(done.ends.client, done.ends.server).one(Close, SynSent)?;
        let owner = connected.owner.context("no owner")?;
        ensure!(owner.from == OwnerFrom::Connect);
        ensure!(owner.task.tgid == std::process::id());
        ensure!(owner.task.thread.as_bytes().contains(&0x1b), "{owner:?}");
        ensure!(!owner.task.thread.to_string().contains('\x1b'), "{owner:?}");
        Ok(())
    });
}

fn self_connect(backend: Backend) {
    each(backend, simultaneous::self_connect, |_, done, seen, _| {
        let path = seen.of(done.tuple.local, done.tuple.remote).path();
        ensure!(
            path == "CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE",
            "self-connect: {path}"
        );
        ensure!(seen.exactly(Closing, Close).is_ok());
        Ok(())
    });
}

fn only_tcp(backend: Backend) {
    each(backend, noise::udp, |_, _, seen, _| {
        ensure!(seen.0.is_empty(), "UDP is not TCP");
        Ok(())
    });
    // An MPTCP connection has subflows, which are TCP, and a parent socket, which is not: each
    // address of a subflow is seen once.
    each(backend, noise::mptcp, |_, ends, seen, _| {
        let client = seen.of(ends.client, ends.server).path();
        ensure!(client.starts_with("CLOSE SYN_SENT ESTABLISHED"), "{client}");
        ensure!(!client.contains('|'), "the parent shows: {client}");
        Ok(())
    });
}

fn two_namespaces(backend: Backend) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let (one, other) = (Netns::new()?, Netns::new()?);
            let mut trace = Trace::start(&by(backend))?;
            let start = trace.moved.len();
            let closed = open::in_two_namespaces(&one, &other, family)?;
            // A sentinel in each; what counts is everything since the start.
            trace.of(&one, family, || Ok(()))?;
            trace.of(&other, family, || Ok(()))?;
            for (netns, closed) in [&one, &other].into_iter().zip(&closed) {
                let of = trace.of_netns(start, netns);
                let ends = closed.ends;
                let (client, server) = if netns.inode() == one.inode() {
                    (CLIENT_FIRST, SERVER_SECOND)
                } else {
                    (CLIENT_SECOND, SERVER_FIRST)
                };
                paths(&of, ends, client, server)?;
            }
            Ok(())
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
}

macro_rules! for_each_backend {
    ($($test:ident),* $(,)?) => {
        mod tp_btf {
            use super::Backend;
            $(#[test]
            fn $test() {
                super::$test(Backend::TpBtf);
            })*
        }
        mod tracepoint {
            use super::Backend;
            $(#[test]
            fn $test() {
                super::$test(Backend::Tracepoint);
            })*
        }
    };
}

for_each_backend!(
    active_close,
    passive_close,
    linger_zero,
    unread_data,
    linger_two_seconds,
    refused_connect,
    no_ports,
    half_close,
    listener,
    bound_client,
    hostile_comm,
    self_connect,
    only_tcp,
    two_namespaces,
);
