//! The scenarios checked by themselves, without a tracer: what they claim to bring about is what the
//! kernel's own counters, errnos and /proc say happened.
//!
//! The scenarios check each step as they go; here is what holds over the whole.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tcptrace::model::Task;

use crate::net::{Netns, Pair};
use crate::scenario::conn::{Closed, Ends, Family, Listener, Span};
use crate::scenario::linger::Peer;
use crate::scenario::orphan::Way;
use crate::scenario::{close, linger, noise, open, orphan, reuse, simultaneous, time_wait};
use crate::unsupported::Unsupported;
use crate::witness::{
    Counters, Process, State, Tuple, count, find, minisocks, process, rows, wait_gone, wait_state,
};

/// Passes, skips or fails the calling test. A skip goes past the test runner's capture.
pub fn settle(what: &str, outcome: Result<()>) {
    let Err(error) = outcome else { return };
    match error.downcast_ref::<Unsupported>() {
        // Nothing is to be done about a standard error that is gone.
        Some(reason) => drop(writeln!(std::io::stderr(), "skipped: {what}: {reason}")),
        None => panic!("{what}: {error:#}"),
    }
}

/// Checks what was told of a process against what `/proc` says of it.
///
/// # Errors
/// It is another one, or is not named as its thread-group leader.
pub fn is_process(task: &Task, pid: u32) -> Result<()> {
    let Process { comm, started } = process(pid)?;
    ensure!(task.tgid == pid, "{task:?}, not process {pid}");
    ensure!(task.is_led && !task.is_kernel && task.comm.as_bytes() == comm, "{task:?}: {comm:?}");
    ensure!(u64::from(task.started) == started, "{task:?} began at {started}");
    Ok(())
}

/// Runs `check` for each address family, each in a fresh network namespace.
fn each_family(check: impl Fn(Family) -> Result<()> + Sync) {
    for family in Family::ALL {
        let outcome = Netns::new().and_then(|netns| netns.run(|| check(family)));
        settle(&format!("{family:?}"), outcome);
    }
}

/// Spans that must follow one upon the other.
fn in_order(spans: &[Span]) -> Result<()> {
    let times: Vec<u64> = spans.iter().flat_map(|span| [span.from, span.to]).collect();
    ensure!(times.is_sorted(), "steps out of order: {spans:?}");
    ensure!(times.first() > Some(&0), "no clock");
    Ok(())
}

/// One TIME_WAIT, and it is `tuple`'s; its timer has most of the 60 s to go (65 s with the slack of
/// the timer wheel).
fn only_time_wait(tuple: Tuple) -> Result<()> {
    let found = find(tuple)?.with_context(|| format!("nothing left of {tuple:?}"))?;
    ensure!(found.state == State::TimeWait && found.is_minisock(), "{found:?}");
    let left = found.expires;
    ensure!((Duration::from_secs(55)..Duration::from_secs(66)).contains(&left), "{found:?}");
    ensure!(count(State::TimeWait)? == 1, "more TIME_WAITs than one: {:?}", rows()?);
    ensure!(minisocks()? == 1, "sockstat counts {} minisocks", minisocks()?);
    Ok(())
}

/// Nothing at all is left of a connection.
fn nothing_left(ends: Ends) -> Result<()> {
    ensure!(find(ends.of_client())?.is_none() && find(ends.of_server())?.is_none());
    ensure!(minisocks()? == 0, "sockstat counts {} minisocks", minisocks()?);
    Ok(())
}

fn closed_once(closed: Closed, active: Tuple) -> Result<()> {
    ensure!(closed.active == active, "the wrong end closed first: {closed:?}");
    in_order(&[closed.connect, closed.first_close, closed.second_close])?;
    ensure!(closed.time_wait_seen > closed.second_close.from);
    only_time_wait(active)
}

