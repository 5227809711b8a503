//! What the texts of `doctor` claim of sysctls, held to the kernel: each is set in a namespace, and
//! what follows is watched. (Of `tcp_fin_timeout`, `somaxconn` and the defaults: in `doctor`; of
//! `tcp_rfc1337`, `tcp_tw_reuse` and `tcp_max_tw_buckets`: in `time_wait` and `checks`; of
//! `tcp_retries2` and `tcp_orphan_retries`: in `verdicts`.)

use std::{ops::RangeInclusive, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::Socket;

use crate::{
    checks::settle,
    net::{Netns, sysctl as set},
    scenario::{
        conn::{Connection, Ends, Family, Listener, local_address},
        ending::deafen,
        open::{ONLY_PORTS, only_two_ports},
        orphan,
        place::Side,
    },
    sys::now,
    wait::until,
    witness::{Counters, Row, State, count, find, wait_gone, wait_state},
};

fn in_a_namespace(check: impl FnOnce() -> Result<()> + Send) {
    settle("", Netns::new().and_then(|netns| netns.run(check)));
}

/// A client that hears no answer to its SYN.
fn half_open(listener: &Listener) -> Result<Socket> {
    let client = listener.family.socket()?;
    deafen(&client)?;
    client.set_nonblocking(true)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::EINPROGRESS), "{error}");
    Ok(client)
}

fn listen(backlog: i32) -> Result<Listener> {
    let listener = Listener::open(Family::V4, 0)?;
    listener.socket.listen(backlog)?;
    Ok(listener)
}

/// Opens 24 handshakes and leaves them, of which so many are to be in the SYN queue, and of the rest
/// `counter` is to tell.
fn syn_queue(listener: &Listener, kept: RangeInclusive<usize>, counter: &str) -> Result<()> {
    const OPENED: usize = 24;
    let before = Counters::read()?;
    let _clients: Vec<Socket> = (0..OPENED).map(|_| half_open(listener)).collect::<Result<_>>()?;
    let rest = i64::try_from(OPENED - kept.end())?;
    until(counter, || Ok((before.growth(counter)? >= rest).then_some(())))?;
    let queued = count(State::SynRecv)?;
    ensure!(kept.contains(&queued), "{queued} in the SYN queue, not {kept:?}");
    Ok(())
}

/// "With tcp_syncookies=0, from three quarters of it on SYNs of unknown peers are dropped."
#[test]
fn tcp_max_syn_backlog_counts_without_cookies() {
    in_a_namespace(|| {
        set("net/ipv4/tcp_syncookies", "0")?;
        set("net/ipv4/tcp_max_syn_backlog", "16")?;
        let before = Counters::read()?;
        // The first that finds more than three quarters of it taken is dropped.
        syn_queue(&listen(64)?, 13..=13, "TcpExt:ListenDrops")?;
        ensure!(before.growth("TcpExt:SyncookiesSent")? == 0, "a cookie with tcp_syncookies=0");
        Ok(())
    });
}

/// "Else the lesser of listen() and somaxconn bounds the SYN queue", "1: answers SYNs with a cookie,
/// and keeps nothing, when a SYN queue is full".
#[test]
fn somaxconn_bounds_the_syn_queue_with_cookies() {
    in_a_namespace(|| {
        set("net/core/somaxconn", "8")?;
        // It does not count.
        set("net/ipv4/tcp_max_syn_backlog", "4")?;
        // Newer kernels take one more (inet_csk_reqsk_queue_is_full()).
        syn_queue(&listen(64)?, 8..=9, "TcpExt:SyncookiesSent")
    });
}

/// "2: always."
#[test]
fn tcp_syncookies_may_be_sent_always() {
    in_a_namespace(|| {
        set("net/ipv4/tcp_syncookies", "2")?;
        syn_queue(&listen(64)?, 0..=0, "TcpExt:SyncookiesSent")
    });
}

/// A client whose last ACK finds the accept queue full, with that queue's clients.
fn last_ack_without_room(listener: &Listener) -> Result<(Socket, Vec<Socket>)> {
    let late = half_open(listener)?;
    until("its SYN to be queued", || Ok((count(State::SynRecv)? == 1).then_some(())))?;
    let connect = || -> Result<Socket> {
        let client = listener.family.socket()?;
        client.connect(&listener.address.into())?;
        Ok(client)
    };
    // One more than listen() asked for: sk_acceptq_is_full().
    let queued = (0..3).map(|_| connect()).collect::<Result<_>>()?;
    // It hears the next SYN-ACK.
    late.detach_filter()?;
    Ok((late, queued))
}

/// "1: a full accept queue answers with a RST instead of waiting for the next try."
#[test]
fn tcp_abort_on_overflow_sends_a_rst() {
    in_a_namespace(|| {
        set("net/ipv4/tcp_abort_on_overflow", "1")?;
        let listener = listen(2)?;
        let (late, _queued) = last_ack_without_room(&listener)?;
        let error = until("its RST", || Ok(late.take_error()?))?;
        ensure!(error.raw_os_error() == Some(libc::ECONNRESET), "{error}");
        Ok(())
    });
}

