//! That `closers` counts each connection's end once, for the right end: against what a churn says
//! that it did.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{Change, Comm, How, Initiator},
    probe::{Backend, Options, TimeWaitChoice},
    stats::{
        closers::{Closers, DEFAULT_LIMIT, Ending, Fate, Tally},
        group::{Key, ServicePort},
    },
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::conn::{Family, Listener, expect_end},
    trace::{Trace, by},
    wait::until,
};

/// Connections that the client closes first, that the server does, that the client resets by
/// SO_LINGER 0, and attempts that are refused: primes, so that no sum of some is another.
const BY_CLIENT: usize = 211;
const BY_SERVER: usize = 137;
const BY_LINGER: usize = 53;
const REFUSED: usize = 17;

/// Does all that, and returns where the server was and where nobody listened.
fn churn() -> Result<(SocketAddr, SocketAddr)> {
    let listener = Listener::open(Family::V4, 0)?;
    for i in 0..BY_CLIENT + BY_SERVER + BY_LINGER {
        let client = Family::V4.socket()?;
        client.connect(&listener.address.into())?;
        let (server, _) = listener.socket.accept()?;
        if i < BY_LINGER {
            client.set_linger(Some(Duration::ZERO))?;
            drop(client);
            drop(server);
            continue;
        }
        let (first, second) =
            if i < BY_LINGER + BY_CLIENT { (client, server) } else { (server, client) };
        drop(first);
        expect_end(&second)?;
        drop(second);
    }
    let nobody = Listener::open(Family::V4, 0)?.address;
    for _ in 0..REFUSED {
        let refused = Family::V4.socket()?.connect(&nobody.into());
        ensure!(refused.is_err(), "somebody listens at {nobody}");
    }
    Ok((listener.address, nobody))
}

/// What `closers` counts of `netns`.
fn counted(trace: &Trace, netns: &Netns) -> Vec<(Key, Tally)> {
    let mut closers = Closers::new(None, DEFAULT_LIMIT);
    closers.begin(0);
    trace.of_netns(0, netns).0.iter().for_each(|moved| closers.add(&Change::Moved(*moved)));
    closers.take(0, trace.census(netns.inode()))
}

fn group(groups: &[(Key, Tally)], port: ServicePort) -> Result<&Tally> {
    let comm = crate::witness::process(std::process::id())?.comm;
    let comm = Comm::from(std::str::from_utf8(&comm)?);
    let key = Key::Service(Some(comm.into()), Some(port));
    let found = groups.iter().find(|(it, _)| *it == key);
    found.map(|(_, tally)| tally).with_context(|| format!("no {key} in {groups:?}"))
}

fn counts() -> Result<()> {
    let netns = Netns::new()?;
    let options = Options { time_wait: TimeWaitChoice::Auto, ..by(Backend::TpBtf) };
    let mut trace = Trace::start(&options)?;
    let ((server, nobody), _) = trace.of(&netns, Family::V4, churn)?;
    let entered = (BY_CLIENT + BY_SERVER) as u64;
    let groups = until("every TIME_WAIT to be told", || {
        trace.drain()?;
        let groups = counted(&trace, &netns);
        let alive: u64 = groups.iter().map(|(_, tally)| tally.alive()).sum();
        Ok((alive == entered).then_some(groups))
    })?;
    let is = |ending: &Ending, initiator, how, fate| {
        *ending == Ending { initiator: Some(initiator), how, fate }
    };
    let fin_here = |e: &Ending| is(e, Initiator::Local, How::Fin, Fate::TimeWait);
    let fin_there = |e: &Ending| is(e, Initiator::Remote, How::Fin, Fate::Over);
    let linger0 = |e: &Ending| is(e, Initiator::Local, How::RstLinger0, Fate::Over);
    let reset_there = |e: &Ending| is(e, Initiator::Remote, How::RstReceived, Fate::Over);
    for (port, here, there) in [
        (ServicePort::Remote(server.port()), BY_CLIENT, BY_SERVER),
        (ServicePort::Local(server.port()), BY_SERVER, BY_CLIENT),
    ] {
        let tally = group(&groups, port)?;
        let counts = [&fin_here as &dyn Fn(&Ending) -> bool, &fin_there, &linger0, &reset_there]
            .map(|which| tally.count(which) as usize);
        let (reset, received) = match port {
            ServicePort::Remote(_) => (BY_LINGER, 0),
            ServicePort::Local(_) => (0, BY_LINGER),
        };
        ensure!(counts == [here, there, reset, received], "{port}: {counts:?} {tally:?}");
        ensure!(tally.closed() as usize == BY_CLIENT + BY_SERVER + BY_LINGER, "{tally:?}");
        ensure!(tally.alive() as usize == here && tally.failed() == 0, "{tally:?}");
    }
    let refused = group(&groups, ServicePort::Remote(nobody.port()))?;
    let failures: Vec<_> = refused.failures().collect();
    ensure!(failures == [(How::Refused, REFUSED as u64)], "{failures:?}");
    ensure!(refused.closed() == 0, "{refused:?}");
    ensure!(groups.len() == 3, "{groups:?}");
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.lost == 0, "{account:?}");
    Ok(())
}

#[test]
fn every_close_is_counted_once_and_for_who_closed() {
    settle("closers", counts());
}