#[test]
fn netns_is_fresh_and_its_own() {
    let outcome = (|| {
        let (one, other) = (Netns::new()?, Netns::new()?);
        ensure!(one.inode() != other.inode());
        let seen = one.run(|| std::fs::read_link("/proc/thread-self/ns/net"))?;
        ensure!(seen.to_string_lossy() == format!("net:[{}]", one.inode()), "in {seen:?}");
        let held = one.run(|| Listener::open(Family::V4, 50_000))?;
        ensure!(one.run(|| count(State::Listen))? == 1);
        ensure!(other.run(|| count(State::Listen))? == 0);
        // A sysctl set in one is not set in the other.
        one.run(|| crate::net::sysctl("net/ipv4/tcp_fin_timeout", "7"))?;
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fin_timeout");
        ensure!(one.run(read)?.trim() == "7" && other.run(read)?.trim() == "60");
        drop(held);
        let (before, after) = one.destroy()?;
        ensure!(before < after);
        Ok(())
    })();
    settle("two namespaces", outcome);
}

#[test]
fn scenario_close_across_veth() {
    let outcome = (|| {
        let Pair { left, right } = Pair::veth()?;
        let server = right.run(|| -> Result<_> {
            let socket = Family::V4.socket()?;
            socket.bind(&std::net::SocketAddr::from((Pair::RIGHT, 50_000)).into())?;
            socket.listen(1)?;
            Ok(socket)
        })?;
        let client = left.run(|| -> Result<_> {
            let socket = Family::V4.socket()?;
            socket.connect(&std::net::SocketAddr::from((Pair::RIGHT, 50_000)).into())?;
            Ok(socket)
        })?;
        let (accepted, _) = server.accept()?;
        let client_address = crate::scenario::conn::local_address(&client)?;
        ensure!(client_address.ip() == Pair::LEFT, "the client is {client_address}");
        let ends = Ends { client: client_address, server: (Pair::RIGHT, 50_000).into() };
        drop(client);
        left.run(|| wait_state(ends.of_client(), State::FinWait2))?;
        right.run(|| wait_state(ends.of_server(), State::CloseWait))?;
        drop(accepted);
        left.run(|| wait_state(ends.of_client(), State::TimeWait))?;
        left.run(|| only_time_wait(ends.of_client()))?;
        right.run(|| wait_gone(ends.of_server()))?;
        ensure!(right.run(minisocks)? == 0);
        drop(server);
        left.destroy()?;
        right.destroy()?;
        Ok(())
    })();
    settle("veth", outcome);
}

#[test]
fn scenario_active_close() {
    each_family(|family| {
        let closed = close::active(family)?;
        closed_once(closed, closed.ends.of_client())
    });
}

#[test]
fn scenario_passive_close() {
    each_family(|family| {
        let closed = close::passive(family)?;
        closed_once(closed, closed.ends.of_server())
    });
}

#[test]
fn scenario_close_with_linger_zero() {
    each_family(|family| {
        let before = Counters::read()?;
        let aborted = close::with_linger_zero(family)?;
        ensure!(aborted.peer_errno == libc::ECONNRESET, "{aborted:?}");
        ensure!(before.growth("TcpExt:TCPAbortOnData")? == 1);
        in_order(&[aborted.connect, aborted.close, aborted.peer_close])?;
        nothing_left(aborted.ends)
    });
}

#[test]
fn scenario_close_with_unread_data() {
    each_family(|family| {
        let before = Counters::read()?;
        let aborted = close::with_unread_data(family)?;
        ensure!(aborted.peer_errno == libc::ECONNRESET, "{aborted:?}");
        ensure!(before.growth("TcpExt:TCPAbortOnClose")? == 1);
        ensure!(before.growth("TcpExt:TCPAbortOnData")? == 0);
        in_order(&[aborted.connect, aborted.close, aborted.peer_close])?;
        nothing_left(aborted.ends)
    });
}

#[test]
fn scenario_half_close_held() {
    each_family(|family| {
        let hold = close::FIN_TIMEOUT + Duration::from_millis(500);
        let half = close::by_halves(family, hold)?;
        let held = Duration::from_nanos(half.still_held - half.shutdown.to);
        ensure!(held >= hold, "held for {held:?}");
        in_order(&[half.connect, half.shutdown, half.server_close, half.client_close])?;
        ensure!(half.still_held <= half.server_close.from);
        only_time_wait(half.ends.of_client())
    });
}

