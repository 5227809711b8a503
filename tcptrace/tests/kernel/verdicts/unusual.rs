//! Ends that the evidence settles only if it is read with care: each was once taken for another. A
//! witness that is not tcptrace's own stands beside each verdict: the kernel's counters, what the peer
//! has, what the program is told (see the scenarios).

use anyhow::{Result, ensure};
use tcptrace::{
    model::{DropWhy, How, Initiator, RstWhy, TcpState, Timeout},
    probe::Backend,
};

use super::{
    ACROSS, Expected, LOCAL, NONE, REMOTE, each, each_slowly, expect, options, reset_by_peer,
    settled,
};
use crate::{
    checks::settle,
    net::{Netns, Pair},
    scenario::{
        conn::{Ends, Family, Listener},
        ending, mptcp,
        place::{Place, Side},
        unusual::{self, GiveUp},
    },
    trace::Trace,
    wait,
};

/// Both ends of a subflow end by a FIN, whoever's program closes first: it is the kernel that sends
/// the FINs of subflows, when all data and both DATA_FINs are through.
fn mptcp_closes(backend: Backend) {
    for first in [Side::Client, Side::Server] {
        in_order(backend, true, move |place| mptcp::closed(place, first));
        in_order(backend, false, move |place| mptcp::fallen_back(place, first));
    }
}

fn in_order(backend: Backend, far_end: bool, work: impl Fn(Place) -> Result<Ends> + Sync) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let inodes = [netns.inode(); 2];
            by_fins(backend, inodes, far_end, || netns.run(|| work(family.into())))
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
    for &family in ACROSS {
        let outcome = || -> Result<()> {
            let Pair { left, right } = Pair::veth()?;
            let inodes = [left.inode(), right.inode()];
            let place = Place::across(family, std::sync::Arc::new(right));
            by_fins(backend, inodes, far_end, || left.run(|| work(place)))
        };
        settle(&format!("{backend} {family:?} over veth"), outcome());
    }
}

fn by_fins(
    backend: Backend,
    netns: [u32; 2],
    far_end: bool,
    work: impl FnOnce() -> Result<Ends> + Send,
) -> Result<()> {
    let mut trace = Trace::start(&options(backend))?;
    let ends = trace.during(work)?;
    let mut initiators = Vec::new();
    for (side, netns) in [Side::Client, Side::Server].into_iter().zip(netns) {
        let end = ends.of(side);
        let (verdict, moved) = settled(&mut trace, netns, (end.local, end.remote))?;
        ensure!(verdict.how == Some(How::Fin), "{side:?}: {verdict:?} of {moved:?}");
        let is_subflow = (backend == Backend::TpBtf).then_some(far_end || side == Side::Client);
        ensure!(moved.mptcp() == is_subflow, "{side:?}: {moved:?}");
        let owner = moved.owner.map(|owner| owner.task.tgid);
        ensure!(owner == Some(std::process::id()), "{side:?}: {owner:?}");
        initiators.push(verdict.initiator);
    }
    // The ends must agree on who was first.
    let agree = [(LOCAL, REMOTE), (REMOTE, LOCAL), (Initiator::Both, Initiator::Both)];
    let found = agree.iter().any(|&(client, server)| initiators == [Some(client), Some(server)]);
    ensure!(found, "{initiators:?}");
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
    Ok(())
}

fn mptcp_fast_close(backend: Backend) {
    let client = expect(LOCAL, How::RstSent(RstWhy::Mptcp)).unknown_to_classic(None);
    each(backend, mptcp::fast_close, Some(client), reset_by_peer());
}

/// Of a connection that was there before the trace began, known from a snapshot or from nothing.
fn keepalive_of_one_from_before(backend: Backend) {
    let expected = expect(NONE, How::Timeout(Timeout::Keepalive)).told_by_reason(None);
    for family in [Family::V4, Family::V6] {
        for known in [true, false] {
            let outcome = from_before(backend, family, known, expected);
            settle(&format!("{backend} {family:?}, known: {known}"), outcome);
        }
    }
}

fn from_before(backend: Backend, family: Family, known: bool, expected: Expected) -> Result<()> {
    let netns = Netns::new()?;
    let connection = netns.run(|| Listener::open(family, 0)?.connect(None))?;
    let client = connection.ends.of_client();
    let mut trace = match known {
        true => Trace::seeded(&options(backend), &netns)?,
        false => Trace::start(&options(backend))?,
    };
    if known {
        wait::until("the snapshot", || {
            trace.drain()?;
            let port = client.local.port();
            let mut found = trace.census(netns.inode());
            Ok(found.any(|found| found.tuple.lport == port).then_some(()))
        })?;
    }
    trace.during(|| netns.run(|| ending::unanswered_probes(connection)))?;
    let (verdict, moved) = settled(&mut trace, netns.inode(), (client.local, client.remote))?;
    ensure!(moved.birth.is_none() && moved.old == TcpState::Established, "{moved:?}");
    expected.check(backend, trace.live().probe().tells_reset_reasons(), verdict)
}

fn closed_in_repair_mode(backend: Backend) {
    let client = expect(LOCAL, How::Dropped(DropWhy::Repair)).unknown_to_classic(None);
    each(backend, unusual::repaired, Some(client), None);
}

fn given_up_in_syn_sent(backend: Backend) {
    let client = expect(LOCAL, How::ConnectAbandoned).unknown_to_classic(None);
    for way in [GiveUp::Shutdown, GiveUp::Disconnect] {
        each(backend, |place| unusual::given_up(place, way), Some(client), None);
    }
}

fn unreachable_in_syn_recv(backend: Backend) {
    let server = expect(REMOTE, How::Unreachable).unknown_to_classic(None).unaccepted();
    let client = expect(LOCAL, How::ConnectAbandoned).unknown_to_classic(None);
    each(backend, unusual::unreachable_in_syn_recv, Some(client), Some(server));
}

fn syn_ack_unacknowledged(backend: Backend) {
    let server = expect(NONE, How::Timeout(Timeout::SynAck)).unknown_to_classic(None).unaccepted();
    each_slowly(backend, unusual::unacknowledged_syn_ack, None, Some(server));
}

for_each_backend!(
    mptcp_closes,
    mptcp_fast_close,
    keepalive_of_one_from_before,
    closed_in_repair_mode,
    given_up_in_syn_sent,
    unreachable_in_syn_recv,
    syn_ack_unacknowledged,
);