#[test]
fn without_tcp_abort_on_overflow_there_is_a_next_try() {
    in_a_namespace(|| {
        let before = Counters::read()?;
        let listener = listen(2)?;
        let (late, _queued) = last_ack_without_room(&listener)?;
        let ends = Ends { client: local_address(&late)?, server: listener.address };
        wait_state(ends.of_client(), State::Established)?;
        let overflown = || Ok((before.growth("TcpExt:ListenOverflows")? > 0).then_some(()));
        until("its ACK to find the queue full", overflown)?;
        ensure!(before.growth("Tcp:OutRsts")? == 0, "a RST");
        // There is room again: the next SYN-ACK brings the next ACK.
        let _accepted = (0..3).map(|_| listener.socket.accept()).collect::<Result<Vec<_>, _>>()?;
        wait_state(ends.of_server(), State::Established)?;
        ensure!(late.take_error()?.is_none() && before.growth("Tcp:OutRsts")? == 0);
        Ok(())
    });
}

/// "Is sent again until tcp_syn_retries gives up": two minutes by default, here within the time that
/// any call of a test has.
#[test]
fn tcp_syn_retries_bounds_connect() {
    in_a_namespace(|| {
        set("net/ipv4/tcp_syn_retries", "1")?;
        let before = Counters::read()?;
        let listener = Listener::open(Family::V4, 0)?;
        deafen(&listener.socket)?;
        let Err(error) = listener.family.socket()?.connect(&listener.address.into()) else {
            bail!("connected")
        };
        ensure!(error.raw_os_error() == Some(libc::ETIMEDOUT), "{error}");
        ensure!(before.growth("TcpExt:TCPSynRetrans")? > 0, "it was not sent again");
        // And that is a timeout to the rule that counts them.
        ensure!(before.growth("TcpExt:TCPAbortOnTimeout")? == 1);
        Ok(())
    });
}

/// The keep-alive timer of the client's end, in seconds, rounded up; `None` if it does not run.
fn keepalive(connection: &Connection) -> Result<Option<u64>> {
    let row = find(connection.ends.of_client())?.context("it is gone")?;
    let Row { timer, expires, .. } = row;
    Ok((timer == 2).then(|| expires.as_secs_f64().ceil() as u64))
}

/// "Of sockets with SO_KEEPALIVE and no TCP_KEEPIDLE"; "those from before notice it only
/// when the timer that they have goes off".
#[test]
fn tcp_keepalive_time_is_for_timers_that_start() {
    in_a_namespace(|| {
        set("net/ipv4/tcp_keepalive_time", "1000")?;
        let listener = Listener::open(Family::V4, 0)?;
        let (without, old, new) =
            (listener.connect(None)?, listener.connect(None)?, listener.connect(None)?);
        old.client.set_keepalive(true)?;
        set("net/ipv4/tcp_keepalive_time", "500")?;
        new.client.set_keepalive(true)?;
        let timers = (keepalive(&without)?, keepalive(&old)?, keepalive(&new)?);
        let (None, Some(981..=1000), Some(481..=500)) = timers else { bail!("{timers:?}") };
        Ok(())
    });
}

/// "A peer that closes later than that gets a RST for its FIN."
#[test]
fn a_fin_after_tcp_fin_timeout_gets_a_rst() {
    in_a_namespace(|| {
        let way = orphan::Way::ShutdownThenClose;
        let orphan = orphan::leave(Family::V4, Duration::from_secs(1), way)?;
        wait_gone(orphan.ends.of_client())?;
        let before = Counters::read()?;
        drop(orphan.peer);
        wait_gone(orphan.ends.of_server())?;
        let resets = before.growth("Tcp:OutRsts")?;
        ensure!(resets == 1, "{resets} RSTs");
        Ok(())
    });
}

/// "connect() and bind() to 0 skip these; who asks for one gets it."
#[test]
fn reserved_ports_are_skipped() {
    in_a_namespace(|| {
        let [reserved, left] = ONLY_PORTS;
        only_two_ports()?;
        set("net/ipv4/ip_local_reserved_ports", &reserved.to_string())?;
        let listener = Listener::open(Family::V4, 50_000)?;
        let held = listener.connect(None)?;
        ensure!(held.ends.client.port() == left, "{:?}", held.ends);
        expect_no_port(&listener)?;
        listener.connect(Some(reserved)).map(drop)
    });
}

fn expect_no_port(listener: &Listener) -> Result<()> {
    let client = listener.place.socket(Side::Client)?;
    let Err(error) = client.connect(&listener.address.into()) else { bail!("connected") };
    ensure!(error.raw_os_error() == Some(libc::EADDRNOTAVAIL), "{error}");
    Ok(())
}

/// "tcp_timestamps is 0, so tcp_tw_reuse=1 does nothing."
#[test]
fn tcp_tw_reuse_does_nothing_without_timestamps() {
    in_a_namespace(|| {
        only_two_ports()?;
        set("net/ipv4/tcp_tw_reuse", "1")?;
        set("net/ipv4/tcp_timestamps", "0")?;
        let listener = Listener::open(Family::V4, 50_000)?;
        listener.connect(None)?.close_by_client()?;
        let last = listener.connect(None)?.close_by_client()?;
        // As long as they would have to be old, and more.
        let ripe = Duration::from_nanos(last.time_wait_seen) + Duration::from_secs(2);
        thread::sleep(ripe.saturating_sub(Duration::from_nanos(now())));
        expect_no_port(&listener)
    });
}