#[test]
fn scenario_refused_connect() {
    each_family(|family| {
        let before = Counters::read()?;
        let failed = open::refused(family)?;
        ensure!(failed.errno == libc::ECONNREFUSED && failed.server.port() == 9, "{failed:?}");
        ensure!(before.growth("Tcp:AttemptFails")? == 1);
        in_order(&[failed.connect])?;
        ensure!(rows()?.is_empty(), "left: {:?}", rows()?);
        Ok(())
    });
}

#[test]
fn scenario_no_local_ports() {
    each_family(|family| {
        let before = Counters::read()?;
        let no_ports = open::no_ports(family)?;
        ensure!(no_ports.failed.errno == libc::EADDRNOTAVAIL, "{no_ports:?}");
        let mut ports = no_ports.held.map(|ends| ends.client.port());
        ports.sort_unstable();
        ensure!(ports == open::ONLY_PORTS, "{no_ports:?}");
        // No SYN left the host for the one that failed.
        ensure!(before.growth("Tcp:ActiveOpens")? == 2);
        in_order(&[no_ports.failed.connect])?;
        no_ports.held.into_iter().try_for_each(nothing_left)
    });
}

#[test]
fn scenario_listener() {
    each_family(|family| {
        let listened = open::listener(family)?;
        in_order(&[listened.listen, listened.close])?;
        ensure!(listened.address.port() != 0);
        ensure!(rows()?.is_empty(), "left: {:?}", rows()?);
        Ok(())
    });
}

#[test]
fn scenario_bound_client() {
    each_family(|family| {
        let closed = open::bound(family)?;
        closed_once(closed, closed.ends.of_client())
    });
}

#[test]
fn scenario_hostile_comm() {
    each_family(|family| {
        let closed = open::hostile_comm(family)?;
        closed_once(closed, closed.ends.of_client())
    });
}

#[test]
fn scenario_two_namespaces() {
    for family in Family::ALL {
        let outcome = (|| {
            let (one, other) = (Netns::new()?, Netns::new()?);
            let [first, second] = open::in_two_namespaces(&one, &other, family)?;
            ensure!(first.ends == second.ends, "not the same tuple: {first:?} {second:?}");
            one.run(|| closed_once(first, first.ends.of_client()))?;
            other.run(|| closed_once(second, second.ends.of_server()))
        })();
        settle(&format!("{family:?}"), outcome);
    }
}

#[test]
fn scenario_udp_noise() {
    each_family(|family| {
        let before = Counters::read()?;
        let ends = noise::udp(family)?;
        ensure!(ends.client != ends.server);
        ensure!(before.growth("Tcp:ActiveOpens")? == 0);
        Ok(())
    });
}

#[test]
fn scenario_sctp_noise() {
    each_family(|family| {
        let before = Counters::read()?;
        let ends = noise::sctp(family)?;
        ensure!(ends.client != ends.server);
        ensure!(before.growth("Tcp:ActiveOpens")? == 0);
        Ok(())
    });
}

#[test]
fn scenario_mptcp_noise() {
    each_family(|family| {
        let before = Counters::read()?;
        let ends = noise::mptcp(family)?;
        // The one subflow.
        ensure!(before.growth("Tcp:ActiveOpens")? == 1, "{ends:?}");
        ensure!(before.growth("MPTcpExt:MPCapableSYNRX")? == 1, "it fell back: {ends:?}");
        Ok(())
    });
}

#[test]
fn scenario_reuse_by_bind() {
    each_family(|family| {
        let reused = reuse::by_bind(family)?;
        ensure!(reused.time_wait == reused.ends.of_client(), "{reused:?}");
        reused_once(&reused)
    });
}

#[test]
fn scenario_reuse_by_tw_reuse() {
    each_family(|family| {
        let reused = reuse::by_tw_reuse(family)?;
        ensure!(reused.time_wait == reused.ends.of_client(), "{reused:?}");
        ensure!(open::ONLY_PORTS.contains(&reused.ends.client.port()), "{reused:?}");
        // The other of the two ports still is in TIME_WAIT.
        ensure!(count(State::TimeWait)? == 1 && minisocks()? == 1, "{:?}", rows()?);
        in_order(&[reused.old.second_close, reused.connect])
    });
}

