//! Who closed first, and how: each verdict where it really happens, by both ways to the socket hook.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{How, Initiator, Moved, OwnerFrom, RstWhy, TcpState, Timeout, Verdict},
    probe::{AcceptChoice, Backend, Options, TimeWaitChoice},
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close,
        conn::{Ends, Family},
        ending, open, orphan, simultaneous, time_wait,
    },
    trace::{Trace, Transitions, by},
};

/// How long it may take until an end is told that has happened.
const SOON: Duration = Duration::from_secs(5);

const LOCAL: Initiator = Initiator::Local;
const REMOTE: Initiator = Initiator::Remote;
const NONE: Initiator = Initiator::None;

fn options(backend: Backend) -> Options {
    Options { time_wait: TimeWaitChoice::Auto, accept: AcceptChoice::Auto, ..by(backend) }
}

/// What was settled of the socket with this local and remote end.
fn settled(
    trace: &mut Trace,
    netns: u32,
    (local, remote): (SocketAddr, SocketAddr),
) -> Result<(Verdict, Moved)> {
    let end = |seen: &Transitions| {
        let of = if local.port() == 0 { of_attempt(seen, remote) } else { seen.of(local, remote) };
        of.0.iter().find(|moved| moved.verdict.how.is_some()).copied()
    };
    let what = format!("end of {local} {remote}");
    let seen = trace.until(netns, &what, SOON, |seen| end(seen).is_some())?;
    let moved = end(&seen).context("it was there")?;
    Ok((moved.verdict, moved))
}

/// The one attempt to connect to `remote`, whose local port nobody knows any more.
fn of_attempt(seen: &Transitions, remote: SocketAddr) -> Transitions {
    let is_it = |moved: &&Moved| {
        let tuple = moved.tuple;
        moved.old == TcpState::SynSent
            && (tuple.remote_ip(), tuple.rport) == (remote.ip().to_canonical(), remote.port())
    };
    Transitions(seen.0.iter().filter(is_it).copied().collect())
}

/// What is to be found out, of which end.
#[derive(Clone, Copy)]
struct Expected {
    initiator: Initiator,
    how: How,
    /// The initiator by the classic hook, which sees no more than the order of states and the RSTs,
    /// where these do not tell how; `None` where they do.
    classic: Option<Option<Initiator>>,
}

fn expect(initiator: Initiator, how: How) -> Expected {
    Expected { initiator, how, classic: None }
}

impl Expected {
    /// The classic hook cannot tell.
    /// Here it knows the initiator at most.
    fn unknown_to_classic(self, initiator: Option<Initiator>) -> Self {
        Self { classic: Some(initiator), ..self }
    }

    fn check(self, backend: Backend, found: Verdict) -> Result<()> {
        let expected = match (backend, self.classic) {
            (Backend::Tracepoint, Some(initiator)) => {
                Verdict { initiator, how: Some(How::Unknown) }
            }
            _ => Verdict { initiator: Some(self.initiator), how: Some(self.how) },
        };
        ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(())
    }
}

/// Runs `work` for each family and checks the ends that it names.
fn each(
    backend: Backend,
    work: impl Fn(Family) -> Result<Ends> + Sync,
    client: Option<Expected>,
    server: Option<Expected>,
) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let mut trace = Trace::start(&options(backend))?;
            let ends = netns.run(|| work(family))?;
            check(&mut trace, backend, netns.inode(), ends, client, server)?;
            let account = trace.finish()?;
            ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
            Ok(())
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
}

fn check(
    trace: &mut Trace,
    backend: Backend,
    netns: u32,
    ends: Ends,
    client: Option<Expected>,
    server: Option<Expected>,
) -> Result<()> {
    let sides = [(client, (ends.client, ends.server)), (server, (ends.server, ends.client))];
    for (expected, (local, remote)) in sides {
        let Some(expected) = expected else { continue };
        let (verdict, moved) = settled(trace, netns, (local, remote))?;
        expected.check(backend, verdict).with_context(|| format!("{moved:?}"))?;
    }
    Ok(())
}

fn fin_by_the_client(backend: Backend) {
    let work = |family| Ok(close::active(family)?.ends);
    each(backend, work, Some(expect(LOCAL, How::Fin)), Some(expect(REMOTE, How::Fin)));
}

fn fin_by_the_server(backend: Backend) {
    let work = |family| Ok(close::passive(family)?.ends);
    each(backend, work, Some(expect(REMOTE, How::Fin)), Some(expect(LOCAL, How::Fin)));
}

fn fins_that_cross(backend: Backend) {
    let both = Some(expect(Initiator::Both, How::Fin));
    each(backend, |family| Ok(simultaneous::crossing(family)?.ends), both, both);
}

/// The peer's end of one that was reset.
fn reset_by_peer() -> Option<Expected> {
    Some(expect(REMOTE, How::RstReceived))
}

fn linger_zero(backend: Backend) {
    let client = expect(LOCAL, How::RstLinger0).unknown_to_classic(None);
    let work = |family| Ok(close::with_linger_zero(family)?.ends);
    each(backend, work, Some(client), reset_by_peer());
}

fn unread_data(backend: Backend) {
    let client = expect(LOCAL, How::RstUnreadData).unknown_to_classic(None);
    let work = |family| Ok(close::with_unread_data(family)?.ends);
    each(backend, work, Some(client), reset_by_peer());
    each(backend, ending::unread_and_linger, Some(client), reset_by_peer());
}

fn linger_zero_after_the_peers_fin(backend: Backend) {
    let client = expect(REMOTE, How::RstLinger0).unknown_to_classic(Some(REMOTE));
    let server = expect(LOCAL, How::RstReceived);
    each(backend, ending::linger_after_fin, Some(client), Some(server));
}

