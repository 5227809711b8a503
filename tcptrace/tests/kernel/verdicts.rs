//! Who closed first, and how, and whose the two ends were: each verdict where it really happens, by
//! both ways to the socket hook, on loopback and with a network between the ends.
//!
//! (A socket that is connected to itself has no second end to put there, and is not here.)

use std::{net::SocketAddr, process, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{How, Initiator, Moved, OwnerFrom, RstWhy, TcpState, Timeout, UnknownBecause, Verdict},
    probe::{AcceptChoice, Backend, Options, TimeWaitChoice},
};

use crate::{
    checks::{is_process, settle},
    net::{Netns, Pair},
    scenario::{
        close,
        conn::{Ends, Family},
        ending, open, orphan,
        place::{Place, Side},
        simultaneous, time_wait,
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
    /// The reason that a RST carries, on kernels that give one, tells the classic hook after all.
    by_reason: bool,
    /// A process has accepted it, where it is a server's.
    accepted: bool,
    /// Why it is not known how.
    unknown: Option<UnknownBecause>,
}

fn expect(initiator: Initiator, how: How) -> Expected {
    Expected { initiator, how, classic: None, by_reason: false, accepted: true, unknown: None }
}

impl Expected {
    /// The classic hook cannot tell; it knows the initiator at most.
    fn unknown_to_classic(self, initiator: Option<Initiator>) -> Self {
        Self { classic: Some(initiator), ..self }
    }

    /// As [`Self::unknown_to_classic`], unless RSTs carry their reasons.
    fn told_by_reason(self, initiator: Option<Initiator>) -> Self {
        Self { by_reason: true, ..self.unknown_to_classic(initiator) }
    }

    /// Nobody has accepted it.
    fn unaccepted(self) -> Self {
        Self { accepted: false, ..self }
    }

    fn check(self, backend: Backend, reasons: bool, found: Verdict) -> Result<()> {
        let expected = match (backend, self.classic) {
            (Backend::Tracepoint, Some(initiator)) if !(self.by_reason && reasons) => {
                Verdict::unknown(initiator, UnknownBecause::ClassicHook)
            }
            _ => match self.unknown {
                Some(because) => Verdict::unknown(Some(self.initiator), because),
                None => Verdict::of(Some(self.initiator), self.how),
            },
        };
        ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(())
    }
}

/// With a network between the ends, the plain families: a mapped address is one of IPv4 there.
const ACROSS: &[Family] = &[Family::V4, Family::V6];

/// The same of what takes seconds.
const SLOWLY_ACROSS: &[Family] = &[Family::V4];

/// Runs `work` for each family on loopback, and for those of [`ACROSS`] over veth, and checks the
/// ends that it names.
fn each(
    backend: Backend,
    work: impl Fn(Place) -> Result<Ends> + Sync,
    client: Option<Expected>,
    server: Option<Expected>,
) {
    everywhere(backend, ACROSS, work, (client, server));
}

/// As [`each`], for what takes seconds.
fn each_slowly(
    backend: Backend,
    work: impl Fn(Place) -> Result<Ends> + Sync,
    client: Option<Expected>,
    server: Option<Expected>,
) {
    everywhere(backend, SLOWLY_ACROSS, work, (client, server));
}

fn everywhere(
    backend: Backend,
    across: &[Family],
    work: impl Fn(Place) -> Result<Ends> + Sync,
    expected: (Option<Expected>, Option<Expected>),
) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let inodes = (netns.inode(), netns.inode());
            traced(backend, inodes, || netns.run(|| work(family.into())), expected)
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
    for &family in across {
        let outcome = || -> Result<()> {
            let Pair { left, right } = Pair::veth()?;
            let inodes = (left.inode(), right.inode());
            let place = Place::across(family, Arc::new(right));
            traced(backend, inodes, || left.run(|| work(place)), expected)
        };
        settle(&format!("{backend} {family:?} over veth"), outcome());
    }
}

