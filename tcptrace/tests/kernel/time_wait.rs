//! TIME_WAIT and orphaned FIN_WAIT2, from the hand-over to the end and its reason: each made to
//! happen for real, by each way of listening to minisocks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tcptrace::{
    model::{
        Age, EndReason, Moved,
        TcpState::{self, Close, Closing, FinWait2, TimeWait},
        filter::Filter,
    },
    probe::{Backend, Options, ProbeError, TimeWaitBackend, TimeWaitChoice},
};

use crate::{
    checks::settle,
    net::Netns,
    scenario::{
        close,
        conn::{Family, Span},
        linger, orphan, reuse, simultaneous, time_wait,
    },
    trace::{Trace, Transitions, by},
    unsupported::Unsupported,
    witness::Tuple,
};

const ACTIVE: &str = "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT";
const PASSIVE: &str = "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE";

/// How long anything but a natural expiry may take to be told.
const SOON: Duration = Duration::from_secs(5);

/// A natural end: 60 s and the slack of the timer wheel (2.05 s at 250 Hz, 5.1 s at 100 Hz).
const NATURAL: std::ops::RangeInclusive<u64> = 60_000_000_000..=65_200_000_000;

/// Looks come a second apart, at times a little later.
const SAMPLED: u64 = 1_500_000_000;

fn options(backend: TimeWaitBackend) -> Options {
    Options { time_wait: TimeWaitChoice::Only(backend), ..by(Backend::TpBtf) }
}

/// Starts a tracer by `backend`.
fn start(backend: TimeWaitBackend, netns: Option<&Netns>) -> Result<Trace> {
    Trace::start_in(&options(backend), netns).map_err(refused)
}

/// Where a host refuses all programs on functions, that is no failure. The kernels of the test matrix
/// do not.
pub fn refused(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(ProbeError::TimeWait { backend: TimeWaitBackend::Functions, reason })
            if reason.contains("Operation not permitted")
                && std::env::var_os("VM_TEST").is_none() =>
        {
            Unsupported(reason.clone()).into()
        }
        _ => error,
    }
}

/// How far a move may be dated wrong at most that shows in no event of a timer.
fn slack(backend: TimeWaitBackend) -> u64 {
    match backend {
        TimeWaitBackend::Functions => 0,
        TimeWaitBackend::Timers => 10_000_000, // a jiffy at 100 Hz
        TimeWaitBackend::Sampling => SAMPLED,
    }
}

/// Runs `work` for each family in a fresh namespace while a tracer runs, and then `check`.
fn each<T: Send>(
    backend: TimeWaitBackend,
    work: impl Fn(Family) -> Result<T> + Sync,
    check: impl Fn(&mut Trace, &T, u32) -> Result<()>,
) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            let mut trace = start(backend, Some(&netns))?;
            let done = netns.run(|| work(family))?;
            check(&mut trace, &done, netns.inode())?;
            let account = trace.finish()?;
            ensure!(account.balance() == 0 && account.malformed == 0, "{account:?}");
            // Each anomaly is one that the kernel says it made, by skipping a run.
            ensure!(
                trace.counts().anomalies <= account.missed.unwrap_or(0),
                "{:?} {account:?} {:?}",
                trace.counts(),
                trace.of_inode(0, netns.inode())
            );
            Ok(())
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
}

/// Waits for `tuple` to be told to go from `old` to `new`, and returns that.
fn wait_for(
    trace: &mut Trace,
    netns: u32,
    tuple: Tuple,
    (old, new): (TcpState, TcpState),
    within: Duration,
) -> Result<Moved> {
    let seen = trace.until(netns, &format!("{old} -> {new} of {tuple:?}"), within, |seen| {
        let of = seen.of(tuple.local, tuple.remote);
        of.0.iter().any(|moved| moved.old == old && moved.new == new)
    })?;
    let of = seen.of(tuple.local, tuple.remote);
    let found = of.0.iter().find(|moved| moved.old == old && moved.new == new);
    found.copied().context("it was there")
}