#[test]
fn scenario_reuse_by_syn() {
    each_family(|family| {
        let reused = reuse::by_syn(family)?;
        ensure!(reused.time_wait == reused.ends.of_server(), "{reused:?}");
        reused_once(&reused)
    });
}

fn reused_once(reused: &reuse::Reused) -> Result<()> {
    ensure!(reused.old.ends == reused.ends, "{reused:?}");
    in_order(&[reused.old.second_close, reused.connect])?;
    nothing_left(reused.ends)
}

#[test]
fn scenario_reset_into_time_wait() {
    each_family(|family| {
        let reset = time_wait::reset(family, false)?;
        ensure!(reset.left.is_none(), "{reset:?}");
        in_order(&[reset.closed.second_close, reset.reset])?;
        nothing_left(reset.closed.ends)
    });
}

#[test]
fn scenario_reset_into_protected_time_wait() {
    each_family(|family| {
        let reset = time_wait::reset(family, true)?;
        ensure!(reset.left.is_some_and(|row| row.state == State::TimeWait), "{reset:?}");
        only_time_wait(reset.closed.active)
    });
}

#[test]
fn scenario_time_wait_never_created() {
    each_family(|family| {
        let never = time_wait::never_created(family)?;
        in_order(&[never.connect, never.client_close, never.server_close])?;
        nothing_left(never.ends)
    });
}

#[test]
fn scenario_time_wait_destroyed() {
    each_family(|family| {
        let destroyed = time_wait::destroyed(family)?;
        ensure!(destroyed.tuple == destroyed.ends.of_client() && destroyed.errnos.is_none());
        in_order(&[destroyed.connect, destroyed.destroy])?;
        nothing_left(destroyed.ends)
    });
}

#[test]
fn scenario_established_destroyed() {
    each_family(|family| {
        let destroyed = time_wait::destroyed_while_established(family)?;
        ensure!(destroyed.errnos == Some((libc::ECONNABORTED, libc::ECONNRESET)), "{destroyed:?}");
        in_order(&[destroyed.connect, destroyed.destroy])?;
        nothing_left(destroyed.ends)
    });
}

#[test]
fn scenario_namespace_torn_down() {
    for family in Family::ALL {
        let outcome = time_wait::torn_down(family, 3).and_then(|torn| {
            ensure!(torn.closed.len() == 3 && torn.inode != 0);
            let last = torn.closed.iter().map(|closed| closed.time_wait_seen).max();
            ensure!(last < Some(torn.seen) && torn.seen < torn.destroy.from, "{torn:?}");
            in_order(&[torn.destroy])
        });
        settle(&format!("{family:?}"), outcome);
    }
}

#[test]
fn scenario_orphan_expires() {
    each_family(|family| {
        let second = Duration::from_secs(1);
        let orphan = orphan::leave(family, second, Way::ShutdownThenClose)?;
        ensure!(orphan.row.expires <= second + second / 4, "{:?}", orphan.row);
        ensure!(minisocks()? == 1);
        wait_gone(orphan.ends.of_client())?;
        let lived = Duration::from_nanos(crate::sys::now() - orphan.close.from);
        ensure!(lived >= second && lived < 4 * second, "the orphan lived for {lived:?}");
        // Its peer was told nothing.
        let peer = find(orphan.ends.of_server())?;
        ensure!(peer.is_some_and(|row| row.state == State::CloseWait), "{peer:?}");
        in_order(&[orphan.connect, orphan.shutdown.context("no shutdown")?, orphan.close])
    });
}

/// A timeout that an orphan does not meet within a test.
const LONG: Duration = Duration::from_secs(30);

#[test]
fn scenario_orphan_gets_fin() {
    each_family(|family| {
        let orphan = orphan::leave(family, LONG, Way::Close)?;
        let (seen, close) = (orphan.seen, orphan.close);
        let answered = orphan.gets_fin()?;
        ensure!(seen < answered.answer.from && answered.errno.is_none());
        in_order(&[close, answered.answer])?;
        only_time_wait(answered.ends.of_client())
    });
}