/// Traces `work`, and checks its ends, each in its namespace.
fn traced(
    backend: Backend,
    netns: (u32, u32),
    work: impl FnOnce() -> Result<Ends> + Send,
    expected: (Option<Expected>, Option<Expected>),
) -> Result<()> {
    let mut trace = Trace::start(&options(backend))?;
    let ends = trace.during(work)?;
    check(&mut trace, backend, netns, ends, expected)?;
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
    Ok(())
}

fn check(
    trace: &mut Trace,
    backend: Backend,
    (of_client, of_server): (u32, u32),
    ends: Ends,
    (client, server): (Option<Expected>, Option<Expected>),
) -> Result<()> {
    let sides = [(Side::Client, of_client, client), (Side::Server, of_server, server)];
    for (side, netns, expected) in sides {
        let Some(expected) = expected else { continue };
        let end = ends.of(side);
        let (verdict, moved) = settled(trace, netns, (end.local, end.remote))?;
        let reasons = trace.live().probe().tells_reset_reasons();
        expected.check(backend, reasons, verdict).with_context(|| format!("{moved:?}"))?;
        let hears_accept = trace.live().probe().accept().is_some();
        let owner = moved.owner.with_context(|| format!("no owner: {moved:?}"))?;
        ensure!(owner.task.tgid == process::id(), "{owner:?}");
        let known = match side {
            Side::Client => owner.from == OwnerFrom::Connect,
            Side::Server if hears_accept && expected.accepted => owner.from == OwnerFrom::Accept,
            // Whoever closes it, or listens.
            Side::Server => matches!(owner.from, OwnerFrom::Close | OwnerFrom::Listener),
        };
        ensure!(known, "{side:?}: {owner:?}");
    }
    Ok(())
}

fn fin_by_the_client(backend: Backend) {
    let work = |place| Ok(close::active(place)?.ends);
    each(backend, work, Some(expect(LOCAL, How::Fin)), Some(expect(REMOTE, How::Fin)));
}

fn fin_by_the_server(backend: Backend) {
    let work = |place| Ok(close::passive(place)?.ends);
    each(backend, work, Some(expect(REMOTE, How::Fin)), Some(expect(LOCAL, How::Fin)));
}

fn fins_that_cross(backend: Backend) {
    let both = Some(expect(Initiator::Both, How::Fin));
    each(backend, |place| Ok(simultaneous::crossing(place)?.ends), both, both);
}

/// The peer's end of one that was reset.
fn reset_by_peer() -> Option<Expected> {
    Some(expect(REMOTE, How::RstReceived))
}

fn linger_zero(backend: Backend) {
    let client = expect(LOCAL, How::RstLinger0).unknown_to_classic(None);
    let work = |place| Ok(close::with_linger_zero(place)?.ends);
    each(backend, work, Some(client), reset_by_peer());
}

fn unread_data(backend: Backend) {
    let client = expect(LOCAL, How::RstUnreadData).unknown_to_classic(None);
    let work = |place| Ok(close::with_unread_data(place)?.ends);
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
    let server = server.unaccepted();
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
    let work = |place: Place| {
        let client = place.address(Side::Client, 0);
        Ok(Ends { client, server: open::refused(place)?.server })
    };
    each(backend, work, Some(client), None);
}

fn no_local_port(backend: Backend) {
    let client = expect(NONE, How::NoLocalPort);
    let work = |place: Place| {
        let client = place.address(Side::Client, 0);
        Ok(Ends { client, server: open::no_ports(place)?.failed.server })
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
        let netns = (pair.left.inode(), pair.right.inode());
        check(&mut trace, backend, netns, ends, (Some(client), None))
    };
    settle(&format!("{backend}"), outcome());
}

