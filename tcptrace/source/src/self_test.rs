//! Whether what attaches is also called, and what it reads is what it should be: a hook may be
//! there, and the compiler have left no call of it.
//!
//! A short TCP life in a namespace of its own must be told by every hook. It is listened to by a
//! probe of its own, loaded from the same object, before the real one is there: so nothing of it is in a
//! trace, and nothing in an account is to be taken off again.

use std::{
    io,
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use super::live::Live;
use tcptrace_host::{
    confine,
    loopback::{Life, PORT},
};
use tcptrace_model::{
    Event, Input, MinisockEvent, TcpState, Tuple,
    filter::{Filter, PortSet},
};
use tcptrace_probe::{AcceptChoice, Known, Options, Probe, ProbeError, RuledOut, TimeWaitBackend};

/// How long after the life its last record may come: the programs have run by then, but another
/// CPU may still be writing one in front of it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What came of it.
pub struct Proof {
    /// How long it took; or why it could not be run, so that nothing is proved.
    pub outcome: Result<Duration, String>,
    /// What was attached and not called.
    pub ruled_out: RuledOut,
}

/// Attaches the best hooks that are called, and says what came of the test.
///
/// # Errors
/// Nothing attaches.
pub fn start(
    options: &Options,
    life: impl FnMut() -> io::Result<Life>,
) -> Result<(Live, Proof), ProbeError> {
    start_with(&mut Known::ask(options), options, life)
}

/// The same with what is known of the kernel.
///
/// # Errors
/// Nothing attaches.
pub fn start_with(
    known: &mut Known,
    options: &Options,
    life: impl FnMut() -> io::Result<Life>,
) -> Result<(Live, Proof), ProbeError> {
    // Who accepts is not tried: the ways to that have their price, or are called by a pointer.
    let tried = Options { accept: AcceptChoice::Off, ..options.clone() };
    let (trial, proof) = prove(known, &tried, life)?;
    let live = Live::of(Probe::start_with(known, options, &proof.ruled_out)?)?;
    // Each hook that is left waits for all CPUs to notice (`tracepoint_remove_func()`): not here.
    // And not before the real ones are on, which would have to wait for the same.
    let taken_off = move || {
        // To let go takes no rights, and `serve` may be about to give its own up.
        let _ = confine::keep_only(&[]);
        drop(trial);
    };
    // Where there can be no thread, that is waited for: what it was to do is dropped.
    let _ = thread::Builder::new().name("trial".into()).spawn(taken_off);
    Ok((live, proof))
}

/// Rules out what is not called for `life`, from best to worst. Also returns the probe that it was
/// run with last, which listens to nothing else.
///
/// # Errors
/// Nothing attaches.
fn prove(
    known: &mut Known,
    options: &Options,
    mut life: impl FnMut() -> io::Result<Life>,
) -> Result<(Live, Proof), ProbeError> {
    let start = Instant::now();
    let options = Options {
        filter: only_the_life(),
        // A life has some 20 records of at most 250 bytes.
        ring_bytes: 4 * tcptrace_probe::page_bytes(),
        kernel_log: false,
        trial: true,
        ..options.clone()
    };
    let mut ruled_out = RuledOut::default();
    loop {
        let mut trial = Live::of(Probe::start_with(known, &options, &ruled_out)?)?;
        match listen(&mut trial, &mut life) {
            Ok(silent) if !silent.is_empty() => {
                rule_out(&mut ruled_out, trial.probe(), &silent);
            }
            heard => {
                let outcome = heard.map(|_| start.elapsed()).map_err(|error| error.to_string());
                return Ok((trial, Proof { outcome, ruled_out }));
            }
        }
    }
}

/// Only connections to the life's port, and hardly any other.
fn only_the_life() -> Filter {
    Filter { rports: Some(PortSet::of(PORT)), ..Filter::default() }
}

/// What is to be told of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// The client's connect() was answered.
    Established,
    /// Its minisock was born.
    Started,
    /// Somebody took it away.
    Stopped,
    /// It was freed.
    Ended,
}

