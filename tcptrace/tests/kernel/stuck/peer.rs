//! Connections that wait for their peers: what for, and when the kernel gives them up, which is waited
//! for.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::Shutdown,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::Socket;
use tcptrace::{
    model::TcpState,
    probe::Backend,
    stats::stuck::{Cause, Limit, Stuck},
};

use super::{Traced, later, resent};
use crate::{
    checks::settle,
    net::{Netns, sysctl},
    scenario::{
        conn::{Connection, Family, Listener, expect_error, local_address},
        ending::deafen,
    },
    sys::{now, set_option, tcp_info},
    wait::until,
    witness::{Counters, Row, State, Tuple, find, wait_state},
};

/// How late the program may learn of an end on a busy host, beside what the timer rounds up.
const LATE_MS: u64 = 300;

/// The kernel's timers in the second column of `tr:when` (`get_tcp4_sock()`).
const RETRANSMIT: u8 = 1;
const PROBE: u8 = 4;

/// The one that is stuck with this local end.
fn of<'a>(all: &'a [Stuck], end: &Tuple) -> Result<&'a Stuck> {
    let is_it = |stuck: &&Stuck| {
        let tuple = &stuck.found.tuple;
        (tuple.lport, tuple.rport) == (end.local.port(), end.remote.port())
    };
    all.iter().find(is_it).with_context(|| format!("{end:?} is not in {all:?}"))
}

/// What the kernel's own table says of it.
fn row(netns: &Netns, end: Tuple) -> Result<Row> {
    netns.run(|| find(end))?.context("not in /proc/net/tcp")
}

/// Data that a peer that vanished does not acknowledge: the kernel gives it up by `limit` when `stuck`
/// said that it would.
fn is_given_up_when_said(
    backend: Backend,
    family: Family,
    limit: Limit,
    prepare: impl Fn(&Socket) -> Result<()> + Sync,
    seen_after: u32,
) -> Result<()> {
    const BYTES: usize = 1000;
    let netns = Netns::new()?;
    let (connection, from) = netns.run(|| -> Result<_> {
        let connection = Listener::open(family, 0)?.connect(None)?;
        deafen(&connection.server)?;
        prepare(&connection.client)?;
        let from = now();
        (&connection.client).write_all(&[b'x'; BYTES])?;
        Ok((connection, from))
    })?;
    resent(&connection.client, seen_after)?;

    let mut traced = Traced::start_by(&netns, backend, Some(Duration::from_millis(100)))?;
    let (report, at) = traced.report()?;
    let end = connection.ends.of_client();
    let witness = row(&netns, end)?;
    let total = tcp_info(&connection.client)?.total_retrans;
    let stuck = of(&report.oldest, &end)?;
    ensure!((stuck.found.state, stuck.cause) == (TcpState::Established, Cause::NoAck), "{stuck:?}");
    ensure!((witness.state, witness.timer) == (State::Established, RETRANSMIT), "{witness:?}");
    let bytes = stuck.bytes.context("no queues")?;
    ensure!((bytes.unread, bytes.unsent) == (0, BYTES as u64), "{bytes:?}");
    let info = stuck.scan.context("no scan")?.info;
    ensure!((seen_after..=total).contains(&info.tcp.total_retrans), "{info:?}, and now {total}");
    let waited_ns = tcptrace::stats::conns::least_ns(stuck.age);
    ensure!((100_000_000..=at - from).contains(&waited_ns), "{stuck:?}: {} ns", at - from);

    let given = stuck.give_up.context("no end")?;
    ensure!(given.by == limit, "{given:?}");
    let said_ms = stuck.gives_up_in_ms(at).context("no time")?;
    let errno = expect_error(&connection.client)?;
    let took_ms = (now() - at) / 1_000_000;
    ensure!(errno == libc::ETIMEDOUT, "errno {errno}");
    // The wheel rounds up by an eighth at most (`calc_wheel_index()`), at each timeout.
    ensure!(took_ms + LATE_MS >= said_ms, "said {said_ms} ms, and it took {took_ms}: {info:?}");
    ensure!(
        took_ms <= said_ms + said_ms / 8 + LATE_MS,
        "said {said_ms} ms, and it took {took_ms}: {info:?}"
    );
    drop(connection);
    Ok(())
}

