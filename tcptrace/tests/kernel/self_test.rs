//! The self-test: what is called is found called, what is not is found out and done without, and
//! nothing of the test itself is told.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    host::loopback::{Life, PORT, live_a_life},
    model::{Event, Input, TcpState},
    probe::{Backend, Options, ProbeError, RuledOut, TimeWaitBackend, TimeWaitChoice},
    source::{
        live::Live,
        self_test::{Proof, start},
    },
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close,
        conn::{Family, Listener},
    },
    trace::by,
    unsupported::Unsupported,
    wait::until,
};

/// Any hook, and minisocks as told.
fn options(time_wait: TimeWaitChoice) -> Options {
    Options { backend: None, time_wait, ..by(Backend::TpBtf) }
}

/// As [`start`], but for a host that refuses all programs on functions.
fn start_by(options: &Options, life: impl FnMut() -> io::Result<Life>) -> Result<(Live, Proof)> {
    match start(options, life) {
        Err(ProbeError::TimeWait { backend: TimeWaitBackend::Functions, reason })
            if reason.contains("Operation not permitted")
                && std::env::var_os("VM_TEST").is_none() =>
        {
            Err(Unsupported(reason).into())
        }
        started => Ok(started?),
    }
}

/// What this host has to offer, from best to worst.
fn offered() -> Result<Vec<TimeWaitBackend>> {
    let (mut live, proof) = start(&options(TimeWaitChoice::Auto), live_a_life)?;
    let best = live.probe().time_wait().context("no way to listen to minisocks")?;
    ensure!(proof.ruled_out.time_wait.is_empty(), "{:?}", proof.ruled_out);
    Ok(TimeWaitBackend::ALL.into_iter().skip_while(|one| *one != best).collect())
}

fn heard(hook: Backend, time_wait: TimeWaitChoice) -> Result<()> {
    let options = Options { backend: Some(hook), ..options(time_wait) };
    let (mut live, proof) = start_by(&options, live_a_life)?;
    ensure!(live.probe().backend() == hook);
    ensure!(proof.outcome.is_ok(), "{:?}", proof.outcome);
    ensure!(proof.ruled_out == RuledOut::default(), "{:?}", proof.ruled_out);
    Ok(())
}

#[test]
fn what_is_called_is_found_called() {
    for hook in Backend::ALL {
        settle(hook.name(), heard(hook, TimeWaitChoice::Off));
    }
    for backend in TimeWaitBackend::ALL {
        settle(backend.name(), heard(Backend::TpBtf, TimeWaitChoice::Only(backend)));
    }
}

#[test]
fn nothing_of_it_is_told_or_counted() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let mut lives = Vec::new();
        let life = || {
            let life = live_a_life()?;
            lives.push(life.netns);
            Ok(life)
        };
        let (mut live, proof) = start(&options(TimeWaitChoice::Auto), life)?;
        ensure!(proof.outcome.is_ok() && lives.len() == 1, "{:?} {lives:?}", proof.outcome);
        // Whatever it left behind would come before this.
        let last = netns.run(|| Ok::<_, anyhow::Error>(Listener::open(Family::V4, 0)?.address))?;
        let mut told = Vec::new();
        until("the last event", || {
            let mut over = false;
            live.drain(usize::MAX, &mut |input| {
                if let Input::Event(Event::Transition(event)) = input {
                    told.extend(event.sock.map(|sock| sock.netns));
                    over |= event.new == TcpState::Close && event.tuple.lport == last.port();
                } else if let Input::Event(Event::Minisock(event)) = input {
                    told.push(event.netns);
                }
            });
            Ok(over.then_some(()))
        })?;
        live.detach()?;
        let account = live.settle(1_000_000_000, &mut |_| {})?;
        ensure!(!told.contains(&lives[0]), "{told:?}");
        ensure!(account.balance() == 0, "{account:?}");
        // Where nobody else has connections, the account has but those two.
        if std::env::var_os("VM_TEST").is_some() {
            ensure!(account.seen == 2, "{account:?}");
        }
        Ok(())
    };
    settle("the trace after it", outcome());
}