impl Sign {
    /// The sign that an input is, if it is one of `life`.
    fn of(input: &Input, life: &Life) -> Option<Self> {
        let Input::Event(event) = input else { return None };
        let (tuple, netns, sign) = match event {
            Event::Transition(event) if event.new == TcpState::Established => {
                (event.tuple, event.sock.map(|sock| sock.netns), Self::Established)
            }
            Event::Minisock(event) => {
                let sign = match event.event {
                    MinisockEvent::Started => Self::Started,
                    MinisockEvent::Stopped { .. } => Self::Stopped,
                    MinisockEvent::Ended { .. } => Self::Ended,
                    _ => return None,
                };
                (event.tuple, Some(event.netns), sign)
            }
            _ => return None,
        };
        let is_its = is_between(&tuple, life.client, life.server)
            && netns.is_none_or(|netns| netns == life.netns);
        is_its.then_some(sign)
    }
}

fn is_between(tuple: &Tuple, local: SocketAddrV4, remote: SocketAddrV4) -> bool {
    (tuple.local_ip(), tuple.lport) == ((*local.ip()).into(), local.port())
        && (tuple.remote_ip(), tuple.rport) == ((*remote.ip()).into(), remote.port())
}

/// The signs by a backend, and what gives each. What runs when a timer has run would take a minute
/// to see; it is called through a pointer, so that there is no doubt.
fn signs_of_minisocks(backend: TimeWaitBackend) -> &'static [(Sign, &'static str)] {
    match backend {
        TimeWaitBackend::Functions => &[
            (Sign::Started, "__inet_twsk_schedule"),
            (Sign::Stopped, "inet_twsk_deschedule_put"),
            (Sign::Ended, "tcp_twsk_destructor"),
        ],
        TimeWaitBackend::Timers => {
            &[(Sign::Started, "timer_start"), (Sign::Stopped, "timer_cancel")]
        }
        // Nothing is called.
        TimeWaitBackend::Sampling => &[],
    }
}

/// What of `trial` did not tell of `life`.
fn listen(
    trial: &mut Live,
    life: &mut impl FnMut() -> io::Result<Life>,
) -> io::Result<Vec<(Sign, &'static str)>> {
    let mut silent = vec![(Sign::Established, "inet_sock_set_state")];
    let minisocks = trial.probe().time_wait().map(signs_of_minisocks);
    silent.extend(minisocks.unwrap_or_default());
    let life = life()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        trial.drain(usize::MAX, &mut |input| {
            if let Some(told) = Sign::of(input, &life) {
                silent.retain(|(sign, _)| *sign != told);
            }
        });
        if silent.is_empty() {
            return Ok(silent);
        }
        if Instant::now() > deadline {
            let accounts = trial.accounts().map_err(io::Error::other)?;
            return match accounts.lost {
                0 => Ok(silent),
                lost => Err(io::Error::other(format!("{lost} of its events were lost"))),
            };
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Rules out what `probe` listens by, as far as it was silent.
fn rule_out(ruled_out: &mut RuledOut, probe: &Probe, silent: &[(Sign, &'static str)]) {
    let reason = |is_it: &dyn Fn(Sign) -> bool| {
        let hooks: Vec<_> =
            silent.iter().filter(|(sign, _)| is_it(*sign)).map(|(_, hook)| *hook).collect();
        (!hooks.is_empty()).then(|| {
            format!(
                "attached, but not called in the self-test: {} (--no-self-test skips that)",
                hooks.join(", ")
            )
        })
    };
    if let Some(reason) = reason(&|sign| sign == Sign::Established) {
        ruled_out.hooks.push((probe.backend(), reason));
    }
    if let (Some(backend), Some(reason)) =
        (probe.time_wait(), reason(&|sign| sign != Sign::Established))
    {
        ruled_out.time_wait.push((backend, reason));
    }
}