/// Waits for the end of `tuple`'s minisock out of `state`, which must be for `reason`.
fn ends(
    trace: &mut Trace,
    netns: u32,
    tuple: Tuple,
    state: TcpState,
    reason: EndReason,
) -> Result<Moved> {
    let (state, reason) = match trace.is_sampled() {
        // It came and went between two looks: whether there was one is not known.
        true => (FinWait2, EndReason::Unknown),
        false => (state, reason),
    };
    let end = wait_for(trace, netns, tuple, (state, Close), SOON)?;
    ensure!(end.end_reason == Some(reason), "{end:?}");
    ensure!(end.owner.is_some(), "the owner was lost on the way: {end:?}");
    Ok(end)
}

/// That an end that was told is in `span`.
fn ended_within(trace: &mut Trace, end: &Moved, span: Span) -> Result<()> {
    // What is told of one that came and went is the end of its full socket.
    if trace.is_sampled() { Ok(()) } else { within(end, span) }
}

/// That a move is in `span` as surely as it says, which must be as surely as `backend` can.
fn dated(backend: TimeWaitBackend, moved: &Moved, span: Span) -> Result<()> {
    let most = slack(backend);
    let slack = match moved.in_old {
        Age::Exactly(_) => 0,
        Age::About { within_ns, .. } if within_ns <= most => within_ns,
        other => anyhow::bail!("{other:?}"),
    };
    within(moved, Span { from: span.from.saturating_sub(slack), to: span.to + slack })
}

fn within(moved: &Moved, span: Span) -> Result<()> {
    let at = moved.mono_ns;
    ensure!((span.from..=span.to).contains(&at), "at {at}, not in {span:?}: {moved:?}");
    Ok(())
}

fn path(seen: &Transitions, tuple: Tuple) -> String {
    seen.of(tuple.local, tuple.remote).path()
}

fn active_close(backend: TimeWaitBackend) {
    each(backend, close::active, |trace, done, netns| {
        let client = done.ends.of_client();
        let entered = wait_for(trace, netns, client, (FinWait2, TimeWait), SOON)?;
        let seen = trace.of_inode(0, netns);
        ensure!(path(&seen, client) == ACTIVE, "{}", path(&seen, client));
        ensure!(path(&seen, done.ends.of_server()) == PASSIVE);
        // The FIN comes when the server closes.
        dated(backend, &entered, done.second_close)
    });
}

fn passive_close(backend: TimeWaitBackend) {
    each(backend, close::passive, |trace, done, netns| {
        wait_for(trace, netns, done.ends.of_server(), (FinWait2, TimeWait), SOON)?;
        let seen = trace.of_inode(0, netns);
        let server = path(&seen, done.ends.of_server());
        ensure!(server == "LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 TIME_WAIT", "{server}");
        Ok(())
    });
}

fn half_close(backend: TimeWaitBackend) {
    let hold = Duration::from_millis(300);
    each(
        backend,
        |family| close::by_halves(family, hold),
        |trace, done, netns| {
            // Held by its owner in FIN_WAIT2, so the minisock is born in TIME_WAIT: the very moment.
            let client = done.ends.of_client();
            let entered = wait_for(trace, netns, client, (FinWait2, TimeWait), SOON)?;
            ensure!(matches!(entered.in_old, Age::Exactly(ns) if ns > 250_000_000), "{entered:?}");
            within(&entered, done.server_close)
        },
    );
}

fn reuse_by_bind(backend: TimeWaitBackend) {
    each(backend, reuse::by_bind, |trace, done, netns| {
        let end = ends(trace, netns, done.time_wait, TimeWait, EndReason::ReusedByConnect)?;
        ended_within(trace, &end, done.connect)
    });
}