fn timeouts(backend: Backend) {
    let timeout = |kind| Some(expect(NONE, How::Timeout(kind)).unknown_to_classic(None));
    each_slowly(backend, ending::syn_timeout, timeout(Timeout::Syn), None);
    each_slowly(backend, ending::retransmit_timeout, timeout(Timeout::Retransmit), None);
    each_slowly(backend, ending::user_timeout, timeout(Timeout::User), None);
    each_slowly(backend, ending::user_timeout_beyond_retries, timeout(Timeout::User), None);
    let either = Expected {
        unknown: Some(UnknownBecause::SeveralCauses),
        ..expect(NONE, How::Unknown).unknown_to_classic(None)
    };
    each_slowly(backend, ending::closed_window_retries, Some(either), None);
    each_slowly(backend, ending::closed_window_user_timeout, Some(either), None);
    let keepalive = expect(NONE, How::Timeout(Timeout::Keepalive)).told_by_reason(None);
    each_slowly(backend, ending::keepalive_timeout, Some(keepalive), None);
}

fn orphan_gives_up(backend: Backend) {
    let client = expect(LOCAL, How::OrphanGaveUp);
    let alone = client.unknown_to_classic(Some(LOCAL));
    each_slowly(backend, ending::orphan_gives_up, Some(alone), None);
    let no_fin = |place: Place| {
        let left =
            orphan::leave(place.clone(), Duration::from_secs(1), orphan::Way::ShutdownThenClose)?;
        place.gone(Side::Client, left.ends)?;
        Ok(left.ends)
    };
    each_slowly(backend, no_fin, Some(client), None);
}

fn orphan_gets_data(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::DataAfterClose));
    let work = |place: Place| {
        let way = orphan::Way::ShutdownThenClose;
        let left = orphan::leave(place, Duration::from_secs(30), way)?;
        Ok(left.gets_data()?.ends)
    };
    each(backend, work, Some(client), None);
}

fn orphan_limit(backend: Backend) {
    let client = expect(LOCAL, How::OrphanLimit).unknown_to_classic(Some(LOCAL));
    each_slowly(backend, ending::orphan_limit, Some(client), None);
}

fn destroyed(backend: Backend) {
    let client = expect(LOCAL, How::SockDestroy).unknown_to_classic(None);
    let work = |place| Ok(time_wait::destroyed_while_established(place)?.ends);
    each(backend, work, Some(client), reset_by_peer());
}

fn owners(backend: Backend) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let inodes = (netns.inode(), netns.inode());
            by_threads(backend, inodes, || netns.run(|| ending::owned(family)))
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
    for &family in ACROSS {
        let outcome = || -> Result<()> {
            let Pair { left, right } = Pair::veth()?;
            let inodes = (left.inode(), right.inode());
            let place = Place::across(family, Arc::new(right));
            by_threads(backend, inodes, || left.run(|| ending::owned(place)))
        };
        settle(&format!("{backend} {family:?} over veth"), outcome());
    }
}

/// Each end is that of the process that opened it, by the thread that did, whichever closes it.
fn by_threads(
    backend: Backend,
    (of_client, of_server): (u32, u32),
    work: impl FnOnce() -> Result<ending::Owned> + Send,
) -> Result<()> {
    let mut trace = Trace::start(&options(backend))?;
    let hears_accept = trace.live().probe().accept().is_some();
    let done = trace.during(work)?;
    for (side, netns) in [(Side::Client, of_client), (Side::Server, of_server)] {
        let end = done.ends.of(side);
        let (_, moved) = settled(&mut trace, netns, (end.local, end.remote))?;
        let owner = moved.owner.context("no owner")?;
        is_process(&owner.task, process::id())?;
        let (from, thread, tid) = match (side, hears_accept) {
            (Side::Client, _) => (OwnerFrom::Connect, ending::CLIENT, Some(done.client_tid)),
            (Side::Server, true) => (OwnerFrom::Accept, ending::ACCEPTOR, Some(done.acceptor_tid)),
            // Whoever closes, where nobody was heard to accept.
            (Side::Server, false) => (OwnerFrom::Close, crate::net::COMM, None),
        };
        ensure!(owner.from == from, "{owner:?} from {:?}", owner.from);
        ensure!(owner.task.thread.as_bytes() == thread.as_bytes(), "{owner:?}");
        ensure!(tid.is_none_or(|tid| owner.task.tid == tid as u32), "{owner:?}");
    }
    Ok(())
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

mod unusual;

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
