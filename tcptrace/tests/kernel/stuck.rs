//! What is stuck, with real sockets, from before the tracer and since: whose, for how long, and what
//! hangs in the queues.
//!
//! A bound is held to both sides: no higher than the time since the step that began the state, and
//! no lower than the time since the state was seen in /proc.

mod peer;

use std::{io::Write as _, net::Shutdown, os::fd::AsFd as _, process, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::Socket;
use tcptrace::{
    model::{Age, Input, OwnerFrom, StateSet, TcpState, filter::Filter},
    probe::{Backend, Options, TimeWaitBackend, TimeWaitChoice},
    source::{live::Live, owners::Owners},
    stats::{
        group::By,
        stuck::{Report, Stuck, Survey, Wanted, Whose},
    },
    track::Tracker,
};

use crate::{
    checks::settle,
    child::Child,
    net::Netns,
    scenario::{
        conn::{Connection, Family, Listener, local_address},
        ending::deafen,
    },
    sys::{now, set_option, tcp_info},
    trace::{by, reach},
    wait::until,
    witness::{State, count, wait_state},
};

const NEVER_NS: u64 = 3_600_000_000_000;
/// What a bound may lack: the kernel counts in jiffies, and the bound allows for one.
const ROUNDING_NS: u64 = 25_000_000;

/// `tcptrace stuck` of one namespace, step by step.
struct Traced {
    live: Live,
    tracker: Tracker,
    survey: Survey,
    /// `CLOCK_MONOTONIC`, nanoseconds, before the first snapshot.
    began: u64,
}

impl Traced {
    fn start(netns: &Netns) -> Result<Self> {
        Self::start_by(netns, Backend::TpBtf, Some(Duration::ZERO))
    }

    /// With the threshold `older`.
    fn start_by(netns: &Netns, backend: Backend, older: Option<Duration>) -> Result<Self> {
        // The classic tracepoint reports no namespace; what others do then comes too.
        let only = (backend == Backend::TpBtf).then_some(netns.inode());
        let filter = Filter { netns: only, ..Filter::default() };
        let options = Options {
            filter: filter.clone(),
            time_wait: TimeWaitChoice::Only(TimeWaitBackend::Timers),
            ..by(backend)
        };
        let mut live = crate::known::live(&options).context("the tracer does not start")?;
        live.take_snapshots(Some(reach(netns)), filter, Some(Owners::default()), NEVER_NS);
        let wanted = Wanted { states: StateSet::all(), older, by: By::Owner, top: 1000 };
        let (tracker, survey) = (Tracker::default(), Survey::new(wanted));
        let mut traced = Self { live, tracker, survey, began: now() };
        let begin = traced.live.begin()?;
        traced.feed(&[begin]);
        let job = traced.live.due_snapshots(false)?.context("no round at the start")?;
        traced.feed(&[job.opening()]);
        let round = job.run();
        let mut inputs = Vec::new();
        traced.live.snapshots_taken(round, &mut |input| inputs.push(input.clone()));
        traced.feed(&inputs);
        Ok(traced)
    }

    fn feed(&mut self, inputs: &[Input]) {
        for input in inputs {
            self.tracker.apply(input, &mut |_| {});
            self.survey.input(input);
        }
    }

    /// What there is now, and when that is.
    fn report(&mut self) -> Result<(Report, u64)> {
        let mut inputs = Vec::new();
        self.live.drain(usize::MAX, &mut |input| inputs.push(input.clone()));
        self.live.check(true, &mut |input| inputs.push(input.clone()))?;
        self.feed(&inputs);
        let now = now();
        Ok((self.survey.report(now, &self.tracker), now))
    }
}

/// Those in `state`, which must be so many.
fn all_in(report: &Report, state: TcpState, wanted: usize) -> Result<Vec<&Stuck>> {
    let all: Vec<_> = report.oldest.iter().filter(|stuck| stuck.found.state == state).collect();
    ensure!(all.len() == wanted, "{} in {state}: {report:?}", all.len());
    Ok(all)
}

/// A connection whose server's end has `bytes` unread bytes and the client's FIN, and the moments
/// between which that came.
fn leak(listener: &Listener, bytes: &[u8]) -> Result<(Connection, u64, u64)> {
    let connection = listener.connect(None)?;
    (&connection.client).write_all(bytes)?;
    let from = now();
    connection.client.shutdown(Shutdown::Write)?;
    wait_state(connection.ends.of_server(), State::CloseWait)?;
    wait_state(connection.ends.of_client(), State::FinWait2)?;
    Ok((connection, from, now()))
}

fn later(since: u64, by: Duration) -> Result<()> {
    let then = since + u64::try_from(by.as_nanos())?;
    while now() < then {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_leak_is_known_at_once_and_as_it_grows() {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            const BEFORE: usize = 5;
            const SINCE: usize = 3;
            let netns = Netns::new()?;
            let (listener, leaked) = netns.run(|| -> Result<_> {
                let listener = Listener::open(family, 0)?;
                let leaked: Vec<_> =
                    (0..BEFORE).map(|_| leak(&listener, b"five!")).collect::<Result<_>>()?;
                Ok((listener, leaked))
            })?;
            let files: Vec<_> = leaked.iter().map(|(leaked, ..)| leaked.server.as_fd()).collect();
            let leaker = Child::holding(&netns, &files)?;
            let from = leaked.iter().map(|(_, from, _)| *from).min().context("none")?;
            let seen = leaked.iter().map(|(.., seen)| *seen).max().context("none")?;
            // The child alone has them now.
            let clients: Vec<Socket> =
                leaked.into_iter().map(|(connection, ..)| connection.client).collect();
            later(seen, Duration::from_millis(300))?;

            let mut traced = Traced::start(&netns)?;
            let (report, at) = traced.report()?;
            ensure!(netns.run(|| count(State::CloseWait))? == BEFORE);
            ensure!(netns.run(|| count(State::FinWait2))? == BEFORE);
            for (state, pid, unread, eof_read) in [
                (TcpState::CloseWait, leaker.pid(), 5, Some(false)),
                (TcpState::FinWait2, process::id(), 0, None),
            ] {
                for stuck in all_in(&report, state, BEFORE)? {
                    let Age::AtLeast(ns) = stuck.in_state else { bail!("{stuck:?}") };
                    ensure!(ns <= at - from, "{stuck:?}: {} at most", at - from);
                    ensure!(ns + ROUNDING_NS >= traced.began - seen, "{stuck:?}: {}", at - seen);
                    let owner = stuck.found.owner.context("no owner")?;
                    ensure!((owner.task.tgid, owner.from) == (pid, OwnerFrom::Snapshot));
                    let bytes = stuck.bytes.context("no queues")?;
                    ensure!((bytes.unread, bytes.unsent) == (unread, 0), "{stuck:?}");
                    ensure!(bytes.eof_read == eof_read && stuck.held == Some(true), "{stuck:?}");
                }
            }
            let close_wait = &report.sections[0];
            let [(_, group)] = &close_wait.groups[..] else { bail!("{close_wait:?}") };
            ensure!((group.stuck, group.looked_at, group.unread) == (5, 5, 25), "{group:?}");
            ensure!((group.eof_unread, group.change()) == (5, None), "{group:?}");

            // It goes on.
            let more = netns
                .run(|| -> Result<Vec<_>> { (0..SINCE).map(|_| leak(&listener, b"")).collect() })?;
            let (report, at) = traced.report()?;
            for state in [TcpState::CloseWait, TcpState::FinWait2] {
                let all = all_in(&report, state, BEFORE + SINCE)?;
                for (connection, from, seen) in &more {
                    let tuple = match state {
                        TcpState::CloseWait => connection.ends.of_server(),
                        _ => connection.ends.of_client(),
                    };
                    let is_it = |stuck: &&&Stuck| {
                        let of = &stuck.found.tuple;
                        (of.lport, of.rport) == (tuple.local.port(), tuple.remote.port())
                    };
                    let stuck = all.iter().find(is_it).context("not there")?;
                    let Age::Exactly(ns) = stuck.in_state else { bail!("{stuck:?}") };
                    ensure!((at - seen..=at - from).contains(&ns), "{stuck:?}: {from} {seen} {at}");
                }
                let of = report.sections.iter().find(|of| of.state == state).context("no row")?;
                let change: i64 = of.groups.iter().filter_map(|(_, count)| count.change()).sum();
                ensure!(change == SINCE as i64, "{of:?}");
            }
            ensure!(netns.run(|| count(State::CloseWait))? == BEFORE + SINCE);
            ensure!(traced.tracker.counts().anomalies == 0);
            drop((clients, more, leaker));
            Ok(())
        };
        settle(&format!("{family:?}"), outcome());
    }
}

/// Waits until the last segment was sent again so often, and gives the socket back.
fn resent(socket: &Socket, times: u32) -> Result<()> {
    until("retransmissions", || Ok((tcp_info(socket)?.total_retrans >= times).then_some(())))
}

#[test]
fn what_nobody_answers_is_bounded_by_its_timeouts() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (_listener, connecting, syn_from) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            deafen(&listener.socket)?;
            let client = Family::V4.socket()?;
            client.set_nonblocking(true)?;
            let from = now();
            let connected = client.connect(&listener.address.into());
            ensure!(connected.is_err_and(|e| e.raw_os_error() == Some(libc::EINPROGRESS)));
            Ok((listener, client, from))
        })?;
        let (last_ack, fin_from) = netns.run(|| -> Result<_> {
            let connection = Listener::open(Family::V4, 0)?.connect(None)?;
            connection.server.shutdown(Shutdown::Write)?;
            wait_state(connection.ends.of_client(), State::CloseWait)?;
            // The ACK of its FIN may be delayed.
            wait_state(connection.ends.of_server(), State::FinWait2)?;
            deafen(&connection.server)?;
            let from = now();
            connection.client.shutdown(Shutdown::Write)?;
            wait_state(connection.ends.of_client(), State::LastAck)?;
            Ok((connection, from))
        })?;
        let (orphan, orphan_from) = netns.run(|| -> Result<_> {
            let Connection { client, server, ends, .. } =
                Listener::open(Family::V4, 0)?.connect(None)?;
            deafen(&server)?;
            let from = now();
            drop(client);
            wait_state(ends.of_client(), State::FinWait1)?;
            Ok(((server, ends), from))
        })?;
        // 1 s; 200 ms and 400 ms at the least, of which the first may be a loss probe's.
        resent(&connecting, 1)?;
        resent(&last_ack.client, 3)?;

        let mut traced = Traced::start(&netns)?;
        let (report, at) = traced.report()?;
        for (state, from, least_ms) in
            [(TcpState::SynSent, syn_from, 900), (TcpState::LastAck, fin_from, 300)]
        {
            let stuck = all_in(&report, state, 1)?[0];
            let Age::AtLeast(ns) = stuck.in_state else { bail!("{stuck:?}") };
            ensure!((least_ms * 1_000_000..=at - from).contains(&ns), "{stuck:?}, {}", at - from);
            let owner = stuck.found.owner.context("no owner")?;
            ensure!(owner.task.tgid == process::id() && stuck.held == Some(true), "{stuck:?}");
            let bytes = stuck.bytes.context("no queues")?;
            ensure!((bytes.unread, bytes.unsent) == (0, 0), "but for the SYN or FIN: {bytes:?}");
        }
        let stuck = all_in(&report, TcpState::FinWait1, 1)?[0];
        ensure!(stuck.found.owner.is_none() && stuck.held == Some(false), "{stuck:?}");
        if let Age::AtLeast(ns) = stuck.in_state {
            ensure!(ns <= at - orphan_from, "{stuck:?}");
        }
        let of =
            report.sections.iter().find(|of| of.state == TcpState::FinWait1).context("none")?;
        ensure!(matches!(of.groups[..], [(Whose::Orphan, _)]), "{of:?}");
        ensure!(u32::from(stuck.found.tuple.lport) == u32::from(orphan.1.client.port()));
        drop((connecting, last_ack, orphan));
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn a_handshake_that_waits_is_counted_at_its_port() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (listener, clients) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            // The last ACK leaves the request where it is, until data comes.
            set_option(&listener.socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30)?;
            let clients = (0..2).map(|_| -> Result<_> {
                let client = Family::V4.socket()?;
                client.connect(&listener.address.into())?;
                local_address(&client)?;
                Ok(client)
            });
            let clients: Vec<_> = clients.collect::<Result<_>>()?;
            Ok((listener, clients))
        })?;
        let mut traced = Traced::start(&netns)?;
        let (report, _) = traced.report()?;
        let [row] = &report.syn_queues[..] else { bail!("{report:?}") };
        ensure!((row.netns, row.queue.lport) == (netns.inode(), listener.address.port()));
        ensure!(row.queue.waiting == 2, "{row:?}");
        ensure!(row.accept_full() == Some(false), "{row:?}");
        let accept = row.accept.context("no listener")?;
        ensure!((accept.unread, accept.unsent) == (0, 16), "{accept:?}");
        drop(clients);
        Ok(())
    };
    settle("", outcome());
}

#[test]
fn what_was_not_accepted_has_no_owner_yet() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let (listener, client) = netns.run(|| -> Result<_> {
            let listener = Listener::open(Family::V4, 0)?;
            let client = Family::V4.socket()?;
            client.connect(&listener.address.into())?;
            client.shutdown(Shutdown::Write)?;
            until("the FIN to arrive", || Ok((count(State::CloseWait)? == 1).then_some(())))?;
            Ok((listener, client))
        })?;
        let (report, _) = Traced::start(&netns)?.report()?;
        let of = &report.sections[0];
        let [(Whose::NotAccepted(door), _)] = of.groups[..] else { bail!("{of:?}") };
        ensure!(door.lport == listener.address.port(), "{door:?}");
        let pid = door.listener.map(|(pid, _)| pid);
        ensure!(pid == Some(process::id()), "{door:?}");
        let stuck = all_in(&report, TcpState::CloseWait, 1)?[0];
        ensure!(stuck.held == Some(false) && stuck.found.owner.is_none(), "{stuck:?}");
        drop(client);
        Ok(())
    };
    settle("", outcome());
}