fn reuse_by_tw_reuse(backend: TimeWaitBackend) {
    each(backend, reuse::by_tw_reuse, |trace, done, netns| {
        let end = ends(trace, netns, done.time_wait, TimeWait, EndReason::ReusedByConnect)?;
        ended_within(trace, &end, done.connect)
    });
}

fn reuse_by_syn(backend: TimeWaitBackend) {
    each(backend, reuse::by_syn, |trace, done, netns| {
        let end = ends(trace, netns, done.time_wait, TimeWait, EndReason::ReusedBySyn)?;
        ended_within(trace, &end, done.connect)
    });
}

fn reset(backend: TimeWaitBackend) {
    each(
        backend,
        |family| time_wait::reset(family, false),
        |trace, done, netns| {
            let end = ends(trace, netns, done.closed.active, TimeWait, EndReason::Reset)?;
            ended_within(trace, &end, done.reset)
        },
    );
}

fn reset_is_ignored_under_rfc1337(backend: TimeWaitBackend) {
    each(
        backend,
        |family| time_wait::reset(family, true),
        |trace, done, netns| {
            wait_for(trace, netns, done.closed.active, (FinWait2, TimeWait), SOON)?;
            let seen = path(&trace.of_inode(0, netns), done.closed.active);
            ensure!(seen.ends_with("TIME_WAIT"), "{seen}");
            Ok(())
        },
    );
}

fn killed(backend: TimeWaitBackend) {
    each(backend, time_wait::destroyed, |trace, done, netns| {
        let end = ends(trace, netns, done.tuple, TimeWait, EndReason::Killed)?;
        ended_within(trace, &end, done.destroy)
    });
}

fn never_created(backend: TimeWaitBackend) {
    each(backend, time_wait::never_created, |trace, done, netns| {
        let client = done.ends.of_client();
        let end = wait_for(trace, netns, client, (FinWait2, Close), SOON)?;
        ensure!(end.end_reason == Some(EndReason::NeverCreated), "{end:?}");
        let seen = path(&trace.of_inode(0, netns), client);
        ensure!(!seen.contains("TIME_WAIT"), "{seen}");
        Ok(())
    });
}

fn netns_exit(backend: TimeWaitBackend) {
    for family in Family::ALL {
        let outcome = || -> Result<()> {
            let mut trace = start(backend, None)?;
            let done = time_wait::torn_down(family, 5)?;
            for closed in &done.closed {
                ends(&mut trace, done.inode, closed.active, TimeWait, EndReason::NetnsExit)?;
            }
            Ok(())
        };
        settle(&format!("{backend} {family:?}"), outcome());
    }
}

fn leave(family: Family, seconds: u64) -> Result<orphan::Orphan> {
    orphan::leave(family, Duration::from_secs(seconds), orphan::Way::ShutdownThenClose)
}

fn orphan_expires(backend: TimeWaitBackend) {
    each(
        backend,
        |family| leave(family, 3),
        |trace, done, netns| {
            // The peer is still there, and never sends its FIN.
            let client = done.ends.of_client();
            let end = wait_for(trace, netns, client, (FinWait2, Close), Duration::from_secs(10))?;
            ensure!(end.end_reason == Some(EndReason::Expired), "{end:?}");
            let lived = end.mono_ns - done.close.to;
            ensure!((2_900_000_000..=4_000_000_000).contains(&lived), "{lived} ns: {end:?}");
            Ok(())
        },
    );
}

fn orphan_gets_fin(backend: TimeWaitBackend) {
    each(
        backend,
        |family| leave(family, 30)?.gets_fin(),
        |trace, done, netns| {
            let client = done.ends.of_client();
            let entered = wait_for(trace, netns, client, (FinWait2, TimeWait), SOON)?;
            dated(backend, &entered, done.answer)
        },
    );
}

fn orphan_gets_reset(backend: TimeWaitBackend) {
    each(
        backend,
        |family| leave(family, 30)?.gets_reset(),
        |trace, done, netns| {
            let end = ends(trace, netns, done.ends.of_client(), FinWait2, EndReason::Reset)?;
            ended_within(trace, &end, done.answer)
        },
    );
}

