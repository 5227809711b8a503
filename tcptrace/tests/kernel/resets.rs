//! RSTs of full sockets: each is told once, of the right socket, which way and why, and only where
//! the filter lets its connection pass.

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{
        Reset,
        ResetDirection::{Received, Sent},
        RstReason,
        TcpState::{self, Close, Established, SynSent},
        filter::{Filter, PortSet},
    },
    probe::{Backend, Options},
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close::{self, Aborted},
        conn::{Family, Listener},
        open,
    },
    trace::{Trace, Transitions, by},
};

/// Runs `check` for each way to listen and each family.
fn each(check: impl Fn(Backend, Family) -> Result<()>) {
    for backend in Backend::ALL {
        for family in Family::ALL {
            settle(&format!("{backend} {family:?}"), check(backend, family));
        }
    }
}

/// The RSTs of the one socket that `moved` is of, since its first transition.
fn of_socket(trace: &Trace, moved: &Transitions) -> Result<Vec<Reset>> {
    let first = moved.0.first().context("no transition")?;
    let its = |reset: &&Reset| reset.skaddr == first.skaddr && reset.mono_ns >= first.mono_ns;
    Ok(trace.resets.iter().filter(its).copied().collect())
}

/// That it is the only one of its socket.
fn is_sent(trace: &mut Trace, resets: &[Reset], state: TcpState, why: RstReason) -> Result<()> {
    let [reset] = resets else { anyhow::bail!("not one: {resets:?}") };
    ensure!(reset.direction == Sent && reset.state == Some(state), "{reset:?}");
    if trace.live().probe().tells_reset_reasons() && close_says_why()? {
        ensure!(reset.reason == Some(why), "{reset:?}");
    } else {
        ensure!(reset.reason.is_none(), "{reset:?}");
    }
    Ok(())
}

/// What close() sends has a reason since 6.12.
fn close_says_why() -> Result<bool> {
    let release = tcptrace::host::kernel::release()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("a kernel of version {release:?}");
    };
    Ok((major, minor) >= (6, 12))
}

fn is_received(resets: &[Reset], state: TcpState) -> Result<()> {
    let [reset] = resets else { anyhow::bail!("not one: {resets:?}") };
    ensure!(reset.direction == Received && reset.reason.is_none(), "{reset:?}");
    // Without BTF the kernel does not tell.
    let told = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    ensure!(reset.state == told.then_some(state), "{reset:?}");
    Ok(())
}

fn closes_account(trace: &mut Trace) -> Result<()> {
    let account = trace.finish()?;
    ensure!(account.balance() == 0 && account.malformed == 0 && account.lost == 0, "{account:?}");
    Ok(())
}

fn of_a_close(
    backend: Backend,
    family: Family,
    scenario: fn(Family) -> Result<Aborted>,
    why: RstReason,
) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = Trace::start(&by(backend))?;
    let (done, seen) = trace.of(&netns, family, || scenario(family))?;
    let client = seen.of(done.ends.client, done.ends.server);
    let sent = of_socket(&trace, &client)?;
    is_sent(&mut trace, &sent, Close, why)?;
    // close() sends it after the transition, and names that very moment.
    let closed = client.one(Established, Close)?;
    ensure!((closed.mono_ns..=done.close.to).contains(&sent[0].mono_ns), "{sent:?} {done:?}");
    let server = seen.of(done.ends.server, done.ends.client);
    let received = of_socket(&trace, &server)?;
    is_received(&received, Established)?;
    ensure!(received[0].mono_ns <= server.one(Established, Close)?.mono_ns, "{received:?}");
    closes_account(&mut trace)
}

#[test]
fn of_linger_zero() {
    each(|backend, family| {
        of_a_close(backend, family, close::with_linger_zero, RstReason::TcpState)
    });
}

#[test]
fn of_unread_data() {
    each(|backend, family| {
        of_a_close(backend, family, close::with_unread_data, RstReason::AbortOnClose)
    });
}

fn of_a_refusal(backend: Backend, family: Family) -> Result<()> {
    let netns = Netns::new()?;
    let mut trace = Trace::start(&by(backend))?;
    let (_, seen) = trace.of(&netns, family, || open::refused(family))?;
    // The peer's RST is no socket's.
    is_received(&of_socket(&trace, &seen)?, SynSent)?;
    closes_account(&mut trace)
}

#[test]
fn of_a_refused_connect() {
    each(of_a_refusal);
}

#[test]
fn none_of_a_close_in_order() {
    each(|backend, family| {
        let netns = Netns::new()?;
        let mut trace = Trace::start(&by(backend))?;
        let (done, seen) = trace.of(&netns, family, || close::active(family))?;
        for (local, remote) in
            [(done.ends.client, done.ends.server), (done.ends.server, done.ends.client)]
        {
            let resets = of_socket(&trace, &seen.of(local, remote))?;
            ensure!(resets.is_empty(), "{resets:?}");
        }
        closes_account(&mut trace)
    });
}

/// Nothing else in this program has it.
const PORT: u16 = 17_411;

/// The client's RST as only the server's end passes, by its port.
fn by_port(backend: Backend, family: Family) -> Result<()> {
    let mut lports = PortSet::default();
    lports.add(&PORT.to_string())?;
    let options =
        Options { filter: Filter { lports: Some(lports), ..Filter::default() }, ..by(backend) };
    let netns = Netns::new()?;
    let mut trace = Trace::start(&options)?;
    netns.run(|| Listener::open(family, PORT)?.connect(None)?.abort())?;
    crate::wait::until("the server's RST", || {
        trace.drain()?;
        Ok((!trace.resets.is_empty()).then_some(()))
    })?;
    closes_account(&mut trace)?;
    is_received(&trace.resets, Established)?;
    let account = trace.live().accounts()?;
    ensure!(account.filtered > 0, "{account:?}");
    Ok(())
}

#[test]
fn pass_the_filter_with_their_connection() {
    each(by_port);
}

/// Each way to tell IPv4 from IPv6.
fn by_version(backend: Backend, family: Family) -> Result<()> {
    let mut lports = PortSet::default();
    lports.add(&PORT.to_string())?;
    let filter = Filter { lports: Some(lports), v6: true, ..Filter::default() };
    let netns = Netns::new()?;
    let mut trace = Trace::start(&Options { filter, ..by(backend) })?;
    netns.run(|| Listener::open(family, PORT)?.connect(None)?.abort())?;
    netns.run(|| Listener::open(Family::V6, PORT)?.connect(None)?.abort())?;
    crate::wait::until("the server's RST", || {
        trace.drain()?;
        Ok((!trace.resets.is_empty()).then_some(()))
    })?;
    closes_account(&mut trace)?;
    let expected = if family == Family::V6 { 2 } else { 1 };
    ensure!(trace.resets.len() == expected, "{:?}", trace.resets);
    Ok(())
}

#[test]
fn pass_the_filter_by_version() {
    each(by_version);
}