fn disconnected(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::Disconnect)).unknown_to_classic(None);
    each(backend, ending::disconnect, Some(client), reset_by_peer());
}

fn listener_closes(backend: Backend) {
    let server = expect(LOCAL, How::RstSent(RstWhy::ListenerClosed)).unknown_to_classic(None);
    each(backend, ending::listener_closes, reset_by_peer(), Some(server));
}

fn linger2(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::Linger2)).unknown_to_classic(Some(LOCAL));
    each(backend, ending::linger2, Some(client), None);
}

fn data_after_close(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::DataAfterClose));
    each(backend, ending::data_after_close, Some(client), None);
}

fn reset_after_close(backend: Backend) {
    each(backend, ending::reset_after_close, Some(expect(LOCAL, How::RstReceived)), None);
}

fn refused(backend: Backend) {
    let client = expect(REMOTE, How::Refused);
    let work = |family: Family| {
        let failed = open::refused(family)?;
        Ok(Ends { client: family.address(0), server: failed.server })
    };
    each(backend, work, Some(client), None);
}

fn no_local_port(backend: Backend) {
    let client = expect(NONE, How::NoLocalPort);
    let work = |family: Family| {
        let failed = open::no_ports(family)?.failed;
        Ok(Ends { client: family.address(0), server: failed.server })
    };
    each(backend, work, Some(client), None);
}

fn abandoned(backend: Backend) {
    let client = expect(LOCAL, How::ConnectAbandoned).unknown_to_classic(None);
    each(backend, ending::abandoned, Some(client), None);
}

fn unreachable(backend: Backend) {
    let outcome = || -> Result<()> {
        let mut trace = Trace::start(&options(backend))?;
        let (pair, ends) = ending::unreachable()?;
        let client = expect(NONE, How::Unreachable).unknown_to_classic(None);
        check(&mut trace, backend, pair.left.inode(), ends, Some(client), None)
    };
    settle(&format!("{backend}"), outcome());
}

fn timeouts(backend: Backend) {
    let timeout = |kind| Some(expect(NONE, How::Timeout(kind)).unknown_to_classic(None));
    each(backend, ending::syn_timeout, timeout(Timeout::Syn), None);
    each(backend, ending::retransmit_timeout, timeout(Timeout::Retransmit), None);
    each(backend, ending::user_timeout, timeout(Timeout::User), None);
    each(backend, ending::keepalive_timeout, timeout(Timeout::Keepalive), None);
}

fn orphan_gives_up(backend: Backend) {
    let client = expect(LOCAL, How::OrphanGaveUp);
    let alone = client.unknown_to_classic(Some(LOCAL));
    each(backend, ending::orphan_gives_up, Some(alone), None);
    let no_fin = |family| {
        let left = orphan::leave(family, Duration::from_secs(1), orphan::Way::ShutdownThenClose)?;
        crate::witness::wait_gone(left.ends.of_client())?;
        Ok(left.ends)
    };
    each(backend, no_fin, Some(client), None);
}

fn orphan_gets_data(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::DataAfterClose));
    let work = |family| {
        let way = orphan::Way::ShutdownThenClose;
        let left = orphan::leave(family, Duration::from_secs(30), way)?;
        Ok(left.gets_data()?.ends)
    };
    each(backend, work, Some(client), None);
}

fn orphan_limit(backend: Backend) {
    let client = expect(LOCAL, How::OrphanLimit).unknown_to_classic(Some(LOCAL));
    each(backend, ending::orphan_limit, Some(client), None);
}

fn destroyed(backend: Backend) {
    let client = expect(LOCAL, How::SockDestroy).unknown_to_classic(None);
    let work = |family| Ok(time_wait::destroyed_while_established(family)?.ends);
    each(backend, work, Some(client), reset_by_peer());
}

fn owners(backend: Backend) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let mut trace = Trace::start(&options(backend))?;
            let hears_accept = trace.live().probe().accept().is_some();
            let done = netns.run(|| ending::owned(family))?;
            let ends = done.ends;
            for (local, remote) in [(ends.client, ends.server), (ends.server, ends.client)] {
                let is_client = local == ends.client;
                let (_, moved) = settled(&mut trace, netns.inode(), (local, remote))?;
                let owner = moved.owner.context("no owner")?;
                ensure!(owner.task.tgid == std::process::id(), "{owner:?}");
                let (from, comm, tid) = match (is_client, hears_accept) {
                    (true, _) => (OwnerFrom::Connect, ending::CLIENT, Some(done.client_tid)),
                    (false, true) => (OwnerFrom::Accept, ending::ACCEPTOR, Some(done.acceptor_tid)),
                    // Whoever closes, where nobody was heard to accept.
                    (false, false) => (OwnerFrom::Close, crate::net::COMM, None),
                };
                ensure!(owner.from == from, "{owner:?} from {:?}", owner.from);
                ensure!(owner.task.comm.as_bytes() == comm.as_bytes(), "{owner:?}");
                ensure!(tid.is_none_or(|tid| owner.task.tid == tid as u32), "{owner:?}");
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
    fin_by_the_client,
    fin_by_the_server,
    fins_that_cross,
    linger_zero,
    unread_data,
    linger_zero_after_the_peers_fin,
    disconnected,
    listener_closes,
    linger2,
    data_after_close,
    reset_after_close,
    refused,
    no_local_port,
    abandoned,
    unreachable,
    timeouts,
    orphan_gives_up,
    orphan_gets_data,
    orphan_limit,
    destroyed,
    owners,
);