fn orphan_gets_data(backend: TimeWaitBackend) {
    each(
        backend,
        |family| leave(family, 30)?.gets_data(),
        |trace, done, netns| {
            let end = ends(trace, netns, done.ends.of_client(), FinWait2, EndReason::RstSent)?;
            ended_within(trace, &end, done.answer)
        },
    );
}

fn simultaneous_close(backend: TimeWaitBackend) {
    each(backend, simultaneous::crossing, |trace, done, netns| {
        for tuple in [done.ends.of_client(), done.ends.of_server()] {
            let entered = wait_for(trace, netns, tuple, (Closing, TimeWait), SOON)?;
            ensure!(matches!(entered.in_old, Age::Exactly(_)), "{entered:?}");
        }
        Ok(())
    });
}

fn self_connect(backend: TimeWaitBackend) {
    each(backend, simultaneous::self_connect, |trace, done, netns| {
        wait_for(trace, netns, done.tuple, (Closing, TimeWait), SOON)?;
        Ok(())
    });
}

fn linger_settings(backend: TimeWaitBackend) {
    for setting in [None, Some(Duration::from_secs(2))] {
        let close = |family| linger::close(family, setting, linger::Peer::Answers);
        each(backend, close, |trace, done, netns| {
            wait_for(trace, netns, done.ends.of_client(), (FinWait2, TimeWait), SOON)?;
            Ok(())
        });
    }
    // 0: no TIME_WAIT at all.
    each(backend, close::with_linger_zero, |trace, done, netns| {
        let client = done.ends.of_client();
        wait_for(trace, netns, client, (TcpState::Established, Close), SOON)?;
        let seen = path(&trace.of_inode(0, netns), client);
        ensure!(seen == "CLOSE SYN_SENT ESTABLISHED CLOSE", "{seen}");
        Ok(())
    });
}

/// That a TIME_WAIT ended by itself, after its time.
fn expired(backend: TimeWaitBackend, end: &Moved) -> Result<()> {
    ensure!(end.end_reason == Some(EndReason::Expired), "{end:?}");
    let (lived, slack) = match end.in_old {
        Age::Exactly(ns) => (ns, 0),
        Age::About { ns, within_ns } => (ns, within_ns),
        other => anyhow::bail!("{other:?}"),
    };
    ensure!(slack <= self::slack(backend), "{end:?}");
    let natural = NATURAL.start() - slack..=NATURAL.end() + slack;
    ensure!(natural.contains(&lived), "{lived} ns: {end:?}");
    Ok(())
}

