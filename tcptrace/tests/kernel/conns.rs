//! Whole connections, as `conns` tells them: payload to the byte, and times against the clock of
//! the program that made them.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{
        Age, EndReason, How, Initiator, Input, Opened,
        TcpState::{CloseWait, Established, FinWait1, FinWait2, SynSent, TimeWait},
    },
    probe::{Backend, Options, TimeWaitChoice},
    source::live::Live,
    stats::conns::{Connection, Conns, Until, sum},
    track::{DEFAULT_LIMIT, Tracker},
};

use crate::{
    checks::settle,
    net::{Netns, sysctl},
    scenario::{
        close,
        conn::{self, Ends, Family, Listener, Span},
        open, reuse,
    },
    sys::{now, set_option},
    trace::by,
    wait::until,
    witness::{Counters, Tuple},
};

/// What the client sends, and the server: more than one segment each, and not alike.
const UP: usize = 300_007;
const DOWN: usize = 70_001;

/// A tracer, and what it has told of whole connections.
struct Watch {
    live: Live,
    tracker: Tracker,
    conns: Conns,
    ended: Vec<Connection>,
}

impl Watch {
    fn start(until: Until) -> Result<Self> {
        let options = Options { time_wait: TimeWaitChoice::Auto, ..by(Backend::TpBtf) };
        let live = crate::known::live(&options).context("the tracer does not start")?;
        let tracker = Tracker::default();
        let conns = Conns::new(until, DEFAULT_LIMIT);
        let mut watch = Self { live, tracker, conns, ended: Vec::new() };
        let begin = watch.live.begin()?;
        watch.tracker.apply(&begin, &mut |_| {});
        Ok(watch)
    }

    fn drain(&mut self) -> Result<()> {
        let Self { live, tracker, conns, ended } = self;
        let mut take = |input: &Input| {
            tracker.apply(input, &mut |change| ended.extend(conns.change(&change)));
        };
        live.drain(usize::MAX, &mut take);
        live.check(true, &mut take)?;
        live.look(&tracker.due_peeks(tcptrace::host::clock::monotonic_ns()?))?;
        Ok(())
    }

    /// Waits for the end of a connection of `netns`, the first of these ends.
    fn end_of(&mut self, netns: &Netns, end: Tuple) -> Result<Connection> {
        until(&format!("the end of {end:?}"), || {
            self.drain()?;
            Ok(self.ended.iter().find(|one| is_of(one, netns, end)).copied())
        })
    }
}

fn is_of(one: &Connection, netns: &Netns, end: Tuple) -> bool {
    let t = one.tuple;
    one.netns == Some(netns.inode())
        && (t.local_ip(), t.lport) == (end.local.ip().to_canonical(), end.local.port())
        && (t.remote_ip(), t.rport) == (end.remote.ip().to_canonical(), end.remote.port())
}

/// Runs `work` for each family in a namespace of its own, while it is watched.
fn each<T: Send>(
    until: Until,
    work: impl Fn(Family) -> Result<T> + Sync,
    check: impl Fn(&mut Watch, &T, &Netns) -> Result<()>,
) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let mut watch = Watch::start(until)?;
            let done = netns.run(|| work(family))?;
            check(&mut watch, &done, &netns)
        };
        settle(&format!("{family:?}"), outcome());
    }
}

/// The client sends [`UP`], then the server [`DOWN`]. All of it is read.
fn exchange(connection: &conn::Connection) -> Result<()> {
    let mut buffer = vec![0; UP];
    std::thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| (&connection.client).write_all(&[7; UP]));
        (&connection.server).read_exact(&mut buffer)?;
        sender.join().map_err(|_| anyhow::anyhow!("the sender failed"))?.context("send")
    })?;
    std::thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| (&connection.server).write_all(&[8; DOWN]));
        (&connection.client).read_exact(&mut buffer[..DOWN])?;
        sender.join().map_err(|_| anyhow::anyhow!("the sender failed"))?.context("send")
    })
}

fn carried(one: &Connection, sent: usize, received: usize) -> Result<()> {
    let traffic = one.traffic.with_context(|| format!("no totals: {one:?}"))?;
    ensure!((traffic.sent, traffic.received) == (sent as u64, received as u64), "{one:?}");
    ensure!(!traffic.sent_at_most, "the beginning was seen: {one:?}");
    Ok(())
}

