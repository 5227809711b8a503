//! Filters in the kernel: a connection passes whole or not at all, and the account balances.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::filter::{Filter, Net, PortSet},
    probe::{Backend, Options, ProbeError},
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{close, conn::Family},
    trace::{Trace, by},
};

const CLIENT: &str = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE";
const SERVER: &str = "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";

fn ports(list: &str) -> Option<PortSet> {
    let mut set = PortSet::default();
    set.add(list).ok()?;
    assert!(set != PortSet::default(), "{list}");
    Some(set)
}

fn nets(list: &[&str]) -> Vec<Net> {
    // A typo would show as a filter that keeps everything.
    list.iter().filter_map(|net| net.parse().ok()).collect()
}

/// A name, a filter for a server's address, and which of client and server it lets pass.
type Case<'a> = (&'a str, &'a dyn Fn(SocketAddr) -> Filter, bool, bool);

/// Runs one connection under all cases at once, a tracer for each: to start one is most of the
/// time.
fn cases(backend: Backend, family: Family, cases: &[Case<'_>]) -> Result<()> {
    let netns = Netns::new()?;
    // The server's address is needed for the filters, and the filters before the server: the
    // listener's port is fixed.
    let address = family.address(17_393);
    let mut traces = Vec::new();
    for (_, filter, ..) in cases {
        traces.push(Trace::start(&Options { filter: filter(address), ..by(backend) })?);
    }
    // No sentinel for them: the filter may not let it pass. One more tracer sees all of it.
    let mut all = Trace::start(&by(backend))?;
    let (done, whole) = all.of(&netns, family, || close::active_on(family, address.port()))?;
    let ends = done.ends;
    ensure!(whole.of(ends.client, ends.server).path() == CLIENT, "{whole:?}");
    for ((name, _, client, server), mut trace) in cases.iter().zip(traces) {
        let account = trace.finish()?;
        let seen = trace.of_netns(0, &netns);
        let of_client = seen.of(ends.client, ends.server).path();
        let of_server = seen.of(ends.server, ends.client).path();
        let expected = (if *client { CLIENT } else { "" }, if *server { SERVER } else { "" });
        ensure!(
            (of_client.as_str(), of_server.as_str()) == expected,
            "{name}: client '{of_client}', server '{of_server}'"
        );
        ensure!(account.balance() == 0, "{name}: {account:?}");
        ensure!(account.filtered > 0 || *client && *server, "{name}: {account:?}");
    }
    Ok(())
}

fn every_condition(backend: Backend) {
    for family in Family::ALL {
        let v4 = family != Family::V6;
        let port = |address: SocketAddr| address.port().to_string();
        let net = if v4 { "127.0.0.0/8" } else { "::1/128" };
        let other_net = if v4 { "10.0.0.0/8" } else { "2001:db8::/32" };
        let outcome = cases(
            backend,
            family,
            &[
                ("none", &|_| Filter::default(), true, true),
                ("-L", &|a| Filter { lports: ports(&port(a)), ..Filter::default() }, false, true),
                ("-D", &|a| Filter { rports: ports(&port(a)), ..Filter::default() }, true, false),
                // The client's port is chosen after CLOSE -> SYN_SENT: held, then shown.
                (
                    "-L ephemeral",
                    &|_| Filter { lports: ports("32768-60999"), ..Filter::default() },
                    true,
                    false,
                ),
                ("-4", &|_| Filter { v4: true, ..Filter::default() }, v4, v4),
                ("-6", &|_| Filter { v6: true, ..Filter::default() }, !v4, !v4),
                (
                    "--net",
                    &|_| Filter { nets: nets(&[other_net, net]), ..Filter::default() },
                    true,
                    true,
                ),
                (
                    "--net other",
                    &|_| Filter { nets: nets(&[other_net]), ..Filter::default() },
                    false,
                    false,
                ),
                (
                    "-L and -4",
                    &|a| Filter { v4: true, lports: ports(&port(a)), ..Filter::default() },
                    false,
                    v4,
                ),
            ],
        );
        settle(&format!("{backend} {family:?}"), outcome);
    }
}

#[test]
fn every_condition_tp_btf() {
    every_condition(Backend::TpBtf);
}

#[test]
fn every_condition_tracepoint() {
    every_condition(Backend::Tracepoint);
}

#[test]
fn one_namespace_of_two() {
    let outcome = || -> Result<()> {
        let (one, other) = (Netns::new()?, Netns::new()?);
        let filter = Filter { netns: Some(one.inode()), ..Filter::default() };
        let options = Options { filter, ..by(Backend::TpBtf) };
        let mut trace = Trace::start(&options)?;
        other.run(|| close::active(Family::V4))?;
        let (done, seen) = trace.of(&one, Family::V4, || close::active(Family::V4))?;
        ensure!(seen.of(done.ends.client, done.ends.server).path() == CLIENT);
        let strangers =
            trace.moved.iter().filter(|m| m.sock.map(|s| s.netns) != Some(one.inode())).count();
        ensure!(strangers == 0, "{strangers} of another namespace");
        let account = trace.finish()?;
        ensure!(account.filtered >= 10 && account.balance() == 0, "{account:?}");
        Ok(())
    };
    settle("-N", outcome());
}

#[test]
fn the_classic_hook_refuses_a_namespace() {
    let outcome = || -> Result<()> {
        let filter = Filter { netns: Some(1), ..Filter::default() };
        let options = Options { filter, ..by(Backend::Tracepoint) };
        let error = crate::known::live(&options).err().context("it was taken")?;
        ensure!(matches!(error, ProbeError::NetnsUnseen { .. }), "{error}");
        Ok(())
    };
    settle("-N", outcome());
}