/// All families and all backends at once: it takes a minute.
#[test]
fn natural_expiry() {
    let outcome = || -> Result<()> {
        let netns = Netns::new()?;
        let mut traces = Vec::new();
        for backend in TimeWaitBackend::ALL {
            match start(backend, Some(&netns)) {
                Ok(mut trace) => {
                    trace.unhurried();
                    traces.push((backend, trace));
                }
                Err(error) => settle(&format!("{backend}"), Err(error)),
            }
        }
        let closed =
            netns.run(|| Family::ALL.into_iter().map(close::active).collect::<Result<Vec<_>>>())?;
        let clients = closed.iter().map(|one| one.ends.of_client());
        let within = Duration::from_secs(75);
        let deadline = Instant::now() + within;
        let mut awaited: Vec<_> = clients.collect();
        while let Some(&client) = awaited.last() {
            let mut all = true;
            for (_, trace) in &mut traces {
                trace.drain()?;
                let seen = trace.of_inode(0, netns.inode());
                all &= seen.of(client.local, client.remote).path().ends_with("TIME_WAIT CLOSE");
            }
            ensure!(all || Instant::now() < deadline, "no end of {client:?} within {within:?}");
            match all {
                true => drop(awaited.pop()),
                false => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        for (backend, trace) in &mut traces {
            let seen = trace.of_inode(0, netns.inode());
            for one in &closed {
                let client = one.ends.of_client();
                let end = seen.of(client.local, client.remote).one(TimeWait, Close)?;
                expired(*backend, &end).with_context(|| {
                    format!("{backend}: {}", trace.story(netns.inode(), client.local))
                })?;
            }
            let account = trace.finish()?;
            ensure!(account.balance() == 0, "{backend}: {account:?}");
        }
        // Each tells of the same lives: what is sampled is as far off as it says, at most.
        for one in &closed {
            let client = one.ends.of_client();
            let ends = traces.iter().map(|(_, trace)| {
                let seen = trace.of_inode(0, netns.inode()).of(client.local, client.remote);
                seen.one(TimeWait, Close)
            });
            let ends = ends.collect::<Result<Vec<_>>>()?;
            let half = |end: &Moved| match end.in_old {
                Age::About { within_ns, .. } => within_ns,
                _ => 0,
            };
            for pair in ends.windows(2) {
                let apart = pair[0].mono_ns.abs_diff(pair[1].mono_ns);
                ensure!(apart <= half(&pair[0]) + half(&pair[1]), "{pair:?}");
            }
        }
        Ok(())
    };
    settle("natural expiry", outcome());
}

/// What ends between two looks is dated to between them, and why is not known.
#[test]
fn what_a_look_misses_has_ended_since_the_one_before() {
    type Ending = fn(orphan::Orphan) -> Result<orphan::Answered>;
    let endings: [Ending; 2] = [orphan::Orphan::gets_reset, orphan::Orphan::gets_data];
    for (family, ending) in Family::ALL.into_iter().flat_map(|f| endings.map(|e| (f, e))) {
        let outcome = || -> Result<()> {
            let netns = Netns::new()?;
            // What is tracked at the end is counted: only what is in this namespace.
            let filter = Filter { netns: Some(netns.inode()), ..Filter::default() };
            let options = Options { filter, ..options(TimeWaitBackend::Sampling) };
            let mut trace = Trace::start_in(&options, Some(&netns))?;
            let orphan = netns.run(|| leave(family, 30))?;
            let client = orphan.ends.of_client();
            trace.drain()?;
            trace.look()?;
            let done = netns.run(|| ending(orphan))?;
            let end = wait_for(&mut trace, netns.inode(), client, (FinWait2, Close), SOON)?;
            ensure!(end.end_reason == Some(EndReason::Unknown), "{end:?}");
            dated(TimeWaitBackend::Sampling, &end, done.answer)?;
            ensure!(matches!(end.in_old, Age::About { .. }), "{end:?}");
            let account = trace.finish()?;
            ensure!(account.balance() == 0 && trace.counts().tracked == 0, "{account:?}");
            Ok(())
        };
        settle(&format!("{family:?}"), outcome());
    }
}

macro_rules! for_each_backend {
    ($($test:ident),* $(,)?) => {
        mod functions {
            use tcptrace::probe::TimeWaitBackend;
            $(#[test]
            fn $test() {
                super::$test(TimeWaitBackend::Functions);
            })*
        }
        mod timers {
            use tcptrace::probe::TimeWaitBackend;
            $(#[test]
            fn $test() {
                super::$test(TimeWaitBackend::Timers);
            })*
        }
        mod sampling {
            use tcptrace::probe::TimeWaitBackend;
            $(#[test]
            fn $test() {
                super::$test(TimeWaitBackend::Sampling);
            })*
        }
    };
}

for_each_backend!(
    active_close,
    passive_close,
    half_close,
    reuse_by_bind,
    reuse_by_tw_reuse,
    reuse_by_syn,
    reset,
    reset_is_ignored_under_rfc1337,
    killed,
    never_created,
    netns_exit,
    orphan_expires,
    orphan_gets_fin,
    orphan_gets_reset,
    orphan_gets_data,
    simultaneous_close,
    self_connect,
    linger_settings,
);