/// A time from some moment of `from` to some moment of `to`.
fn lasted(what: &str, age: Option<Age>, from: Span, to: Span) -> Result<()> {
    let (least, most) = (to.from.saturating_sub(from.to), to.to - from.from);
    let right = match age {
        Some(Age::Exactly(ns)) => (least..=most).contains(&ns),
        Some(Age::About { ns, within_ns }) => {
            (least.saturating_sub(within_ns)..=most + within_ns).contains(&ns)
        }
        _ => false,
    };
    ensure!(right, "{what}: {age:?}, not {least} to {most}");
    Ok(())
}

/// FIN_WAIT1 and FIN_WAIT2 together: from the one FIN to the other. When the ACK between the two
/// comes, which may be delayed, the programs do not see.
fn fin_wait(one: &Connection) -> Option<Age> {
    Some(sum(one.times.of(FinWait1)?, one.times.of(FinWait2)?))
}

fn verdict(one: &Connection, initiator: Initiator, how: How) -> Result<()> {
    let verdict = (one.verdict.initiator, one.verdict.how);
    ensure!(verdict == (Some(initiator), Some(how)), "{one:?}");
    Ok(())
}

/// How long the client waits with its close, and the server with its own.
const STILL: std::time::Duration = std::time::Duration::from_millis(30);

#[test]
fn bytes_and_times_are_those_of_the_programs() {
    let work = |family| {
        let connection = Listener::open(family, 0)?.connect(None)?;
        exchange(&connection)?;
        // A stretch of time is the scenario itself here, not a guess at how long something takes.
        std::thread::sleep(STILL);
        connection.close_by_client()
    };
    each(Until::Close, work, |watch, done, netns| {
        let client = watch.end_of(netns, done.ends.of_client())?;
        carried(&client, UP, DOWN)?;
        verdict(&client, Initiator::Local, How::Fin)?;
        let birth = client.birth.context("its birth was seen")?;
        ensure!(birth.opened == Opened::Connect, "{birth:?}");
        let shake = client.handshake_ns().context("its handshake was seen")?;
        ensure!(shake <= done.connect.to - done.connect.from, "{client:?}");
        ensure!(client.times.of(SynSent) == Some(Age::Exactly(shake)), "{client:?}");
        lasted("life", Some(client.life()), done.connect, done.second_close)?;
        lasted("ESTABLISHED", client.times.of(Established), done.connect, done.first_close)?;
        lasted("FIN_WAIT", fin_wait(&client), done.first_close, done.second_close)?;
        let rtt = client.traffic.and_then(|traffic| traffic.srtt_ns);
        ensure!(rtt.is_some_and(|ns| (1..1_000_000_000).contains(&ns)), "{client:?}");

        let server = watch.end_of(netns, done.ends.of_server())?;
        carried(&server, DOWN, UP)?;
        verdict(&server, Initiator::Remote, How::Fin)?;
        ensure!(server.birth.is_some_and(|birth| birth.opened == Opened::Accept), "{server:?}");
        ensure!(server.handshake_ns().is_none(), "{server:?}");
        lasted("CLOSE_WAIT", server.times.of(CloseWait), done.first_close, done.second_close)?;
        lasted("life", Some(server.life()), done.connect, done.second_close)
    });
}

#[test]
fn a_half_closed_connection_carries_on() {
    let work = |family| close::by_halves(family, STILL);
    each(Until::Close, work, |watch, done, netns| {
        let client = watch.end_of(netns, done.ends.of_client())?;
        carried(&client, 0, 1000)?;
        lasted("FIN_WAIT", fin_wait(&client), done.shutdown, done.server_close)?;
        carried(&watch.end_of(netns, done.ends.of_server())?, 1000, 0)
    });
}

#[test]
fn the_end_of_its_time_wait_is_told() {
    each(Until::End, reuse::by_bind, |watch, done, netns| {
        let old = watch.end_of(netns, done.time_wait)?;
        ensure!(old.end_reason == Some(EndReason::ReusedByConnect), "{old:?}");
        verdict(&old, Initiator::Local, How::Fin)?;
        carried(&old, 0, 0)?;
        lasted("TIME_WAIT", old.times.of(TimeWait), done.old.second_close, done.connect)?;
        lasted("life", Some(old.life()), done.old.connect, done.old.second_close)
    });
}