/// A life that has all but the early end of its TIME_WAIT: to what tells that, it is as if it were
/// never called.
fn without_an_early_end(netns: &Netns) -> io::Result<Life> {
    let closed = netns.run(|| close::active_on(Family::V4, PORT)).map_err(io::Error::other)?;
    let v4 = |address| match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(io::Error::other("not IPv4")),
    };
    Ok(Life {
        netns: netns.inode(),
        client: v4(closed.ends.client)?,
        server: v4(closed.ends.server)?,
    })
}

#[test]
fn a_hook_that_is_never_called_is_found_out_and_done_without() {
    let outcome = || -> Result<()> {
        let offered = offered()?;
        let netns = Netns::new()?;
        let mut lives = 0;
        let first_without = || {
            lives += 1;
            if lives == 1 { without_an_early_end(&netns) } else { live_a_life() }
        };
        let (mut live, proof) = start(&options(TimeWaitChoice::Auto), first_without)?;
        let (out, reason) = proof.ruled_out.time_wait.first().context("none was ruled out")?;
        let silent = match out {
            TimeWaitBackend::Functions => "inet_twsk_deschedule_put, tcp_twsk_destructor",
            TimeWaitBackend::Timers => "timer_cancel",
            TimeWaitBackend::Sampling => anyhow::bail!("{reason}"),
        };
        ensure!(*out == offered[0] && reason.contains(silent), "{:?}", proof.ruled_out);
        ensure!(proof.ruled_out.time_wait.len() == 1 && proof.ruled_out.hooks.is_empty());
        ensure!(live.probe().backend() == Backend::TpBtf);
        ensure!(live.probe().time_wait() == offered.get(1).copied(), "{offered:?}");
        ensure!(live.probe().time_wait_refusals().contains(&(*out, reason.clone())));
        Ok(())
    };
    settle("a silent hook of minisocks", outcome());
}

#[test]
fn a_socket_hook_that_tells_another_connection_is_done_without() {
    let outcome = || -> Result<()> {
        let mut lives = 0;
        let first_another = || {
            lives += 1;
            let life = live_a_life()?;
            let another = SocketAddrV4::new(*life.client.ip(), life.client.port() ^ 1);
            Ok(if lives == 1 { Life { client: another, ..life } } else { life })
        };
        let (mut live, proof) = start(&options(TimeWaitChoice::Off), first_another)?;
        let [(Backend::TpBtf, reason)] = proof.ruled_out.hooks.as_slice() else {
            anyhow::bail!("{:?}", proof.ruled_out);
        };
        ensure!(reason.contains("inet_sock_set_state"), "{reason}");
        ensure!(live.probe().backend() == Backend::Tracepoint);
        Ok(())
    };
    settle("a silent hook of sockets", outcome());
}

#[test]
fn what_was_asked_for_by_name_is_not_replaced() {
    let outcome = || -> Result<()> {
        let best = offered()?[0];
        let netns = Netns::new()?;
        let only = options(TimeWaitChoice::Only(best));
        let error = start(&only, || without_an_early_end(&netns)).err().context("it was taken")?;
        let text = error.to_string();
        let expected = format!("--time-wait-hook {best} is refused: attached, but not called");
        ensure!(text.starts_with(&expected) && text.contains("--no-self-test"), "{text}");

        let hook = Options { backend: Some(Backend::TpBtf), ..options(TimeWaitChoice::Off) };
        let nothing = || Ok(Life { netns: 0, ..live_a_life()? });
        let error = start(&hook, nothing).err().context("it was taken")?;
        ensure!(matches!(error, ProbeError::NoHook { .. }), "{error}");
        ensure!(error.to_string().contains("--no-self-test"), "{error}");
        Ok(())
    };
    settle("a hook by name", outcome());
}

#[test]
fn what_cannot_be_run_proves_nothing_and_hinders_nothing() {
    let outcome = || -> Result<()> {
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let (_live, proof) = start(&options(TimeWaitChoice::Auto), refused)?;
        let why = proof.outcome.err().context("it was run")?;
        ensure!(why.contains("not permitted") && proof.ruled_out == RuledOut::default(), "{why}");
        Ok(())
    };
    settle("no namespace", outcome());
}