#[test]
fn a_peer_that_vanished_is_given_up_when_said() {
    for (backend, family) in [(Backend::TpBtf, Family::V4), (Backend::Tracepoint, Family::V6)] {
        let retries = |_: &Socket| sysctl("net/ipv4/tcp_retries2", "3");
        // The last of these is 3.2 s after the fourth, so that no other end is near.
        let outcome = is_given_up_when_said(backend, family, Limit::Retries2, retries, 3);
        settle(&format!("{backend:?}, tcp_retries2"), outcome);
    }
}

#[test]
fn a_programs_own_limit_is_known_from_the_timeout_that_it_cuts_short() {
    let timeout = |socket: &Socket| -> Result<()> {
        Ok(set_option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 2_500)?)
    };
    // Timeouts after some 0.2, 0.4, 0.8 and 1.6 s, a loss probe maybe before them; the fifth would
    // come after 3.2 s more.
    for (backend, family) in [(Backend::TpBtf, Family::V6), (Backend::Tracepoint, Family::V4)] {
        let outcome = is_given_up_when_said(backend, family, Limit::UserTimeout, timeout, 4);
        settle(&format!("{backend:?}, TCP_USER_TIMEOUT"), outcome);
    }
}

/// Writes until the peer's window and the own buffer are full.
fn fill(client: &Socket, mut server: &Socket) -> Result<()> {
    client.set_nonblocking(true)?;
    let mut writer = client;
    // One byte read, so that the handshake's first window is over; then nothing.
    let chunk = vec![b'x'; 1 << 16];
    loop {
        match writer.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    client.set_nonblocking(false)?;
    let mut byte = [0];
    ensure!(server.read(&mut byte)? == 1, "nothing came");
    Ok(())
}

#[test]
fn a_program_that_does_not_read_is_the_cause_and_the_fin_waits() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (half, last, orphan) = netns.run(|| -> Result<_> {
            let full = || -> Result<Connection> {
                let listener = Listener::open(Family::V4, 0)?;
                listener.socket.set_recv_buffer_size(4096)?;
                let connection = listener.connect(None)?;
                fill(&connection.client, &connection.server)?;
                Ok(connection)
            };
            let half = full()?;
            half.client.shutdown(Shutdown::Write)?;
            wait_state(half.ends.of_client(), State::FinWait1)?;
            // The peer's FIN comes through all the same.
            let last = full()?;
            last.server.shutdown(Shutdown::Write)?;
            wait_state(last.ends.of_client(), State::CloseWait)?;
            last.client.shutdown(Shutdown::Write)?;
            wait_state(last.ends.of_client(), State::LastAck)?;
            let Connection { client, server, ends, .. } = full()?;
            drop(client);
            wait_state(ends.of_client(), State::FinWait1)?;
            let all = [half.ends, last.ends, ends].map(|ends| ends.of_client());
            until("probes of all windows", || {
                let probed =
                    all.map(|end| find(end).map(|row| row.is_some_and(|row| row.timer == PROBE)));
                let probed: Vec<bool> = probed.into_iter().collect::<Result<_>>()?;
                Ok(probed.iter().all(|probed| *probed).then_some(()))
            })?;
            Ok((half, last, (server, ends)))
        })?;
        for backend in [Backend::TpBtf, Backend::Tracepoint] {
            let mut traced = Traced::start_by(&netns, backend, Some(Duration::ZERO))?;
            let (report, _) = traced.report()?;
            for (end, state, held) in [
                (half.ends.of_client(), TcpState::FinWait1, true),
                (last.ends.of_client(), TcpState::LastAck, true),
                (orphan.1.of_client(), TcpState::FinWait1, false),
            ] {
                let stuck = of(&report.oldest, &end)?;
                ensure!(
                    (stuck.found.state, stuck.cause) == (state, Cause::ZeroWindow),
                    "{stuck:?}"
                );
                ensure!(stuck.held == Some(held), "{stuck:?}");
                let info = stuck.scan.context("no scan")?.info;
                ensure!(info.fin_waits() && info.tcp.not_sent > 1, "the FIN was sent: {info:?}");
                ensure!(stuck.bytes.is_some_and(|bytes| bytes.unsent > 4096), "{stuck:?}");
                let by = stuck.give_up.map(|end| end.by);
                let wanted = if held { Limit::Never } else { Limit::OrphanRetries };
                ensure!(by == Some(wanted), "{stuck:?}");
            }
        }
        // The witness: as soon as it reads, the data comes, and then the FIN.
        let mut all = Vec::new();
        (&half.server).read_to_end(&mut all)?;
        ensure!(all.len() > 4096, "{} bytes", all.len());
        netns.run(|| wait_state(half.ends.of_client(), State::FinWait2))?;
        drop((half, last, orphan));
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn a_half_closed_connection_is_stuck_only_where_nothing_moves() {
    let outcome = || -> Result<()> {
        // Longer than a tracer takes to begin on an emulated CPU.
        const OLDER: Duration = Duration::from_secs(20);
        let netns = Netns::new()?;
        let (quiet, moving, closed, since) = netns.run(|| -> Result<_> {
            let half = || -> Result<Connection> {
                let connection = Listener::open(Family::V4, 0)?.connect(None)?;
                (&connection.client).write_all(b"request")?;
                connection.client.shutdown(Shutdown::Write)?;
                wait_state(connection.ends.of_client(), State::FinWait2)?;
                Ok(connection)
            };
            let (quiet, moving) = (half()?, half()?);
            let Connection { client, server, ends, .. } = half()?;
            drop(client);
            Ok((quiet, moving, (server, ends), now()))
        })?;
        // Long enough for the threshold and the slack between clocks; and at the end data comes.
        later(since, OLDER + Duration::from_millis(1_500))?;
        for backend in [Backend::TpBtf, Backend::Tracepoint] {
            (&moving.server).write_all(b"a part of the answer")?;
            let mut part = [0; 64];
            ensure!((&moving.client).read(&mut part)? == 20);
            let mut traced = Traced::start_by(&netns, backend, Some(OLDER))?;
            let (report, _) = traced.report()?;
            let stuck = of(&report.oldest, &quiet.ends.of_client())?;
            ensure!(stuck.cause == Cause::HalfClosed && stuck.held == Some(true), "{stuck:?}");
            // Nothing ends it by itself, and nothing is said of an end.
            ensure!(stuck.give_up.is_none(), "{stuck:?}");
            let moves = of(&report.oldest, &moving.ends.of_client());
            ensure!(moves.is_err(), "it moved just now: {moves:?}");
            let orphan = of(&report.oldest, &closed.1.of_client());
            if let Ok(orphan) = orphan {
                ensure!(orphan.cause == Cause::PeerNotClosed, "{orphan:?}");
            }
            if backend == Backend::TpBtf {
                let half = report.sections.iter().find(|of| of.cause == Cause::HalfClosed);
                let half = half.context("none")?;
                ensure!((half.all, half.stuck) == (2, 1), "{half:?}");
            }
        }
        // tcp_fin_timeout is not about what is held: the kernel has no timer on it.
        let witness = row(&netns, quiet.ends.of_client())?;
        ensure!(witness.timer == 0 && witness.inode != 0, "{witness:?}");
        drop((quiet, moving, closed));
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn a_syn_that_fast_open_defers_is_said_not_to_have_been_sent() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (listener, client, before) = netns.run(|| -> Result<_> {
            // For clients, and without a cookie (TFO_CLIENT_ENABLE, TFO_CLIENT_NO_COOKIE).
            sysctl("net/ipv4/tcp_fastopen", "5")?;
            let listener = Listener::open(Family::V4, 0)?;
            let client = Family::V4.socket()?;
            set_option(&client, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
            let before = Counters::read()?;
            client.connect(&listener.address.into()).context("connect")?;
            Ok((listener, client, before))
        })?;
        let address = local_address(&client)?;
        let end = Tuple { local: address, remote: listener.address };
        let sent = |before: &Counters| netns.run(|| before.growth("Tcp:OutSegs"));
        ensure!(row(&netns, end)?.state == State::SynSent);
        for backend in [Backend::TpBtf, Backend::Tracepoint] {
            let mut traced = Traced::start_by(&netns, backend, Some(Duration::ZERO))?;
            let (report, _) = traced.report()?;
            let stuck = of(&report.oldest, &end)?;
            ensure!((stuck.found.state, stuck.cause) == (TcpState::SynSent, Cause::SynDeferred));
            ensure!(stuck.bytes.is_none_or(|bytes| bytes.unsent == 0), "{stuck:?}");
            ensure!(stuck.give_up.is_none(), "{stuck:?}");
        }
        ensure!(sent(&before)? == 0, "a SYN was sent after all");
        // The witness: the first write sends it.
        (&client).write_all(b"hello")?;
        let (server, _) = listener.socket.accept()?;
        ensure!(sent(&before)? >= 1);
        netns.run(|| wait_state(end, State::Established))?;
        drop((client, server));
        Ok(())
    };
    settle("", outcome());
}