#[test]
fn what_is_in_time_wait_has_been_there_for_so_long_at_least() {
    each(Until::End, close::active, |watch, done, netns| {
        let client = done.ends.of_client();
        let one = until("its TIME_WAIT", || {
            watch.drain()?;
            let now = tcptrace::host::clock::monotonic_ns()?;
            let all = watch.conns.waiting(watch.tracker.census(), now);
            Ok(all.into_iter().find(|one| is_of(one, netns, client)))
        })?;
        ensure!(matches!(one.times.of(TimeWait), Some(Age::AtLeast(_))), "{one:?}");
        ensure!(!watch.ended.iter().any(|one| is_of(one, netns, client)), "told too early");
        carried(&one, 0, 0)?;
        lasted("life", Some(one.life()), done.connect, done.second_close)
    });
}

#[test]
fn a_reset_connection_carried_what_was_read_before() {
    let work = |family| -> Result<Ends> {
        let connection = Listener::open(family, 0)?.connect(None)?;
        exchange(&connection)?;
        let ends = connection.ends;
        connection.abort()?;
        Ok(ends)
    };
    each(Until::End, work, |watch, ends, netns| {
        // The server's answer acknowledged all that the client had sent.
        let client = watch.end_of(netns, ends.of_client())?;
        carried(&client, UP, DOWN)?;
        verdict(&client, Initiator::Local, How::RstLinger0)?;
        let server = watch.end_of(netns, ends.of_server())?;
        verdict(&server, Initiator::Remote, How::RstReceived)?;
        let traffic = server.traffic.context("no totals")?;
        ensure!(traffic.received == UP as u64 && traffic.sent <= DOWN as u64, "{server:?}");
        Ok(())
    });
}

#[test]
fn a_refused_connect_carried_nothing() {
    each(Until::End, open::refused, |watch, done, netns| {
        let refused = until("the refused connect", || {
            watch.drain()?;
            let refused = |one: &&Connection| {
                one.netns == Some(netns.inode()) && one.tuple.rport == done.server.port()
            };
            Ok(watch.ended.iter().find(refused).copied())
        })?;
        carried(&refused, 0, 0)?;
        verdict(&refused, Initiator::Remote, How::Refused)?;
        ensure!(refused.handshake_ns().is_none());
        lasted("life", Some(refused.life()), done.connect, done.connect)
    });
}

#[test]
fn of_one_from_before_there_are_bounds() {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let connection = netns.run(|| Listener::open(family, 0)?.connect(None))?;
            let mut watch = Watch::start(Until::Close)?;
            exchange(&connection)?;
            let done = netns.run(|| connection.close_by_client())?;
            let client = watch.end_of(&netns, done.ends.of_client())?;
            ensure!(client.birth.is_none() && client.handshake_ns().is_none(), "{client:?}");
            ensure!(matches!(client.life(), Age::AtLeast(_)), "{client:?}");
            let traffic = client.traffic.context("no totals")?;
            // The SYN is one of the bytes, and that is said.
            let sent = (traffic.sent, traffic.sent_at_most);
            ensure!(sent == (UP as u64 + 1, true) && traffic.received == DOWN as u64, "{client:?}");
            Ok(())
        };
        settle(&format!("{family:?}"), outcome());
    }
}

/// connect() returned long before the SYN: the time between is no handshake's.
#[test]
fn a_syn_that_waited_for_the_first_write_makes_no_handshake() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let mut watch = Watch::start(Until::Close)?;
        let connect = |deferred: bool| -> Result<Ends> {
            let listener = conn::Listener::open(Family::V4, 0)?;
            let client = Family::V4.socket()?;
            if deferred {
                set_option(&client, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
            }
            let before = Counters::read()?;
            client.connect(&listener.address.into()).context("connect")?;
            let from = now();
            if deferred {
                until("a time that a SYN would have been sent again in", || {
                    Ok((now() - from > 1_500_000_000).then_some(()))
                })?;
                ensure!(before.growth("Tcp:OutSegs")? == 0, "a SYN was sent");
            }
            (&client).write_all(b"hello")?;
            let (mut server, peer) = listener.socket.accept().context("accept")?;
            let ends =
                Ends { client: peer.as_socket().context("no peer")?, server: listener.address };
            server.read_exact(&mut [0; 5])?;
            drop(client);
            ensure!(server.read(&mut [0])? == 0);
            Ok(ends)
        };
        netns.run(|| sysctl("net/ipv4/tcp_fastopen", "5"))?;
        for deferred in [true, false] {
            let ends = netns.run(|| connect(deferred))?;
            let one = watch.end_of(&netns, ends.of_client())?;
            match one.handshake_ns() {
                None => ensure!(deferred, "the plain one has none: {one:?}"),
                Some(ns) => ensure!(!deferred && ns < 1_000_000_000, "{ns} ns: {one:?}"),
            }
        }
        Ok(())
    };
    settle("", outcome());
}
