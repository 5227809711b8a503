//! What a connection did, as its last transition tells it, against what `TCP_INFO` said right before
//! the close.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{SockFilter, Socket};
use tcptrace::{
    model::{
        TcpState::{Close, Listen},
        Totals, Transition,
    },
    probe::Backend,
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close,
        conn::{Ends, Family, Listener},
    },
    sys::{TcpInfo, set_option, tcp_info},
    trace::{Trace, by},
    wait::until,
    witness::{State, Tuple, wait_gone, wait_state},
};

fn each(check: fn(Family) -> Result<()>) {
    for family in Family::ALL {
        settle(&format!("{family:?}"), check(family));
    }
}

/// The last transition of one end.
fn last(trace: &Trace, end: Tuple) -> Result<Transition> {
    let is_it = |event: &&Transition| {
        let t = event.tuple;
        event.new == Close
            && (t.local_ip(), t.lport) == (end.local.ip().to_canonical(), end.local.port())
            && (t.remote_ip(), t.rport) == (end.remote.ip().to_canonical(), end.remote.port())
    };
    let mut found = trace.transitions.iter().filter(is_it);
    let first = found.next().with_context(|| format!("{end:?} did not close"))?;
    ensure!(found.next().is_none(), "{end:?} closed twice");
    Ok(*first)
}

fn totals(trace: &Trace, end: Tuple) -> Result<Totals> {
    last(trace, end)?.totals.context("no totals")
}

/// Runs `scenario` in a namespace of its own, traced.
fn traced<T: Send>(
    family: Family,
    scenario: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, Trace)> {
    let netns = Netns::new()?;
    let mut trace = Trace::start(&by(Backend::TpBtf))?;
    let (done, _) = trace.of(&netns, family, scenario)?;
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
    // Only connections have totals, and only at their ends.
    let with = |event: &&Transition| event.totals.is_some();
    for event in trace.transitions.iter().filter(with) {
        ensure!(event.new == Close && event.old != Listen, "{event:?}");
    }
    Ok((done, trace))
}

fn drop_all(socket: &Socket) -> Result<()> {
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[drop_all]).context("SO_ATTACH_FILTER")
}

/// All that was sent is acknowledged.
fn settled(socket: &Socket, sent: u64) -> Result<TcpInfo> {
    until("the last acknowledgement", || {
        let info = tcp_info(socket)?;
        Ok((info.bytes_acked >= sent).then_some(info))
    })
}

fn in_order(family: Family) -> Result<()> {
    const ASKED: usize = 12_345;
    const ANSWERED: usize = 543;
    const USER_TIMEOUT_MS: i32 = 54_321;
    let ((ends, client, server), trace) = traced(family, || {
        let connection = Listener::open(family, 0)?.connect(None)?;
        let level = libc::IPPROTO_TCP;
        set_option(&connection.client, level, libc::TCP_USER_TIMEOUT, USER_TIMEOUT_MS)?;
        (&connection.client).write_all(&[1; ASKED])?;
        (&connection.server).read_exact(&mut [0; ASKED])?;
        (&connection.server).write_all(&[2; ANSWERED])?;
        (&connection.client).read_exact(&mut [0; ANSWERED])?;
        let client = settled(&connection.client, ASKED as u64)?;
        let server = settled(&connection.server, ANSWERED as u64)?;
        Ok((connection.close_by_client()?.ends, client, server))
    })?;

    // The FIN counts as a byte. The peer's came to the minisock.
    let told = totals(&trace, ends.of_client())?;
    ensure!(told.bytes_acked == client.bytes_acked + 1, "{told:?} {client:?}");
    ensure!(told.bytes_received == client.bytes_received, "{told:?} {client:?}");
    ensure!(told.bytes_received == ANSWERED as u64, "{told:?}");
    ensure!(told.retransmits == client.total_retrans, "{told:?} {client:?}");
    ensure!(told.user_timeout_ms == USER_TIMEOUT_MS as u32, "{told:?}");
    ensure!((told.unread, told.unacked) == (0, 0), "{told:?}");
    ensure!((1..8_000_000).contains(&told.srtt_us8), "{told:?}");

    let told = totals(&trace, ends.of_server())?;
    ensure!(told.bytes_acked == server.bytes_acked + 1, "{told:?} {server:?}");
    ensure!(told.bytes_received == server.bytes_received + 1, "{told:?} {server:?}");
    ensure!(told.retransmits == server.total_retrans, "{told:?} {server:?}");
    ensure!(told.user_timeout_ms == 0, "{told:?}");
    ensure!((told.unread, told.unacked) == (0, 0), "{told:?}");
    Ok(())
}