#[test]
fn scenario_orphan_gets_reset() {
    each_family(|family| {
        let before = Counters::read()?;
        let answered = orphan::leave(family, LONG, Way::ShutdownThenClose)?.gets_reset()?;
        ensure!(before.growth("Tcp:OutRsts")? == 1 && answered.errno.is_none());
        nothing_left(answered.ends)
    });
}

#[test]
fn scenario_orphan_gets_data() {
    each_family(|family| {
        let before = Counters::read()?;
        let answered = orphan::leave(family, LONG, Way::ShutdownThenClose)?.gets_data()?;
        // A RST in CLOSE_WAIT (tcp_reset).
        ensure!(answered.errno == Some(libc::EPIPE), "{answered:?}");
        ensure!(before.growth("Tcp:OutRsts")? == 1);
        ensure!(answered.answer.to <= answered.seen);
        nothing_left(answered.ends)
    });
}

#[test]
fn scenario_simultaneous_close() {
    each_family(|family| {
        let crossed = simultaneous::crossing(family)?;
        in_order(&[crossed.connect, crossed.client_close, crossed.server_close])?;
        ensure!(crossed.server_close.to < crossed.closing_seen);
        ensure!(crossed.closing_seen < crossed.time_wait_seen);
        for tuple in [crossed.ends.of_client(), crossed.ends.of_server()] {
            ensure!(find(tuple)?.is_some_and(|row| row.is_minisock()), "{:?}", find(tuple)?);
        }
        ensure!(count(State::TimeWait)? == 2 && minisocks()? == 2, "{:?}", rows()?);
        Ok(())
    });
}

#[test]
fn scenario_self_connect() {
    each_family(|family| {
        let connected = simultaneous::self_connect(family)?;
        ensure!(connected.tuple.local == connected.tuple.remote);
        in_order(&[connected.connect, connected.close])?;
        ensure!(connected.time_wait_seen > connected.close.from);
        only_time_wait(connected.tuple)
    });
}

/// Shorter than this a close did not block.
const AT_ONCE: Duration = Duration::from_millis(500);

fn check_linger(family: Family, setting: Option<Duration>, peer: Peer) -> Result<()> {
    let before = Counters::read()?;
    let lingered = linger::close(family, setting, peer)?;
    ensure!(lingered.setting == setting);
    in_order(&[lingered.connect, lingered.close, lingered.server_close])?;
    let took = Duration::from_nanos(lingered.close.to - lingered.close.from);
    let reset = setting == Some(Duration::ZERO);
    match (setting, peer) {
        (Some(seconds), Peer::Deaf) if !reset => {
            ensure!(took >= seconds && took < 2 * seconds, "close() took {took:?}");
        }
        _ => ensure!(took < AT_ONCE, "close() took {took:?}"),
    }
    if peer == Peer::Deaf {
        let unheard = (!reset).then_some(State::FinWait1);
        ensure!(lingered.at_return == unheard, "{lingered:?}");
    }
    ensure!(before.growth("TcpExt:TCPAbortOnData")? == i64::from(reset));
    ensure!(lingered.time_wait_seen.is_none() == reset);
    if reset { nothing_left(lingered.ends) } else { only_time_wait(lingered.ends.of_client()) }
}

#[test]
fn scenario_linger_off() {
    each_family(|family| check_linger(family, None, Peer::Answers));
}

#[test]
fn scenario_linger_zero() {
    each_family(|family| check_linger(family, Some(Duration::ZERO), Peer::Answers));
}

#[test]
fn scenario_linger_seconds() {
    each_family(|family| check_linger(family, Some(Duration::from_secs(2)), Peer::Answers));
}

#[test]
fn scenario_linger_off_to_a_deaf_peer() {
    each_family(|family| check_linger(family, None, Peer::Deaf));
}

#[test]
fn scenario_linger_zero_to_a_deaf_peer() {
    each_family(|family| check_linger(family, Some(Duration::ZERO), Peer::Deaf));
}

#[test]
fn scenario_linger_seconds_to_a_deaf_peer() {
    each_family(|family| check_linger(family, Some(Duration::from_secs(1)), Peer::Deaf));
}