#[test]
fn of_a_close_in_order() {
    each(in_order);
}

/// The client leaves unread what came, and the server has not heard what was sent.
fn cut_off(family: Family) -> Result<()> {
    const UNREAD: usize = 777;
    const UNACKED: usize = 555;
    let ((ends, before), trace) = traced(family, || {
        let connection = Listener::open(family, 0)?.connect(None)?;
        let ends: Ends = connection.ends;
        (&connection.server).write_all(&[1; UNREAD])?;
        settled(&connection.server, UNREAD as u64)?;
        drop_all(&connection.server)?;
        (&connection.client).write_all(&[2; UNACKED])?;
        let before = until("a retransmission", || {
            let info = tcp_info(&connection.client)?;
            Ok((info.total_retrans > 0).then_some(info))
        })?;
        connection.client.set_linger(Some(Duration::ZERO))?;
        drop(connection.client);
        wait_gone(ends.of_client())?;
        connection.server.detach_filter()?;
        drop(connection.server);
        wait_gone(ends.of_server())?;
        Ok((ends, before))
    })?;
    let told = totals(&trace, ends.of_client())?;
    ensure!((told.unread, told.unacked) == (UNREAD as u32, UNACKED as u32), "{told:?}");
    ensure!(told.bytes_acked == before.bytes_acked, "{told:?} {before:?}");
    ensure!(told.bytes_received == before.bytes_received, "{told:?} {before:?}");
    // Another one may be sent between the two.
    ensure!((before.total_retrans..=before.total_retrans + 1).contains(&told.retransmits));
    Ok(())
}

#[test]
fn of_a_connection_that_is_cut_off() {
    each(cut_off);
}

/// A connection that the listener's end takes with it, beside one that was accepted.
fn unaccepted(family: Family) -> Result<()> {
    let ((never, accepted), trace) = traced(family, || {
        let listener = Listener::open(family, 0)?;
        let accepted = listener.connect(None)?;
        let client = family.socket()?;
        client.connect(&listener.address.into())?;
        let local = client.local_addr()?.as_socket().context("no address")?;
        let never = Ends { client: local, server: listener.address };
        wait_state(never.of_server(), State::Established)?;
        drop(listener);
        wait_gone(never.of_server())?;
        drop(client);
        let closed = accepted.close_by_client()?;
        Ok((never, closed.ends))
    })?;
    let is_unaccepted = |end| -> Result<bool> {
        Ok(last(&trace, end)?.sock.context("no socket facts")?.unaccepted)
    };
    ensure!(is_unaccepted(never.of_server())?);
    ensure!(!is_unaccepted(never.of_client())?);
    ensure!(!is_unaccepted(accepted.of_server())? && !is_unaccepted(accepted.of_client())?);
    Ok(())
}

#[test]
fn who_was_never_accepted() {
    each(unaccepted);
}

/// A peer that is gone shows its RST's end, and the data that nobody will read.
fn end_by_reset(family: Family) -> Result<()> {
    const UNREAD: usize = 99;
    let (ends, trace) = traced(family, || {
        let connection = Listener::open(family, 0)?.connect(None)?;
        let ends = connection.ends;
        (&connection.client).write_all(&[1; UNREAD])?;
        settled(&connection.client, UNREAD as u64)?;
        connection.client.shutdown(std::net::Shutdown::Write)?;
        wait_state(ends.of_server(), State::CloseWait)?;
        connection.client.set_linger(Some(Duration::ZERO))?;
        drop(connection.client);
        wait_gone(ends.of_client())?;
        let mut all = Vec::new();
        // ECONNRESET, or what had come and then the end.
        let _ = (&connection.server).read_to_end(&mut all);
        drop(connection.server);
        wait_gone(ends.of_server())?;
        Ok(ends)
    })?;
    let told = totals(&trace, ends.of_server())?;
    // The FIN counts as a byte.
    ensure!(told.bytes_received == UNREAD as u64 + 1, "{told:?}");
    ensure!(told.unread == UNREAD as u32 + 1, "{told:?}");
    Ok(())
}

#[test]
fn of_an_end_by_the_peers_reset() {
    each(end_by_reset);
}

#[test]
fn the_classic_hook_has_none() {
    settle(
        "tracepoint",
        (|| {
            let netns = Netns::new()?;
            let mut trace = Trace::start(&by(Backend::Tracepoint))?;
            let (closed, _) = trace.of(&netns, Family::V4, || close::passive(Family::V4))?;
            ensure!(last(&trace, closed.ends.of_server())?.totals.is_none());
            ensure!(!trace.live().probe().tells_totals());
            Ok(())
        })(),
    );
}
